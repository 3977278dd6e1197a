package route_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"causeway/codec"
	"causeway/engine/route"
)

// TestNothingThatIsSaidBreaksAnInstance has neighbours say whatever is
// well-formed, in any order.
func TestNothingThatIsSaidBreaksAnInstance(t *testing.T) {
	for seed := range uint64(60) {
		if broken := harass(seed); broken != "" {
			t.Errorf("seed %d: %s", seed, broken)
		}
	}
}

func harass(seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 2))
	now := start
	i, err := route.New(route.Config{Self: router(0), MaxAddresses: 5, MaxRouters: 6, Random: bytes.NewReader(make([]byte, 8))}, now)
	if err != nil {
		return err.Error()
	}
	var links []route.LinkID
	var unsendable error
	try := func(actions route.Actions) {
		for _, m := range actions.Messages {
			if _, err := codec.AppendControl(nil, m.Body); err != nil {
				unsendable = err
			}
		}
	}
	last := route.LinkID(0)
	for range 600 {
		now = now.Add(time.Duration(r.IntN(3)) * time.Duration(r.Int64N(int64(20*time.Second))))
		switch what := r.IntN(20); {
		case what == 0 || len(links) == 0:
			last++
			actions, err := i.LinkUp(now, last, router(r.IntN(4)), uint16(1+r.IntN(20)))
			if err == nil {
				try(actions)
				links = append(links, last)
			} else if err != route.ErrLinks {
				return err.Error()
			}
		case what == 1:
			n := r.IntN(len(links))
			try(i.LinkDown(now, links[n]))
			links = append(links[:n], links[n+1:]...)
		case what == 2:
			actions, err := i.Attach(now, node(r.IntN(8)), r.Uint64N(10))
			if err != nil && err != route.ErrAddresses {
				return err.Error()
			}
			try(actions)
		case what == 3:
			try(i.Detach(now, node(r.IntN(8))))
		case what == 4:
			try(i.Answered(now, node(r.IntN(8))))
		case what < 7:
			try(i.Tick(now))
		default:
			n := r.IntN(len(links))
			actions, err := i.Receive(now, links[n], anyMessage(r, now))
			try(actions)
			if errors.Is(err, route.ErrParts) {
				try(i.LinkDown(now, links[n]))
				links = append(links[:n], links[n+1:]...)
			} else if err != nil {
				return err.Error()
			}
		}
		if unsendable != nil {
			return unsendable.Error()
		}
		if broken := i.Check(); broken != "" {
			return broken
		}
	}
	return ""
}

// anyMessage is well-formed: it goes through the codec.
func anyMessage(r *rand.Rand, now time.Time) codec.Control {
	source := codec.Source{Epoch: uint64(now.UnixNano()) + r.Uint64N(3), ID: codec.RouterID{byte(r.IntN(3))}}
	if r.IntN(20) == 0 {
		source.Epoch = r.Uint64()
	}
	var m codec.Control
	switch r.IntN(5) {
	case 0:
		u := &codec.RouteUpdate{Interval: time.Duration(1+r.IntN(200)) * time.Second}
		for range 1 + r.IntN(4) {
			metric := uint16(r.IntN(40))
			if r.IntN(3) == 0 {
				metric = codec.MetricInfinity - uint16(r.IntN(15))
			}
			u.Routes = append(u.Routes, codec.Route{Router: router(r.IntN(9)), Source: source, Seqno: uint16(r.IntN(3) * r.IntN(40000)), Metric: metric})
		}
		m = u
	case 1:
		m = &codec.SeqnoRequest{Wanted: []codec.SeqnoWanted{{Router: router(r.IntN(9)), Source: source, Seqno: uint16(r.IntN(5)), Hops: uint8(1 + r.IntN(3))}}}
	case 2:
		m = &codec.ListRequest{Router: router(r.IntN(9))}
	case 3:
		l := &codec.AddressList{Router: router(r.IntN(9)), Source: source, From: uint64(r.IntN(3)), Parts: 1}
		l.To = l.From + 1 + uint64(r.IntN(2))
		if l.From == 0 {
			l.Parts = 1 + uint16(r.IntN(3))
			l.Part = uint16(r.IntN(int(l.Parts)))
		}
		for range r.IntN(8) {
			l.Added = append(l.Added, attachedAt(r.IntN(9), r.Uint64N(12)))
			if l.From > 0 {
				l.Removed = append(l.Removed, node(r.IntN(9)))
			}
		}
		m = l
	case 4:
		m = &codec.ListNumbers{Lists: []codec.ListNumber{{Router: router(r.IntN(9)), Source: source, Number: 1 + r.Uint64N(5)}}}
	}
	body, err := codec.AppendControl(nil, m)
	if err != nil {
		panic(err)
	}
	m, err = codec.DecodeControl(body)
	if err != nil {
		panic(err)
	}
	return m
}
