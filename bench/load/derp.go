package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"golang.org/x/crypto/nacl/box"
)

// The client protocol of DERP, version 2, after an HTTP request that asks to begin
// at once. A frame:
//
//	 0      1         5          5+n
//	+------+---------+-----------+
//	| type | n       | payload   |
//	+------+---------+-----------+
//
//	server: server key    "DERP🔑", key 32
//	client: client info   key 32, nonce 24, box of JSON
//	server: server info   nonce 24, box of JSON
//	client: send packet   recipient's key 32, body
//	server: recv packet   sender's key 32, body
//	server: keep alive; ping 8, answered by pong 8
const (
	derpHeader   = 5
	derpLengthAt = 1
	derpKey      = 32
	derpNonce    = 24
	derpPing     = 8       // bytes of its payload
	derpMax      = 1 << 20 // bytes of a payload

	derpServerKey  = 0x01
	derpClientInfo = 0x02
	derpServerInfo = 0x03
	derpSend       = 0x04
	derpReceive    = 0x05
	derpKeepAlive  = 0x06
	derpPingType   = 0x12
	derpPongType   = 0x13

	derpMagic   = "DERP🔑"
	derpRequest = "GET /derp HTTP/1.1\r\nHost: " + domainName + "\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Fast-Start: 1\r\n\r\n"
	derpInfo    = `{"version":2,"CanAckPings":true}`
)

var (
	errDERPFrame = errors.New("DERP: what comes is no frame")
	errDERPBox   = errors.New("DERP: the server's box can't be opened")
)

// derp is a connection's end of it.
type derp struct {
	public, private, server *[derpKey]byte
	senders                 map[string]bool // keys of all
	body                    []byte          // that messages have
}

func newDERP(senders map[string]bool) (*derp, error) {
	d := &derp{senders: senders}
	var err error
	d.public, d.private, err = box.GenerateKey(rand.Reader)
	return d, err
}

func (d *derp) plain(net.Conn) error { return nil }

func (d *derp) opening() []byte { return []byte(derpRequest) }

func (d *derp) need(b []byte) (int, error) {
	if len(b) < derpHeader {
		return derpHeader, nil
	}
	n := binary.BigEndian.Uint32(b[derpLengthAt:derpHeader])
	if n > derpMax {
		return 0, errDERPFrame
	}
	return derpHeader + int(n), nil
}

func (d *derp) take(unit []byte) (event, []byte, error) {
	kind, payload := unit[0], unit[derpHeader:]
	switch {
	case kind == derpReceive && len(payload) >= derpKey:
		if d.body == nil || !d.senders[string(payload[:derpKey])] || !bytes.Equal(payload[derpKey:], d.body) {
			return eventNone, nil, fmt.Errorf("DERP: %w: %d bytes from %x", errUnexpected, len(payload)-derpKey, payload[:derpKey])
		}
		return eventMessage, nil, nil
	case kind == derpKeepAlive:
		return eventNone, nil, nil
	case kind == derpPingType && len(payload) == derpPing:
		return eventNone, derpFrame(nil, derpPongType, payload), nil
	case kind == derpServerKey && d.server == nil && len(payload) >= len(derpMagic)+derpKey && string(payload[:len(derpMagic)]) == derpMagic:
		d.server = (*[derpKey]byte)(bytes.Clone(payload[len(derpMagic) : len(derpMagic)+derpKey]))
		info, err := d.info()
		return eventNone, info, err
	case kind == derpServerInfo && d.server != nil && len(payload) >= derpNonce:
		if _, ok := box.Open(nil, payload[derpNonce:], (*[derpNonce]byte)(payload), d.server, d.private); !ok {
			return eventNone, nil, errDERPBox
		}
		return eventReady, nil, nil
	}
	return eventNone, nil, fmt.Errorf("DERP: a frame of type %#x and %d bytes", kind, len(payload))
}

// info is what the server is told of this client.
func (d *derp) info() ([]byte, error) {
	var nonce [derpNonce]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return nil, err
	}
	sealed := box.Seal(nonce[:], []byte(derpInfo), &nonce, d.server, d.private)
	return derpFrame(nil, derpClientInfo, d.public[:], sealed), nil
}

// derpFrame appends a frame with the parts given as its payload.
func derpFrame(dst []byte, kind byte, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	dst = binary.BigEndian.AppendUint32(append(dst, kind), uint32(n))
	for _, p := range parts {
		dst = append(dst, p...)
	}
	return dst
}

func (d *derp) message(dst, to, body []byte) []byte { return derpFrame(dst, derpSend, to, body) }

func (d *derp) address() []byte { return d.public[:] }

func (d *derp) expect(body []byte) { d.body = body }
