package main

import (
	"bytes"
	"testing"

	"causeway/codec"
)

// Bursts are whole, for all recipients in turn, each frame good by itself, and all
// of one size.
func TestBurstsAreSignedAhead(t *testing.T) {
	_, members, _ := testWorld(t, 4)
	sender, recipients := members[0], members[1:]
	const bursts, body, first = 3, 100, 2
	if err := sender.signBursts(recipients, first, bursts, body); err != nil {
		t.Fatal(err)
	}
	size := burstFrameSize(body)
	if len(sender.bursts) != bursts*burstFrames*size {
		t.Fatalf("%d bytes, want %d frames of %d", len(sender.bursts), bursts*burstFrames, size)
	}
	heads := map[string]int{}
	for i := range bursts * burstFrames {
		wire := sender.bursts[i*size : (i+1)*size]
		if need, err := codec.Cut(wire, bodyMax); err != nil || need != size {
			t.Fatalf("frame %d: %d bytes, %v", i, need, err)
		}
		f := codec.Raw(wire)
		if f.Recipient() != recipients[(first+i)%len(recipients)].address || !f.Encrypted() || !sender.key.Verify(f.Signed(), f.Signature()) {
			t.Fatalf("frame %d: %s", i, describe(f))
		}
		var b codec.Burst
		if err := b.Decode(f.Signature()); err != nil || b.Size != burstFrames || int(b.Index) != i%burstFrames {
			t.Fatalf("frame %d is leaf %d of %d: %v", i, b.Index, b.Size, err)
		}
		heads[string(b.RootSignature)]++
	}
	if len(heads) != bursts {
		t.Errorf("%d signatures for %d bursts", len(heads), bursts)
	}
}

// testSenders is a flow with senders of as many frames or bursts as are sent ahead.
func testSenders(t *testing.T, variant string, senders, body int) *flow {
	t.Helper()
	_, members, _ := testWorld(t, senders+1)
	f, err := newFlow(variant, nil, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	for _, m := range members[:senders] {
		if err := m.signAhead(members[senders:], 0, 70, body); err != nil {
			t.Fatal(err)
		}
		if err := m.signBursts(members[senders:], 0, 2, body); err != nil {
			t.Fatal(err)
		}
		f.senders = append(f.senders, &conn{fd: -1, who: m})
	}
	f.conns, f.receivers = f.senders, f.senders[:1]
	if err := f.size(body); err != nil {
		t.Fatal(err)
	}
	f.conns = nil // they have no sockets
	return f
}

// Units are whole frames, no larger than a write may be, and none has a part of one
// burst and of another.
func TestUnitsOfBurstsEndWithThem(t *testing.T) {
	for _, body := range []int{1, 64, 256, 1024, 16384, bodyMax} {
		f := testSenders(t, variantBursts, 3, body)
		c := f.senders[0]
		var got []byte
		for len(got) < len(c.who.bursts) {
			at := c.next
			unit := c.unit(f.unit, f.frame, f.burst)
			if len(unit) == 0 || len(unit)%f.frame != 0 || len(unit) > max(unitMax, f.frame) {
				t.Fatalf("%d bytes of body: a unit of %d bytes", body, len(unit))
			}
			if end := at + len(unit); at/f.burst != (end-1)/f.burst && (at%f.burst != 0 || end%f.burst != 0) {
				t.Fatalf("%d bytes of body: a unit from %d to %d, bursts have %d", body, at, end, f.burst)
			}
			got = append(got, unit...)
		}
		if !bytes.Equal(got, c.who.bursts) {
			t.Errorf("%d bytes of body: what is sent is not what was signed", body)
		}
		if unit := c.unit(f.unit, f.frame, f.burst); !bytes.HasPrefix(c.who.bursts, unit) {
			t.Errorf("%d bytes of body: it does not begin anew", body)
		}
	}
}

func TestSendersWithPlainSignaturesSendUnitsToo(t *testing.T) {
	for _, senders := range []int{1, 3, 200} {
		f := testSenders(t, variantAll, senders, 256)
		if f.unit < min(unitMax, burstFrames*f.frame) || f.unit > unitMax || f.window > verifyMax*f.frame || f.burst != 0 {
			t.Errorf("%d senders: units of %d bytes, bursts of %d, window %d", senders, f.unit, f.burst, f.window)
		}
	}
}

func TestDifferentFramesAndBursts(t *testing.T) {
	check := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	check("8+8", distinctFrames(frameSize(256), 8, 8), 64)
	check("200+200", distinctFrames(frameSize(256), 200, 200), 200)
	check("1000+200", distinctFrames(frameSize(256), 200, 1000), distinctAll/1000)
	check("200+200, large", distinctFrames(frameSize(16384), 200, 200), sourceMax/frameSize(16384))
	check("1, bursts", distinctBursts(burstFrameSize(256), 1), burstsLeast)
	check("8, bursts", distinctBursts(burstFrameSize(256), 8), burstsLeast/8)
	check("1000, bursts", distinctBursts(burstFrameSize(256), 1000), (burstsLeast+999)/1000)
	check("1000, large bursts", distinctBursts(burstFrameSize(16384), 1000), 1)
}
