package main

import (
	"context"
	"crypto/sha256"
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
	listen []string // as started, or told last
	found  []string // as load has found it
	alarms []string // that are known; those that are over are forgotten
	failed string   // the failure told last; empty when the last reload did not fail
}

// run reloads at every signal on hup, and when a file has changed, until ctx
// ends.
func (r *reloader) run(ctx context.Context, hup <-chan os.Signal) {
	w := newWatcher(r.flags.snapshot, r.flags.read)
	defer w.timer.Stop()
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
			r.tellAlarms() // time makes them, too
		}
	}
}

func (r *reloader) reload() {
	_, err := r.router.Reload(r.load)
	switch {
	case err == nil:
		r.failed = ""
		r.tellListen()
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
	if err := f.admission(); err != nil {
		return c, err
	}
	var err error
	if r.found, err = f.whereToListen(); err != nil {
		return c, err
	}
	if before != f.snapshot() {
		return c, errChanging
	}
	return f.engine, nil
}

// tellListen tells of places to listen that need a restart.
func (r *reloader) tellListen() {
	if !slices.Equal(r.found, r.listen) {
		r.log.Warn("changed", "key", "listenTo", "from", strings.Join(r.listen, " "), "to", strings.Join(r.found, " "), "needs_restart", true)
		r.listen = r.found
	}
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
func (f *serveFlags) snapshot() fingerprint {
	h := sha256.New()
	addFiles(h, f.identity, 2)
	addFiles(h, f.trust, 2)
	if name := f.connectionsFile(); name != "" {
		addFiles(h, name, 0)
	}
	if f.firewall != "" {
		addFiles(h, f.firewall, 0)
	}
	return fingerprint(h.Sum(nil))
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
