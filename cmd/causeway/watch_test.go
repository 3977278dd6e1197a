package main

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestFilesAreReadOnceTheyHaveStoppedChanging(t *testing.T) {
	of := func(b byte) fingerprint { return fingerprint{b} }
	for name, c := range map[string]struct {
		looks []byte
		reads []bool
	}{
		"nothing":            {[]byte{0, 0, 0}, []bool{false, false, false}},
		"one change":         {[]byte{1, 1, 1}, []bool{false, true, false}},
		"and back":           {[]byte{1, 0, 0}, []bool{false, false, false}},
		"goes on, then ends": {[]byte{1, 2, 3, 3, 3}, []bool{false, false, false, true, false}},
		"never ends":         {[]byte{1, 2, 3, 4, 5, 6, 7}, []bool{false, false, false, false, false, true, false}},
	} {
		var w watcher
		for i, b := range c.looks {
			if got := w.judge(of(b)); got != c.reads[i] {
				t.Errorf("%s, look %d: %v", name, i, got)
			}
		}
	}
}

func TestAllWaysToChangeAFileAreNoticed(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	look := func() fingerprint {
		h := sha256.New()
		addFiles(h, dir, 2)
		return fingerprint(h.Sum(nil))
	}
	ok(os.MkdirAll(filepath.Join(dir, "domain"), 0o755))
	write("domain/root.crt", "one")
	seen := map[fingerprint]bool{look(): true}
	if !seen[look()] {
		t.Fatal("two looks at the same files differ")
	}
	// Same size and time as before: only the inode tells.
	info, err := os.Stat(filepath.Join(dir, "domain/root.crt"))
	ok(err)
	replace := func() {
		write("domain/.new", "two")
		ok(os.Chtimes(filepath.Join(dir, "domain/.new"), time.Time{}, info.ModTime()))
		ok(os.Rename(filepath.Join(dir, "domain/.new"), filepath.Join(dir, "domain/root.crt")))
		ok(os.Chtimes(filepath.Join(dir, "domain"), time.Time{}, info.ModTime()))
	}
	for _, c := range []struct {
		name   string
		change func()
	}{
		{"replaced", replace},
		{"longer", func() { write("domain/root.crt", "longer") }},
		{"mode", func() { ok(os.Chmod(filepath.Join(dir, "domain/root.crt"), 0o600)) }},
		{"another file", func() { write("domain/list.crl", "") }},
		{"another directory", func() { ok(os.Mkdir(filepath.Join(dir, "other"), 0o755)) }},
		{"directory gone", func() { ok(os.Rename(filepath.Join(dir, "domain"), filepath.Join(dir, "moved"))) }},
		{"all gone", func() { ok(os.RemoveAll(dir)) }},
	} {
		c.change()
		now := look()
		if seen[now] {
			t.Errorf("%s: not noticed", c.name)
		}
		seen[now] = true
	}
}
