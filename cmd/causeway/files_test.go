package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func checkFile(t *testing.T, path, want string, mode fs.FileMode) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil || string(text) != want {
		t.Errorf("%s holds %q, want %q (%v)", path, text, want, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
		t.Errorf("%s has mode %v, want %v (%v)", path, info.Mode(), mode, err)
	}
}

func checkOnly(t *testing.T, dir string, n int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != n {
		t.Errorf("%s has %v, want %d entries (%v)", dir, entries, n, err)
	}
}

func TestNewFilesNeverOverwrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	if err := writeNew(path, []byte("first"), modeSecret, ""); err != nil {
		t.Fatal(err)
	}
	if err := writeNew(path, []byte("second"), modePublic, "do so"); err == nil ||
		err.Error() != path+" is already there, and nothing is overwritten; do so" {
		t.Errorf("got %v", err)
	}
	checkFile(t, path, "first", modeSecret)
	if err := replaceFile(path, []byte("third"), modePublic); err != nil {
		t.Fatal(err)
	}
	checkFile(t, path, "third", modePublic)
	if err := os.Symlink("nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if writeNew(filepath.Join(dir, "link"), []byte("x"), modePublic, "") == nil || absent(filepath.Join(dir, "link"), "") == nil {
		t.Error("a dangling link counts as nothing")
	}
	checkOnly(t, dir, 2)
}

func TestNewDirectoryIsWholeOrNotThere(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "new", "id")
	files := map[string]newFile{"key": {[]byte("k"), modeSecret}, "grants/a": {[]byte("g"), modePublic}, "empty": {}}
	if err := writeNewDir(dir, files, ""); err != nil {
		t.Fatal(err)
	}
	checkFile(t, filepath.Join(dir, "key"), "k", modeSecret)
	checkFile(t, filepath.Join(dir, "grants/a"), "g", modePublic)
	checkOnly(t, filepath.Join(dir, "empty"), 0)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != modeDir {
		t.Errorf("directory of mode %v, %v", info.Mode(), err)
	}
	if writeNewDir(dir, files, "") == nil {
		t.Error("took the place of a directory with files in it")
	}
	// A file below a file: the second step fails, and the first leaves nothing.
	broken := map[string]newFile{"a": {[]byte("x"), modePublic}, "a/b": {[]byte("y"), modePublic}}
	if writeNewDir(filepath.Join(parent, "new", "broken"), broken, "") == nil {
		t.Error("made a file below a file")
	}
	checkOnly(t, filepath.Join(parent, "new"), 1)
}
