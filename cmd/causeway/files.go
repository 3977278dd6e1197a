package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
)

// How files are written here: whole into a temporary file beside the place,
// then given its name in one step. A file is there as a whole or not at all,
// and only replaceFile ever takes the place of another.
const (
	modeSecret = fs.FileMode(0o600)
	modePublic = fs.FileMode(0o644)
	modeDir    = fs.FileMode(0o700)
)

// existsError is a file that is in the way.
func existsError(path, remedy string) error {
	return fmt.Errorf("%s is already there, and nothing is overwritten; %s", path, remedy)
}

// absent returns nil when there is nothing at path, else an existsError.
func absent(path, remedy string) error {
	_, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return existsError(path, remedy)
}

// writeTemp writes a hidden temporary file into dir and returns its path.
func writeTemp(dir string, data []byte, mode fs.FileMode) (path string, err error) {
	f, err := os.CreateTemp(dir, ".causeway-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// writeNew makes a file that was not there.
func writeNew(path string, data []byte, mode fs.FileMode, remedy string) error {
	temp, err := writeTemp(filepath.Dir(path), data, mode)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	err = os.Link(temp, path) // unlike Rename, it fails when path is there
	if errors.Is(err, fs.ErrExist) {
		return existsError(path, remedy)
	}
	return err
}

// replaceFile makes a file or takes the place of one.
func replaceFile(path string, data []byte, mode fs.FileMode) error {
	temp, err := writeTemp(filepath.Dir(path), data, mode)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		os.Remove(temp)
		return err
	}
	return nil
}

// newFile is a file of a directory that is being made.
type newFile struct {
	data []byte
	mode fs.FileMode
}

// writeNewDir makes a directory with the files, whose names may have one
// directory in front. The directory must not exist, or be empty.
func writeNewDir(dir string, files map[string]newFile, remedy string) error {
	dir = filepath.Clean(dir)
	if err := vacant(dir, remedy); err != nil {
		return err
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(parent, ".causeway-*") // of mode 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		path := filepath.Join(temp, name)
		if err := os.MkdirAll(filepath.Dir(path), modeDir); err != nil {
			return err
		}
		if files[name].data == nil {
			err = os.Mkdir(path, modeDir)
		} else {
			err = writeNew(path, files[name].data, files[name].mode, remedy)
		}
		if err != nil {
			return err
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // empty a moment ago; os.Rename does not replace directories
	}
	err = os.Rename(temp, dir)
	if errors.Is(err, fs.ErrExist) {
		return existsError(dir, remedy)
	}
	return err
}

// vacant returns nil when dir does not exist or is empty.
func vacant(dir, remedy string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s is not empty, and nothing is overwritten; %s", dir, remedy)
	}
	return nil
}

// sameFile reports whether two paths lead to one file or directory.
func sameFile(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// fileExists reports whether there is something at path.
func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
