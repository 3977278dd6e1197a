package session

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// trouble is what a network of one seed does.
type trouble struct {
	loss, twice float64
	base        time.Duration // of every frame
	jitter      time.Duration // on top, for each copy
	late        time.Duration // of second copies
	restarts    int
	kem         [2]bool
	window      int
	lazy        bool
}

var seeds = flag.Uint64("seeds", propertySeeds, "seeds of each property test; a fifth under -short")

// seedsNow is how many seeds are played.
func seedsNow() uint64 {
	if testing.Short() {
		return *seeds / 5
	}
	return *seeds
}

const (
	propertyTime  = 40 * time.Second
	networkJitter = 200 * time.Millisecond // which costs nothing
)

// play sends numbered messages both ways for propertyTime, and checks what is
// delivered.
func play(t *testing.T, seed uint64, x trouble) {
	n := newNetwork(t, seed)
	r := rand.New(n.random)
	n.route = func(*end, []byte) (delays []time.Duration) {
		if r.Float64() < x.loss {
			return nil
		}
		delays = append(delays, x.base+rand64(r, x.jitter))
		for r.Float64() < x.twice {
			delays = append(delays, x.base+rand64(r, x.late))
		}
		return delays
	}
	var sent [2]uint64
	for i, e := range n.ends {
		e.pace = pace{renewAfter: 4 * time.Second, renewLater: rand64(r, time.Second), holdAfter: 9 * time.Second, eraseAfter: 14 * time.Second, renewMessages: 40 + r.Uint64N(100), holdMessages: 1 << 20}
		e.cfg.Window = x.window
		e.lazy = x.lazy
		if x.kem[i] {
			e.withKEM()
		} else {
			e.restart()
		}
		for range 60 {
			n.after(rand64(r, propertyTime), func() {
				for range 1 + r.IntN(4) {
					sent[i]++
					content := make([]byte, 8+r.IntN(400))
					binary.BigEndian.PutUint64(content, sent[i])
					e.outbox = append(e.outbox, content)
				}
				e.pump()
			})
			if x.lazy {
				n.after(rand64(r, propertyTime), func() { e.take(r.IntN(len(e.untaken) + 1)) })
			}
		}
	}
	for range x.restarts {
		e := n.ends[r.IntN(2)]
		n.after(rand64(r, propertyTime), func() { e.restart(); e.pump() })
	}
	n.run(propertyTime)
	calm := x.loss == 0 && x.restarts == 0 && x.jitter <= networkJitter
	if !calm {
		n.run(10 * time.Second) // what was under way
		n.route = func(*end, []byte) []time.Duration { return []time.Duration{20 * time.Millisecond} }
	}
	lastWords(n)
	for i, e := range n.ends {
		checkSubsequence(t, e.got, sent[1-i], calm)
	}
}

// lastWords lets applications read, and checks that all which was never sent, and
// a last message of each side, arrives over a network that loses nothing any more.
func lastWords(n *network) {
	n.t.Helper()
	for _, e := range n.ends {
		e.lazy = false
		e.act()
	}
	n.run(5 * time.Minute)
	for _, e := range n.ends {
		e.send("the last")
	}
	n.run(2 * time.Minute)
	for _, e := range n.ends {
		if last := len(e.got) - 1; last < 0 || string(e.got[last]) != "the last" || len(e.outbox) != 0 {
			n.t.Fatalf("end %d: the last message is not there after the network has healed; %d wait to be sent; drops %v", e.address[15], len(e.other.outbox), e.drops)
		}
		e.got = e.got[:len(e.got)-1]
	}
}

func rand64(r *rand.Rand, below time.Duration) time.Duration {
	if below == 0 {
		return 0
	}
	return time.Duration(r.Int64N(int64(below)))
}

// checkSubsequence: numbers rise, none comes twice; if complete, all are there.
func checkSubsequence(t *testing.T, got [][]byte, sent uint64, complete bool) {
	t.Helper()
	last := uint64(0)
	for _, c := range got {
		number := binary.BigEndian.Uint64(c)
		if number <= last || number > sent {
			t.Fatalf("message %d after %d, of %d", number, last, sent)
		}
		if complete && number != last+1 {
			t.Fatalf("messages %d to %d are missing, though the network loses and delays none too much", last+1, number-1)
		}
		last = number
	}
	if complete && last != sent {
		t.Fatalf("%d of %d messages came", last, sent)
	}
}

func TestWhatIsDeliveredIsASubsequenceOfWhatWasSent(t *testing.T) {
	for seed := range seedsNow() {
		r := rand.New(rand.NewPCG(seed, 1))
		x := trouble{
			loss: r.Float64() * 0.4, twice: r.Float64() * 0.3, base: rand64(r, 500*time.Millisecond), jitter: rand64(r, 2*time.Second),
			late: rand64(r, 10*time.Second), restarts: r.IntN(4), kem: [2]bool{r.IntN(8) == 0, r.IntN(8) == 0}, window: 4096 << r.IntN(8), lazy: r.IntN(2) == 0,
		}
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { play(t, seed, x) }) {
			t.Logf("%+v", x)
		}
	}
}

func TestEveryMessageIsDeliveredWhenTheNetworkLosesNone(t *testing.T) {
	for seed := range seedsNow() {
		r := rand.New(rand.NewPCG(seed, 2))
		x := trouble{
			twice: r.Float64() * 0.3, base: rand64(r, 2*time.Second), jitter: rand64(r, networkJitter),
			late: rand64(r, 10*time.Second), kem: [2]bool{r.IntN(8) == 0, r.IntN(8) == 0}, window: 4096 << r.IntN(8), lazy: r.IntN(2) == 0,
		}
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { play(t, seed, x) }) {
			t.Logf("%+v", x)
		}
	}
}
