package main

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// fingerprint describes files as they were at a time.
type fingerprint [sha256.Size]byte

// addFiles describes the file at path, or what is in that directory, to so many
// levels. A file that took another's place differs in its inode number. Hidden
// ones are left out, as they are when loading: files are made under such names.
func addFiles(to hash.Hash, path string, depth int) {
	info, err := os.Stat(path)
	if err != nil {
		addText(to, path, err.Error())
		return
	}
	addText(to, path, "")
	addInfo(to, info)
	if !info.IsDir() || depth == 0 {
		return
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		addText(to, path, err.Error())
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			addFiles(to, filepath.Join(path, e.Name()), depth-1)
		}
	}
}

func addText(to hash.Hash, path, problem string) {
	to.Write([]byte(path + "\x00" + problem + "\x00"))
}

func addInfo(to hash.Hash, info fs.FileInfo) {
	var b [28]byte
	binary.BigEndian.PutUint32(b[0:], uint32(info.Mode()))
	binary.BigEndian.PutUint64(b[4:], uint64(info.Size()))
	binary.BigEndian.PutUint64(b[12:], uint64(info.ModTime().UnixNano()))
	binary.BigEndian.PutUint64(b[20:], inode(info))
	to.Write(b[:])
}

// How files are watched: by looking, which notices all ways to replace one, on
// all file systems.
const (
	watchEvery    = time.Second
	watchSettle   = 300 * time.Millisecond // the next look when something has changed
	watchShare    = 50                     // looking takes at most a fiftieth of the time
	watchPatience = 6                      // files that go on changing are read after so many looks
)

// watcher notices that files have changed, once they have stopped changing: a
// file that is half written, or one of several, is not for reading yet.
type watcher struct {
	snapshot func() fingerprint
	timer    *time.Timer
	taken    fingerprint // what was read last
	seen     fingerprint // at the last look
	changing int         // looks at which it was not what was read last
}

// newWatcher watches what snapshot describes; read is how it was when it was
// read.
func newWatcher(snapshot func() fingerprint, read fingerprint) *watcher {
	w := &watcher{snapshot: snapshot, timer: time.NewTimer(watchEvery)}
	w.loaded(read)
	return w
}

// loaded is told that the files were read for another reason, when they were
// like that.
func (w *watcher) loaded(read fingerprint) { w.taken, w.seen, w.changing = read, read, 0 }

// look tells whether to read the files now.
func (w *watcher) look() bool {
	started := time.Now()
	now := w.snapshot()
	next := watchEvery
	read := w.judge(now)
	if w.changing > 0 {
		next = watchSettle
	}
	w.timer.Reset(max(next, watchShare*time.Since(started)))
	return read
}

func (w *watcher) judge(now fingerprint) (read bool) {
	still := now == w.seen
	w.seen = now
	if now == w.taken {
		w.changing = 0
		return false
	}
	if w.changing++; !still && w.changing < watchPatience {
		return false
	}
	w.taken, w.changing = now, 0
	return true
}
