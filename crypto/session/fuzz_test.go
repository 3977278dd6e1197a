package session

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"
)

func FuzzBodies(f *testing.F) {
	v := messages(f)
	for _, g := range v.Good {
		f.Add([]byte(g.Body))
	}
	for _, b := range v.Bad {
		f.Add([]byte(b.Body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var first m1
		if first.decode(body) == nil && !bytes.Equal(first.append(nil), body) {
			t.Errorf("M1 is encoded as %x", first.append(nil))
		}
		var second m2
		if second.decode(body) == nil && !bytes.Equal(second.append(nil), body) {
			t.Errorf("M2 is encoded as %x", second.append(nil))
		}
		chain, err := Chain(body)
		if err == nil && (body[0] == bodyM1 || body[0] == bodyM2) && len(chain) == 0 {
			t.Error("an M1 or M2 without certificates")
		}
		var box sealed
		if box.decode(body) == nil {
			again := append(binary.BigEndian.AppendUint64(append([]byte(nil), box.id[:]...), box.counter), box.box...)
			if !bytes.Equal(again, body) {
				t.Errorf("a sealed body is encoded as %x", again)
			}
		}
		if len(body) > 0 && body[0] == bodyReset {
			if id, err := decodeReset(body); err == nil && !bytes.Equal(appendReset(nil, id), body) {
				t.Error("a reset is encoded otherwise")
			}
		}
	})
}

func FuzzContents(f *testing.F) {
	v := messages(f)
	for _, c := range v.Contents {
		f.Add([]byte(c.Content))
	}
	for _, c := range v.BadContents {
		f.Add([]byte(c.Content))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var c content
		if c.decode(b) == nil && !bytes.Equal(c.append(nil), b) {
			t.Errorf("%+v is encoded as %x", c, c.append(nil))
		}
	})
}

// A peer says anything, in frames and in contents that it has sealed, and lets
// time pass. Nothing panics, and what check looks at holds.
func FuzzPeer(f *testing.F) {
	v := messages(f)
	for _, g := range v.Good {
		f.Add([]byte(g.Body), uint8(0), uint16(10))
	}
	for _, c := range v.Contents {
		f.Add([]byte(c.Content), uint8(1), uint16(250))
	}
	f.Add([]byte("message"), uint8(2), uint16(60_000))
	f.Fuzz(func(t *testing.T, b []byte, how uint8, wait uint16) {
		n := newNetwork(t, 40)
		x, y := n.join()
		var signed []byte
		switch how % 3 {
		case 0:
			h := x.stamp(y.address, categorySession, false, len(b))
			signed = append(h[:], b...)
		case 1:
			signed = x.peer.sealFrame(nil, x.peer.current, categorySession, b)
		case 2:
			x.peer.current.last += uint64(wait)
			signed = x.peer.sealFrame(nil, x.peer.current, how|64, b)
		}
		for range 2 {
			y.receive(bytes.Clone(signed))
			n.run(time.Duration(wait) * time.Millisecond)
		}
		n.run(time.Minute)
	})
}
