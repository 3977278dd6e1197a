package link

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"reflect"
	"sync"
	"unsafe"
)

// crypto/tls reads its transport through an adapter that it allocates anew for
// every header and every body: two allocations per record, which is two per
// frame for a peer that sends a record for each frame. They are avoided by
// putting a record where crypto/tls would put it, its unexported rawInput buffer,
// before it is asked to read: then it finds the record there. And since it reads
// a record at one go, the buffer is needed for just so long: a loop lends one to
// its connections in turn, so that no connection keeps one.
//
// When a Go version has no such field, ciphertext goes through
// transport.Read, which is correct and allocates, and each connection keeps a
// buffer of the largest record it got. A test tells of it.

// The unexported fields of tls.Conn that are used here.
var (
	rawInputField, usesRawInput = findField[bytes.Buffer]("rawInput")
	handField, hasHand          = findField[bytes.Buffer]("hand")
	peersField, hasPeers        = findField[[]*x509.Certificate]("peerCertificates")
)

// findField returns where tls.Conn has a field of that name and type.
func findField[T any](name string) (offset uintptr, ok bool) {
	f, ok := reflect.TypeFor[tls.Conn]().FieldByName(name)
	if !ok || f.Type != reflect.TypeFor[T]() {
		return 0, false
	}
	return f.Offset, true
}

// fieldOf returns c's field at that offset. It may be used by who reads c.
func fieldOf[T any](c *tls.Conn, offset uintptr) *T {
	return (*T)(unsafe.Add(unsafe.Pointer(c), offset))
}

// rawInput returns c's buffer of ciphertext. It may only be used on the loop,
// which is where c is read.
func rawInput(c *tls.Conn) *bytes.Buffer { return fieldOf[bytes.Buffer](c, rawInputField) }

// shed drops what the handshake has left in c's tls.Conn and nobody needs
// afterwards: buffers, and of a client's certificates the parsed form, which
// c.TLS() has no longer then. Who dials may resume a session, which needs it.
func (c *Conn) shed() {
	for _, b := range []struct {
		at    uintptr
		known bool
	}{{rawInputField, usesRawInput}, {handField, hasHand}} {
		if !b.known {
			continue
		}
		if b := fieldOf[bytes.Buffer](c.tls, b.at); b.Len() == 0 {
			*b = bytes.Buffer{}
		}
	}
	if hasPeers && !c.dialed {
		*fieldOf[[]*x509.Certificate](c.tls, peersField) = nil
	}
}

// messageMax is how much may wait, in bytes, of a handshake message whose end has
// not come, after the handshake: a key update has 5 bytes, and a session ticket,
// which who dials may get, comes in one record. crypto/tls would keep 256 KiB.
const messageMax = 1 << 10

// holdsMessage tells whether crypto/tls keeps more than that for c.
func (c *Conn) holdsMessage() bool {
	return hasHand && fieldOf[bytes.Buffer](c.tls, handField).Len() > messageMax
}

// ciphertextMax is the longest body of a record that crypto/tls does not refuse
// at its header, for any version (RFC 5246 section 6.2.3; TLS 1.3 has less).
const ciphertextMax = recordMax + 2048

// wholeMax is the size of the largest record of TLS 1.3, in bytes (RFC 8446
// section 5.2).
const wholeMax = recordHeaderLen + recordMax + 256

// lendRawInput lets c's tls.Conn use the loop's buffer, until takeRawInput.
func (c *Conn) lendRawInput() *bytes.Buffer {
	raw, l := rawInput(c.tls), c.loop
	if raw.Cap() == 0 {
		if l.raw.Cap() == 0 {
			l.raw.Grow(wholeMax)
		}
		*raw, l.raw = l.raw, bytes.Buffer{}
	}
	return raw
}

// takeRawInput takes the buffer back, unless a record is in it that crypto/tls
// has refused: then the connection ends, and the buffer with it.
func (c *Conn) takeRawInput(raw *bytes.Buffer) {
	if raw.Len() == 0 {
		raw.Reset()
		c.loop.raw, *raw = *raw, bytes.Buffer{}
	}
}

// stage moves a record from t.in to raw. It tells whether crypto/tls has
// something to do: a whole record, or a header that it refuses. The beginning
// of a record is kept in t.part.
func (t *transport) stage(raw *bytes.Buffer) (ready bool) {
	if len(t.part) == 0 {
		if size, there := recordSize(t.in); there {
			raw.Write(t.in[:size])
			t.in = t.in[size:]
			return true
		}
		if len(t.in) == 0 {
			return false
		}
	}
	if need := recordHeaderLen - len(t.part); need > 0 {
		t.addPart(need)
	}
	size, _ := recordSize(t.part)
	t.addPart(size - len(t.part))
	if _, ready = recordSize(t.part); ready {
		raw.Write(t.part)
		t.dropPart()
	}
	return ready
}

// recordSize returns the size of the record that b begins with, as far as it is
// known, and whether all of it is there. A record that is too long needs no more
// than its header.
func recordSize(b []byte) (size int, there bool) {
	if len(b) < recordHeaderLen {
		return recordHeaderLen, false
	}
	size = recordHeaderLen
	if body := int(b[recordLengthAt])<<8 | int(b[recordLengthAt+1]); body <= ciphertextMax {
		size += body
	}
	return size, len(b) >= size
}

// addPart moves at most n bytes from t.in to t.part.
func (t *transport) addPart(n int) {
	n = min(n, len(t.in))
	if size := len(t.part) + n; size > cap(t.part) {
		larger := append(newPart(size), t.part...)
		putPart(t.part)
		t.part = larger
	}
	t.part = append(t.part, t.in[:n]...)
	t.in = t.in[n:]
}

func (t *transport) dropPart() {
	putPart(t.part)
	t.part = nil
}

// Memory for beginnings of records, in sizes that cost a little more than what
// has arrived, and with a connection no more than is said of it
// (buf.Budget): it is not frame memory, since who sends half a record may leave
// it at that.
const (
	partSmall  = 512
	partMedium = 4608 // size classes of the runtime
	partLarge  = 18432
)

var _ [partLarge - wholeMax]struct{}

var partPools = [...]sync.Pool{
	{New: func() any { return new([partSmall]byte) }},
	{New: func() any { return new([partMedium]byte) }},
	{New: func() any { return new([partLarge]byte) }},
}

// newPart returns an empty slice with room for n bytes.
func newPart(n int) []byte {
	switch {
	case n <= partSmall:
		return partPools[0].Get().(*[partSmall]byte)[:0]
	case n <= partMedium:
		return partPools[1].Get().(*[partMedium]byte)[:0]
	case n <= partLarge:
		return partPools[2].Get().(*[partLarge]byte)[:0]
	}
	return make([]byte, 0, n) // no record of TLS 1.3
}

// putPart takes back what newPart gave, or nil.
func putPart(b []byte) {
	switch b = b[:cap(b)]; len(b) {
	case partSmall:
		partPools[0].Put((*[partSmall]byte)(b))
	case partMedium:
		partPools[1].Put((*[partMedium]byte)(b))
	case partLarge:
		partPools[2].Put((*[partLarge]byte)(b))
	}
}
