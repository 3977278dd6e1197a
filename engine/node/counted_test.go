package node

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"causeway/codec"
)

// counts tells the node of frames to a recipient without listing them.
func (s *routerConn) counts(reason codec.NoticeReason, recipient codec.Address, more, first, last uint64) {
	body := must(codec.AppendNotice(nil, &codec.Notice{Reason: reason, Recipient: recipient, More: more, First: first, Last: last}))
	s.give(s.frame(s.node.Address, codec.CategoryNotice, body))
	synctest.Wait()
}

// noticed checks which of the messages have a notice.
func noticed(t *testing.T, all []*Sent, want ...int) {
	t.Helper()
	var got []int
	for i, s := range all {
		if s.noticed() != nil {
			got = append(got, i)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("noticed are %v, want %v", got, want)
	}
}

func TestCountOnlyNotices(t *testing.T) {
	inWorld(t, func(w *world) {
		notices := make(chan *NoticeError, 10)
		n, s := w.scripted("a", func(c *Config) { c.OnNotice = func(e *NoticeError) { notices <- e } })
		to, other := w.d.node("b").Peer.Address, w.d.node("c").Peer.Address
		var all, others []*Sent
		for i := range 10 {
			all = append(all, w.send(n, to, fmt.Sprint(i)))
			others = append(others, w.send(n, other, "other"))
		}
		go s.awaitEnd()
		synctest.Wait()
		count := func(more uint64, first, last int) { // by place in all
			s.counts(codec.NoticeUnconfirmed, to, more, all[first].SendTime, all[last].SendTime)
		}
		told := func(more, ambiguous uint64) {
			t.Helper()
			synctest.Wait()
			if len(notices) != 1 {
				t.Fatalf("OnNotice was called %d times", len(notices))
			}
			if e := <-notices; e.More != more || e.Ambiguous != ambiguous || e.Reason != codec.NoticeUnconfirmed || e.Recipient != to {
				t.Errorf("%+v", e)
			}
		}
		count(2, 3, 4) // exactly these
		noticed(t, all, 3, 4)
		told(2, 0)
		count(2, 2, 5) // the two between have their outcome
		noticed(t, all, 2, 3, 4, 5)
		told(2, 0)
		count(2, 6, 9) // of four, nobody knows which
		noticed(t, all, 2, 3, 4, 5)
		told(2, 2)
		if st := n.Stats(); st.NoticesAmbiguous != 2 || st.NoticesIgnored != 0 {
			t.Errorf("%+v", st)
		}
		count(7, 5, 8) // more than this node remembers
		noticed(t, all, 2, 3, 4, 5, 6, 7, 8)
		told(7, 0)
		if st := n.Stats(); st.NoticesAmbiguous != 2 || st.NoticesIgnored != 4 {
			t.Errorf("%+v", st)
		}
		noticed(t, others)
		e := checkError[*NoticeError](t, all[3].Confirmed(w.ctx()), "perhaps")
		if e.Reason != codec.NoticeUnconfirmed {
			t.Errorf("%v", e)
		}
	})
}

// What the recipient has seen is not meant, nor what was not written yet; this
// node's replies to echoes may be.
func TestCountsAreMatchedWithAllThatCanBeMeant(t *testing.T) {
	inWorld(t, func(w *world) {
		n, s := w.scripted("a")
		b := w.member("b")
		w.introduce(n, s, b)
		var all []*Sent
		for i := range 3 {
			all = append(all, w.send(n, b.address(), fmt.Sprint(i)))
		}
		echo := &codec.Echo{Type: codec.EchoRequest, ID: [codec.EchoIDSize]byte{1}}
		s.give(b.frame(n.Address(), codec.CategoryEcho, must(codec.AppendEcho(nil, echo))))
		go func() {
			for {
				f, err := s.next()
				if err != nil {
					return
				}
				if f.Category() != codec.CategoryEcho {
					continue
				}
				m := must(codec.DecodeEcho(f.Body()))
				if m.Type == codec.EchoReceiptRequest {
					m.Type, m.Seen = codec.EchoReceipt, true
					_ = s.write(b.frame(n.Address(), codec.CategoryEcho, must(codec.AppendEcho(nil, m))))
				}
			}
		}()
		synctest.Wait()
		end := uint64(time.Now().Add(time.Second).UnixNano())
		s.counts(codec.NoticeUnconfirmed, b.address(), 3, all[0].SendTime, end) // of three messages and a reply
		noticed(t, all)
		if err := all[1].Seen(w.ctx()); err != nil {
			t.Fatal(err)
		}
		s.counts(codec.NoticeUnconfirmed, b.address(), 2, all[0].SendTime, all[2].SendTime)
		noticed(t, all, 0, 2)
		s.raw.(*pipeEnd).in.block(true)
		body := string(make([]byte, 100<<10))
		var queued []*Sent
		for range 10 {
			queued = append(queued, w.send(n, b.address(), body))
		}
		synctest.Wait()
		s.counts(codec.NoticeUnconfirmed, b.address(), 10, queued[0].SendTime, queued[9].SendTime)
		if queued[0].noticed() == nil || queued[9].noticed() != nil {
			t.Error("what was not written is noticed, or what was is not")
		}
	})
}

// While the node moves, counted frames go again like listed ones.
func TestCountedFramesGoAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		n, _, s := w.moved()
		to := w.d.node("b").Peer.Address
		var all []*Sent
		for i := range 20 {
			all = append(all, w.send(n, to, fmt.Sprint(i)))
		}
		for range 20 {
			must(s.next())
		}
		s.counts(codec.NoticeNoRoute, to, 18, all[2].SendTime, all[19].SendTime)
		if st := n.Stats(); st.WaitingResend != 18 {
			t.Errorf("%+v", st)
		}
		done := s.deciding(func(codec.Raw) codec.NoticeReason { return 0 })
		for _, one := range all {
			if err := one.Confirmed(w.ctx()); err != nil {
				t.Error(err)
			}
		}
		n.Close()
		if got := bodies(<-done); len(got) != 18 || got[0] != "2" || got[17] != "19" {
			t.Errorf("%q went again", got)
		}
	})
}
