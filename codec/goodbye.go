package codec

import "time"

// Bounds of a goodbye (PROTOCOL.md section 5.3).
const (
	GoodbyeTextMax    = 512 // bytes
	GoodbyeRoutersMax = 16
	GoodbyeRouterMax  = 300 // bytes a URL
)

// Goodbye ends a connection, or announces its end.
type Goodbye struct {
	Reason   GoodbyeReason // one of the constants; an unknown one is decoded as GoodbyeDone
	Text     string        // for an operator
	Routers  []string      // URLs the receiver may use instead; see ParseURL
	ReadFor  time.Duration // the sender goes on reading for so long; whole milliseconds; 0: it closes at once
	Received uint64        // as in KeepAlive
}

// IsGoodbye reports whether a body of category 2 is a goodbye, or would be one if
// it were not malformed: the end of its connection may come right behind it.
func IsGoodbye(body []byte) bool { return isOfType(body, typeGoodbye) }

type goodbyeWire struct {
	Type     uint64   `cbor:"0,keyasint"`
	Reason   uint64   `cbor:"1,keyasint"`
	Text     string   `cbor:"2,keyasint"`
	Routers  []string `cbor:"3,keyasint"`
	ReadFor  uint64   `cbor:"4,keyasint"`
	Received uint64   `cbor:"5,keyasint"`
}

func (*Goodbye) controlType() uint64 { return typeGoodbye }

func (g *Goodbye) wire() (any, error) {
	if g.ReadFor < 0 || !g.Reason.known() {
		return nil, ErrControlValue
	}
	w := &goodbyeWire{
		Type:     typeGoodbye,
		Reason:   uint64(g.Reason),
		Text:     g.Text,
		Routers:  g.Routers,
		ReadFor:  milliseconds(g.ReadFor),
		Received: g.Received,
	}
	return w, w.check()
}

func (w *goodbyeWire) check() error {
	if !isText(w.Text, GoodbyeTextMax) || len(w.Routers) > GoodbyeRoutersMax {
		return ErrControlValue
	}
	for _, url := range w.Routers {
		if !isText(url, GoodbyeRouterMax) {
			return ErrControlValue
		}
	}
	return nil
}

func decodeGoodbye(in *walker) (*Goodbye, error) {
	var w goodbyeWire
	if err := decodeBody(in, keysTo(5), &w); err != nil {
		return nil, err
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	g := &Goodbye{
		Reason:   GoodbyeDone,
		Text:     w.Text,
		Routers:  w.Routers,
		ReadFor:  duration(w.ReadFor),
		Received: w.Received,
	}
	if w.Reason <= uint64(goodbyeLast) && GoodbyeReason(w.Reason).known() {
		g.Reason = GoodbyeReason(w.Reason)
	}
	return g, nil
}
