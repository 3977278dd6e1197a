package codec

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

const (
	// URLScheme begins every URL of PROTOCOL.md section 10.
	URLScheme = "dbw://"
	// PortDefault is the port when a URL has none.
	PortDefault = "7100"

	hostMax      = 253 // bytes
	hostLabelMax = 63  // bytes
)

// ErrURL is what every error of ParseURL satisfies.
var ErrURL = errors.New("write dbw://host or dbw://host:port")

// ParseURL takes a URL of PROTOCOL.md section 10 apart: host is a name, an
// IPv4 address, or an IPv6 address without the brackets that it has in the
// URL; port is a decimal number, 0 (any free port, for listening) to 65535.
// net.JoinHostPort makes an address to dial of the two. The error says what is
// wrong and how to write it.
func ParseURL(s string) (host, port string, err error) {
	rest, ok := strings.CutPrefix(s, URLScheme)
	if !ok {
		return "", "", urlError(s, "does not begin with dbw://")
	}
	if strings.ContainsAny(rest, "@/?#") {
		return "", "", urlError(s, "has more than a host and a port")
	}
	if strings.HasPrefix(rest, "[") {
		host, port, err = splitBracketed(s, rest[1:])
	} else {
		host, port, err = splitPlain(s, rest)
	}
	if err != nil {
		return "", "", err
	}
	return host, port, nil
}

// FormatURL is the inverse of ParseURL; it always writes the port.
func FormatURL(host, port string) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return URLScheme + host + ":" + port
}

func splitBracketed(s, rest string) (host, port string, err error) {
	host, rest, ok := strings.Cut(rest, "]")
	if !ok {
		return "", "", urlError(s, `has "[" without "]"`)
	}
	a, err := netip.ParseAddr(host)
	if err != nil || !a.Is6() || a.Zone() != "" {
		return "", "", urlError(s, "has no IPv6 address (without zone) between its brackets")
	}
	if rest == "" {
		return host, PortDefault, nil
	}
	port, ok = strings.CutPrefix(rest, ":")
	if !ok || !isPort(port) {
		return "", "", urlError(s, "has no port from 0 to 65535 after its address")
	}
	return host, port, nil
}

func splitPlain(s, rest string) (host, port string, err error) {
	host, port, ok := strings.Cut(rest, ":")
	if !ok {
		port = PortDefault
	}
	if strings.Contains(port, ":") {
		return "", "", urlError(s, "has more than one colon; an IPv6 address goes into brackets")
	}
	if !isPort(port) {
		return "", "", urlError(s, "has no port from 0 to 65535 after its host")
	}
	if !isHost(host) {
		return "", "", urlError(s, "has no valid host")
	}
	return host, port, nil
}

func urlError(s, what string) error { return fmt.Errorf("URL %q %s: %w", s, what, ErrURL) }

func isPort(s string) bool {
	if !isNumber(s) || hasLeadingZero(s) {
		return false
	}
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// isHost reports whether s is an IPv4 address or a host name whose labels have
// letters, digits, hyphens and underscores. A name whose last label is a
// number would be taken for an IPv4 address somewhere, and is refused.
func isHost(s string) bool {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Is4()
	}
	if len(s) > hostMax {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > hostLabelMax || strings.Trim(label, identifierBytes+"_") != "" {
			return false
		}
		last = label
	}
	return !isNumber(last)
}
