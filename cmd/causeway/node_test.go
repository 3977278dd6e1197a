package main

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"causeway/codec"
	"causeway/engine/node"
)

func TestPrintableTextDoesNothingToATerminal(t *testing.T) {
	check := func(in string, max int, want string) {
		t.Helper()
		if got := printable([]byte(in), max); got != want {
			t.Errorf("printable(%q, %d) = %q, want %q", in, max, got, want)
		}
	}
	check("", 10, "")
	check("plain text", 10, "plain text")
	check("grüße 世界", 20, "grüße 世界")
	check("two\nlines\r\n", 20, `two\nlines\r\n`)
	check("\x1b[2J\a", 20, `\x1b[2J\a`)
	check(`back\slash`, 20, `back\\slash`)
	check("\u202eright to left\u200b", 30, `\u202eright to left\u200b`)
	check("\xff\x00\xfe", 20, `\xff\x00\xfe`)
	check("\ufffd", 20, "\ufffd")
	check("12345678901", 10, "1234567890 … and 1 byte more")
	check("123456789ü12", 10, "123456789 … and 4 bytes more") // a rune is not cut
	check("12345678ü12", 10, "12345678ü … and 2 bytes more")
	check("123456789\xff12", 10, `123456789\xff … and 2 bytes more`)
}

// A message of which nobody knows is neither called delivered nor lost.
func TestSendTellsPerhapsFromNo(t *testing.T) {
	unconfirmed := &node.NoticeError{Reason: codec.NoticeUnconfirmed}
	ended := &node.WaitError{For: "receipt", Err: context.DeadlineExceeded}
	for _, c := range []struct {
		err            error
		code           int
		status, reason string
		text           string
	}{
		{unconfirmed, exitNotice, "perhaps", "unconfirmed", "perhaps delivered, perhaps not: unconfirmed after"},
		{&node.NoticeError{Reason: codec.NoticeQueueFull, More: 1, Ambiguous: 1}, exitNotice, "perhaps", "queue-full", "perhaps delivered, perhaps not: queue-full"},
		{&node.NoticeError{Reason: codec.NoticeNoRoute}, exitNotice, "notice", "no-route", "not delivered: no-route"},
		{&node.WaitError{For: "receipt", Last: unconfirmed, Err: context.DeadlineExceeded}, exitTimeout, "perhaps", "unconfirmed", "perhaps delivered, perhaps not: unconfirmed"},
		{&node.WaitError{For: "receipt", Last: &node.NoticeError{Reason: codec.NoticeNoRoute}, Err: context.DeadlineExceeded}, exitTimeout, "timeout", "", "no answer"},
		{ended, exitTimeout, "timeout", "", "no answer"},
		{&node.UnconfirmedError{Err: errors.New("gone")}, exitError, "perhaps", "unconfirmed", "perhaps delivered"},
		{&node.UnsentError{Err: errors.New("gone")}, exitError, "failed", "", "failed"},
	} {
		for _, asJSON := range []bool{false, true} {
			var out strings.Builder
			f := &sending{nodeFlags: nodeFlags{json: asJSON}, stdout: &out}
			err := f.coded(context.Background(), c.err)
			if code := exitCodeOf(workError{err}); code != c.code {
				t.Errorf("%v: exit code %d, want %d", c.err, code, c.code)
			}
			if err := f.show(&node.Sent{}, member{name: "bob"}, statusConfirmed, time.Millisecond, err); err != nil {
				t.Fatal(err)
			}
			var printed sentMessage
			if asJSON {
				if err := json.Unmarshal([]byte(out.String()), &printed); err != nil || printed.Status != c.status || printed.Reason != c.reason {
					t.Errorf("%v: %s; %v", c.err, &out, err)
				}
			} else if !strings.Contains(out.String(), c.text) {
				t.Errorf("%v: %q does not have %q", c.err, &out, c.text)
			}
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add([]byte("two\nlines \x1b[2J \xff ü 世"), 7)
	f.Fuzz(func(t *testing.T, in []byte, max int) {
		if max < 1 {
			return
		}
		got := printable(in, max)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x202e }) {
			t.Errorf("printable(%q, %d) = %q", in, max, got)
		}
	})
}

// The demonstration's commands are for copying: a shell must take them apart as
// they were put together.
func TestShellTakesCommandsApartAgain(t *testing.T) {
	words := []string{"causeway", "", "two words", "it's", `"$HOME" \`, "*", "a=b", "~", "dbw://127.0.0.1:7100", "new\nline", "`id`", "#", "ü"}
	out, err := exec.Command("sh", "-c", `printf '%s\000' `+shellLine(words)).Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Join(words, "\x00") + "\x00"; string(out) != want {
		t.Errorf("%s: the shell reads %q, want %q", shellLine(words), out, want)
	}
	if plain := "causeway node list --identity /tmp/a-1/b_2 --connect dbw://[::1]:1"; shellLine(strings.Fields(plain)[:5]) != strings.TrimSuffix(plain, " --connect dbw://[::1]:1") {
		t.Errorf("plain words were quoted: %s", shellLine(strings.Fields(plain)))
	}
}

func TestRoundTripsAreSummedUp(t *testing.T) {
	check := func(sent uint64, took []time.Duration, least, avg, most, mdev time.Duration, lost float64) {
		t.Helper()
		r := roundTrips{sent: sent}
		for _, d := range took {
			r.add(d)
		}
		if r.least != least || r.avg() != avg || r.most != most || (r.mdev()-mdev).Abs() > time.Microsecond || r.lost() != lost {
			t.Errorf("%v of %d: %v, %v, %v, %v, %g %%; want %v, %v, %v, %v, %g %%", took, sent,
				r.least, r.avg(), r.most, r.mdev(), r.lost(), least, avg, most, mdev, lost)
		}
	}
	const ms = time.Millisecond
	check(4, nil, 0, 0, 0, 0, 100)
	check(1, []time.Duration{3 * ms}, 3*ms, 3*ms, 3*ms, 0, 0)
	check(2, []time.Duration{3 * ms, 5 * ms}, 3*ms, 4*ms, 5*ms, 1*ms, 0)
	check(10, []time.Duration{8 * ms, 2 * ms, 4 * ms, 4 * ms, 4 * ms, 5 * ms, 5 * ms, 7 * ms, 9 * ms}, 2*ms, 48*ms/9, 9*ms, 2108185*time.Nanosecond, 10)
	check(3, []time.Duration{1e9 + 1*ms, 1e9 + 2*ms, 1e9 + 3*ms}, 1e9+1*ms, 1e9+2*ms, 1e9+3*ms, 816497*time.Nanosecond, 0)
}
