package main

import (
	"time"

	"causeway/codec"
	"causeway/crypto/sign"
)

const (
	unitMax     = 64 << 10 // bytes of frames that one write sends, at most, but for one larger frame
	distinctMin = 64       // differently signed frames of one sender, if memory allows
	distinctAll = 64 << 10 // of all senders, but for that
	sourceMax   = 256 << 10
	category    = codec.CategoryApplication
	resignAfter = 2 * time.Minute // of 5, the router's --max-skew
)

const (
	burstFrames = 64
	burstSteps  = 6 // of each inclusion path
	// burstsLeast is how many different bursts all senders have together: more than
	// a router remembers, 1,024 trees and the nodes of 256, so that each has to be
	// verified anew when it comes again. Of large bodies there is not the memory for
	// so many; heads that are remembered then spare less than a hundredth of the
	// hashing.
	burstsLeast = 4096
	burstsMax   = 160 << 20 // bytes
)

// unit returns the next frames to send, whole ones of the size given: at most
// limit bytes or one, and nothing beyond the end of a burst of so many bytes, if not
// 0. They are sent again and again: routers do not look for duplicates.
func (c *conn) unit(limit, frame, burst int) []byte {
	from, end := c.span(limit, frame, burst)
	c.next = end
	return c.source[from:end]
}

// span returns where in source the next unit lies.
func (c *conn) span(limit, frame, burst int) (from, end int) {
	if from = c.next; from >= len(c.source) {
		from = 0
	}
	end = min(from+max(limit/frame, 1)*frame, len(c.source))
	if burst > limit {
		end = min(end, from-from%burst+burst)
	}
	return from, end
}

// distinctFrames returns how many different frames each of so many senders signs
// for n recipients: as often for one as for another, if memory and time allow.
func distinctFrames(frame, n, senders int) int {
	distinct := n
	for distinct < distinctMin {
		distinct += n
	}
	return max(1, min(distinct, sourceMax/frame, max(distinctMin, distinctAll/senders)))
}

// distinctBursts returns how many different bursts each of so many senders signs.
func distinctBursts(frame, senders int) int {
	all := min(burstsLeast, burstsMax/(burstFrames*frame))
	return max(1, (all+senders-1)/senders)
}

// signAhead makes the member's frames: distinct ones in turn to all recipients,
// beginning with the one at first, repeated until they fill a unit.
func (m *member) signAhead(recipients []*member, first, distinct, body int) (err error) {
	m.frames = m.frames[:0]
	content := contentOf(body)
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

func contentOf(body int) []byte {
	content := make([]byte, body)
	for i := range content {
		content[i] = byte(i * 31)
	}
	return content
}

// signBursts makes the member's bursts, of frames in turn to all recipients,
// beginning with the one at first. They are marked as sealed: plain ones of one
// burst would have to be for one recipient (PROTOCOL.md section 2), which would
// make them easier to forward than those signed one by one. To a router it is the
// same.
func (m *member) signBursts(recipients []*member, first, bursts, body int) error {
	m.bursts = m.bursts[:0]
	content := contentOf(body)
	var burst sign.Burst
	var frames [burstFrames]codec.Frame
	var signed, field []byte
	for n := range bursts {
		burst.Reset()
		for i := range frames {
			to := recipients[(first+n*burstFrames+i)%len(recipients)]
			frames[i] = codec.Frame{TTL: codec.TTLDefault, Recipient: to.address, Sender: m.address, Category: category,
				SendTime: m.sendTime(), CertID: m.certID, Encrypted: true, Body: content}
			signed = frames[i].AppendSigned(signed[:0])
			burst.Add(signed)
		}
		if err := burst.Sign(m.signer); err != nil {
			return err
		}
		for i := range frames {
			field = burst.AppendField(field[:0], i)
			frames[i].Signature = field
			var err error
			if m.bursts, err = frames[i].Append(m.bursts); err != nil {
				return err
			}
		}
	}
	return nil
}

// frameSize is the size of a frame with a plain Ed25519 signature.
func frameSize(body int) int {
	return codec.HeaderSize + body + codec.SignatureLengthSize + codec.BurstRootSignatureSize
}

// burstFrameSize is the size of a frame of a burst.
func burstFrameSize(body int) int {
	return codec.HeaderSize + body + codec.SignatureLengthSize + codec.BurstPathOffset + burstSteps*codec.BurstStepSize
}

// Compile-time: in trees of burstFrames all paths have burstSteps steps.
var _ [0]struct{} = [1<<burstSteps - burstFrames]struct{}{}
