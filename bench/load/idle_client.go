package main

import (
	"errors"
	"fmt"
)

// idleRequest has every node connect to a router and say hello, from local
// addresses in turn: a port leads to one server only so many times.
type idleRequest struct {
	Addr    string
	Sources []string
}

// carryRequest has every idle connection carry one frame to itself.
type carryRequest struct{ Size int }

func (c *client) connectIdle(r *idleRequest) error {
	for i, m := range c.members {
		conn, err := dial(r.Addr, r.Sources[i%len(r.Sources)], m, c.roots)
		if err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
		c.idle = append(c.idle, conn)
		if err := conn.hello(c.setup.Router); err != nil {
			return fmt.Errorf("connection %d: hello: %w", i+1, err)
		}
	}
	return nil
}

func (c *client) carry(r *carryRequest, a *answer) error {
	body := make([]byte, r.Size)
	for i, conn := range c.idle {
		if err := conn.sendFrame(conn.who.address, category, body); err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
		f, err := conn.readFrame()
		if err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
		if f.Category() != category || f.Sender() != conn.who.address || len(f.Body()) != r.Size {
			return errors.New("not the frame that was sent: " + describe(f))
		}
		if !conn.who.key.Verify(f.Signed(), f.Signature()) {
			return fmt.Errorf("connection %d: its frame came back harmed", i+1)
		}
		a.Carried++
	}
	return nil
}
