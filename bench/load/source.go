package main

import (
	"time"

	"causeway/codec"
)

const (
	unitMax     = 64 << 10 // bytes of frames that one write sends, at most, but for one larger frame
	distinctMin = 64       // differently signed frames of one sender, if memory allows
	sourceMax   = 256 << 10
	category    = codec.CategoryApplication
	resignAfter = 2 * time.Minute // of 5, the router's --max-skew
)

// unit returns the next frames to send, whole ones of the size given: at most
// limit bytes or one. They are the member's, sent again and again: routers do
// not look for duplicates.
func (c *conn) unit(limit, frame int) []byte {
	frames := c.who.frames
	if c.next >= len(frames) {
		c.next = 0
	}
	end := min(c.next+max(limit/frame, 1)*frame, len(frames))
	b := frames[c.next:end]
	c.next = end
	return b
}

// distinctFrames returns how many different frames each sender signs for n
// recipients: as often for one as for another, if memory allows.
func distinctFrames(frame, n int) int {
	distinct := n
	for distinct < distinctMin {
		distinct += n
	}
	return max(1, min(distinct, sourceMax/frame))
}

// signAhead makes the member's frames: distinct ones in turn to all recipients,
// beginning with the one at first, repeated until they fill a unit.
func (m *member) signAhead(recipients []*member, first, distinct, body int) (err error) {
	m.frames = m.frames[:0]
	content := make([]byte, body)
	for i := range content {
		content[i] = byte(i * 31)
	}
	for i := range distinct {
		to := recipients[(first+i)%len(recipients)]
		if m.frames, err = m.frame(m.frames, to.address, category, content); err != nil {
			return err
		}
	}
	for once := m.frames; len(m.frames) < unitMax; {
		m.frames = append(m.frames, once...)
	}
	return nil
}

// frameSize is the size of a frame with a plain Ed25519 signature.
func frameSize(body int) int {
	const signature = 64
	return codec.HeaderSize + body + codec.SignatureLengthSize + signature
}
