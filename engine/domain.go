package engine

import (
	"crypto/tls"
	"fmt"
	"slices"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

// ALPN is the protocol that TLS must have negotiated (PROTOCOL.md section 4).
const ALPN = "dbw/1"

// domain is what this router is in one domain: fixed after start.
type domain struct {
	name    string
	prefix  [pki.PrefixSize]byte
	address codec.Address // the grant's: who this router is in the domain
	certID  codec.CertID
	grant   *pki.Peer
	tls     *tls.Config
	members *members
}

func newDomain(c *Config, grant *pki.Peer) *domain {
	d := &domain{
		name:    grant.Domain,
		prefix:  pki.Prefix(grant.Domain),
		address: grant.Address,
		certID:  grant.CertID,
		grant:   grant,
		members: newMembers(),
	}
	store := c.Store
	d.tls = &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{ALPN},
		Certificates:           []tls.Certificate{c.Identity.TLSCertificate(grant.Domain)},
		ClientAuth:             tls.RequireAnyClientCert, // names no authorities; verified below
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := verifyNode(store, state, grant.Domain, time.Now())
			return err
		},
	}
	return d
}

// errNoALPN and errCipher are counted under their Reason.
type tlsError struct{ reason, text string }

func (e *tlsError) Error() string  { return e.text }
func (e *tlsError) Reason() string { return e.reason }

var (
	errNoALPN = &tlsError{"no-alpn", "the peer did not ask for protocol " + ALPN + " (ALPN)"}
	errCipher = &tlsError{"cipher", "the peer does not take an AES-GCM cipher suite, which --require-aes-gcm asks for"}
)

// verifyNode checks what TLS left open, for the domain that the client asked
// for: chain, names and usage of its certificate (PROTOCOL.md section 3.3). A
// router's grant is refused until routers speak to each other.
func verifyNode(store *pki.Store, state tls.ConnectionState, domain string, now time.Time) (*pki.Peer, error) {
	if state.NegotiatedProtocol != ALPN {
		return nil, errNoALPN
	}
	id, err := store.Verify(state.PeerCertificates, domain, now)
	if err != nil {
		return nil, err
	}
	if err := id.RequireRole(pki.RoleNode); err != nil {
		return nil, err
	}
	return id, nil
}

// listenerTLS answers each client with the configuration of the domain it
// names; a Config without certificates makes crypto/tls send
// unrecognized_name.
func (r *Router) listenerTLS() *tls.Config {
	none := &tls.Config{MinVersion: tls.VersionTLS13}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if d, ok := r.domains[hello.ServerName]; ok {
				return d.tls, nil
			}
			return none, nil
		},
	}
}

// newDomains makes the domains of all grants, each verified first: a grant that
// the router's own trust store refuses would be refused by every node.
func newDomains(c *Config, now time.Time) (map[string]*domain, error) {
	if err := c.Identity.Check(c.Store, now); err != nil {
		return nil, err
	}
	all := make(map[string]*domain, len(c.Identity.Grants))
	for name, grant := range c.Identity.Grants {
		if !slices.Contains(c.Store.Domains(), name) {
			return nil, fmt.Errorf("the trust store has no domain %s, for which there is a grant; run: causeway pki trust --store DIR --root FILE", name)
		}
		all[name] = newDomain(c, grant)
	}
	return all, nil
}
