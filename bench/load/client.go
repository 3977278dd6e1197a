package main

import (
	"bufio"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"causeway/codec"
)

// The load is told what to do in JSON, one request a line, and answers each
// with one. A request has exactly one of its parts.
type request struct {
	Setup   *setupRequest   `json:",omitempty"`
	Connect *connectRequest `json:",omitempty"`
	Prime   *primeRequest   `json:",omitempty"`
	Body    *bodyRequest    `json:",omitempty"`
	Slice   *sliceRequest   `json:",omitempty"`
	Lone    *loneRequest    `json:",omitempty"`
	Verify  *verifyRequest  `json:",omitempty"`
	Idle    *idleRequest    `json:",omitempty"`
	Carry   *carryRequest   `json:",omitempty"`
	Traffic *trafficRequest `json:",omitempty"`
	Round   *roundRequest   `json:",omitempty"`

	// of a crowd
	Attack    *raidRequest      `json:",omitempty"`
	Stall     *stallRequest     `json:",omitempty"`
	Newcomers *newcomersRequest `json:",omitempty"`
	Resume    *struct{}         `json:",omitempty"` // the recipient that stalls reads again
	Finish    *struct{}         `json:",omitempty"` // its senders send no more
	Status    *struct{}         `json:",omitempty"`
	End       *struct{}         `json:",omitempty"`

	Newcomer *newcomerRequest `json:",omitempty"`
}

type setupRequest struct {
	Root     []byte // DER
	Router   codec.Address
	Nodes    []node // senders, then receivers
	Senders  int
	LoadCore int
	Window   int // bytes under way of a variant, at most
}

// connectRequest has senders connected to the first process of a variant, and
// receivers to the last.
type connectRequest struct {
	Variant string
	Under   []underTest
}

// underTest is a process under test.
type underTest struct {
	Addr   string
	PID    int
	Router codec.Address // if it is one
}

type bodyRequest struct {
	Size     int // bytes
	UnderWay int // messages under way to one receiver, at most; 0: setupRequest.Window is all
}

type sliceRequest struct {
	Variant      string
	Warm, Length time.Duration
}

// answer is the load's.
type answer struct {
	Error   string          `json:",omitempty"`
	Usage   usage           // of a slice
	Frames  float64         // that arrived in the slice
	Total   uint64          // that were sent and arrived since the start
	Lone    []time.Duration `json:",omitempty"` // or a newcomer's
	Verify  time.Duration   // for one, by the signer's table
	Stdlib  time.Duration   // the same by crypto/ed25519
	Carried int
	Round   roundAnswer
	Crowd   crowdStatus
	Failed  int // connections of a newcomer
}

// client is the load's process.
type client struct {
	setup    setupRequest
	roots    *x509.CertPool
	members  []*member
	flows    map[string]*flow
	idle     []*conn
	traffic  *traffic
	body     int
	signedAt time.Time
}

// serveClient is the load's process: it answers requests until there are no more.
func serveClient(stdin io.Reader, stdout io.Writer) error {
	runtime.LockOSThread() // one thread does it all
	c := &client{flows: make(map[string]*flow)}
	defer c.close()
	return answerAll(stdin, stdout, c.do)
}

// answerAll has requests carried out, one after another, until there are no more.
func answerAll(stdin io.Reader, stdout io.Writer, do func(*request, *answer) error) error {
	requests, answers := json.NewDecoder(bufio.NewReader(stdin)), json.NewEncoder(stdout)
	for {
		var r request
		if err := requests.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		var a answer
		if err := do(&r, &a); err != nil {
			a.Error = err.Error()
		}
		if err := answers.Encode(&a); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

func (c *client) close() {
	for _, f := range c.flows {
		f.close()
	}
	for _, conn := range c.idle {
		conn.close()
	}
	if c.traffic != nil {
		c.traffic.close()
	}
}

func (c *client) do(r *request, a *answer) error {
	switch {
	case r.Setup != nil:
		return c.prepare(*r.Setup)
	case r.Connect != nil:
		return c.connect(r.Connect)
	case r.Prime != nil && c.flows[r.Prime.Variant] != nil:
		return c.flows[r.Prime.Variant].prime()
	case r.Body != nil:
		return c.ready(r.Body)
	case r.Slice != nil:
		return c.slice(r.Slice, a)
	case r.Lone != nil:
		return c.lone(r.Lone, a)
	case r.Verify != nil:
		return c.verify(r.Verify, a)
	case r.Idle != nil:
		return c.connectIdle(r.Idle)
	case r.Carry != nil:
		return c.carry(r.Carry, a)
	case r.Traffic != nil:
		return c.connectTraffic(r.Traffic)
	case r.Round != nil && c.traffic != nil:
		return c.traffic.round(r.Round, &a.Round)
	case r.Newcomer != nil:
		return c.newcomer(r.Newcomer, a)
	}
	return errors.New("a request that the load does not know")
}

func (c *client) prepare(s setupRequest) error {
	root, err := x509.ParseCertificate(s.Root)
	if err != nil {
		return err
	}
	c.roots = x509.NewCertPool()
	c.roots.AddCert(root)
	c.setup = s
	c.members = make([]*member, len(s.Nodes))
	for i, n := range s.Nodes {
		if c.members[i], err = newMember(n); err != nil {
			return err
		}
	}
	return nil
}

// connect makes a variant's connections: senders and receivers, or with echo
// only senders.
func (c *client) connect(r *connectRequest) error {
	var pids []int
	for _, u := range r.Under {
		pids = append(pids, u.PID)
	}
	f, err := newFlow(r.Variant, pids, c.setup.LoadCore, c.setup.Window)
	if err != nil {
		return err
	}
	c.flows[r.Variant] = f
	if isPeer(r.Variant) {
		return c.connectPeer(f, r.Under[0].Addr)
	}
	members, echo := c.members, r.Variant == variantEcho
	if echo {
		members = members[:c.setup.Senders]
	}
	for i, m := range members {
		sends, at := i < c.setup.Senders, r.Under[0]
		if !sends {
			at = r.Under[len(r.Under)-1]
		}
		conn, err := dial(at.Addr, "", m, c.roots)
		if err != nil {
			return fmt.Errorf("%s: connection %d: %w", r.Variant, i+1, err)
		}
		if isRouter(r.Variant) {
			if err := conn.hello(at.Router); err != nil {
				return fmt.Errorf("%s: hello: %w", r.Variant, err)
			}
		}
		if err := f.add(conn, sends, echo || !sends); err != nil {
			return err
		}
	}
	return nil
}

// checkedFrom is after how many bytes on a connection one of its frames must
// have been looked at: some record of so many lies in one read as a whole.
const checkedFrom = 4 * inSize

// ready sets the size of bodies and what may be under way, and signs if frames of
// that size are not there.
func (c *client) ready(r *bodyRequest) error {
	for _, f := range c.flows {
		f.underWay = r.UnderWay
	}
	if r.Size != c.body || time.Since(c.signedAt) > resignAfter {
		return c.sign(r.Size)
	}
	return c.size()
}

// sign sets the size of bodies and signs what senders will send.
func (c *client) sign(body int) error {
	senders, receivers := c.members[:c.setup.Senders], c.members[c.setup.Senders:]
	distinct, bursts := distinctFrames(frameSize(body), len(receivers), len(senders)), distinctBursts(burstFrameSize(body), len(senders))
	for i, m := range senders {
		if err := m.signAhead(receivers, i*distinct+i, distinct, body); err != nil {
			return err
		}
		if c.flows[variantBursts] == nil {
			continue
		}
		if err := m.signBursts(receivers, i*bursts*burstFrames+i, bursts, body); err != nil {
			return err
		}
	}
	c.body, c.signedAt = body, time.Now()
	return c.size()
}

// size has all flows send what was signed.
func (c *client) size() error {
	for _, f := range c.flows {
		if err := f.size(c.body); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) flow(variant string) (*flow, error) {
	f := c.flows[variant]
	if f == nil {
		return nil, fmt.Errorf("%s is not connected", variant)
	}
	if time.Since(c.signedAt) > resignAfter {
		return f, c.sign(c.body)
	}
	return f, nil
}

// slice moves frames, and measures all but the warm-up.
func (c *client) slice(r *sliceRequest, a *answer) error {
	f, err := c.flow(r.Variant)
	if err != nil {
		return err
	}
	for _, conn := range f.conns {
		conn.checked, conn.before = false, conn.got.plain
	}
	if err := f.run(time.Now().Add(r.Warm)); err != nil {
		return err
	}
	before, err := readClocks(f.under, f.loadCore)
	if err != nil {
		return err
	}
	from := f.received
	if err := f.run(before.at.Add(r.Length)); err != nil {
		return err
	}
	after, err := readClocks(f.under, f.loadCore)
	if err != nil {
		return err
	}
	a.Usage = after.since(before)
	a.Frames = float64(f.received-from) / float64(f.frame)
	if err := f.drain(); err != nil {
		return err
	}
	a.Total = f.frames
	for _, conn := range f.receivers {
		if got := conn.got.plain - conn.before; !conn.checked && got >= checkedFrom {
			return fmt.Errorf("%s: of %d bytes that came on a connection no frame could be checked", r.Variant, got)
		}
	}
	return nil
}
