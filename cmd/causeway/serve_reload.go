package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"causeway/crypto/pki"
	"causeway/engine"
)

// reloader brings a running router up to date with its files.
type reloader struct {
	flags  *serveFlags
	router *engine.Router
	log    *slog.Logger
	listen []string // as started
	alarms []string // told last
	failed string   // the failure told last; empty when the last reload did not fail
}

// run reloads at every signal on hup, and when a file has changed, until ctx
// ends.
func (r *reloader) run(ctx context.Context, hup <-chan os.Signal) {
	w := &watcher{snapshot: r.flags.snapshot, timer: time.NewTimer(watchEvery)}
	w.loaded(r.flags.read)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			r.log.Info("reloading", "cause", "SIGHUP")
			r.failed = "" // who asks is told, even what was told before
			before := r.flags.snapshot()
			r.reload()
			w.loaded(before)
		case <-w.timer.C:
			if w.look() {
				r.reload()
			}
		}
	}
}

func (r *reloader) reload() {
	_, err := r.router.Reload(r.load)
	switch {
	case err == nil:
		r.failed = ""
		r.tellAlarms()
	case err.Error() != r.failed: // a file that is being written may fail many times
		r.failed = err.Error()
		r.log.Error("reload failed; everything stays as it was", "error", err)
	}
}

// load reads what there is on disk.
func (r *reloader) load(c engine.Config) (engine.Config, error) {
	f := *r.flags
	f.engine = c
	before := f.snapshot()
	if err := f.loadFiles(c.Store); err != nil {
		return c, err
	}
	listen, err := f.whereToListen()
	if err != nil {
		return c, err
	}
	if !slices.Equal(before, f.snapshot()) {
		return c, errChanging
	}
	if !slices.Equal(listen, r.listen) {
		r.log.Warn("changed", "key", "listenTo", "from", strings.Join(r.listen, " "), "to", strings.Join(listen, " "), "needs_restart", true)
		r.listen = listen
	}
	return f.engine, nil
}

var errChanging = errors.New("files were being changed while they were read; they are read again when that is over")

// tellAlarms logs what is newly wrong with the trust store.
func (r *reloader) tellAlarms() {
	var now []string
	for _, a := range r.router.Alarms(time.Now()) {
		now = append(now, a.String())
		if !slices.Contains(r.alarms, a.String()) {
			r.log.Warn("trust store", "domain", a.Domain, "alarm", a.String())
		}
	}
	r.alarms = now
}

// snapshot describes all files that a reload reads, as they are now.
func (f *serveFlags) snapshot() (all []string) {
	all = appendFiles(all, f.identity, 2)
	all = appendFiles(all, f.trust, 2)
	if name := f.connectionsFile(); name != "" {
		all = appendFiles(all, name, 0)
	}
	return all
}

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

// loadFiles reads identity and trust store into the engine's configuration.
// after is the store in force, if any.
func (f *serveFlags) loadFiles(after *pki.Store) (err error) {
	c := &f.engine
	if c.Identity, err = pki.LoadIdentity(os.DirFS(f.identity)); err != nil {
		return pki.WithDir(err, f.identity)
	}
	if len(c.Identity.Grants) == 0 {
		return fmt.Errorf("%s has no grant, so this router may route for no domain; have the domain's authority run:\n  causeway pki grant --ca CA --csr %s --out %s",
			f.identity, filepath.Join(f.identity, pki.FileCSR), filepath.Join(f.identity, pki.DirGrants, "DOMAIN.crt"))
	}
	if c.Store, err = pki.LoadStoreAfter(os.DirFS(f.trust), after); err != nil {
		return pki.WithDir(err, f.trust)
	}
	return nil
}
