package codec

import (
	"testing"
	"time"
)

func TestSenderBlockedBounds(t *testing.T) {
	checkBounds(t, "1 ms", &SenderBlocked{someNode, time.Millisecond}, nil)
	checkBounds(t, "an hour", &SenderBlocked{someNode, time.Hour}, nil)
	checkBounds(t, "less than 1 ms", &SenderBlocked{someNode, time.Millisecond - 1}, ErrControlValue)
	checkBounds(t, "negative", &SenderBlocked{someNode, -time.Second}, ErrControlValue)
	checkBounds(t, "more than an hour", &SenderBlocked{someNode, time.Hour + time.Millisecond}, ErrControlValue)

	check := func(name, values string, want error) {
		t.Helper()
		checkBody(t, control, name, "a3 0013"+values, want)
	}
	check("a node", "01"+hexNode+"02 19 ea60", nil)
	check("a router", "01"+hexRouter+"02 1a 0036ee80", nil)
	check("for no time", "01"+hexNode+"0200", ErrControlValue)
	check("for too long", "01"+hexNode+"02 1a 0036ee81", ErrControlValue)
	check("sender of 15", "01 4f 00112233445566778899aabbccddee 0201", ErrControlValue)
	check("sender as text", "01 6161 0201", ErrControlValue)
	check("time as text", "01"+hexNode+"02 6131", ErrControlValue)
	checkBody(t, control, "without a time", "a2 0013 01"+hexNode, ErrControlKeys)
	if m := (&SenderBlocked{Sender: someNode}); m.Domain() != someNode.Prefix() {
		t.Errorf("domain %x", m.Domain())
	}
}
