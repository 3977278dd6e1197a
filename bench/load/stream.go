package main

import "causeway/codec"

// stream opens the records of one direction, in order, and cuts the frames in
// them. It survives no error.
type stream struct {
	half   *half
	need   func(b []byte) (int, error) // as codec.Cut, of what comes instead of frames; nil: frames come
	record []byte                      // begin of a record whose rest has not come
	frame  []byte                      // begin of a frame whose rest has not come
}

// take shows each frame that b, the next bytes of the connection, completes to
// `each`, which borrows it. Records are decrypted in place.
func (s *stream) take(b []byte, each func([]byte) error) error {
	for {
		record, rest, err := s.next(b)
		if err != nil || record == nil {
			return err
		}
		b = rest
		plain, err := s.half.open(record, s.half.seq)
		if err != nil {
			return err
		}
		s.half.seq++
		if err := s.cut(plain, each); err != nil {
			return err
		}
	}
}

// next returns the first whole record and what follows it in b; nil when there
// is none, and then keeps b.
func (s *stream) next(b []byte) (record, rest []byte, err error) {
	if len(s.record) == 0 {
		need, err := recordNeed(b)
		if err != nil {
			return nil, nil, err
		}
		if need <= len(b) {
			return b[:need], b[need:], nil
		}
	}
	for {
		need, err := recordNeed(s.record)
		if err != nil {
			return nil, nil, err
		}
		n := min(need-len(s.record), len(b))
		s.record = append(s.record, b[:n]...)
		b = b[n:]
		switch {
		case len(s.record) < need:
			return nil, nil, nil
		case need > recordHeader:
			record = s.record
			s.record = s.record[:0]
			return record, b, nil
		}
	}
}

// recordNeed returns how many bytes of a record that begins with b must be there
// to go on: its header, or all of it.
func recordNeed(b []byte) (int, error) {
	if len(b) < recordHeader {
		return recordHeader, nil
	}
	n, err := recordLength(b)
	return recordHeader + n, err
}

// cut shows each frame that p, borrowed, completes, and keeps the begin of one.
func (s *stream) cut(p []byte, each func([]byte) error) error {
	for len(s.frame) > 0 {
		need, err := s.size(s.frame)
		if err != nil {
			return err
		}
		if need == len(s.frame) {
			if err := each(s.frame); err != nil {
				return err
			}
			s.frame = s.frame[:0]
			break
		}
		if len(p) == 0 {
			return nil
		}
		n := min(need-len(s.frame), len(p))
		s.frame = append(s.frame, p[:n]...)
		p = p[n:]
	}
	for len(p) > 0 {
		need, err := s.size(p)
		if err != nil {
			return err
		}
		if need > len(p) {
			s.frame = append(s.frame, p...)
			return nil
		}
		if err := each(p[:need:need]); err != nil {
			return err
		}
		p = p[need:]
	}
	return nil
}

// size returns how many bytes of a frame that begins with b must be there to go
// on.
func (s *stream) size(b []byte) (int, error) {
	if s.need != nil {
		return s.need(b)
	}
	return codec.Cut(b, codec.BodyMaxDefault)
}
