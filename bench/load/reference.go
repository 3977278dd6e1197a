package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"causeway/codec"
	"causeway/crypto/pki"
)

const (
	referenceBuffer = 64 << 10 // of a connection's reader and of its writer, bytes
	forwarderQueue  = 256      // frames that wait for one writer
)

// reference is a server to compare the router with: goroutine per connection,
// crypto/tls, the router's certificates.
type reference struct {
	echo  bool
	store *pki.Store

	mu sync.RWMutex
	to map[codec.Address]chan *parcel
}

// parcel is one frame on its way through the forwarder.
type parcel struct{ frame []byte }

var parcels = sync.Pool{New: func() any { return new(parcel) }}

// serveReference runs one until ctx ends. Arguments: variant, the router's
// identity directory, its trust store.
func serveReference(ctx context.Context, args []string, stderr io.Writer) error {
	if len(args) != 3 {
		return errors.New(verbReference + " needs VARIANT IDENTITY TRUST")
	}
	id, err := pki.LoadIdentity(os.DirFS(args[1]))
	if err != nil {
		return pki.WithDir(err, args[1])
	}
	r := &reference{echo: args[0] == variantEcho, to: make(map[codec.Address]chan *parcel)}
	if r.store, err = pki.LoadStore(os.DirFS(args[2])); err != nil {
		return pki.WithDir(err, args[2])
	}
	l, err := tls.Listen("tcp", anyPort, &tls.Config{
		Certificates: []tls.Certificate{id.TLSCertificate(domainName)}, NextProtos: []string{alpn},
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert,
		SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
	})
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	where := map[string]string{"msg": "listening", "address": l.Addr().String()}
	if err := json.NewEncoder(stderr).Encode(where); err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil // the process ends, and its connections with it
		}
		if err != nil {
			return err
		}
		go r.serve(ctx, c.(*tls.Conn), stderr)
	}
}

// serve is one connection's reader.
func (r *reference) serve(ctx context.Context, c *tls.Conn, stderr io.Writer) {
	defer c.Close()
	err := func() error {
		if err := c.HandshakeContext(ctx); err != nil {
			return err
		}
		peer, err := r.store.Verify(c.ConnectionState().PeerCertificates, domainName, time.Now())
		switch {
		case err != nil:
			return err
		case r.echo:
			return echo(c)
		default:
			return r.forward(c, peer.Address)
		}
	}()
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		fmt.Fprintf(stderr, "reference: %v: %v\n", c.RemoteAddr(), err)
	}
}

// echo returns what comes.
func echo(c net.Conn) error {
	b := make([]byte, referenceBuffer)
	for {
		n, err := c.Read(b)
		if err != nil {
			return err
		}
		if _, err := c.Write(b[:n]); err != nil {
			return err
		}
	}
}

// forward reads frames of one connection and hands each to its recipient's
// writer. A full queue holds up the reader.
func (r *reference) forward(c net.Conn, own codec.Address) error {
	queue := make(chan *parcel, forwarderQueue)
	r.mu.Lock()
	r.to[own] = queue
	r.mu.Unlock()
	go write(c, queue) // ends with the process, as the queues do
	in := bufio.NewReaderSize(c, referenceBuffer)
	for {
		b, err := peekFrame(in)
		if err != nil {
			return err
		}
		frame := codec.Raw(b)
		r.mu.RLock()
		to := r.to[frame.Recipient()]
		r.mu.RUnlock()
		if to == nil {
			return fmt.Errorf("%v is not connected", frame.Recipient())
		}
		frame.SetTTL(frame.TTL() - 1)
		p := parcels.Get().(*parcel)
		p.frame = append(p.frame[:0], frame...)
		if _, err := in.Discard(len(frame)); err != nil {
			return err
		}
		to <- p
	}
}

// peekFrame returns the next frame, borrowed from the reader.
func peekFrame(in *bufio.Reader) ([]byte, error) {
	for need := codec.HeaderSize; ; {
		b, err := in.Peek(need)
		if err != nil {
			return nil, err
		}
		if need, err = codec.Cut(b, bodyMax); err != nil {
			return nil, err
		}
		if need <= len(b) {
			return b[:need], nil
		}
	}
}

// write is one connection's writer: it flushes when nothing waits. What comes
// after an error it throws away.
func write(c net.Conn, queue <-chan *parcel) {
	out := bufio.NewWriterSize(c, referenceBuffer)
	for p := range queue {
		_, err := out.Write(p.frame)
		parcels.Put(p)
		if err == nil && len(queue) == 0 {
			err = out.Flush()
		}
		if err != nil {
			c.Close() // which the reader reports; out keeps the error
		}
	}
}
