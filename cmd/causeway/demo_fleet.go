package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

// The demonstration with several routers, step by step:
//
//  1. make two domains; all routers may route for the first, all but the last for
//     the second
//  2. start the routers in a row, each linked to the one before
//  3. links and routes, as the first router tells them
//  4. bob listens at the last router; alice, at the first, asks for the way to him,
//     and sends
//  5. in the second domain carol sends to dave; to bob she may not
//  6. leave the routers and bob up until SIGINT (not with --once)
const (
	demoSecondDomain = "lab.example"
	demoRoutersMax   = 9

	demoRetryEvery = 100 * time.Millisecond // while routes are not there yet
)

// demoFleet is one run of it.
type demoFleet struct {
	*demo
	count int        // of routers
	edges []demoEdge // once they run
}

// demoEdge is one of the routers.
type demoEdge struct{ name, url, admin string }

func (f *demoFleet) show() error {
	return f.shown(fmt.Sprintf("Two domains, %d routers in a row, four nodes", f.count),
		f.makeDomains, f.startRouters, f.listenFar, f.lookAtRoutes, f.traceAndSend, f.secondDomain)
}

func (f *demoFleet) routerName(i int) string { return fmt.Sprint("edge-", i+1) }

// serving returns how many routers, from the first, serve a domain.
func (f *demoFleet) serving(domain string) int {
	if domain == demoDomain {
		return f.count
	}
	return f.count - 1
}

func (f *demoFleet) makeDomains() error {
	for _, d := range []struct {
		domain string
		nodes  []string
	}{{demoDomain, []string{"alice", "bob"}}, {demoSecondDomain, []string{"carol", "dave"}}} {
		ca := f.path(d.domain, "ca")
		last := f.serving(d.domain)
		f.step(fmt.Sprintf("Make the domain %s: its authority, %d of the routers that may route for it, two nodes", d.domain, last))
		if err := f.verb("pki", "init", "--domain", d.domain, "--out", ca); err != nil {
			return err
		}
		for i := range last {
			name := f.routerName(i)
			if err := f.verb("pki", "grant", "--ca", ca, "--name", name, "--out", f.path(name)); err != nil {
				return err
			}
			if err := f.verb("pki", "trust", "--ca", ca, "--store", f.path(name+"-trust")); err != nil {
				return err
			}
		}
		for _, name := range d.nodes {
			if err := f.verb("pki", "issue", "--ca", ca, "--name", name, "--out", f.path(d.domain, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *demoFleet) startRouters() error {
	for i := range f.count {
		name := f.routerName(i)
		if i == 0 {
			f.step("Start the first router, on ports that are free")
		} else {
			f.step("Start " + name + ", which connects to " + f.edges[i-1].name)
		}
		if err := f.startEdge(i, name); err != nil {
			return err
		}
	}
	return nil
}

// startEdge starts a router that is linked to the one before it. Its file names
// no port; the command that is shown names those it has.
func (f *demoFleet) startEdge(i int, name string) error {
	connections := struct {
		Listen  []string `json:"listenTo"`
		Connect []string `json:"connectTo"`
	}{[]string{"dbw://" + demoAnyPort}, []string{}}
	if i > 0 {
		connections.Connect = append(connections.Connect, f.edges[i-1].url)
	}
	file := f.path(name + ".connections")
	write := func() ([]byte, error) {
		text, err := json.Marshal(connections)
		if err != nil {
			return nil, err
		}
		return text, os.WriteFile(file, append(text, '\n'), modePublic)
	}
	if _, err := write(); err != nil {
		return err
	}
	args := func(admin string) []string {
		return []string{"serve", "--identity", f.path(name), "--trust", f.path(name + "-trust"), "--connections", file, "--admin", admin}
	}
	p, listen, admin, err := f.serve(name, args(demoAnyPort)...)
	if err != nil {
		return err
	}
	f.edges = append(f.edges, demoEdge{name, "dbw://" + listen, admin})
	connections.Listen = []string{"dbw://" + listen}
	text, err := write() // the router says that listenTo needs a restart; it is where it says
	if err != nil {
		return err
	}
	fmt.Fprintf(f.out, "   $ cat %s\n", shellLine([]string{file}))
	f.printed(string(text))
	f.command(args(admin)...)
	f.printed(fmt.Sprintf("process %d listens on dbw://%s; metrics and health on http://%s; log in %s", p.pid(), listen, admin, p.logFile))
	return nil
}

// as returns the flags of a node at a router.
func (f *demoFleet) as(domain, name string, router int) []string {
	return []string{"--identity", f.path(domain, name), "--connect", f.edges[router].url}
}

func (f *demoFleet) listenFar() (err error) {
	last := f.edges[f.count-1]
	f.step("bob listens at " + last.name + ", the last router")
	f.node, err = f.startListener("bob", f.path(demoDomain, "bob"), last.url)
	if err != nil {
		return err
	}
	return f.reachable(demoDomain, "alice", "bob")
}

// reachable waits until routes lead from a node at the first router to another.
func (f *demoFleet) reachable(domain, from, to string) error {
	args := append([]string{"node", "ping", "--to", to, "--count", "1", "--timeout", "2s"}, f.as(domain, from, 0)...)
	for end := time.Now().Add(demoStep); ; {
		printed, err := f.output(args...)
		switch {
		case err == nil:
			return nil
		case f.ctx.Err() != nil:
			return f.ctx.Err()
		case time.Now().After(end):
			return fmt.Errorf("no route leads from %s to %s: %w: %s", from, to, err, lastLine(printed))
		}
		time.Sleep(demoRetryEvery)
	}
}

func (f *demoFleet) lookAtRoutes() error {
	first := f.edges[0]
	f.step("Links and routes, as " + first.name + " knows them")
	return errors.Join(
		f.process("peers", "--admin", first.admin),
		f.process("routes", "--admin", first.admin))
}

func (f *demoFleet) traceAndSend() error {
	alice := f.as(demoDomain, "alice", 0)
	f.step("alice, at " + f.edges[0].name + ", asks for the way to bob, and sends to him")
	if err := f.process(append(append([]string{"node", "trace"}, alice...), "bob")...); err != nil {
		return err
	}
	const body = "Hello bob, this is alice, from the other end."
	if err := f.process(append(append([]string{"node", "send"}, alice...), "--to", "bob", "--wait", body)...); err != nil {
		return err
	}
	line, err := f.node.line(f.ctx, body)
	if err == nil {
		fmt.Fprintln(f.out, "   bob has printed")
		f.printed(line)
	}
	return err
}

// secondDomain shows that the same routers carry another domain, and nothing from
// one to the other. The last router has no part in it.
func (f *demoFleet) secondDomain() error {
	far := f.edges[f.serving(demoSecondDomain)-1]
	f.step("In the other domain, " + demoSecondDomain + ", dave listens at " + far.name + " and carol sends")
	if _, err := f.startListener("dave", f.path(demoSecondDomain, "dave"), far.url); err != nil {
		return err
	}
	if err := f.reachable(demoSecondDomain, "carol", "dave"); err != nil {
		return err
	}
	carol := f.as(demoSecondDomain, "carol", 0)
	if err := f.process(append(append([]string{"node", "trace"}, carol...), "dave")...); err != nil {
		return err
	}
	if err := f.process(append(append([]string{"node", "send"}, carol...), "--to", "dave", "--wait", "Hello dave.")...); err != nil {
		return err
	}
	f.step("Nothing crosses from one domain to the other, though the routers are the same: carol sends to bob")
	bob, err := pki.LoadIdentity(os.DirFS(f.path(demoDomain, "bob")))
	if err != nil {
		return err
	}
	return f.processExits(exitNotice, append(append([]string{"node", "send"}, carol...), "--to", codec.Address(bob.Peer.Address).String(), "--wait", "Hello bob.")...)
}

func (f *demoFleet) stayUp() error {
	f.step("The routers, bob and dave stay up until Ctrl-C. In another terminal:")
	f.command(append(append([]string{"node", "send"}, f.as(demoDomain, "alice", 0)...), "--to", "bob", "--wait", "Is it you, bob?")...)
	return f.stay()
}
