package main

import (
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"
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
