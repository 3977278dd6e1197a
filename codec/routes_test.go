package codec

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	hexRouter   = "50 fde14b0f202000011011121314151617"
	hexNode     = "50 fde14b0f202000002021222324252627"
	hexStranger = "50 fde14b0f202100011011121314151617"
	hexRouterB  = "50 fde14b0f202000013031323334353637"
)

var (
	someRouter = Address{0: 0xfd, 7: 1, 15: 1}
	someNode   = Address{0: 0xfd, 15: 2}
)

func TestRouteUpdateBounds(t *testing.T) {
	update := func(interval time.Duration, routes ...Route) *RouteUpdate { return &RouteUpdate{interval, routes} }
	route := Route{someRouter, Source{Epoch: 1<<64 - 1}, 65535, 65535}
	stranger, node := route, route
	stranger.Router[1] = 1
	node.Router = someNode
	checkBounds(t, "1 s", update(time.Second, route), nil)
	checkBounds(t, "1 hour", update(time.Hour, route), nil)
	checkBounds(t, "below 1 s", update(time.Second-1, route), ErrControlValue)
	checkBounds(t, "above 1 hour", update(time.Hour+1, route), ErrControlValue)
	checkBounds(t, "none", update(time.Second), ErrControlValue)
	checkBounds(t, "1024 routes", update(time.Second, slices.Repeat([]Route{route}, 1024)...), nil)
	checkBounds(t, "1025 routes", update(time.Second, slices.Repeat([]Route{route}, 1025)...), ErrControlValue)
	checkBounds(t, "two domains", update(time.Second, route, stranger), ErrControlValue)
	checkBounds(t, "a node", update(time.Second, node), ErrControlValue)

	check := func(name, routes string, want error) {
		t.Helper()
		checkBody(t, control, name, "a3 000a 011903e8 02"+routes, want)
	}
	check("one", "81 85"+hexRouter+"00"+hexCertID+"0000", nil)
	check("four fields", "81 84"+hexRouter+"00"+hexCertID+"00", ErrControlValue)
	check("ID of 7", "81 85"+hexRouter+"00 47 00112233445566 0000", ErrControlValue)
	check("router of 15", "81 85 4f fde14b0f2020000110111213141516 00"+hexCertID+"0000", ErrControlValue)
	check("seqno of 65536", "81 85"+hexRouter+"00"+hexCertID+"1a00010000 00", ErrControlValue)
	check("negative metric", "81 85"+hexRouter+"00"+hexCertID+"00 20", ErrControlValue)
	check("1025", "990401"+strings.Repeat("85"+hexRouter+"00"+hexCertID+"0000", 1025), ErrControlEncoding)
	checkBody(t, control, "1 hour and 1 ms", "a3 000a 011a0036ee81 0281 85"+hexRouter+"00"+hexCertID+"0000", ErrControlValue)
	checkBody(t, control, "longest interval", "a3 000a 011bffffffffffffffff 0281 85"+hexRouter+"00"+hexCertID+"0000", ErrControlValue)
	checkBody(t, control, "no routes key", "a2 000a 011903e8", ErrControlKeys)
}

func TestSeqnoRequestBounds(t *testing.T) {
	request := func(wanted ...SeqnoWanted) *SeqnoRequest { return &SeqnoRequest{wanted} }
	wanted := SeqnoWanted{someRouter, Source{Epoch: 1<<64 - 1}, 65535, 255}
	stranger, node, spent := wanted, wanted, wanted
	stranger.Router[1] = 1
	node.Router = someNode
	spent.Hops = 0
	checkBounds(t, "none", request(), ErrControlValue)
	checkBounds(t, "1024", request(slices.Repeat([]SeqnoWanted{wanted}, 1024)...), nil)
	checkBounds(t, "1025", request(slices.Repeat([]SeqnoWanted{wanted}, 1025)...), ErrControlValue)
	checkBounds(t, "two domains", request(wanted, stranger), ErrControlValue)
	checkBounds(t, "a node", request(node), ErrControlValue)
	checkBounds(t, "no hops", request(spent), ErrControlValue)
	checkBody(t, control, "one", "a2 000d 0181 85"+hexRouter+"00"+hexCertID+"0001", nil)
	checkBody(t, control, "256 hops", "a2 000d 0181 85"+hexRouter+"00"+hexCertID+"00190100", ErrControlValue)
}

func TestAddressListBounds(t *testing.T) {
	base := AddressList{Router: someRouter, Source: Source{Epoch: 1<<64 - 1}, From: 1<<64 - 2, To: 1<<64 - 1, Parts: 1}
	check := func(name string, want error, alter func(l *AddressList)) {
		t.Helper()
		l := base
		alter(&l)
		checkBounds(t, name, &l, want)
	}
	attached := Attached{someNode, 1<<64 - 1}
	foreign := Address{0: 0xfd, 1: 1}
	check("change of nothing", nil, func(*AddressList) {})
	check("full change", nil, func(l *AddressList) {
		l.Added, l.Removed = slices.Repeat([]Attached{attached}, 1024), slices.Repeat([]Address{someNode}, 1024)
	})
	check("1025 added", ErrControlValue, func(l *AddressList) { l.Added = slices.Repeat([]Attached{attached}, 1025) })
	check("1025 removed", ErrControlValue, func(l *AddressList) { l.Removed = slices.Repeat([]Address{someNode}, 1025) })
	check("list of a node", ErrControlValue, func(l *AddressList) { l.Router = someNode })
	check("foreign node added", ErrControlValue, func(l *AddressList) { l.Added = []Attached{{foreign, 1}} })
	check("foreign node removed", ErrControlValue, func(l *AddressList) { l.Removed = []Address{foreign} })
	check("router added", ErrControlValue, func(l *AddressList) { l.Added = []Attached{{someRouter, 1}} })
	check("router removed", ErrControlValue, func(l *AddressList) { l.Removed = []Address{someRouter} })
	check("to the same number", ErrControlValue, func(l *AddressList) { l.From = l.To })
	check("whole, last part", nil, func(l *AddressList) { l.From, l.Part, l.Parts = 0, 1023, 1024 })
	check("whole, 1025 parts", ErrControlValue, func(l *AddressList) { l.From, l.Parts = 0, 1025 })
	check("whole, part 1 of 1", ErrControlValue, func(l *AddressList) { l.From, l.Part = 0, 1 })
	check("no parts", ErrControlValue, func(l *AddressList) { l.Parts = 0 })
	check("number 0", ErrControlValue, func(l *AddressList) { l.From, l.To = 0, 0 })

	values := "aa 000e 01" + hexRouter + "0200 03" + hexCertID + "0401 0502 0600 0701 08"
	checkBody(t, control, "one and one", values+"81 82"+hexNode+"05 0981"+hexNode, nil)
	checkBody(t, control, "node of 15", values+"81 82 4f fde14b0f2020000020212223242526 05 0980", ErrControlValue)
	checkBody(t, control, "router ID of 7", "aa 000e 01"+hexRouter+"0200 03 47 00112233445566 0401 0502 0600 0701 0880 0980", ErrControlValue)
	checkBody(t, control, "removed of 17", values+"80 0981 51 fde14b0f20200000202122232425262728", ErrControlValue)
	checkBody(t, control, "no removed key", "a9 000e 01"+hexRouter+"0200 03"+hexCertID+"0401 0502 0600 0701 0880", ErrControlKeys)
}

func TestListNumbersBounds(t *testing.T) {
	numbers := func(lists ...ListNumber) *ListNumbers { return &ListNumbers{lists} }
	number := ListNumber{someRouter, Source{Epoch: 1<<64 - 1}, 1<<64 - 1}
	stranger, node, zero := number, number, number
	stranger.Router[1] = 1
	node.Router = someNode
	zero.Number = 0
	checkBounds(t, "none", numbers(), ErrControlValue)
	checkBounds(t, "1024", numbers(slices.Repeat([]ListNumber{number}, 1024)...), nil)
	checkBounds(t, "1025", numbers(slices.Repeat([]ListNumber{number}, 1025)...), ErrControlValue)
	checkBounds(t, "two domains", numbers(number, stranger), ErrControlValue)
	checkBounds(t, "a node", numbers(node), ErrControlValue)
	checkBounds(t, "number 0", numbers(zero), ErrControlValue)
	checkBody(t, control, "one", "a2 0010 0181 84"+hexRouter+"00"+hexCertID+"01", nil)
	checkBody(t, control, "ID of 7", "a2 0010 0181 84"+hexRouter+"00 47 00112233445566 01", ErrControlValue)
}

func TestListRequestBounds(t *testing.T) {
	checkBounds(t, "a router's", &ListRequest{someRouter}, nil)
	checkBounds(t, "a node's", &ListRequest{someNode}, ErrControlValue)
	checkBody(t, control, "of 15 bytes", "a2 000f 01 4f fde14b0f2020000110111213141516", ErrControlValue)
}

func TestSplitAddressListsFitTheirBodies(t *testing.T) {
	check := func(n, wantParts int) {
		t.Helper()
		added := slices.Repeat([]Attached{{someNode, 1<<64 - 1}}, n)
		parts, err := SplitAddressList(someRouter, Source{Epoch: 1<<64 - 1}, 1<<64-1, added)
		if err != nil || len(parts) != wantParts {
			t.Fatalf("%d addresses: %d parts, %v, want %d", n, len(parts), err, wantParts)
		}
		total := 0
		for i, p := range parts {
			b, err := AppendControl(nil, p)
			if err != nil || int(p.Part) != i || int(p.Parts) != wantParts || control(b) != nil {
				t.Fatalf("%d addresses: part %d is %d of %d, %v", n, i, p.Part, p.Parts, err)
			}
			total += len(p.Added)
		}
		if total != n {
			t.Errorf("%d addresses of %d", total, n)
		}
	}
	check(0, 1)
	check(1, 1)
	check(1024, 1)
	check(1025, 2)
	check(100_000, 98)
	const most = AddressListEntriesMax * AddressListPartsMax
	if parts, err := SplitAddressList(someRouter, Source{}, 1, make([]Attached, most+1)); err != ErrControlLength {
		t.Errorf("%d parts, %v", len(parts), err)
	}
}

func TestMessagesOfRoutesNameTheirDomain(t *testing.T) {
	want := someRouter.Prefix()
	for _, m := range []interface{ Domain() [PrefixSize]byte }{
		&RouteUpdate{Routes: []Route{{Router: someRouter}}},
		&SeqnoRequest{Wanted: []SeqnoWanted{{Router: someRouter}}},
		&AddressList{Router: someRouter},
		&ListRequest{someRouter},
		&ListNumbers{Lists: []ListNumber{{Router: someRouter}}},
	} {
		if m.Domain() != want {
			t.Errorf("%T: domain %x", m, m.Domain())
		}
	}
}
