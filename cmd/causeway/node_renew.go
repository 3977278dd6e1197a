package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"os"

	"causeway/crypto/pki"
	"causeway/engine/node"
)

// snapshot describes the identity's files as they are now.
func (f *nodeFlags) snapshot() fingerprint {
	h := sha256.New()
	addFiles(h, f.identity, 1)
	return fingerprint(h.Sum(nil))
}

// keepRenewed has the node take what is new in its identity directory, until
// ctx ends. What can't be taken is told once, and the node goes on as it is.
func (f *nodeFlags) keepRenewed(ctx context.Context, n *node.Node, log *slog.Logger) {
	w := newWatcher(f.snapshot, f.read)
	defer w.timer.Stop()
	again := false // it came too soon after another
	failed := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.Done():
			return
		case <-w.timer.C:
		}
		if !w.look() && !again {
			continue
		}
		err := f.renew(n)
		again = errors.Is(err, node.ErrRenewedTooOften)
		switch {
		case err == nil:
			failed = ""
		case !again && err.Error() != failed:
			failed = err.Error()
			log.Warn("the identity's files have changed and can't be used; going on with what they were", "error", err)
		}
	}
}

func (f *nodeFlags) renew(n *node.Node) error {
	id, err := pki.LoadIdentity(os.DirFS(f.identity))
	if err != nil {
		return pki.WithDir(err, f.identity)
	}
	return n.Renew(id)
}
