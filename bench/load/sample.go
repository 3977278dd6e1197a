package main

import (
	"fmt"

	"causeway/codec"
)

// check opens a record of c and looks at the first frame that begins in it, if
// that is there in all or at least with its header. One frame of each receiver
// and slice is looked at: that is what shows that the lengths which are counted
// are those of frames, for their recipients, unharmed.
func (f *flow) check(c *conn, record []byte) error {
	if c.checked {
		return nil
	}
	plain, err := c.in.open(record, c.got.seq)
	if err != nil {
		return err
	}
	if !c.expects {
		return fmt.Errorf("a sender was told something: %s", describe(plain))
	}
	start := 0
	if into := int(c.got.plain % uint64(f.frame)); into > 0 {
		start = f.frame - into
	}
	if start+codec.HeaderSize > len(plain) {
		return nil // another record will do
	}
	frame := codec.Raw(plain[start:])
	if frame.Recipient() != c.who.address && f.variant != variantEcho || frame.Category() != category || f.members[frame.Sender()] == nil {
		return fmt.Errorf("not a frame for this recipient: %s", describe(plain[start:]))
	}
	if start+f.frame > len(plain) {
		c.checked = f.frame > recordPlainMax // it can't be had in one record
		return nil
	}
	frame = frame[:f.frame]
	if need, err := codec.Cut(frame, bodyMax); err != nil || need != f.frame {
		return fmt.Errorf("no frame of %d bytes (%d, %v): %s", f.frame, need, err, describe(frame))
	}
	if !f.members[frame.Sender()].key.Verify(frame.Signed(), frame.Signature()) {
		return fmt.Errorf("a frame's signature is bad: %s", describe(frame))
	}
	c.checked = true
	return nil
}

// describe says what came, as well as can be.
func describe(b []byte) string {
	if len(b) < codec.HeaderSize {
		return fmt.Sprintf("%d bytes", len(b))
	}
	f := codec.Raw(b)
	s := fmt.Sprintf("category %d from %v to %v", f.Category(), f.Sender(), f.Recipient())
	if need, err := codec.Cut(b, codec.BodyMaxDefault); err != nil || need > len(b) {
		return s
	}
	switch f.Category() {
	case codec.CategoryNotice:
		if n, err := codec.DecodeNotice(f.Body()); err == nil {
			s += fmt.Sprintf(": %+v", n)
		}
	case codec.CategoryControl:
		if m, err := codec.DecodeControl(f.Body()); err == nil {
			s += fmt.Sprintf(": %T %+v", m, m)
		}
	}
	return s
}
