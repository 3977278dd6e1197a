package codec

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"testing"
)

// addFrames seeds a fuzz target with the wires of all vectors.
func addFrames(f *testing.F, add func(wire []byte)) {
	v := loadFrameVectors(f)
	for _, c := range v.Cases {
		add(c.Wire)
	}
	for _, b := range v.Bursts {
		add(b.Wires[len(b.Wires)-1])
		add(slices.Concat(b.Wires[0], b.Wires[1]))
	}
	for _, b := range v.BadBursts {
		add(b.Wire)
	}
	for _, m := range v.Mutations {
		add(m.Wire)
	}
}

// addBodies seeds a fuzz target with the control vectors of one category.
func addBodies(f *testing.F, category Category) {
	add := func(c Category, body string) {
		b, err := hex.DecodeString(body)
		if err != nil {
			f.Fatal(err)
		}
		if c == category {
			f.Add(b)
		}
	}
	v := loadControlVectors(f)
	for _, good := range v.Good {
		add(good.Category, good.Body)
	}
	for _, bad := range v.Bad {
		add(bad.Category, bad.Body)
	}
}

func FuzzCut(f *testing.F) {
	addFrames(f, func(wire []byte) {
		f.Add(wire, uint32(BodyMaxDefault), uint16(len(wire)/2))
		f.Add(wire, uint32(10), uint16(57))
	})
	f.Fuzz(func(t *testing.T, b []byte, bodyMax uint32, part uint16) {
		checkCut(t, b, bodyMax)
		whole, wholeErr := Cut(b, bodyMax)
		prefix := b[:min(int(part), len(b))]
		need, err := Cut(prefix, bodyMax)
		switch {
		case err != nil:
			if wholeErr != err {
				t.Fatalf("refused with %v after %d bytes, but with all: %d, %v", err, len(prefix), whole, wholeErr)
			}
		case need <= len(prefix):
			if wholeErr != nil || whole != need {
				t.Fatalf("a frame of %d in a prefix, but in all: %d, %v", need, whole, wholeErr)
			}
		case wholeErr == nil && whole < need && whole <= len(b):
			t.Fatalf("needed %d, but the frame has only %d bytes", need, whole)
		}
	})
}

func FuzzFrame(f *testing.F) {
	addFrames(f, func(wire []byte) { f.Add(wire) })
	f.Fuzz(func(t *testing.T, b []byte) {
		var frame Frame
		if err := frame.Decode(b, BodyMaxLimit); err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error %v is not ErrMalformed", err)
			}
			return
		}
		again, err := frame.Append(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x became %x, %v", b, again, err)
		}
		if !bytes.Equal(frame.AppendSigned(nil), Raw(b).Signed()) {
			t.Fatalf("AppendSigned and Signed differ on %x", b)
		}
	})
}

// checkFixPoint checks that what decodes can be encoded, is then never longer,
// decodes to the same, and encodes to the same bytes again.
func checkFixPoint(t *testing.T, category Category, body []byte) {
	m, err := decodeAny(category, body)
	if err != nil {
		if !errors.Is(err, ErrMalformed) {
			t.Fatalf("error %v is not ErrMalformed", err)
		}
		return
	}
	_, first, err := appendAny(m)
	if err != nil || len(first) > len(body) {
		t.Fatalf("%x decodes to %+v, which encodes to %x, %v", body, m, first, err)
	}
	again, err := decodeAny(category, first)
	if err != nil || !reflect.DeepEqual(again, m) {
		t.Fatalf("%+v became %+v, %v", m, again, err)
	}
	if _, second, err := appendAny(again); err != nil || !bytes.Equal(second, first) {
		t.Fatalf("%x became %x, %v", first, second, err)
	}
}

func FuzzControl(f *testing.F) {
	addBodies(f, CategoryControl)
	f.Fuzz(func(t *testing.T, body []byte) { checkFixPoint(t, CategoryControl, body) })
}

func FuzzNotice(f *testing.F) {
	addBodies(f, CategoryNotice)
	f.Fuzz(func(t *testing.T, body []byte) { checkFixPoint(t, CategoryNotice, body) })
}

func FuzzEcho(f *testing.F) {
	addBodies(f, CategoryEcho)
	f.Fuzz(func(t *testing.T, body []byte) { checkFixPoint(t, CategoryEcho, body) })
}

func FuzzBurst(f *testing.F) {
	v := loadFrameVectors(f)
	for _, b := range v.Bursts {
		f.Add([]byte(Raw(b.Wires[0]).Signature()))
	}
	for _, b := range v.BadBursts {
		f.Add([]byte(Raw(b.Wire).Signature()))
	}
	f.Fuzz(func(t *testing.T, field []byte) {
		var b Burst
		if b.Decode(field) != nil {
			return
		}
		again := slices.Clone(b.RootSignature)
		again = binary.BigEndian.AppendUint16(again, b.Size)
		again = binary.BigEndian.AppendUint16(again, b.Index)
		again = append(again, b.Path...)
		if !bytes.Equal(again, field) {
			t.Fatalf("%x became %x", field, again)
		}
		if slowRootFromPath(make([]byte, BurstStepSize), int(b.Index), int(b.Size), b.Path) == nil {
			t.Fatalf("size %d, index %d: the path has another length than its definition says", b.Size, b.Index)
		}
	})
}

func FuzzURL(f *testing.F) {
	for _, s := range []string{
		"dbw://host", "dbw://host:7100", "dbw://10.0.0.1:0", "dbw://[2001:db8::1]:65535", "dbw://[::1]", "dbw://r1.prod.example:1",
		"dbw://", "dbw://:1", "dbw://u@h", "dbw://h/", "dbw://h?q", "dbw://h#f", "dbw://::1", "http://h", "dbw://[::1", "dbw://[fe80::1%eth0]",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, port, err := ParseURL(s)
		if err != nil {
			if !errors.Is(err, ErrURL) || host != "" || port != "" {
				t.Fatalf("%q: %q, %q, %v", s, host, port, err)
			}
			return
		}
		again := FormatURL(host, port)
		host2, port2, err := ParseURL(again)
		if err != nil || host2 != host || port2 != port {
			t.Fatalf("%q is %q and %q, but %q is %q and %q, %v", s, host, port, again, host2, port2, err)
		}
		if again != s && again != s+":"+PortDefault {
			t.Fatalf("%q and %q mean the same", s, again)
		}
	})
}

func FuzzVersion(f *testing.F) {
	for _, s := range []string{"1.2.3", "0.0.0-alpha.1+build.5", "1.0.0-rc.1", "1.0.0--", "01.0.0", "1.0.0-01", "1.0", "99999999999999999999.0.0"} {
		f.Add(s, "1.0.0-rc.2")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		v, err := ParseVersion(a)
		if err != nil {
			if !errors.Is(err, ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		if v.String() != a || v.Compare(v) != 0 {
			t.Fatalf("%q became %q, compares %d with itself", a, v, v.Compare(v))
		}
		if w, err := ParseVersion(b); err == nil && v.Compare(w) != -w.Compare(v) {
			t.Fatalf("%q with %q: %d, the other way round %d", a, b, v.Compare(w), w.Compare(v))
		}
	})
}
