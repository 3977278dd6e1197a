package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"causeway/crypto/pki"
)

const (
	// derpQueueEnv sets how many packets a DERP server keeps for one client; what
	// comes when there are so many drops the oldest.
	derpQueueEnv     = "TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH"
	derpQueueDefault = 32

	peerTryEvery = 10 * time.Millisecond
)

// peerPrograms are the other servers.
type peerPrograms struct {
	nats, derper string // paths
	queue        int    // packets that the DERP server keeps for one client, at least
}

// versions says what the programs are, as their builds recorded it.
func (p *peerPrograms) versions(variants []string) (list []string, err error) {
	for _, v := range variants {
		path := map[string]string{variantNATS: p.nats, variantDERP: p.derper}[v]
		if path == "" {
			continue
		}
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("%w; make bench-peers builds it", err)
		}
		list = append(list, fmt.Sprintf("%s %s (%s)", info.Path, info.Main.Version, info.GoVersion))
	}
	return list, nil
}

// startPeer starts another server with the router's certificate on the core of
// what is measured, and waits until it listens. All is as the server has it by
// default, but for the port, the certificate, the DERP server's queues, and what
// it has beside DERP (STUN, plain HTTP).
func (m *machine) startPeer(ctx context.Context, w *world, variant string) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	cert, key := filepath.Join(w.router(0), pki.DirGrants, domainName+".crt"), filepath.Join(w.router(0), pki.FileKey)
	var p *process
	if variant == variantNATS {
		p = start(ctx, variant, m.core, m.peers.nats, "--addr", host, "--port", port, "--tls", "--tlscert", cert, "--tlskey", key)
	} else {
		dir := filepath.Join(w.dir, variant)
		if err := derpCertificate(dir, cert, key); err != nil {
			return nil, err
		}
		p = start(ctx, variant, m.core, m.peers.derper, "-a", addr, "-c", filepath.Join(dir, "derper.json"),
			"-certmode", "manual", "-certdir", dir, "-hostname", domainName, "-stun=false", "-http-port", "-1", "-home", "blank")
		p.cmd.Env = append(p.cmd.Env, derpQueueEnv+"="+strconv.Itoa(max(derpQueueDefault, m.peers.queue)))
	}
	if err := p.run(); err != nil {
		return nil, err
	}
	p.addr = addr
	return p, p.awaitConnect(ctx)
}

// derpCertificate puts certificate and key where the DERP server looks for them.
func derpCertificate(dir, cert, key string) error {
	if err := os.MkdirAll(dir, modeDir); err != nil {
		return err
	}
	for from, name := range map[string]string{cert: domainName + ".crt", key: domainName + ".key"} {
		text, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, modeSecret); err != nil {
			return err
		}
	}
	return nil
}

// freeAddr returns an address of loopback at which nobody listens.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", anyPort)
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// awaitConnect waits until the child takes connections.
func (p *process) awaitConnect(ctx context.Context) error {
	end := time.Now().Add(startMax)
	for {
		c, err := net.DialTimeout("tcp", p.addr, startMax)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			return p.failed(err)
		}
		select {
		case <-p.ended:
			return p.failed(p.exit)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(peerTryEvery):
		}
	}
}
