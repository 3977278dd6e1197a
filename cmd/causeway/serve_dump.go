package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"causeway/engine"
	"causeway/engine/admin"
)

// dumpToLog is the --dump-dir that means the log.
const dumpToLog = "log"

// aboutDump is how a router's dump begins.
func aboutDump() string { return fmt.Sprintf("causeway %s, process %d", version, os.Getpid()) }

// dumper writes what the router is doing when SIGUSR1 comes.
type dumper struct {
	router  *engine.Router
	metrics *admin.Metrics
	dir     string // or dumpToLog
	log     *slog.Logger
}

// watch starts to listen for SIGUSR1; the function it returns ends that and
// waits for a dump that is being written.
func (d *dumper) watch() (stop func()) {
	signals := make(chan os.Signal, 1) // signals that come together make one dump
	signal.Notify(signals, syscall.SIGUSR1)
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() {
		for {
			select {
			case <-signals:
				d.dump(ctx)
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		signal.Stop(signals)
		cancel()
		ended.Wait()
	}
}

func (d *dumper) peers(ctx context.Context) any  { return d.router.Peers(ctx) }
func (d *dumper) routes(ctx context.Context) any { return d.router.Routes(ctx) }

// dump writes one file; when that fails, or is not wanted, the log has it.
func (d *dumper) dump(ctx context.Context) {
	if d.dir != dumpToLog {
		write := admin.Dump{About: aboutDump(), Metrics: d.metrics, Peers: d.peers, Routes: d.routes}.Write
		name, err := writeDumpFile(d.dir, func(w io.Writer) error { return write(ctx, w) })
		if err == nil {
			d.log.Info("dump written", "file", name)
			return
		}
		d.log.Error("can't write a dump; it follows in the log; choose another directory with --dump-dir", "error", err)
	}
	peers := d.router.Peers(ctx)
	for _, p := range peers.Peers {
		d.log.Info("peer", "peer", p)
	}
	var metrics bytes.Buffer
	if err := d.metrics.Write(&metrics); err != nil {
		d.log.Error("metrics", "error", err)
	}
	d.log.Info("dump", "peers", len(peers.Peers), "silent_loops", peers.Silent, "metrics", metrics.String())
}
