package main

import (
	"fmt"
	"time"
)

// newcomerRequest has a node that was never there connect to a router and say
// hello, from an address of its own, again until it has succeeded. The answer
// has the time.
type newcomerRequest struct {
	Addr     string
	Member   int
	Patience time.Duration
}

// newcomerAgain is a newcomer's pause after a connection that came to nothing.
const newcomerAgain = 50 * time.Millisecond

func (c *client) newcomer(r *newcomerRequest, a *answer) error {
	m := c.members[r.Member]
	from := fmt.Sprintf("127.200.%d.%d", byte(r.Member>>8), byte(r.Member))
	begun := time.Now()
	for {
		conn, err := dial(r.Addr, from, m, c.roots)
		if err == nil {
			err = conn.hello(c.setup.Router)
			conn.close()
		}
		took := time.Since(begun)
		if err == nil {
			a.Lone = []time.Duration{took}
			return nil
		}
		println(time.Now().Format(time.TimeOnly), took.String(), err.Error())
		if a.Failed++; took > r.Patience {
			return fmt.Errorf("a node is not served in %v: %w", took, err)
		}
		time.Sleep(newcomerAgain)
	}
}
