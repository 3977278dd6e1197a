package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// row is what is under test of one variant: one process, or routers of which each
// has a link to the one before it. All have the same core.
type row []*process

const (
	routesMax   = 30 * time.Second // for routes to lead from end to end
	routesEvery = 20 * time.Millisecond
)

// startRow starts a variant. What it returns has been started, though it fails.
func (m *machine) startRow(ctx context.Context, w *world, variant string) (r row, err error) {
	_, routers := splitRow(variant)
	if routers == 1 {
		p, err := m.startVariant(ctx, w, variant)
		if p != nil {
			r = row{p}
		}
		return r, err
	}
	for place := range routers {
		args := m.serveArgs(w, place, verifyOf(variant))
		if place > 0 {
			args = append(args, "--connect", "dbw://"+r[place-1].addr)
		}
		p, err := m.startServer(ctx, routerName(place), m.router, args...)
		if p != nil {
			r = append(r, p)
		}
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

// await waits until all have ended.
func (r row) await() {
	for _, p := range r {
		<-p.ended
	}
}

// stop asks all to end, at the same time: a router gives its neighbours some.
func (r row) stop() (err error) {
	ends := make(chan error)
	for _, p := range r {
		go func() { ends <- p.stop() }()
	}
	for range r {
		err = errors.Join(err, <-ends)
	}
	return err
}

// failed adds to err what the processes have said last.
func (r row) failed(err error) error {
	for _, p := range r {
		err = errors.Join(err, p.failed(errors.New("was under test")))
	}
	return err
}

// tables returns how many of so many signers have a table at each router that checks
// their frames, at least; and whether there will be no more at one of them.
func (r row) tables(variant string, signers int) (n int, full bool, err error) {
	if verifyOf(variant) == variantEdge {
		r = r[:1]
	}
	n = signers // other routers have tables, too
	for _, p := range r {
		m, err := p.metrics()
		if err != nil {
			return 0, false, p.failed(err)
		}
		n = min(n, int(m["causeway_verify_tables"]))
		full = full || m["causeway_verify_tables_evicted_total"] > 0 || m[`causeway_verify_path{path="stdlib"}`] > 0
	}
	return n, full, nil
}

// routes is what a router says at /debug/routes.
type routes struct {
	Routes []struct {
		Address string
		Nodes   int
	}
}

// awaitRoutes waits until each router of a row knows all others, and who is connected
// to them.
func (r row) awaitRoutes(ctx context.Context, w *world, s shape) error {
	if len(r) == 1 {
		return nil
	}
	nodes := make(map[string]int) // by router
	for place := range r {
		nodes[w.routers[place].String()] = 0
	}
	nodes[w.routers[0].String()], nodes[w.routers[len(r)-1].String()] = s.senders, s.receivers
	for end := time.Now().Add(routesMax); ; {
		all := true
		for _, p := range r {
			known, err := p.routes(ctx)
			if err != nil {
				return p.failed(err)
			}
			all = all && known.lead(nodes)
		}
		switch {
		case all:
			return nil
		case time.Now().After(end):
			return r.failed(errors.New("no routes lead from the senders to the receivers"))
		}
		if err := sleep(ctx, routesEvery); err != nil {
			return err
		}
	}
}

// lead tells whether routes lead to all the routers given, with so many nodes each.
func (known *routes) lead(nodes map[string]int) bool {
	found := 0
	for _, k := range known.Routes {
		if n, there := nodes[k.Address]; there && n == k.Nodes {
			found++
		}
	}
	return found == len(nodes)
}

func (p *process) routes(ctx context.Context) (*routes, error) {
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+"/debug/routes", nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Timeout: startMax, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(ask)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body)
		return nil, fmt.Errorf("routes: %s: %s", res.Status, text)
	}
	known := &routes{}
	return known, json.NewDecoder(res.Body).Decode(known)
}
