package codec

import (
	"encoding/hex"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Bounds of routes and seqno requests (PROTOCOL.md sections 5.10, 5.11).
const (
	RouterIDSize     = 8    // bytes
	RoutesMax        = 1024 // in an update
	SeqnoRequestsMax = 1024 // in a message
	RouteIntervalMin = time.Second
	RouteIntervalMax = time.Hour

	// MetricInfinity is the metric of a route that is retracted.
	MetricInfinity = 0xFFFF

	// Upper bounds, in bytes, of the encodings of one entry: its array's head,
	// address, epoch and router ID, then the rest.
	routeSizeMax        = 1 + (1 + AddressSize) + 9 + (1 + RouterIDSize) + 3 + 3
	seqnoRequestSizeMax = 1 + (1 + AddressSize) + 9 + (1 + RouterIDSize) + 3 + 2
	routesOverhead      = 1 + 2 + (1 + 9) + (1 + 3)
)

// Compile-time: full messages fit into a body.
var (
	_ [ControlBodyMax - routesOverhead - RoutesMax*routeSizeMax]struct{}
	_ [ControlBodyMax - routesOverhead - SeqnoRequestsMax*seqnoRequestSizeMax]struct{}
)

// RouterID is random, and another each time a router starts.
type RouterID [RouterIDSize]byte

// String returns the ID in hexadecimal.
func (id RouterID) String() string { return hex.EncodeToString(id[:]) }

// Source is one life of a router, from a start to its end. Of two sources of
// one address that with the greater epoch is newer, of equal epochs that with
// the greater ID.
type Source struct {
	Epoch uint64 // nanoseconds since the Unix epoch
	ID    RouterID
}

// RouteUpdate tells a neighbour which routes its sender has.
type RouteUpdate struct {
	Interval time.Duration // the sender repeats all its routes at least so often; whole milliseconds
	Routes   []Route       // 1 to RoutesMax, of routers of one domain
}

// Route is one route of an update.
type Route struct {
	Router Address // of kind router
	Source
	Seqno  uint16
	Metric uint16 // MetricInfinity: retracted
}

// SeqnoRequest asks for routes with newer sequence numbers.
type SeqnoRequest struct {
	Wanted []SeqnoWanted // 1 to SeqnoRequestsMax, of routers of one domain
}

// SeqnoWanted asks for a route to Router with Seqno, or newer.
type SeqnoWanted struct {
	Router Address // of kind router
	Source
	Seqno uint16
	Hops  uint8 // how often the request may be passed on, at least 1
}

// Domain returns the prefix of the domain that the update is about.
func (u *RouteUpdate) Domain() [PrefixSize]byte { return u.Routes[0].Router.Prefix() }

// Domain returns the prefix of the domain that the request is about.
func (r *SeqnoRequest) Domain() [PrefixSize]byte { return r.Wanted[0].Router.Prefix() }

// isKin reports whether a is of that kind and in the domain of first.
func isKin(a, first Address, kind Kind) bool {
	return a.Kind() == kind && a.Prefix() == first.Prefix()
}

type routeWire struct {
	_      struct{} `cbor:",toarray"`
	Router cbor.ByteString
	Epoch  uint64
	ID     cbor.ByteString
	Seqno  uint16
	Metric uint16
}

type routeUpdateWire struct {
	Type     uint64      `cbor:"0,keyasint"`
	Interval uint64      `cbor:"1,keyasint"`
	Routes   []routeWire `cbor:"2,keyasint"`
}

func (*RouteUpdate) controlType() uint64 { return typeRouteUpdate }

func (u *RouteUpdate) wire() (any, error) {
	if err := u.check(); err != nil {
		return nil, err
	}
	w := &routeUpdateWire{
		Type:     typeRouteUpdate,
		Interval: milliseconds(u.Interval),
		Routes:   make([]routeWire, len(u.Routes)),
	}
	for i := range u.Routes {
		r := &u.Routes[i]
		w.Routes[i] = routeWire{
			Router: cbor.ByteString(r.Router[:]),
			Epoch:  r.Epoch,
			ID:     cbor.ByteString(r.ID[:]),
			Seqno:  r.Seqno,
			Metric: r.Metric,
		}
	}
	return w, nil
}

func (u *RouteUpdate) check() error {
	if u.Interval < RouteIntervalMin || u.Interval > RouteIntervalMax || !isBetween(len(u.Routes), 1, RoutesMax) {
		return ErrControlValue
	}
	for i := range u.Routes {
		if !isKin(u.Routes[i].Router, u.Routes[0].Router, KindRouter) {
			return ErrControlValue
		}
	}
	return nil
}

func decodeRouteUpdate(in *walker) (*RouteUpdate, error) {
	var w routeUpdateWire
	if err := decodeBody(in, keysTo(2), &w); err != nil {
		return nil, err
	}
	u := &RouteUpdate{Interval: duration(w.Interval), Routes: make([]Route, len(w.Routes))}
	for i, from := range w.Routes {
		to := &u.Routes[i]
		if !fill(to.Router[:], from.Router) || !fill(to.ID[:], from.ID) {
			return nil, ErrControlValue
		}
		to.Epoch, to.Seqno, to.Metric = from.Epoch, from.Seqno, from.Metric
	}
	return u, u.check()
}

type seqnoWantedWire struct {
	_      struct{} `cbor:",toarray"`
	Router cbor.ByteString
	Epoch  uint64
	ID     cbor.ByteString
	Seqno  uint16
	Hops   uint8
}

type seqnoRequestWire struct {
	Type   uint64            `cbor:"0,keyasint"`
	Wanted []seqnoWantedWire `cbor:"1,keyasint"`
}

func (*SeqnoRequest) controlType() uint64 { return typeSeqnoRequest }

func (r *SeqnoRequest) wire() (any, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	w := &seqnoRequestWire{Type: typeSeqnoRequest, Wanted: make([]seqnoWantedWire, len(r.Wanted))}
	for i := range r.Wanted {
		q := &r.Wanted[i]
		w.Wanted[i] = seqnoWantedWire{
			Router: cbor.ByteString(q.Router[:]),
			Epoch:  q.Epoch,
			ID:     cbor.ByteString(q.ID[:]),
			Seqno:  q.Seqno,
			Hops:   q.Hops,
		}
	}
	return w, nil
}

func (r *SeqnoRequest) check() error {
	if !isBetween(len(r.Wanted), 1, SeqnoRequestsMax) {
		return ErrControlValue
	}
	for i := range r.Wanted {
		if q := &r.Wanted[i]; q.Hops == 0 || !isKin(q.Router, r.Wanted[0].Router, KindRouter) {
			return ErrControlValue
		}
	}
	return nil
}

func decodeSeqnoRequest(in *walker) (*SeqnoRequest, error) {
	var w seqnoRequestWire
	if err := decodeBody(in, keysTo(1), &w); err != nil {
		return nil, err
	}
	r := &SeqnoRequest{Wanted: make([]SeqnoWanted, len(w.Wanted))}
	for i, from := range w.Wanted {
		to := &r.Wanted[i]
		if !fill(to.Router[:], from.Router) || !fill(to.ID[:], from.ID) {
			return nil, ErrControlValue
		}
		to.Epoch, to.Seqno, to.Hops = from.Epoch, from.Seqno, from.Hops
	}
	return r, r.check()
}
