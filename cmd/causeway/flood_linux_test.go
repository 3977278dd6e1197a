package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// The load of TestFloodsKeepNobodyOut.
const (
	floodAttacks   = 6
	floodAttackers = 2000        // more than may wait for a handshake
	floodPause     = time.Second // of an attacker between two connections
	floodMemory    = 64 << 20    // bytes that the router may grow by
	floodFrames    = 20 * allocBatch
	floodPace      = 100 * time.Millisecond // of the node that goes on with its work
)

// floodConnect is how long a new node may take to connect. Two seconds are for
// machines with nothing else to do: the clients of the flood run on the same cores.
func floodConnect() time.Duration {
	if soaking() {
		return 2 * time.Second
	}
	return 15 * time.Second
}

// flood has many clients, of as many sources of 127/8 as asked for, connect, do
// their worst, and connect again when the router has closed, until stop.
func flood(t *testing.T, addr string, sources int, worst func(net.Conn)) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for n := range floodAttackers {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(n%sources>>8), byte(n%sources))}}
		all.Go(func() {
			pause := time.NewTicker(floodPause)
			defer pause.Stop()
			for ctx.Err() == nil {
				if c, err := dialer.DialContext(ctx, "tcp", addr); err == nil {
					end := context.AfterFunc(ctx, func() { c.Close() })
					worst(c)
					end()
					c.Close()
				}
				select {
				case <-pause.C:
				case <-ctx.Done():
				}
			}
		})
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// Whatever strangers do at the door, a node of ours gets in at once, messages
// go on, and memory stays.
func TestFloodsKeepNobodyOut(t *testing.T) {
	s := startStranger(t, "ed25519")
	dir := filepath.Dir(s.dir)
	limit, frames := floodConnect(), floodFrames
	if raceEnabled { // which makes signatures ten times dearer
		frames /= 10
	}
	issue := func(name string) string {
		runs(t, "pki", "issue", "--ca", filepath.Join(dir, s.domain, "ca"), "--name", name, "--out", filepath.Join(dir, name))
		return filepath.Join(dir, name)
	}
	newcomers := make([]string, floodAttacks)
	for i := range newcomers {
		newcomers[i] = issue(fmt.Sprint("newcomer-", i))
	}
	present := newEchoClient(t, s, issue("present"))
	present.exchange(t, frames)
	ended := goOn(t, present)
	const rss = "process_resident_memory_bytes"
	before := s.router.metrics()[rss]
	hello := clientHello(t, s.domain)
	hold := func(c net.Conn) { io.Copy(io.Discard, c) }
	attacks := [floodAttacks]struct {
		name    string
		sources int
		worst   func(net.Conn)
		reason  string
	}{
		{"half-open handshakes of few sources", 10, hold, "max-handshakes-per-source"},
		{"half-open handshakes of many sources", floodAttackers, hold, "displaced"},
		{"half a hello", floodAttackers, func(c net.Conn) { io.WriteString(c, "\x16\x03\x01\x02\x00\x01"); hold(c) }, "displaced"},
		{"a hello and nothing after it", floodAttackers, func(c net.Conn) { c.Write(hello); hold(c) }, "displaced"},
		{"garbage", 100, func(c net.Conn) { c.Write(make([]byte, 4096)); hold(c) }, "not-tls"},
		{"connections that close at once", 100, func(net.Conn) {}, "gone"},
	}
	for i, attack := range attacks {
		reason := fmt.Sprintf("causeway_handshakes_refused_total{reason=%q}", attack.reason)
		had := s.router.metrics()[reason]
		stop := flood(t, s.router.addr, attack.sources, attack.worst)
		waitUntil(t, attack.name+" to be felt", func() bool { return s.router.metrics()[reason] >= had+100 })
		begun := time.Now()
		c := newEchoClient(t, s, newcomers[i])
		took := time.Since(begun)
		c.exchange(t, frames)
		m := s.router.metrics()
		stop()
		t.Logf("%s: connected after %v, RSS %+.1f MB, refused for it %v", attack.name, took, (m[rss]-before)/1e6, m[reason]-had)
		if took > limit {
			t.Errorf("%s: a new node connects after %v, at most %v", attack.name, took, limit)
		}
		if grown := m[rss] - before; grown > floodMemory && !raceEnabled {
			t.Errorf("%s: the router has grown by %.0f bytes", attack.name, grown)
		}
		c.conn.Close()
	}
	ended()
	present.conn.Close()
	s.router.stop()
}

// clientHello returns the record with which a client of the domain begins.
func clientHello(t *testing.T, domain string) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	var ended sync.WaitGroup
	defer ended.Wait()
	defer theirs.Close()
	ended.Go(func() {
		defer ours.Close()
		_ = tls.Client(ours, &tls.Config{ServerName: domain, NextProtos: []string{"dbw/1"}}).Handshake()
	})
	record := make([]byte, 16<<10)
	n, err := theirs.Read(record)
	if err != nil {
		t.Fatal(err)
	}
	return record[:n]
}

// goOn has c exchange some frames again and again, which must all arrive, until
// it is told to end.
func goOn(t *testing.T, c *echoClient) (end func()) {
	stop := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		pace := time.NewTicker(floodPace)
		defer pace.Stop()
		for !t.Failed() {
			select {
			case <-pace.C:
				c.exchange(t, allocBatch)
			case <-stop:
				return
			}
		}
	})
	return func() {
		close(stop)
		ended.Wait()
	}
}
