package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"causeway/codec"
)

const (
	echoesOpenMax  = 4096 // pings and receipts waited for at once
	echoRepliesMax = 4    // replies kept for one of them; more are of no use
)

// errEchoesOpen: too many Ping and Seen at once.
var errEchoesOpen = fmt.Errorf("more than %d echoes and receipts are waited for at once", echoesOpenMax)

// echoWait is somebody who waits for replies.
type echoWait struct {
	from    codec.Address // the only one who may reply
	trace   bool          // but hops may come from any router
	replies chan heardEcho
}

// heardEcho is an echo that has come, and from whom.
type heardEcho struct {
	*codec.Echo
	from codec.Address
	name string // of its certificate, as in Message.FromName
}

// echoes knows what replies are waited for, by identifier.
type echoes struct {
	mu      sync.Mutex
	waiting map[[codec.EchoIDSize]byte]*echoWait
}

// open draws an identifier, and returns where replies from that address come.
func (e *echoes) open(n *Node, from codec.Address) (id [codec.EchoIDSize]byte, replies <-chan heardEcho, err error) {
	return e.openAs(n, &echoWait{from: from})
}

// openAs is open for somebody who has not said yet where replies come.
func (e *echoes) openAs(n *Node, w *echoWait) (id [codec.EchoIDSize]byte, replies <-chan heardEcho, err error) {
	if _, err := io.ReadFull(n.rand, id[:]); err != nil {
		return id, nil, fmt.Errorf("drawing an identifier: %w", err)
	}
	w.replies = make(chan heardEcho, echoRepliesMax)
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting) >= echoesOpenMax || e.waiting[id] != nil {
		return id, nil, errEchoesOpen
	}
	e.waiting[id] = w
	return id, w.replies, nil
}

func (e *echoes) close(id [codec.EchoIDSize]byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.waiting, id)
}

// reply hands a reply to who waits for it. Others are of no interest.
func (e *echoes) reply(m heardEcho) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if w := e.waiting[m.ID]; w != nil && (w.from == m.from || w.trace && m.Type == codec.EchoHop && m.from.Kind() == codec.KindRouter) {
		select {
		case w.replies <- m:
		default:
		}
	}
}

// Ping asks a node or router for an answer and returns the time it took. The
// payload, at most 1,024 bytes, comes back in the answer and is compared. It
// fails with *NoticeError when the request was not delivered, and *WaitError or
// *NotConnectedError when ctx ends.
func (n *Node) Ping(ctx context.Context, to codec.Address, payload []byte) (time.Duration, error) {
	if len(payload) > codec.EchoPayloadMax {
		return 0, fmt.Errorf("the payload has %d bytes, more than %d", len(payload), codec.EchoPayloadMax)
	}
	id, replies, err := n.echoes.open(n, to)
	if err != nil {
		return 0, err
	}
	defer n.echoes.close(id)
	body, err := codec.AppendEcho(nil, &codec.Echo{Type: codec.EchoRequest, ID: id, Payload: payload})
	if err != nil {
		return 0, err
	}
	request, err := n.send(ctx, to, codec.CategoryEcho, body, true)
	if err != nil {
		return 0, err
	}
	for {
		changed, err := request.lost()
		if err != nil {
			return 0, err
		}
		select {
		case e := <-replies:
			if e.Type == codec.EchoReply {
				if string(e.Payload) != string(payload) {
					return 0, errors.New("the answer's payload is not that of the request")
				}
				return time.Since(request.queuedAt), nil
			}
		case <-changed:
		case <-n.done:
			return 0, n.Err()
		case <-ctx.Done():
			return 0, n.waitError(ctx, "answer from "+to.String(), nil)
		}
	}
}

// hearEchoLocked takes a verified frame of category 4; in.mu is held. It returns
// why the frame was dropped, or nil.
func (n *Node) hearEchoLocked(raw codec.Raw, cert *certificate) fate {
	m, err := codec.DecodeEcho(raw.Body())
	if err != nil {
		return dropped(dropMalformedBody)
	}
	from := raw.Sender()
	switch m.Type {
	case codec.EchoReply, codec.EchoReceipt, codec.EchoHop:
		n.echoes.reply(heardEcho{m, from, cert.name})
		return consumed
	case codec.EchoTrace:
		m.Type = codec.EchoHop
		m.Hop = codec.Hop{TTL: raw.TTL(), Time: uint64(n.cfg.Now().UnixNano()), Software: n.cfg.Software}
	case codec.EchoRequest:
		m.Type = codec.EchoReply
	case codec.EchoReceiptRequest:
		m.Type = codec.EchoReceipt
		m.Seen = n.in.dedup.seen(from, m.SendTime, m.Digest)
	}
	if !n.answers.echo(from, *m) {
		return dropped(dropAnswer)
	}
	return undecided
}
