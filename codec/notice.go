package codec

import "github.com/fxamacker/cbor/v2"

// NoticeFramesMax is the largest number of frames a notice names (PROTOCOL.md
// section 6).
const NoticeFramesMax = 1024

// Notice tells a sender that frames to one recipient were not delivered, all
// for one reason. At least one frame is named or counted.
type Notice struct {
	Reason    NoticeReason
	Recipient Address       // of the frames
	Frames    []NoticeFrame // at most NoticeFramesMax
	More      uint64        // frames that met the same end and are not named
	First     uint64        // first send time of those, nanoseconds; 0 when More is 0
	Last      uint64        // last send time of those, nanoseconds; 0 when More is 0
}

// NoticeFrame names one frame.
type NoticeFrame struct {
	Digest   Digest
	SendTime uint64 // nanoseconds since the Unix epoch
}

type noticeFrameWire struct {
	_        struct{} `cbor:",toarray"`
	Digest   cbor.ByteString
	SendTime uint64
}

type noticeWire struct {
	Reason    uint64            `cbor:"0,keyasint"`
	Recipient cbor.ByteString   `cbor:"1,keyasint"`
	Frames    []noticeFrameWire `cbor:"2,keyasint"`
	More      uint64            `cbor:"3,keyasint"`
	First     uint64            `cbor:"4,keyasint"`
	Last      uint64            `cbor:"5,keyasint"`
}

// AppendNotice appends a notice's body. It fails with ErrControlValue and then
// gives back dst as it was.
func AppendNotice(dst []byte, n *Notice) ([]byte, error) {
	w := &noticeWire{
		Reason:    uint64(n.Reason),
		Recipient: cbor.ByteString(n.Recipient[:]),
		Frames:    make([]noticeFrameWire, len(n.Frames)),
		More:      n.More,
		First:     n.First,
		Last:      n.Last,
	}
	for i, f := range n.Frames {
		w.Frames[i].Digest = cbor.ByteString(f.Digest[:])
		w.Frames[i].SendTime = f.SendTime
	}
	if err := w.check(); err != nil {
		return dst, err
	}
	return appendBody(dst, w)
}

func (w *noticeWire) check() error {
	ok := w.Reason <= uint64(noticeLast) && NoticeReason(w.Reason).known() &&
		len(w.Frames) <= NoticeFramesMax &&
		(len(w.Frames) > 0 || w.More > 0) &&
		(w.More > 0 || w.First == 0 && w.Last == 0)
	if !ok {
		return ErrControlValue
	}
	return nil
}

// DecodeNotice decodes a body of category 3. The notice owns its memory.
// Errors are the sentinels ErrControl….
func DecodeNotice(body []byte) (*Notice, error) {
	in, err := walk(body)
	if err != nil {
		return nil, err
	}
	var w noticeWire
	if err := decodeBody(&in, keysTo(5), &w); err != nil {
		return nil, err
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	n := &Notice{
		Reason: NoticeReason(w.Reason),
		Frames: make([]NoticeFrame, len(w.Frames)),
		More:   w.More,
		First:  w.First,
		Last:   w.Last,
	}
	if !fill(n.Recipient[:], w.Recipient) {
		return nil, ErrControlValue
	}
	for i, f := range w.Frames {
		if !fill(n.Frames[i].Digest[:], f.Digest) {
			return nil, ErrControlValue
		}
		n.Frames[i].SendTime = f.SendTime
	}
	return n, nil
}
