package node

import (
	"errors"

	"causeway/codec"
)

// read is the connection's reader. It never waits for the application.
func (c *conn) read() {
	for {
		raw, err := c.reader.next()
		if err == nil {
			err = c.handle(raw)
		}
		if err == nil {
			continue
		}
		err = c.died(err)
		var protocol *ProtocolError
		if errors.As(err, &protocol) {
			c.n.counters.protocolErrors.Add(1)
			c.out.detach(c, err)
			reason, _ := goodbyeFor(err)
			c.sayGoodbye(reason, err.Error(), 0)
		}
		c.kill(err)
		return
	}
}

// handle takes one frame, borrowed. An error ends the connection.
func (c *conn) handle(raw codec.Raw) error {
	if raw.Category() != codec.CategoryControl {
		if err := c.checkDirect(raw); err != nil {
			return err
		}
		c.received.Add(1)
		return c.n.receive(c, raw)
	}
	m, err := c.link.control(raw)
	if err != nil {
		return err
	}
	if c.direct {
		return c.handleDirect(m)
	}
	switch m := m.(type) {
	case *codec.KeepAlive:
		return c.keepAlive(m)
	case *codec.Goodbye:
		return c.hearGoodbye(m)
	case *codec.Certificates:
		return c.n.certificates(c, m)
	case *codec.RevocationList:
		return c.revocationList(m)
	case *codec.Renewal:
		return c.renewal(m)
	case *codec.Names:
		c.n.names.answer(c, m)
		return nil
	}
	return &ProtocolError{What: "a node was sent a second hello, or a request for routers"}
}

func (c *conn) keepAlive(m *codec.KeepAlive) error {
	if err := c.confirm(m.Received); err != nil {
		return err
	}
	if m.Answer {
		c.out.mu.Lock()
		c.answerDue = true // many at once cost one answer
		c.wakeWriter()
		c.out.mu.Unlock()
	}
	return nil
}

// confirm applies the router's count (PROTOCOL.md section 5.2).
func (c *conn) confirm(received uint64) error {
	o := c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	first := c.pend.confirmed + 1
	done, ok := c.pend.confirm(received)
	if !ok {
		return &ProtocolError{What: "it confirmed frames that were never written, or took a confirmation back"}
	}
	for i, s := range done {
		if s.ofLocked(c, first+uint64(i)) {
			s.resolveLocked(sentConfirmed, nil)
			o.resends.settled(s, true)
		}
		done[i] = nil
	}
	c.n.counters.confirmed.Add(uint64(len(done)))
	c.wakeWriter()
	o.wakeLocked() // frames may wait for the fate of one that went out here
	signal(c.progress)
	return nil
}

// hearGoodbye ends the connection, or lets the node look for another router
// while this one still reads (PROTOCOL.md section 5.3).
func (c *conn) hearGoodbye(m *codec.Goodbye) error {
	if err := c.confirm(m.Received); err != nil {
		return err
	}
	c.out.mu.Lock()
	first := !c.heard && c.bye == nil
	c.heard = true
	c.out.leavingLocked(c)
	c.out.mu.Unlock()
	if !first || m.ReadFor == 0 || m.Reason == codec.GoodbyeReplaced {
		return &GoodbyeError{Reason: m.Reason, Text: m.Text, Others: m.Routers}
	}
	c.draining <- m
	return nil
}
