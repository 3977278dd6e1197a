//go:build unix

package node

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// lockPIDMax bounds what is read of a lock file, in bytes.
const lockPIDMax = 32

// lock is a file locked for this process. The file stays when it is released:
// removing it would let two processes lock two files of one name.
type lock struct{ file *os.File }

// takeLock locks the file, which it makes when there is none, and writes the
// process's number into it. It fails with a *LockError when another has it.
func takeLock(path string) (*lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &ConfigError{
			Field: "LockFile", Problem: err.Error(),
			Remedy: "name a file in a directory that this user may write to",
		}
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &LockError{Path: path, PID: readPID(f)}
		}
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	// The number is for people; the lock holds without it.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &lock{f}, nil
}

func readPID(f *os.File) int {
	var b [lockPIDMax]byte
	n, _ := f.ReadAt(b[:], 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return 0
	}
	return pid
}

// release is nil-safe, like a lock that nobody asked for.
func (l *lock) release() {
	if l != nil {
		_ = l.file.Truncate(0)
		_ = l.file.Close()
	}
}
