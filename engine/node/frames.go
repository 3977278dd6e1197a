package node

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"causeway/codec"
)

const (
	readBufferSize = 64 << 10  // bytes
	readBufferKept = 256 << 10 // a larger one, made for a large frame, is given up afterwards
)

// frameReader cuts frames from a connection. Its memory is bounded by bodyMax, or
// by what link control may have.
type frameReader struct {
	from    io.Reader
	bodyMax uint32         // of other frames than link control
	bytes   *atomic.Uint64 // counts what was read

	buf        []byte
	start, end int // of what was read and not yet cut
}

func newFrameReader(from io.Reader, bodyMax uint32, bytes *atomic.Uint64) *frameReader {
	return &frameReader{from: from, bodyMax: bodyMax, bytes: bytes, buf: make([]byte, readBufferSize)}
}

// next returns the next frame, borrowed until the next call. Malformed input is
// a *ProtocolError, an end within a frame io.ErrUnexpectedEOF; it can't go on
// after either.
func (r *frameReader) next() (codec.Raw, error) {
	for {
		have := r.buf[r.start:r.end]
		need, err := codec.Cut(have, codec.BodyMaxOf(have, r.bodyMax))
		if err != nil {
			return nil, &ProtocolError{What: "malformed frame", Err: err}
		}
		if need <= len(have) {
			frame := codec.Raw(r.buf[r.start : r.start+need])
			r.start += need
			return frame, nil
		}
		r.makeRoom(need)
		n, err := r.from.Read(r.buf[r.end:])
		r.end += n
		r.bytes.Add(uint64(n))
		if n > 0 {
			continue // the error, if any, comes again
		}
		if errors.Is(err, io.EOF) && r.start != r.end {
			return nil, io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
	}
}

// makeRoom makes the buffer hold at least need bytes from start on, and room
// to read more.
func (r *frameReader) makeRoom(need int) {
	have := r.end - r.start
	switch {
	case need > len(r.buf):
		grown := make([]byte, need)
		copy(grown, r.buf[r.start:r.end])
		r.buf = grown
	case len(r.buf) > readBufferKept && need <= readBufferSize:
		kept := make([]byte, readBufferSize)
		copy(kept, r.buf[r.start:r.end])
		r.buf = kept
	case r.start > 0 && r.start+need > len(r.buf) || r.end == len(r.buf):
		copy(r.buf, r.buf[r.start:r.end])
	default:
		return
	}
	r.start, r.end = 0, have
}

// seal makes a frame of this node, from its address, with the send time and a body (borrowed):
// signed, whole.
func (s *self) seal(from, to codec.Address, category codec.Category, sendTime uint64, body []byte) ([]byte, error) {
	return s.signAlone(s.unsigned(from, to, category, sendTime, body, plainSignatureMax))
}

// compose makes a frame for the queue. It is not signed yet if the key can sign
// bursts, which the writer does (sign.go).
func (s *self) compose(from, to codec.Address, category codec.Category, sendTime uint64, body []byte) (frame []byte, state slotState, err error) {
	if s.signer.Bursts() {
		return s.unsigned(from, to, category, sendTime, body, signatureMax), slotUnsigned, nil
	}
	frame, err = s.seal(from, to, category, sendTime, body)
	return frame, slotReady, err
}

// unsigned makes a frame up to its signature, with room for one of so many bytes.
func (s *self) unsigned(from, to codec.Address, category codec.Category, sendTime uint64, body []byte, signature int) []byte {
	f := codec.Frame{
		TTL: codec.TTLDefault, Recipient: to, Sender: from, Category: category,
		SendTime: sendTime, CertID: s.certID, Body: body,
	}
	frame := make([]byte, 0, codec.HeaderSize+len(body)+codec.SignatureLengthSize+signature)
	return f.AppendSigned(append(frame, f.TTL))
}

// signAlone appends a plain signature to a frame.
func (s *self) signAlone(frame []byte) ([]byte, error) {
	var space [plainSignatureMax]byte
	signature, err := s.signer.Sign(space[:0], frame[ttlSize:])
	if err != nil {
		return nil, err
	}
	return codec.AppendSignature(frame, signature)
}

// Sizes, in bytes.
const (
	ttlSize           = 1  // what is before the signed bytes
	plainSignatureMax = 80 // both kinds of plain signature fit, ECDSA's has at most 72
	signatureMax      = codec.BurstPathOffset + burstSteps*codec.BurstStepSize
)

// frameTime returns a send time as a time.Time, for all values there are.
func frameTime(sendTime uint64) time.Time {
	const second = uint64(time.Second)
	return time.Unix(int64(sendTime/second), int64(sendTime%second))
}

// inSkew reports whether a send time is within skew of now.
func inSkew(sendTime uint64, now time.Time, skew time.Duration) bool {
	return frameTime(sendTime).Sub(now).Abs() <= skew
}
