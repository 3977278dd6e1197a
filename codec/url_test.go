package codec

import (
	"errors"
	"strings"
	"testing"
)

func TestURLsHaveAHostAndAPort(t *testing.T) {
	check := func(url, host, port string) {
		t.Helper()
		gotHost, gotPort, err := ParseURL(url)
		if err != nil || gotHost != host || gotPort != port {
			t.Errorf("%s: %q, %q, %v, want %q, %q", url, gotHost, gotPort, err, host, port)
		}
		if again := FormatURL(host, port); again != url && again != url+":7100" {
			t.Errorf("%s is formatted as %s", url, again)
		}
	}
	check("dbw://host", "host", "7100")
	check("dbw://host:7101", "host", "7101")
	check("dbw://R1.prod-a.example:1", "R1.prod-a.example", "1")
	check("dbw://under_score", "under_score", "7100")
	check("dbw://127.0.0.1", "127.0.0.1", "7100")
	check("dbw://0.0.0.0:0", "0.0.0.0", "0")
	check("dbw://[::]", "::", "7100")
	check("dbw://[2001:db8::1]:65535", "2001:db8::1", "65535")
	check("dbw://[::ffff:10.0.0.1]:7", "::ffff:10.0.0.1", "7")
	check("dbw://"+strings.Repeat("a", 63)+".example", strings.Repeat("a", 63)+".example", "7100")
}

func TestNothingElseMayStandInAURL(t *testing.T) {
	for _, url := range []string{
		"", "host", "host:7100", "dbw:host", "dbw:/host", "DBW://host", "http://host", " dbw://host",
		"dbw://", "dbw://:7100", "dbw://host:", "dbw://host:65536", "dbw://host:07100", "dbw://host:-1", "dbw://host:+1", "dbw://host:http", "dbw://host: 1",
		"dbw://user@host", "dbw://user:word@host", "dbw://host/", "dbw://host:1/", "dbw://host/path", "dbw://host?query", "dbw://host#fragment",
		"dbw://::1", "dbw://2001:db8::1", "dbw://[::1", "dbw://::1]", "dbw://[]", "dbw://[]:1", "dbw://[127.0.0.1]", "dbw://[host]", "dbw://[::1]x", "dbw://[::1]7100",
		"dbw://[::1]:", "dbw://[::1]:x", "dbw://[::1]:1:2", "dbw://[fe80::1%eth0]", "dbw://[fe80::1%25eth0]", "dbw://[[::1]]",
		"dbw://ho st", "dbw://host\n", "dbw://höst", "dbw://host..example", "dbw://.host", "dbw://host.", "dbw://1.2.3", "dbw://1.2.3.256", "dbw://host.1", "dbw://ho%73t",
		"dbw://a,b", "dbw://host:1:2", "dbw://" + strings.Repeat("a", 64), "dbw://" + strings.Repeat("a.", 126) + "aa",
	} {
		if host, port, err := ParseURL(url); !errors.Is(err, ErrURL) {
			t.Errorf("%q: %q, %q, %v", url, host, port, err)
		} else if !strings.Contains(err.Error(), "dbw://host") {
			t.Errorf("%q: the error does not say how to write it: %v", url, err)
		}
	}
}
