package sign

import (
	"crypto/ed25519"
	"encoding/binary"
	"flag"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"
)

var (
	benchBytes   = flag.Int("bench.bytes", 256, "size of the messages of benchmarks")
	benchSigners = flag.Int("bench.signers", 0, "only this number of signers in BenchmarkVerifySigners")
	benchRounds  = flag.Int("bench.rounds", 7, "rounds of BenchmarkVerifyRatios")
)

// traffic is what benchmarks verify: messages of so many signers in turn, none
// twice.
type traffic struct {
	checks []Check
	at     int
}

const hotSigners = 64

func newTraffic(b *testing.B, signers, messages int) *traffic {
	b.Helper()
	l := &traffic{}
	var keys []*Key
	var private []ed25519.PrivateKey
	for i := range signers {
		seed := binary.LittleEndian.AppendUint64(make([]byte, 24, 32), uint64(i))
		private = append(private, ed25519.NewKeyFromSeed(seed))
		keys = append(keys, edKey(b, private[i].Public().(ed25519.PublicKey)))
	}
	for i := range messages {
		// Signers in an order that no prefetcher foresees.
		s := i * 7919 % signers
		message := make([]byte, *benchBytes)
		binary.LittleEndian.PutUint64(message, uint64(i))
		l.checks = append(l.checks, Check{Key: keys[s], Signed: message, Signature: ed25519.Sign(private[s], message)})
	}
	return l
}

// next returns the next n checks; messages is a multiple of n.
func (l *traffic) next(n int) []Check {
	if l.at == len(l.checks) {
		l.at = 0
	}
	l.at += n
	return l.checks[l.at-n : l.at]
}

// hot returns a Verifier that has tables for all keys of l.
func (l *traffic) hot(b *testing.B, path Path) *Verifier {
	b.Helper()
	keys := map[*Key]bool{}
	for _, c := range l.checks {
		keys[c.Key] = true
	}
	t, err := NewTables(TablesConfig{Memory: mapMemory(b, TablesMemoryMin+len(keys)*tableSize), Path: path})
	if err != nil {
		b.Fatal(err)
	}
	for k := range keys {
		if t.Build(k, time.Time{}) != 0 {
			b.Fatal("no table")
		}
	}
	return t.NewVerifier()
}

func mustAll(b *testing.B, checks []Check) {
	for i := range checks {
		if !checks[i].Good {
			b.Fatal("refused")
		}
	}
}

// cpuTime reports, when the returned function is called, the CPU time of an
// iteration since: on a shared machine it says more than the time of day.
func cpuTime(b *testing.B) (report func()) {
	runtime.LockOSThread()
	began := threadTime()
	return func() {
		b.ReportMetric(float64(threadTime()-began)/float64(b.N), "cpu-ns/op")
		runtime.UnlockOSThread()
	}
}

func BenchmarkVerifyStdlib(b *testing.B) {
	l := newTraffic(b, hotSigners, 1024)
	defer cpuTime(b)()
	for b.Loop() {
		c := &l.next(1)[0]
		if !ed25519.Verify(c.Key.ed, c.Signed, c.Signature) {
			b.Fatal("refused")
		}
	}
}

func benchmarkHot(b *testing.B, signers, batch int) {
	for _, path := range tablePaths() {
		b.Run(path.String(), func(b *testing.B) {
			l := newTraffic(b, signers, (max(1024, signers)+batchMax-1)/batchMax*batchMax)
			v := l.hot(b, path)
			defer cpuTime(b)()
			for i := 0; b.Loop(); i++ {
				if i%batch == 0 {
					checks := l.next(batch)
					v.Verify(checks)
					mustAll(b, checks)
				}
			}
		})
	}
}

func BenchmarkVerifyHotSigner(b *testing.B)        { benchmarkHot(b, hotSigners, 1) }
func BenchmarkVerifyHotSignerBatch8(b *testing.B)  { benchmarkHot(b, hotSigners, 8) }
func BenchmarkVerifyHotSignerBatch64(b *testing.B) { benchmarkHot(b, hotSigners, 64) }

// BenchmarkVerifyBurst64 is a frame of a burst of 64. No burst was seen before:
// what is remembered of the last time is forgotten.
func BenchmarkVerifyBurst64(b *testing.B) {
	const size, bursts = 64, 256
	for _, path := range tablePaths() {
		b.Run(path.String(), func(b *testing.B) {
			v, all := newBursts(b, path, size, bursts)
			defer cpuTime(b)()
			for i := 0; b.Loop(); i++ {
				if i%size == 0 {
					v.Verify(all.next(size))
				}
				if i%(size*bursts) == 0 {
					clear(v.trees.slots)
				}
			}
			mustAll(b, all.checks[:size])
			if s := v.tables.Stats(); s.ByTree/(size-1) > s.ByTable {
				b.Fatalf("heads were remembered: %+v", s)
			}
		})
	}
}

// newBursts returns bursts by hotSigners in turn, which have tables.
func newBursts(b *testing.B, path Path, size, bursts int) (*Verifier, *traffic) {
	b.Helper()
	all := &traffic{}
	signers := testSigners(b, hotSigners)
	for n := range bursts {
		all.checks = append(all.checks, burstOfBytes(b, &signers[n%hotSigners], size, *benchBytes, n)...)
	}
	return all.hot(b, path), all
}

// BenchmarkVerifySigners is a batch of 64 by more and more signers.
func BenchmarkVerifySigners(b *testing.B) {
	for _, signers := range []int{1, 100, 1_000, 10_000} {
		if *benchSigners == 0 || *benchSigners == signers {
			b.Run(fmt.Sprint(signers), func(b *testing.B) { benchmarkHot(b, signers, batchMax) })
		}
	}
}

func BenchmarkTableBuild(b *testing.B) {
	l := newTraffic(b, 256, 256)
	for _, path := range tablePaths() {
		b.Run(path.String(), func(b *testing.B) {
			t, err := NewTables(TablesConfig{Memory: make([]byte, TablesMemoryMin), Path: path})
			if err != nil {
				b.Fatal(err)
			}
			defer cpuTime(b)()
			for i := 0; b.Loop(); i++ {
				if t.Build(l.checks[i%256].Key, time.Time{}) != 0 {
					b.Fatal("no table")
				}
			}
		})
	}
}

func BenchmarkBaseTable(b *testing.B) {
	t, err := NewTables(TablesConfig{Memory: make([]byte, TablesMemoryMin)})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		t.makeBase()
	}
}

// BenchmarkVerifyRatios lets every path and batch size take turns with
// crypto/ed25519, in slices of 0.3 s of CPU time, and reports the median over the rounds of
// the ratio within a round, as times faster ("x").
func BenchmarkVerifyRatios(b *testing.B) {
	l := newTraffic(b, hotSigners, 1024)
	type variant struct {
		name string
		run  func() (signatures int)
	}
	variants := []variant{{"stdlib", func() int {
		c := &l.next(1)[0]
		ed25519.Verify(c.Key.ed, c.Signed, c.Signature)
		return 1
	}}}
	for _, path := range tablePaths() {
		l := newTraffic(b, hotSigners, 1024)
		v := l.hot(b, path)
		for _, batch := range []int{1, 8, 64} {
			l := &traffic{checks: l.checks}
			variants = append(variants, variant{fmt.Sprintf("%v-%d", path, batch), func() int {
				v.Verify(l.next(batch))
				return batch
			}})
		}
		bursting, bursts := newBursts(b, path, 64, 256)
		variants = append(variants, variant{fmt.Sprintf("%v-burst64", path), func() int {
			if bursts.at == len(bursts.checks) {
				clear(bursting.trees.slots)
			}
			bursting.Verify(bursts.next(64))
			return 64
		}})
	}
	ratios := make([][]float64, len(variants))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for b.Loop() {
		for range *benchRounds {
			var stdlib float64
			for i, v := range variants {
				const slice = 300 * time.Millisecond // caches are warm after a tenth
				n := 0
				began := threadTime()
				for threadTime()-began < slice {
					for range 16 {
						n += v.run()
					}
				}
				each := float64(threadTime()-began) / float64(n)
				if i == 0 {
					stdlib = each
				}
				ratios[i] = append(ratios[i], stdlib/each)
				if i == 0 {
					ratios[0][len(ratios[0])-1] = each
				}
			}
		}
	}
	for i, v := range variants {
		slices.Sort(ratios[i])
		n := len(ratios[i])
		unit := v.name + "-x"
		if i == 0 {
			unit = "stdlib-ns"
		}
		b.ReportMetric(ratios[i][n/2], unit)
		b.Logf("%-12s median %8.2f, quartiles %.2f and %.2f", v.name, ratios[i][n/2], ratios[i][n/4], ratios[i][n*3/4])
	}
}
