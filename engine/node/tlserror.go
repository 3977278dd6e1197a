package node

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"causeway/crypto/pki"
)

// explainer turns the errors of TLS into what is wrong and what mends it.
type explainer struct {
	self *pki.Peer
	now  time.Time
	wait time.Duration // that was allowed for the step
	node bool          // the other end is to be a node
}

// peer is what the other end was to be.
func (x *explainer) peer() string {
	if x.node {
		return "the other node"
	}
	return "the router"
}

// certificateRemedy is for whatever the router may have against this node's
// certificate; most TLS implementations don't tell what it is.
func (x *explainer) certificateRemedy() string {
	return fmt.Sprintf("see that %s trusts the root of %s (causeway pki trust), that this node's certificate "+
		"(%s, valid %s to %s; here it is %s) is not expired or revoked (causeway pki show), and that both clocks are right",
		x.peer(), x.self.Domain, x.self.URI(), clockText(x.self.NotBefore), clockText(x.self.NotAfter), clockText(x.now))
}

// alerts that have a meaning of their own here; the texts on the left are
// those of crypto/tls for the alerts of RFC 8446 section 6.
func (x *explainer) alert(text string) (what, remedy string) {
	switch text {
	case "bad certificate", "unknown certificate authority", "unknown certificate", "certificate unknown",
		"unsupported certificate", "access denied", "error decrypting message":
		return x.peer() + " does not accept this node's certificate", x.certificateRemedy()
	case "expired certificate":
		return fmt.Sprintf("%s takes this node's certificate for expired (it ends %s; here it is %s)", x.peer(), clockText(x.self.NotAfter), clockText(x.now)),
			"renew it (causeway pki renew), or set the clock that is wrong"
	case "revoked certificate":
		return "this node's certificate is revoked", "make a new key and have it certified: causeway pki request"
	case "certificate required":
		return x.peer() + " has got no certificate from this node", "see that node.crt is in the identity directory"
	case "unrecognized name":
		return x.peer() + " does not serve the domain " + x.self.Domain, "connect to one that does, or give it a grant: causeway pki grant"
	case "no application protocol":
		return "the other end does not speak " + alpn, "check the address: another service listens there"
	case "protocol version not supported":
		return "the other end does not speak TLS 1.3", "check the address, and that nothing in between ends TLS"
	case "internal error":
		return x.peer() + " failed in the TLS handshake", "look into its log"
	}
	return x.peer() + " ended the TLS handshake", "look into its log"
}

// handshake explains why there is no TLS connection.
func (x *explainer) handshake(err error) error {
	var certificate *pki.Error
	var refused *RefusedError
	var record tls.RecordHeaderError
	switch alert, isAlert := remoteAlert(err); {
	case errors.As(err, &refused):
		return refused
	case errors.As(err, &certificate):
		return &RouterCertificateError{Domain: x.self.Domain, Node: x.node, Err: certificate}
	case isAlert:
		what, remedy := x.alert(alert)
		return &RefusedError{Alert: alert, What: what, Remedy: remedy, Err: err}
	case errors.As(err, &record):
		return &RefusedError{What: "the other end does not speak TLS", Remedy: "check the address: another service listens there", Err: err}
	case isTimeout(err):
		return &RefusedError{What: fmt.Sprintf("no TLS handshake within %v", x.wait),
			Remedy: "check the address (does a router listen there?), and whether the router is overloaded", Err: err}
	case isClosed(err):
		return &RefusedError{What: "the other end closed the connection during the TLS handshake",
			Remedy: "check the address (does a router listen there?), and the router's limits and firewall", Err: err}
	}
	return &RefusedError{What: fmt.Sprintf("no TLS handshake: %v", err), Remedy: "check the address, and the router's log", Err: err}
}

// beforeHello explains why the router's hello did not come. A client's TLS 1.3
// handshake succeeds before the server has checked its certificate, so a
// refusal often shows only here.
func (x *explainer) beforeHello(err error) error {
	switch alert, isAlert := remoteAlert(err); {
	case isAlert:
		what, remedy := x.alert(alert)
		return &RefusedError{Alert: alert, What: what, Remedy: remedy, Err: err}
	case isTimeout(err):
		return &RefusedError{What: fmt.Sprintf("no hello from %s within %v", x.peer(), x.wait),
			Remedy: "check the address (is it a router?), and whether the router is overloaded", Err: err}
	case isClosed(err):
		return &RefusedError{What: x.peer() + " closed the connection right after the TLS handshake, without a word: it may not accept this node's certificate",
			Remedy: x.certificateRemedy(), Err: err}
	}
	return err
}

// remoteAlert returns the text of the alert that the other end has sent.
func remoteAlert(err error) (string, bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return "", false
	}
	return strings.TrimPrefix(op.Err.Error(), "tls: "), true
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &e) && e.Timeout()
}

func isClosed(err error) bool {
	for _, target := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
