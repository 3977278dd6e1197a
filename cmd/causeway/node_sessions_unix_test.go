//go:build unix

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// At no moment the socket is there with a mode that lets others in, though the umask
// would, nor is there another way to it.
func TestSocketOfANodeIsNeverOpenToOthers(t *testing.T) {
	umask := syscall.Umask(0)
	defer syscall.Umask(umask)
	for _, identity := range []string{t.TempDir(), filepath.Join(t.TempDir(), strings.Repeat("long", 40))} {
		if err := os.MkdirAll(identity, 0o755); err != nil {
			t.Fatal(err)
		}
		dir, socket := filepath.Join(identity, nodeSocketDir), filepath.Join(identity, nodeSocketFile)
		var looking sync.WaitGroup
		var stop atomic.Bool
		look := func(path string, most fs.FileMode) {
			for !stop.Load() {
				i, err := os.Lstat(path)
				if err == nil && i.Mode().Perm()&^most != 0 {
					t.Errorf("%s has mode %v", path, i.Mode())
					return
				}
			}
		}
		looking.Go(func() { look(socket, 0o600) })
		looking.Go(func() { look(dir, 0o700) })
		for range 300 {
			l, err := listenAlone(identity)
			if err != nil {
				t.Fatal(err)
			}
			l.Close() // and leaves the socket, as a process that is killed does
		}
		if err := os.MkdirAll(filepath.Join(dir, nodeSocketFile), 0o700); err != nil { // or killed in the middle of it
			t.Fatal(err)
		}
		l, err := listenAlone(identity)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			answerAll(l, func() nodeSessions { return nodeSessions{Name: "bob"} })
		}()
		if got, err := askSessions(identity); err != nil || got.Name != "bob" {
			t.Errorf("answered %+v, %v", got, err)
		}
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", dir, err)
		}
		stop.Store(true)
		looking.Wait()
		l.Close()
		<-ended
	}
}
