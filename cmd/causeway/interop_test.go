package main

import (
	"bytes"
	"encoding/hex"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
	"causeway/crypto/sign"
)

// The TLS clients here are not Go's; they send frames that this test has made,
// since what they are for is to show that handshake and certificates are
// ordinary.

func TestPythonConnectsWithTheDomainAsHostName(t *testing.T) {
	s := startStranger(t, "ed25519")
	s.check(t, s.python(t))
}

func TestPythonConnectsWithP256(t *testing.T) {
	s := startStranger(t, "p256")
	s.check(t, s.python(t))
}

func TestOpenSSLConnectsAndExchangesAFrame(t *testing.T) {
	s := startStranger(t, "ed25519")
	cmd := exec.Command("openssl", "s_client", "-connect", s.router.addr, "-servername", s.domain, "-verify_hostname", s.domain,
		"-verify_return_error", "-x509_strict", "-alpn", "dbw/1", "-tls1_3", "-quiet", "-no_ign_eof",
		"-CAfile", s.file("root.crt"), "-cert", s.file("node.crt"), "-key", s.file("node.key"))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (.ci/deps installs openssl)", err)
	}
	kill := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer kill.Stop()
	var got []byte
	exchange := func(send []byte, frames int) {
		if _, err := in.Write(send); err != nil {
			t.Fatal(err)
		}
		for countFrames(t, got) < frames {
			b := make([]byte, 64<<10)
			n, err := out.Read(b)
			got = append(got, b[:n]...)
			if err != nil {
				t.Fatalf("openssl: %v\n%s", err, &stderr)
			}
		}
	}
	exchange(s.hello, 1)
	exchange(s.rest, strangerFrames)
	in.Close()
	io.Copy(io.Discard, out)
	cmd.Wait() // s_client's exit code says how the connection ended, which is ours
	s.check(t, got)
}

// stranger is a node whose client is another program.
type stranger struct {
	router *routerProcess
	domain string
	dir    string
	id     *pki.Identity
	grant  *pki.Peer
	hello  []byte
	rest   []byte // a frame to itself, an echo to the router
	body   []byte
	echoID [codec.EchoIDSize]byte
}

// strangerFrames is how many frames come back: hello, the frame to oneself, the
// echo's reply, and the revocation list of the domain.
const strangerFrames = 4

func (s *stranger) file(name string) string { return filepath.Join(s.dir, name) }

func startStranger(t *testing.T, keyType string) *stranger {
	t.Helper()
	const domain = "prod.example"
	dir := makeDomains(t, []string{domain}, nil)
	runs(t, "pki", "issue", "--ca", filepath.Join(dir, domain, "ca"), "--name", "stranger", "--out", filepath.Join(dir, "stranger"), "--key-type", keyType)
	s := &stranger{
		router: startServe(t, dir), domain: domain, dir: filepath.Join(dir, "stranger"),
		body: []byte("hello from another language"), echoID: [8]byte{1, 2, 3},
	}
	router, err := pki.LoadIdentity(os.DirFS(filepath.Join(dir, "router")))
	if err != nil {
		t.Fatal(err)
	}
	s.grant = router.Grants[domain]
	s.load(t)
	return s
}

// load reads the identity in s.dir and makes the frames.
func (s *stranger) load(t *testing.T) {
	t.Helper()
	var err error
	if s.id, err = pki.LoadIdentity(os.DirFS(s.dir)); err != nil {
		t.Fatal(err)
	}
	hello, err := codec.AppendControl(nil, &codec.Hello{Version: codec.ProtocolVersion, Kind: "stranger", Software: "stranger/1.0.0",
		KeepAlive: codec.KeepAliveDefault, DeadAfter: codec.DeadAfterDefault, BodyMax: codec.BodyMaxDefault})
	if err != nil {
		t.Fatal(err)
	}
	echo, err := codec.AppendEcho(nil, &codec.Echo{Type: codec.EchoRequest, ID: s.echoID})
	if err != nil {
		t.Fatal(err)
	}
	s.hello = s.frame(t, s.grant.Address, codec.CategoryControl, hello)
	s.rest = append(s.frame(t, s.id.Peer.Address, codec.CategoryApplication, s.body),
		s.frame(t, s.grant.Address, codec.CategoryEcho, echo)...)
}

func (s *stranger) frame(t *testing.T, to codec.Address, category codec.Category, body []byte) []byte {
	t.Helper()
	f := codec.Frame{TTL: codec.TTLDefault, Recipient: to, Sender: s.id.Peer.Address, Category: category,
		SendTime: uint64(time.Now().UnixNano()), CertID: s.id.Peer.CertID, Body: body}
	signer, err := sign.NewSigner(s.id.Key)
	if err != nil {
		t.Fatal(err)
	}
	if f.Signature, err = signer.Sign(nil, f.AppendSigned(nil)); err != nil {
		t.Fatal(err)
	}
	wire, err := f.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func (s *stranger) python(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, frames := range map[string][]byte{"hello": s.hello, "rest": s.rest} {
		if err := os.WriteFile(filepath.Join(dir, name), frames, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, port, err := net.SplitHostPort(s.router.addr)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("python3", "testdata/interop/client.py", port, s.domain, s.file("root.crt"), s.file("node.crt"), s.file("node.key"),
		filepath.Join(dir, "hello"), "1", filepath.Join(dir, "rest"), strconv.Itoa(strangerFrames))
	out, err := cmd.Output()
	if err != nil {
		var stderr []byte
		if exit, ok := err.(*exec.ExitError); ok {
			stderr = exit.Stderr
		}
		t.Fatalf("python3 (.ci/deps installs it): %v\n%s", err, stderr)
	}
	got, err := hex.DecodeString(string(out))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func countFrames(t *testing.T, b []byte) (n int) {
	t.Helper()
	for {
		need, err := codec.Cut(b, codec.BodyMaxDefault)
		if err != nil {
			t.Fatal(err)
		}
		if need > len(b) {
			return n
		}
		b = b[need:]
		n++
	}
}

// check looks for the router's hello, the frame to oneself, and the echo's
// reply, each well signed.
func (s *stranger) check(t *testing.T, b []byte) {
	t.Helper()
	key := map[codec.Address]*sign.Key{}
	for _, p := range []*pki.Peer{s.id.Peer, s.grant} {
		k, err := sign.NewKey(p.Public)
		if err != nil {
			t.Fatal(err)
		}
		key[p.Address] = k
	}
	var hello, own, reply, list bool
	for n := countFrames(t, b); n > 0; n-- {
		need, _ := codec.Cut(b, codec.BodyMaxDefault)
		f := codec.Raw(b[:need])
		b = b[need:]
		if k := key[f.Sender()]; k == nil || !k.Verify(f.Signed(), f.Signature()) {
			t.Errorf("a frame from %v with a bad signature", f.Sender())
		}
		switch f.Category() {
		case codec.CategoryControl:
			m, err := codec.DecodeControl(f.Body())
			if h, ok := m.(*codec.Hello); err == nil && ok {
				hello = h.Role == codec.RoleRouter
			}
			if _, ok := m.(*codec.RevocationList); err == nil && ok {
				list = true
			}
		case codec.CategoryEcho:
			e, err := codec.DecodeEcho(f.Body())
			reply = err == nil && e.Type == codec.EchoReply && e.ID == s.echoID
		default:
			own = bytes.Equal(f.Body(), s.body) && f.TTL() == codec.TTLDefault-1
		}
	}
	if !hello || !own || !reply || !list {
		t.Errorf("came back: hello %v, own frame %v, reply %v, list %v", hello, own, reply, list)
	}
	s.router.stop()
}
