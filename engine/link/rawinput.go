package link

import (
	"bytes"
	"crypto/tls"
	"reflect"
	"unsafe"
)

// crypto/tls reads its transport through an adapter that it allocates anew for
// every header and every body: two allocations per record, which is two per
// frame for a peer that sends a record for each frame. They are avoided by
// putting a record's bytes where crypto/tls would put them, its unexported
// rawInput buffer, before it is asked to read: then it finds the record there.
// It also lets half a record cost what has arrived of it, where crypto/tls
// would make room for all that its header announces.
//
// When a Go version has no such field, ciphertext goes through
// transport.Read, which is correct and allocates. A test tells of it.

// rawInputAt is the offset of tls.Conn.rawInput; usesRawInput tells whether
// there is one.
var rawInputAt, usesRawInput = findRawInput()

func findRawInput() (offset uintptr, ok bool) {
	f, ok := reflect.TypeFor[tls.Conn]().FieldByName("rawInput")
	if !ok || f.Type != reflect.TypeFor[bytes.Buffer]() {
		return 0, false
	}
	return f.Offset, true
}

// rawInput returns c's buffer of ciphertext. It may only be used on the loop,
// which is where c is read.
func rawInput(c *tls.Conn) *bytes.Buffer {
	return (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), rawInputAt))
}

// ciphertextMax is the longest body of a record that crypto/tls does not refuse
// at its header, for any version (RFC 5246 section 6.2.3; TLS 1.3 has less).
const ciphertextMax = recordMax + 2048

// stage moves ciphertext from t.in to raw, at most to the end of the record that
// is being received. It tells whether crypto/tls has something to do: a whole
// record, or a header that it refuses.
func (t *transport) stage(raw *bytes.Buffer) (ready bool) {
	if t.got == recordHeaderLen && t.body == 0 {
		t.got = 0
	}
	if raw.Len() == 0 {
		raw.Reset() // what was read no longer counts as used; a Read takes a record's plaintext whole
	}
	if t.got < recordHeaderLen {
		n := copy(t.header[t.got:], t.in)
		raw.Write(t.in[:n])
		t.in = t.in[n:]
		t.headerRead(n)
		if t.got < recordHeaderLen {
			return false
		}
	}
	if t.body > ciphertextMax {
		return true
	}
	n := min(t.body, len(t.in))
	t.makeRoom(raw, n)
	raw.Write(t.in[:n])
	t.in = t.in[n:]
	t.body -= n
	return t.body == 0
}

// exactFrom is the part of a record, one in so many, that has to be there before
// room is made for all of it.
const exactFrom = 4

// wholeMax is the size of the largest record of TLS 1.3, in bytes (RFC 8446
// section 5.2); a buffer of it takes 18 KiB.
const wholeMax = recordHeaderLen + recordMax + 256

// makeRoom makes room for n more bytes of the record. A bytes.Buffer that grows
// by itself at least doubles, and keeps that for the connection's life; when a
// quarter of the record is there, room for the whole is made at once, which
// from less than that is exactly what was asked for.
func (t *transport) makeRoom(raw *bytes.Buffer, n int) {
	if raw.Available() >= n {
		return
	}
	whole := raw.Len() + t.body
	if have := raw.Len() + n; have*exactFrom >= whole {
		if n = t.body; whole > wholeMax/2 {
			n = max(n, wholeMax-raw.Len()) // or the next one, a little longer, would double it
		}
	}
	raw.Grow(n)
}

// headerRead notes that n more bytes of t.header are there.
func (t *transport) headerRead(n int) {
	t.got += n
	if t.got == recordHeaderLen {
		t.body = int(t.header[recordLengthAt])<<8 | int(t.header[recordLengthAt+1])
	}
}
