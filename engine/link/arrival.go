package link

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"causeway/engine/buf"
)

// arrival is an accepted connection until its handshake begins. It has a
// goroutine, so that who says nothing costs a few kilobytes, and no Conn.
//
// TCP_DEFER_ACCEPT would leave who says nothing in the kernel. It is not used:
// the kernel's queue of half-open connections is as long for one source as for
// all, when it is full nobody comes in, and nobody counts.
type arrival struct {
	engine *Engine
	tcp    *net.TCPConn
	tls    *tls.Config
	remote netip.AddrPort
	pass   Pass
}

// arrivalBytes is what an arrival takes that waits: measured, 10 KB with what the
// garbage collector keeps free for it.
const arrivalBytes = 12 << 10

// welcome takes conn, and goes on with it in a goroutine of its own if it is
// admitted.
func (e *Engine) welcome(conn *net.TCPConn, tc *tls.Config) {
	a := &arrival{engine: e, tcp: conn, tls: tc, remote: plainAddr(conn.RemoteAddr())}
	ctx, end := context.WithCancelCause(e.ctx)
	var err error
	a.pass, err = e.cfg.Admit(a.remote, func(why error, after time.Duration) {
		if after <= 0 {
			end(why)
			return
		}
		time.AfterFunc(after, func() { end(why) }) // a moment; without effect when the handshake is over
	})
	if err != nil {
		end(nil)
		a.turnAway(err)
		return
	}
	e.working.Add(1) // Close waits for the listeners first, then for these
	go func() {
		defer e.working.Done()
		defer end(nil)
		a.goOn(ctx)
	}()
}

// turnAway ends an arrival whose handshake does not begin. A reset costs the
// kernel less than an orderly end, and there is nothing to flush.
func (a *arrival) turnAway(err error) {
	a.engine.report(a.remote, err) // before the close: who sees that finds it counted
	_ = a.tcp.SetLinger(0)
	a.tcp.Close()
}

// goOn waits until the handshake may begin, does it, and enrolls the
// connection.
func (a *arrival) goOn(ctx context.Context) {
	e := a.engine
	e.cfg.Budget.Use(buf.PartHandshakes, arrivalBytes)
	err := a.await(ctx)
	e.cfg.Budget.Use(buf.PartHandshakes, -arrivalBytes)
	if err != nil {
		a.pass.Gone(time.Now())
		a.turnAway(err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.HandshakeTimeout)
	defer cancel()
	c := e.newConn(a.tcp, false, nil)
	c.pass = a.pass
	_ = e.establish(ctx, c, a.tcp, a.tls)
}

// await waits until the first record is there and the pass begins the handshake.
func (a *arrival) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, a.engine.cfg.HandshakeTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = a.tcp.SetReadDeadline(time.Unix(1, 0)) })
	err := awaitRecord(a.tcp)
	if !stop() {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	begun := make(chan struct{})
	a.pass.Ready(time.Now(), func() { close(begun) })
	select {
	case <-begun:
		return a.check()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// notTLS is the first byte of a connection that begins with no handshake.
type notTLS byte

func (b notTLS) Error() string {
	return fmt.Sprintf("the first byte is %#02x: TLS begins with %#02x, a handshake", byte(b), recordHandshake)
}

func (notTLS) Reason() string { return reasonNotTLS }

// awaitRecord waits until tcp has received a whole TLS record, or one that is too
// large, which is for crypto/tls to refuse. It takes nothing from the socket.
func awaitRecord(tcp *net.TCPConn) error {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	var there bool
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		there, failed = recordThere(int(fd))
		return there || failed != nil
	})
	return cmp.Or(failed, err)
}

// check fails if the peer did not wait for its handshake: one that is made in
// vain costs as much as a good one.
func (a *arrival) check() (err error) {
	raw, err := a.tcp.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(fd uintptr) {
		if hungUp(int(fd)) {
			err = io.EOF
		}
	})
	return cmp.Or(err, controlErr)
}

// recordHandshake is the type of the record that a handshake begins with.
const recordHandshake = 22

// recordThere tells whether awaitRecord is done with fd.
func recordThere(fd int) (bool, error) {
	var header [recordHeaderLen]byte
	n, _, err := unix.Recvfrom(fd, header[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	switch {
	case err == unix.EAGAIN:
		return false, nil
	case err != nil:
		return false, os.NewSyscallError("recv", err)
	case n == 0:
		return false, io.EOF
	case header[0] != recordHandshake:
		return false, notTLS(header[0]) // before it waits for its turn: there may be many
	case n == len(header):
		body := int(header[recordLengthAt])<<8 | int(header[recordLengthAt+1])
		have, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
		if err != nil {
			return false, os.NewSyscallError("ioctl", err)
		}
		if body > ciphertextMax || have >= recordHeaderLen+body {
			return true, nil
		}
	}
	if hungUp(fd) {
		return false, io.ErrUnexpectedEOF
	}
	return false, nil
}

// hungUp tells whether the peer of fd has closed its end.
func hungUp(fd int) bool {
	ends := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(ends, 0)
	return err == nil && n > 0
}
