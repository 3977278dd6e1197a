package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// appendFiles describes the file at path, or what is in that directory. A file
// that took another's place differs in its inode number. Hidden ones are left
// alone, as they are when loading: files are made under such names.
func appendFiles(all []string, path string, depth int) []string {
	info, err := os.Stat(path)
	if err != nil {
		return append(all, path+" "+err.Error())
	}
	all = append(all, fmt.Sprintf("%s %v %d %d %d", path, info.Mode(), info.Size(), info.ModTime().UnixNano(), inode(info)))
	if !info.IsDir() || depth == 0 {
		return all
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return append(all, path+" "+err.Error())
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			all = appendFiles(all, filepath.Join(path, e.Name()), depth-1)
		}
	}
	return all
}

// How files are watched: by looking, which notices all ways to replace one,
// on all file systems.
const (
	watchEvery    = 500 * time.Millisecond
	watchShare    = 50 // looking takes at most a fiftieth of the time
	watchPatience = 6  // files that go on changing are read after so many looks
)

// watcher notices that files have changed, once they have stopped changing: a
// file that is half written, or one of several, is not for reading yet.
type watcher struct {
	snapshot func() []string
	timer    *time.Timer
	taken    []string // what was read last
	seen     []string // at the last look
	changing int      // looks at which it was not what was read last
}

// newWatcher watches what snapshot describes; read is how it was when it was read.
func newWatcher(snapshot func() []string, read []string) *watcher {
	w := &watcher{snapshot: snapshot, timer: time.NewTimer(watchEvery)}
	w.loaded(read)
	return w
}

// loaded is told that the files were read for another reason, when they were
// like that.
func (w *watcher) loaded(snapshot []string) {
	w.taken, w.seen, w.changing = snapshot, snapshot, 0
}

// look tells whether to read the files now.
func (w *watcher) look() bool {
	started := time.Now()
	now := w.snapshot()
	w.timer.Reset(max(watchEvery, watchShare*time.Since(started)))
	still := slices.Equal(now, w.seen)
	w.seen = now
	if slices.Equal(now, w.taken) {
		w.changing = 0
		return false
	}
	if w.changing++; !still && w.changing < watchPatience {
		return false
	}
	w.taken, w.changing = now, 0
	return true
}
