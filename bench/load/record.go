package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// A TLS 1.3 record (RFC 8446 section 5.2), AES-128-GCM:
//
//	 0      1         3        5                         5+n   6+n      22+n
//	+------+---------+--------+---------------------------+-----+--------+
//	| 0x17 | 03 03   | length | plaintext n               | 17  | tag 16 |   from 5 on encrypted
//	+------+---------+--------+---------------------------+-----+--------+
const (
	recordHeader   = 5
	recordTypeSize = 1
	recordTag      = 16
	recordOverhead = recordTypeSize + recordTag // beside the header
	recordPlainMax = 16 << 10
	recordWireMax  = recordHeader + recordPlainMax + 256 // RFC 8446 section 5.2
	recordData     = 0x17
	recordVersion  = 0x0303

	aes128Key = 16
)

var (
	errRecordShape = errors.New("what comes is no TLS 1.3 record")
	errNotData     = errors.New("a TLS record is not application data")
)

// half is one direction's protection of a TLS 1.3 connection. A zero sequence
// number belongs to the first record after the handshake.
type half struct {
	aead  cipher.AEAD
	iv    [12]byte
	nonce [12]byte
	seq   uint64
}

// newHalf derives key and IV from a traffic secret (RFC 8446 section 7.3).
func newHalf(secret []byte) (*half, error) {
	key, err := expandLabel(secret, "key", aes128Key)
	if err != nil {
		return nil, err
	}
	h := &half{}
	iv, err := expandLabel(secret, "iv", len(h.iv))
	if err != nil {
		return nil, err
	}
	copy(h.iv[:], iv)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	h.aead, err = cipher.NewGCM(block)
	return h, err
}

// expandLabel is HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
func expandLabel(secret []byte, label string, size int) ([]byte, error) {
	const prefix = "tls13 "
	info := binary.BigEndian.AppendUint16(nil, uint16(size))
	info = append(info, byte(len(prefix)+len(label)))
	info = append(info, prefix+label...)
	info = append(info, 0) // no context
	return hkdf.Expand(sha256.New, secret, string(info), size)
}

func (h *half) nonceOf(seq uint64) []byte {
	h.nonce = h.iv
	at := h.nonce[len(h.nonce)-8:]
	binary.BigEndian.PutUint64(at, binary.BigEndian.Uint64(at)^seq)
	return h.nonce[:]
}

// seal appends plain as records, each as full as can be, to dst.
func (h *half) seal(dst, plain []byte) []byte {
	for len(plain) > 0 {
		n := min(len(plain), recordPlainMax)
		start := len(dst)
		dst = append(dst, recordData)
		dst = binary.BigEndian.AppendUint16(dst, recordVersion)
		dst = binary.BigEndian.AppendUint16(dst, uint16(n+recordOverhead))
		dst = append(dst, plain[:n]...)
		dst = append(dst, recordData)
		header, inner := dst[start:start+recordHeader], dst[start+recordHeader:]
		dst = h.aead.Seal(dst[:start+recordHeader], h.nonceOf(h.seq), inner, header)
		h.seq++
		plain = plain[n:]
	}
	return dst
}

// open decrypts the record with that sequence number in place and returns its
// plaintext, borrowed from it.
func (h *half) open(record []byte, seq uint64) ([]byte, error) {
	header, inner := record[:recordHeader], record[recordHeader:]
	plain, err := h.aead.Open(inner[:0], h.nonceOf(seq), inner, header)
	if err != nil {
		return nil, fmt.Errorf("record %d: %w", seq, err)
	}
	if len(plain) == 0 || plain[len(plain)-1] != recordData {
		return nil, errNotData
	}
	return plain[:len(plain)-1], nil
}

// recordLength returns how many bytes follow a record's header.
func recordLength(header []byte) (int, error) {
	n := int(binary.BigEndian.Uint16(header[3:recordHeader]))
	if header[0] != recordData || n <= recordOverhead || n > recordWireMax-recordHeader {
		return 0, errRecordShape
	}
	return n, nil
}

// tally counts the plaintext of a stream of records without opening them. It
// survives no error.
type tally struct {
	header [recordHeader]byte
	have   int // bytes of header that are there
	left   int // bytes of the record under way that are still to come
	size   int // plaintext bytes of the record under way

	seq   uint64 // of the record under way
	plain uint64 // plaintext bytes of all whole records before it
}

// take counts b, the next bytes of the stream. Each record that lies in b as a
// whole is shown to see, unless that is nil, before it is counted; see may
// decrypt it in place.
func (t *tally) take(b []byte, see func(record []byte) error) error {
	for len(b) > 0 {
		if t.left == 0 {
			n := copy(t.header[t.have:], b)
			t.have += n
			if t.have < recordHeader {
				return nil
			}
			length, err := recordLength(t.header[:])
			if err != nil {
				return err
			}
			if see != nil && n == recordHeader && len(b) >= recordHeader+length {
				if err := see(b[:recordHeader+length]); err != nil {
					return err
				}
			}
			t.left, t.size = length, length-recordOverhead
			b = b[n:]
		}
		n := min(t.left, len(b))
		t.left -= n
		b = b[n:]
		if t.left == 0 {
			t.have = 0
			t.seq++
			t.plain += uint64(t.size)
		}
	}
	return nil
}

// keyLog takes the traffic secrets of one TLS connection as crypto/tls writes
// them: label, client random, secret.
type keyLog struct{ client, server []byte }

func (k *keyLog) Write(line []byte) (int, error) {
	fields := strings.Fields(string(line))
	if len(fields) != 3 {
		return 0, errors.New("key log: a line that is none")
	}
	secret, err := hex.DecodeString(fields[2])
	if err != nil {
		return 0, err
	}
	switch fields[0] {
	case "CLIENT_TRAFFIC_SECRET_0":
		k.client = secret
	case "SERVER_TRAFFIC_SECRET_0":
		k.server = secret
	}
	return len(line), nil
}

// halves returns the protection of what the client sends and receives.
func (k *keyLog) halves(state tls.ConnectionState) (out, in *half, err error) {
	if state.CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		return nil, nil, fmt.Errorf("the peer chose %s; the load speaks TLS_AES_128_GCM_SHA256 alone", tls.CipherSuiteName(state.CipherSuite))
	}
	if out, err = newHalf(k.client); err != nil {
		return nil, nil, err
	}
	in, err = newHalf(k.server)
	return out, in, err
}
