package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"causeway/codec"
)

func TestCloseSendsWhatWaitsAndSaysGoodbye(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		to := w.d.node("b").Peer.Address
		const count = 100
		var sent []*Sent
		for range count {
			sent = append(sent, w.send(n, to, "x"))
		}
		closed := make(chan error, 1)
		go func() { closed <- n.Close() }()
		for {
			f := must(s.next())
			if f.Category() != codec.CategoryControl {
				continue
			}
			m := must(codec.DecodeControl(f.Body()))
			if k, ok := m.(*codec.KeepAlive); ok && k.Answer {
				must(0, s.control(&codec.KeepAlive{Received: s.received.Load()}))
			}
			if g, ok := m.(*codec.Goodbye); ok {
				if s.received.Load() != count || g.Reason != codec.GoodbyeDone {
					t.Errorf("goodbye %+v after %d frames", g, s.received.Load())
				}
				break
			}
		}
		if _, err := s.next(); err == nil {
			t.Error("something came after goodbye")
		}
		s.raw.Close()
		if err := <-closed; err != nil {
			t.Errorf("Close: %v", err)
		}
		for _, m := range sent {
			if err := m.Confirmed(w.ctx()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := n.Send(w.ctx(), to, app, nil); err != ErrClosed {
			t.Errorf("Send: %v", err)
		}
		if err := n.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})
}

func TestCloseTellsWhatIsLeftOver(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		to := w.d.node("b").Peer.Address
		s.raw.(*pipeEnd).in.block(true)
		body := string(make([]byte, 100<<10))
		var sent []*Sent
		for range 10 {
			sent = append(sent, w.send(n, to, body))
		}
		start := time.Now()
		e := checkError[*CloseError](t, n.Close(), "not sent", "not confirmed")
		if took := time.Since(start); took > 8*time.Second {
			t.Errorf("Close took %v", took)
		}
		if e.Unsent+e.Unconfirmed != len(sent) || e.Unsent == 0 || e.Unconfirmed == 0 {
			t.Errorf("%+v of %d", e, len(sent))
		}
		checkError[*UnconfirmedError](t, sent[0].Confirmed(w.ctx()))
		checkError[*UnsentError](t, sent[len(sent)-1].Confirmed(w.ctx()), "closed")
		checkError[*UnsentError](t, sent[len(sent)-1].Seen(w.ctx()))
	})
}

func TestCloseWhileNotConnected(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		w.net.unlisten(routerHost)
		s.raw.Close()
		synctest.Wait()
		sends := make(chan error, 1)
		go func() {
			_, err := n.Send(context.Background(), n.Address(), app, nil)
			sends <- err
		}()
		synctest.Wait()
		if err := n.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-sends; err != ErrClosed {
			t.Errorf("Send: %v", err)
		}
		if _, err := n.Lookup(w.ctx(), "x"); err != ErrClosed {
			t.Errorf("Lookup: %v", err)
		}
	})
}
