package node

import (
	"context"
	"errors"
	"slices"
	"time"

	"causeway/codec"
)

const (
	backoffStable = 10 * time.Second // a connection that lasted so long resets the backoff
	drainDialMax  = 2 * time.Second  // to find another router while one drains (PROTOCOL.md section 5.3)
	drainPauseMax = time.Second      // of that, for the pause after a connection that did not last
)

// round tries each URL once. Its error is *ConnectError, or ctx's.
func (n *Node) round(ctx context.Context, urls []string) (*conn, error) {
	return n.roundBy(ctx, urls, func(int) time.Duration { return n.cfg.DialTimeout })
}

// roundSharing is round with little time for TCP and TLS: a router that does not
// answer leaves the others their share of it. A router that was sent a hello is
// waited for, since it may have accepted the node, and send it frames.
func (n *Node) roundSharing(ctx context.Context, urls []string, d time.Duration) (*conn, error) {
	by := time.Now().Add(d)
	return n.roundBy(ctx, urls, func(left int) time.Duration { return time.Until(by) / time.Duration(left) })
}

// roundBy is round; within returns the time for one attempt when so many are left.
func (n *Node) roundBy(ctx context.Context, urls []string, within func(left int) time.Duration) (*conn, error) {
	var failed ConnectError
	for i, url := range urls {
		c, err := n.dial(ctx, url, within(len(urls)-i))
		if err == nil {
			n.counters.connections.Add(1)
			n.cfg.Logger.Info("connected", "router", url, "name", c.link.router.Name, "address", codec.Address(c.link.router.Address).String())
			return c, nil
		}
		failed.Attempts = append(failed.Attempts, Attempt{url, err})
		if ctx.Err() != nil {
			return nil, &failed
		}
		n.counters.connectFailed.Add(1)
		n.out.failedAttempt(&failed)
		n.cfg.Logger.Warn("router not usable", "router", url, "error", err)
	}
	return nil, &failed
}

// connect goes round the list, and those that the last router has named, until one
// router has accepted the node, ctx ends, or no further attempt can help.
func (n *Node) connect(ctx context.Context, named []string) (*conn, error) {
	urls := usable(n.cfg.Routers, named)
	for {
		if end := n.self.Load().id.Peer.NotAfter; n.cfg.Now().After(end) {
			return nil, &ExpiredError{NotAfter: end, Now: n.cfg.Now()}
		}
		c, err := n.round(ctx, urls)
		if err == nil || isFinal(err) {
			return c, err
		}
		pause := time.NewTimer(n.backoff.next(n.rand))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, err
		}
	}
}

// isFinal reports whether no further attempt can help.
func isFinal(err error) bool {
	var expired *ExpiredError
	return errors.Is(err, ErrReplaced) || errors.As(err, &expired)
}

// use makes c the connection that messages go out by.
func (n *Node) use(c *conn) {
	n.out.attach(c)
	if err := c.checkRevoked(n.trust.Load(), n.cfg.Now()); err != nil { // a list has come since TLS; from attach on its taker sees c
		c.kill(err)
	} else {
		n.learn(c.link.router)
	}
	c.start()
	n.askCertificates(c)
	n.sessions.hurry(codec.Address{})
}

// run is the goroutine that owns the node's life. c is its first connection, in
// use; nil: it listens, and connects to a router meanwhile, or to nobody.
func (n *Node) run(c *conn) {
	if len(n.cfg.Routers) == 0 {
		<-n.ctx.Done()
		n.end(ErrClosed)
		return
	}
	for {
		var next *conn
		var named []string
		var err error
		if c != nil {
			next, named, err = n.attend(c)
		}
		if next == nil && err == nil {
			next, err = n.connect(n.ctx, named)
		}
		if next == nil {
			if n.ctx.Err() != nil {
				err = ErrClosed
			}
			n.end(err)
			return
		}
		c = next // also when Close came meanwhile: what is queued goes out by it
		n.use(c)
	}
}

// attend waits for the end of c. It returns the connection to go on with, or an
// error that ends the node, or neither: connect again, perhaps to one of those
// that the router has named.
func (n *Node) attend(c *conn) (next *conn, named []string, err error) {
	select {
	case <-c.ended:
	case goodbye := <-c.draining:
		if next, left := n.moveOn(c, goodbye); left {
			return next, goodbye.Routers, nil
		}
	case <-n.ctx.Done():
	}
	if n.ctx.Err() != nil {
		n.out.refuse(ErrClosed)
		c.finish(n.cfg.CloseTimeout, 0)
	}
	err = c.cause()
	unconfirmed := n.out.abandon(c, err)
	if n.ctx.Err() != nil {
		n.unconfirmed.Add(int64(unconfirmed))
		n.lossCause = err
		return nil, nil, ErrClosed
	}
	n.cfg.Logger.Warn("connection lost", "router", c.url, "error", err, "unconfirmed", unconfirmed)
	if time.Since(c.since) >= backoffStable {
		n.backoff.reset()
	}
	if isFinal(err) {
		return nil, nil, err
	}
	var goodbye *GoodbyeError
	if errors.As(err, &goodbye) && goodbye.Reason == codec.GoodbyeDraining {
		named = goodbye.Others
		if next, err := n.round(n.ctx, n.others(c, named)); err == nil {
			return next, nil, nil
		}
	}
	n.pauseOnce(n.ctx)
	return nil, named, nil
}

// pauseOnce waits a first backoff, so that nodes which lost a router together
// don't come back together.
func (n *Node) pauseOnce(ctx context.Context) {
	t := time.NewTimer(n.backoff.next(n.rand))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// moveOn answers a router that drains: first the next connection, then goodbye
// to the old one. If no other router answers in time, the old one is left all the
// same, and perhaps nil is returned. It is not left when the node is to close.
func (n *Node) moveOn(c *conn, goodbye *codec.Goodbye) (next *conn, left bool) {
	heard := time.Now()
	n.cfg.Logger.Info("router drains", "router", c.url, "reason", goodbye.Reason.String(), "text", goodbye.Text)
	if time.Since(c.since) < backoffStable { // routers that all drain are not to be tried in a tight loop
		ctx, cancel := context.WithTimeout(n.ctx, min(drainPauseMax, goodbye.ReadFor/2))
		n.pauseOnce(ctx)
		cancel()
	} else {
		n.backoff.reset()
	}
	by := heard.Add(min(drainDialMax, goodbye.ReadFor))
	dialled := make(chan *conn, 1)
	n.goroutines.Go(func() {
		next, _ := n.roundSharing(n.ctx, n.others(c, goodbye.Routers), time.Until(by))
		dialled <- next
	})
	over := time.NewTimer(time.Until(by))
	defer over.Stop()
	inTime := true
	select {
	case next = <-dialled:
	case <-over.C:
		inTime = false
	}
	if next == nil && n.ctx.Err() != nil && inTime {
		return nil, false
	}
	cause := &GoodbyeError{Reason: goodbye.Reason, Text: goodbye.Text, Others: goodbye.Routers}
	n.out.detach(c, cause)
	n.goroutines.Go(func() { n.retire(c, cause, heard.Add(min(goodbye.ReadFor, drainReadMax))) })
	if !inTime {
		next = <-dialled
	}
	if next == nil {
		n.pauseOnce(n.ctx)
	}
	return next, true
}

// retire ends a connection that is not in use any more, by the time its router
// has said, and reads it until then.
func (n *Node) retire(c *conn, cause error, by time.Time) {
	left := time.Until(by)
	c.finish(min(left, drainGoodbyeMax), left)
	unconfirmed := n.out.abandon(c, cause)
	if unconfirmed > 0 {
		n.cfg.Logger.Warn("the router that drained has not confirmed all", "router", c.url, "unconfirmed", unconfirmed)
	}
	if n.ctx.Err() != nil {
		n.unconfirmed.Add(int64(unconfirmed))
	}
}

// others returns the routers to use instead of c's: those it named, then the
// configured ones.
func (n *Node) others(c *conn, named []string) []string {
	return slices.DeleteFunc(usable(named, n.cfg.Routers), func(url string) bool { return url == c.url })
}

// usable returns what can be dialled of both lists, each once.
func usable(first, second []string) (urls []string) {
	for _, url := range slices.Concat(first, second) {
		if _, err := dialAddress(url); err == nil && !slices.Contains(urls, url) {
			urls = append(urls, url)
		}
	}
	return urls
}

// end fails all that waits. The node stays ended.
func (n *Node) end(err error) {
	n.err = err
	n.out.refuse(err)
	n.peers.end()
	n.peers.goroutines.Wait() // they are sent what waits for them, and answered
	n.unsent = n.out.discard()
	if n.lossCause == nil {
		n.lossCause = n.out.lastError()
	}
	n.tell()
	n.sessions.end()
	close(n.done)
	n.inbox.end(err)
	n.cancel()
	if !errors.Is(err, ErrClosed) {
		n.cfg.Logger.Error("node ended", "error", err)
	}
}
