package codec

import "time"

// ProtocolVersion is the only version of the protocol there is.
const ProtocolVersion = 1

// Bounds of a hello (PROTOCOL.md section 5.1).
const (
	HelloKindMax     = 32 // bytes
	HelloSoftwareMax = 64 // bytes
	NodeCostMax      = 65535
	KeepAliveMin     = 100 * time.Millisecond
	KeepAliveMax     = 600_000 * time.Millisecond
	DeadAfterMin     = 200 * time.Millisecond
	DeadAfterMax     = 3_600_000 * time.Millisecond

	// KeepAliveDefault and DeadAfterDefault hold unless configured.
	KeepAliveDefault = 10 * time.Second
	DeadAfterDefault = 25 * time.Second
)

// Role says what an end of a connection is.
type Role uint8

// Roles in a hello.
const (
	RoleNode   Role = 0
	RoleRouter Role = 1
)

// String returns "node" or "router".
func (r Role) String() string {
	switch r {
	case RoleNode:
		return "node"
	case RoleRouter:
		return "router"
	}
	return "unknown"
}

// Hello is the first message of each end of a connection.
type Hello struct {
	Version   uint64 // ProtocolVersion; any other is decoded, for a goodbye that says so
	Role      Role
	Kind      string        // free text for operators, grants nothing
	NodeCost  uint16        // added to every route through this node
	Software  string        // "name/semantic version", see SemanticVersion
	KeepAlive time.Duration // this end sends something at least so often; whole milliseconds
	DeadAfter time.Duration // this end gives the peer up after so long without a byte; whole milliseconds
	BodyMax   uint32        // largest body this end takes, bytes
}

type helloWire struct {
	Type      uint64 `cbor:"0,keyasint"`
	Version   uint64 `cbor:"1,keyasint"`
	Role      uint64 `cbor:"2,keyasint"`
	Kind      string `cbor:"3,keyasint"`
	NodeCost  uint64 `cbor:"4,keyasint"`
	Software  string `cbor:"5,keyasint"`
	KeepAlive uint64 `cbor:"6,keyasint"`
	DeadAfter uint64 `cbor:"7,keyasint"`
	BodyMax   uint64 `cbor:"8,keyasint"`
}

func (*Hello) controlType() uint64 { return typeHello }

func (h *Hello) wire() (any, error) {
	w := &helloWire{
		Type:      typeHello,
		Version:   h.Version,
		Role:      uint64(h.Role),
		Kind:      h.Kind,
		NodeCost:  uint64(h.NodeCost),
		Software:  h.Software,
		KeepAlive: milliseconds(h.KeepAlive),
		DeadAfter: milliseconds(h.DeadAfter),
		BodyMax:   uint64(h.BodyMax),
	}
	return w, w.check()
}

func (w *helloWire) check() error {
	ok := w.Role <= uint64(RoleRouter) &&
		isText(w.Kind, HelloKindMax) &&
		w.NodeCost <= NodeCostMax &&
		isText(w.Software, HelloSoftwareMax) &&
		w.KeepAlive >= milliseconds(KeepAliveMin) && w.KeepAlive <= milliseconds(KeepAliveMax) &&
		w.DeadAfter >= milliseconds(DeadAfterMin) && w.DeadAfter <= milliseconds(DeadAfterMax) &&
		w.BodyMax <= BodyMaxLimit
	if !ok {
		return ErrControlValue
	}
	return nil
}

func decodeHello(in *walker) (*Hello, error) {
	var w helloWire
	if err := decodeLoose(in, keysTo(8), &w); err != nil {
		return nil, err
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	return &Hello{
		Version:   w.Version,
		Role:      Role(w.Role),
		Kind:      w.Kind,
		NodeCost:  uint16(w.NodeCost),
		Software:  w.Software,
		KeepAlive: duration(w.KeepAlive),
		DeadAfter: duration(w.DeadAfter),
		BodyMax:   uint32(w.BodyMax),
	}, nil
}
