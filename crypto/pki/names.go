package pki

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	uriScheme     = "dbw://"
	uriRouterPart = "router/"
)

var errURI = errors.New("is not dbw://DOMAIN/NAME or dbw://DOMAIN/router/NAME")

// ParseURI splits the URI of a certificate. It takes exactly what URI makes:
// no other scheme, no user, port, query, fragment or escape, because two
// spellings of one name would be two names to somebody.
func ParseURI(uri string) (domain, name string, role Role, err error) {
	rest, ok := strings.CutPrefix(uri, uriScheme)
	if !ok {
		return "", "", 0, errURI
	}
	domain, name, ok = strings.Cut(rest, "/")
	if !ok {
		return "", "", 0, errURI
	}
	if router, ok := strings.CutPrefix(name, uriRouterPart); ok {
		name, role = router, RoleRouter
	}
	if domainProblem(domain) != nil || nameProblem(name) != nil {
		return "", "", 0, errURI
	}
	return domain, name, role, nil
}

// URI returns the URI of a node or router, the way its certificate has it.
func URI(domain, name string, role Role) string {
	if role == RoleRouter {
		name = uriRouterPart + name
	}
	return uriScheme + domain + "/" + name
}

// Tags of GeneralName (RFC 5280 section 4.2.1.6).
var (
	tagDNSName   = cbasn1.Tag(2).ContextSpecific()
	tagURI       = cbasn1.Tag(6).ContextSpecific()
	tagIPAddress = cbasn1.Tag(7).ContextSpecific()
)

var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// altNames are the subject alternative names of a certificate, as they stand:
// crypto/x509 leaves out types it does not know and parses URIs, and here
// what it leaves out is refused, and URIs are compared byte by byte.
type altNames struct {
	uris, dns []string
	ips       [][]byte
	others    int // names of any other type
}

var errAltNames = errors.New("subject alternative names do not parse")

func altNamesOf(c *x509.Certificate) (n altNames, err error) {
	for _, e := range c.Extensions {
		if !e.Id.Equal(oidSubjectAltName) {
			continue
		}
		input := cryptobyte.String(e.Value)
		var list cryptobyte.String
		if !input.ReadASN1(&list, cbasn1.SEQUENCE) || !input.Empty() {
			return n, errAltNames
		}
		for !list.Empty() {
			var value cryptobyte.String
			var tag cbasn1.Tag
			if !list.ReadAnyASN1(&value, &tag) {
				return n, errAltNames
			}
			switch tag {
			case tagURI:
				n.uris = append(n.uris, string(value))
			case tagDNSName:
				n.dns = append(n.dns, string(value))
			case tagIPAddress:
				n.ips = append(n.ips, value)
			default:
				n.others++
			}
		}
	}
	return n, nil
}
