package engine

import (
	"crypto/tls"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
)

// ALPN is the protocol that TLS must have negotiated (PROTOCOL.md section 4).
const ALPN = "dbw/1"

// domain is what this router is in one domain, under one grant. It is immutable,
// but for members, which the grants of a domain share.
type domain struct {
	name    string
	prefix  [pki.PrefixSize]byte
	address codec.Address // the grant's: who this router is in the domain
	certID  codec.CertID
	grant   *pki.Peer
	signer  *sign.Signer
	lists   []pki.List
	tls     *tls.Config
	members *members
}

// newDomain verifies the grant against the store first.
func newDomain(r *Router, signer *sign.Signer, id *pki.Identity, store *pki.Store, grant *pki.Peer, now time.Time) (*domain, error) {
	grant, err := store.VerifyDER(grant.Chain, grant.Domain, now)
	if err != nil {
		return nil, err
	}
	d := &domain{
		name:    grant.Domain,
		prefix:  pki.Prefix(grant.Domain),
		address: grant.Address,
		certID:  grant.CertID,
		grant:   grant,
		signer:  signer,
		lists:   store.Lists(grant.Domain),
		members: newMembers(r.budget),
	}
	d.tls = &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{ALPN},
		Certificates:           []tls.Certificate{id.TLSCertificate(grant.Domain)},
		ClientAuth:             tls.RequireAnyClientCert, // names no authorities; verified below
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := verifyPeer(r.state().config.Store, state, grant.Domain, time.Now())
			return err
		},
	}
	return d, nil
}

// errNoALPN and errCipher are counted under their Reason.
type tlsError struct{ reason, text string }

func (e *tlsError) Error() string  { return e.text }
func (e *tlsError) Reason() string { return e.reason }

var (
	errNoALPN = &tlsError{"no-alpn", "the peer did not ask for protocol " + ALPN + " (ALPN)"}
	errCipher = &tlsError{"cipher", "the peer does not take an AES-GCM cipher suite, which --require-aes-gcm asks for"}
)

// verifyPeer checks what TLS left open, for the domain that the client asked
// for: chain, names and usage of the peer's certificate (PROTOCOL.md section 3.3).
// Whether it is a node's or a router's decides what its hello must say.
func verifyPeer(store *pki.Store, state tls.ConnectionState, domain string, now time.Time) (*pki.Peer, error) {
	if state.NegotiatedProtocol != ALPN {
		return nil, errNoALPN
	}
	return store.Verify(state.PeerCertificates, domain, now)
}

// listenerTLS answers each client with the configuration of the domain it
// names; a Config without certificates makes crypto/tls send
// unrecognized_name.
func (r *Router) listenerTLS() *tls.Config {
	none := &tls.Config{MinVersion: tls.VersionTLS13}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if d, ok := r.state().domains[hello.ServerName]; ok {
				return d.tls, nil
			}
			return none, nil
		},
	}
}
