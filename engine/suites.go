package engine

import (
	"crypto/tls"
	"sync/atomic"

	"causeway/engine/admin"
)

// suiteNames are the cipher suites that connections are counted by: those of
// TLS 1.3 that crypto/tls has, by their names there, and what a later Go may add.
var suiteNames = [...]string{
	"TLS_AES_128_GCM_SHA256",
	"TLS_AES_256_GCM_SHA384",
	"TLS_CHACHA20_POLY1305_SHA256",
	"other",
}

// suites counts connections by cipher suite, in the order of suiteNames.
type suites [len(suiteNames)]atomic.Uint64

// suiteIndex returns where suite is counted.
func suiteIndex(suite uint16) int {
	switch suite {
	case tls.TLS_AES_128_GCM_SHA256:
		return 0
	case tls.TLS_AES_256_GCM_SHA384:
		return 1
	case tls.TLS_CHACHA20_POLY1305_SHA256:
		return 2
	}
	return len(suiteNames) - 1
}

// aesGCM tells whether suite is one of TLS 1.3's AES-GCM suites.
func aesGCM(suite uint16) bool {
	return suite == tls.TLS_AES_128_GCM_SHA256 || suite == tls.TLS_AES_256_GCM_SHA384
}

// addSuiteMetrics registers all suites, also those that no connection has had.
func (r *Router) addSuiteMetrics(m *admin.Metrics) {
	m.Add(admin.Family{
		Name: "causeway_handshakes_cipher_total", Help: "TLS handshakes that led to a connection, by cipher suite.",
		Counter: true, Labels: []string{"suite"}, Read: func() (s []admin.Sample) {
			for i, name := range suiteNames {
				n := r.sum(func(c *counters) *atomic.Uint64 { return &c.suites[i] })
				s = append(s, admin.Sample{Labels: []string{name}, Value: n()})
			}
			return s
		},
	})
}
