package link

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// recordSealer makes TLS records of any type, as a client's tls.Conn, which has
// sent nothing yet, would.
type recordSealer struct {
	aead cipher.AEAD
	iv   []byte
	seq  uint64
}

func newRecordSealer(t *testing.T, c *tls.Conn, keyLog string) *recordSealer {
	t.Helper()
	var secret []byte
	for line := range strings.Lines(keyLog) {
		if f := strings.Fields(line); f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, _ = hex.DecodeString(f[2])
		}
	}
	derive := func(label string, n int) []byte {
		info := binary.BigEndian.AppendUint16(nil, uint16(n))
		label = "tls13 " + label
		info = append(append(append(info, byte(len(label))), label...), 0)
		out, err := hkdf.Expand(sha256.New, secret, string(info), n)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	s := &recordSealer{iv: derive("iv", 12)}
	var err error
	switch suite := c.ConnectionState().CipherSuite; suite {
	case tls.TLS_AES_128_GCM_SHA256:
		var block cipher.Block
		if block, err = aes.NewCipher(derive("key", 16)); err == nil {
			s.aead, err = cipher.NewGCM(block)
		}
	case tls.TLS_CHACHA20_POLY1305_SHA256:
		s.aead, err = chacha20poly1305.New(derive("key", chacha20poly1305.KeySize))
	default:
		t.Fatalf("cipher suite %s", tls.CipherSuiteName(suite))
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *recordSealer) seal(kind byte, content []byte) []byte {
	nonce := bytes.Clone(s.iv)
	for i := range 8 {
		nonce[len(nonce)-1-i] ^= byte(s.seq >> (8 * i))
	}
	s.seq++
	inner := append(bytes.Clone(content), kind)
	header := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(inner)+s.aead.Overhead()))
	return s.aead.Seal(header, nonce, inner, header)
}

// A peer that sends the beginning of a long handshake message when the handshake
// is over costs no memory: crypto/tls would wait for 256 KiB of it.
func TestALongHandshakeMessageEndsAConnection(t *testing.T) {
	r := (&rig{}).start(t, Config{})
	raw, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	var keyLog bytes.Buffer
	config := clientTLS()
	config.KeyLogWriter = &keyLog
	client := tls.Client(raw, config)
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	conn := receive(t, r.conns)
	sealer := newRecordSealer(t, client, keyLog.String())
	const certificate, size = 11, 250_000
	message := append([]byte{certificate, size >> 16, size >> 8 & 0xff, size & 0xff}, make([]byte, size)...)
	mustWrite(t, raw, sealer.seal(recordHandshake, message[:messageMax]))
	eventually(t, "the first bytes of it read", func() bool { return conn.Counters().BytesIn > messageMax })
	on(t, conn.Loop(), func() {
		if conn.phase != phaseOpen {
			t.Error("the connection ended for what may be the beginning of a short message")
		}
	})
	mustWrite(t, raw, sealer.seal(recordHandshake, message[messageMax:messageMax+1]))
	if why := receive(t, r.ends); why != ErrLongMessage {
		t.Errorf("ended for %v", why)
	}
}

func TestAHandshakeWithVeryLargeCertificatesIsRefused(t *testing.T) {
	reasons := make(chan string, 1)
	r := (&rig{failed: func(_ netip.AddrPort, reason string, _ error) { reasons <- reason }}).start(t, Config{})
	server := testTLS().Clone()
	server.ClientAuth = tls.RequireAnyClientCert
	ln, err := r.engine.Listen("127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dialWith := func(extra int) {
		t.Helper()
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: make([]byte, extra)}},
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		config := clientTLS()
		config.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
		raw, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { raw.Close() })
		_ = tls.Client(raw, config).Handshake() // it may end before the server has refused it
	}
	dialWith(handshakeMax / 2)
	receive(t, r.conns)
	dialWith(handshakeMax)
	if reason := receive(t, reasons); reason != "malformed" {
		t.Errorf("refused for %q", reason)
	}
}
