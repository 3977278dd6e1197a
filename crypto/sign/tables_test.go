package sign

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// testSigner signs for tests of tables.
type testSigner struct {
	private ed25519.PrivateKey
	key     *Key
}

func testSigners(t testing.TB, n int) (all []testSigner) {
	t.Helper()
	for i := range n {
		private := ed25519.NewKeyFromSeed(append(make([]byte, 30), byte(i>>8), byte(i)))
		all = append(all, testSigner{private, edKey(t, private.Public().(ed25519.PublicKey))})
	}
	return all
}

func (s *testSigner) check(message string) Check {
	return Check{Key: s.key, Signed: []byte(message), Signature: ed25519.Sign(s.private, []byte(message))}
}

// smallTables has room for so many signers. Its memory is not aligned.
func smallTables(t testing.TB, signers int) *Tables {
	t.Helper()
	tables, err := NewTables(TablesConfig{Memory: make([]byte, TablesMemoryMin+(signers-1)*tableSize+1)[1:]})
	if err != nil {
		t.Fatal(err)
	}
	if got := tables.Stats().Slots; got != signers {
		t.Fatalf("%d slots, want %d", got, signers)
	}
	return tables
}

func mustBuild(t testing.TB, tables *Tables, keys ...*Key) {
	t.Helper()
	for _, k := range keys {
		if again := tables.Build(k, time.Time{}); again != 0 || k.lookUp(tables) == nil {
			t.Fatalf("no table for another %v", again)
		}
	}
}

func verifyOne(v *Verifier, c Check) bool {
	checks := []Check{c}
	v.Verify(checks)
	return checks[0].Good
}

func TestKeysAreWantedATableAfterSomeGoodSignatures(t *testing.T) {
	tables := smallTables(t, 1)
	v := tables.NewVerifier()
	s := &testSigners(t, 1)[0]
	bad := s.check("message")
	bad.Signed = []byte("massage")
	for range 3 * buildAfter {
		if verifyOne(v, bad) {
			t.Fatal("a bad signature was accepted")
		}
	}
	for i := range buildAfter {
		if n := len(tables.Wanted()); n != 0 {
			t.Fatalf("%d keys wanted after %d good signatures", n, i)
		}
		if !verifyOne(v, s.check("message")) {
			t.Fatal("refused")
		}
	}
	if k := <-tables.Wanted(); k != s.key {
		t.Fatal("another key is wanted")
	} else {
		mustBuild(t, tables, k)
	}
	if !verifyOne(v, s.check("message")) || verifyOne(v, bad) {
		t.Error("wrong verdict with a table")
	}
	if got := tables.Stats(); got.ByTable != 2 || got.Rechecked != 1 || got.ByStdlib != 4*buildAfter || got.Builds != 1 || got.Tables != 1 || got.Differences != 0 {
		t.Errorf("%+v", got)
	}
}

func TestTheWantedAreBounded(t *testing.T) {
	tables := smallTables(t, 1)
	s := testSigners(t, 1)[0]
	for range wantedMax + 10 {
		tables.want(s.key)
	}
	if n := len(tables.Wanted()); n != wantedMax {
		t.Errorf("%d wanted", n)
	}
}

func TestKeysOfTheSameSignerShareATable(t *testing.T) {
	tables := smallTables(t, 2)
	s := testSigners(t, 1)[0]
	again := edKey(t, s.key.ed)
	mustBuild(t, tables, s.key, again, again)
	if got := tables.Stats(); got.Builds != 1 || s.key.lookUp(tables) != again.lookUp(tables) {
		t.Errorf("%+v", got)
	}
	if other := smallTables(t, 1); again.lookUp(other) != nil {
		t.Error("tables of others are used")
	}
}

func TestTheTableNotUsedMakesRoom(t *testing.T) {
	const slots = 5
	tables := smallTables(t, slots)
	v := tables.NewVerifier()
	signers := testSigners(t, slots+3)
	for i := range slots {
		mustBuild(t, tables, signers[i].key)
	}
	for round, idle := range []int{3, 1, 4} {
		for i := range slots {
			if i != idle && signers[i].key.lookUp(tables) != nil {
				verifyOne(v, signers[i].check("message"))
			}
		}
		mustBuild(t, tables, signers[slots+round].key)
		verifyOne(v, signers[slots+round].check("message"))
		if signers[idle].key.lookUp(tables) != nil {
			t.Errorf("round %d: the idle signer's table is still there", round)
		}
		if !verifyOne(v, signers[idle].check("message")) {
			t.Errorf("round %d: a signer who has lost its table is refused", round)
		}
	}
	if got := tables.Stats(); got.Evictions != 3 || got.Tables != slots {
		t.Errorf("%+v", got)
	}
}

func TestNoSlotIsWrittenUnderABatch(t *testing.T) {
	tables := smallTables(t, 1)
	v, other := tables.NewVerifier(), tables.NewVerifier()
	signers := testSigners(t, 2)
	mustBuild(t, tables, signers[0].key)
	offset := signers[0].key.lookUp(tables).offset / entrySize
	before := slices.Clone(tables.arena[offset : offset+tableEntries])
	v.batch.Add(1) // begins
	for range 3 {
		if again := tables.Build(signers[1].key, time.Time{}); again <= 0 {
			t.Fatal("the slot was taken under a running batch")
		}
		other.batch.Add(1) // one that begins now cannot see the table
	}
	if !slices.Equal(before, tables.arena[offset:offset+tableEntries]) || signers[0].key.lookUp(tables) != nil {
		t.Fatal("a table was changed, or is still to be found")
	}
	v.batch.Add(1) // ends
	v.batch.Add(1) // the next one begins
	mustBuild(t, tables, signers[1].key)
}

func TestBuildsArePaused(t *testing.T) {
	tables, err := NewTables(TablesConfig{Memory: make([]byte, TablesMemoryMin+tableSize), BuildPause: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	signers := testSigners(t, 2)
	now := time.Unix(1e9, 0)
	check := func(signer int, at, want time.Duration) {
		t.Helper()
		if got := tables.Build(signers[signer].key, now.Add(at)); got != want {
			t.Errorf("after %v: again in %v, want %v", at, got, want)
		}
	}
	check(0, 0, 0)
	check(0, 0, 0)
	check(1, 300*time.Millisecond, 700*time.Millisecond)
	check(1, time.Second, 0)
}

func TestKeysWithTorsionHaveNoTable(t *testing.T) {
	tables := smallTables(t, 1)
	v := tables.NewVerifier()
	m := &caseMaker{rand: rand.New(rand.NewPCG(13, 14))}
	publics := [][]byte{make([]byte, 31, 32), refB.mul(m.scalar()).add(ref8T[1]).encode(), refB.add(ref8T[4]).encode(), ref8T[2].encode()}
	publics[0] = append(publics[0], 1<<7|3) // no point
	for i, public := range publics {
		k := edKey(t, public)
		for range 2 {
			if tables.Build(k, time.Time{}) != 0 || k.table.Load() != noTable {
				t.Errorf("%x has a table", public)
			}
		}
		if got := tables.Stats(); got.Untabled != uint64(i+1) || got.Tables != 0 {
			t.Errorf("%+v", got)
		}
	}
	s := testSigners(t, 1)[0]
	mustBuild(t, tables, s.key)
	if !verifyOne(v, s.check("message")) {
		t.Error("refused")
	}
}

// A fault of a table is found when it refuses what crypto/ed25519 accepts; from
// then on no table is used.
func TestADifferenceStopsTheTables(t *testing.T) {
	tables := smallTables(t, 1)
	v := tables.NewVerifier()
	s := &testSigners(t, 1)[0]
	mustBuild(t, tables, s.key)
	offset := s.key.lookUp(tables).offset / entrySize
	for i := range tables.arena[offset : offset+tableEntries] {
		tables.arena[offset+uint64(i)][entryT] ^= 4
		tables.arena[offset+uint64(i)][entryMinusT] ^= 4
	}
	for range 3 {
		if !verifyOne(v, s.check("message")) {
			t.Fatal("refused")
		}
	}
	if got := tables.Stats(); got.Differences != 1 || got.ByTable != 1 || got.ByStdlib != 2 {
		t.Errorf("%+v", got)
	}
}

func TestSomeOfTheAcceptedAreCheckedAgain(t *testing.T) {
	tables := smallTables(t, 1)
	v := tables.NewVerifier()
	s := &testSigners(t, 1)[0]
	mustBuild(t, tables, s.key)
	checks := slices.Repeat([]Check{s.check("message")}, 2*recheckEvery)
	v.Verify(checks)
	if got := tables.Stats(); got.ByTable != 2*recheckEvery || got.Rechecked != 2 || got.Differences != 0 {
		t.Errorf("%+v", got)
	}
}

// So are all that a table refused, also those whose s is not below L.
func TestTheRefusedAreCheckedAgain(t *testing.T) {
	tables := smallTables(t, 1)
	v := tables.NewVerifier()
	s := &testSigners(t, 1)[0]
	mustBuild(t, tables, s.key)
	flipped, large, burst := s.check("message"), s.check("message"), burstOf(t, s, 2)[0]
	flipped.Signature[0] ^= 1
	large.Signature[63] |= 0x80
	burst.Signature[63] |= 0x80
	v.Verify([]Check{flipped, s.check("message"), large, burst})
	if got := tables.Stats(); got.ByTable != 4 || got.Rechecked != 3 || got.Differences != 0 {
		t.Errorf("%+v", got)
	}
}

// Batches count for the path that they took, by their size.
func TestBatchesAreCounted(t *testing.T) {
	for _, path := range tablePaths() {
		tables := sharedTables(t, path)
		v := tables.NewVerifier()
		signers := testSigners(t, 2)
		mustBuild(t, tables, signers[0].key)
		tabled, other := signers[0].check("message"), signers[1].check("message")
		for n, size := range map[int]string{1: "1", 2: "2", 3: "3-7", 7: "3-7", 8: "8-15", 31: "16-31", 63: "32-63", 64: "64"} {
			before := tables.Stats().Batches
			v.Verify(append(slices.Repeat([]Check{tabled}, n), other))
			after := tables.Stats().Batches
			grown := func(p Path, size string) uint64 { return after.Of(p)[size] - before.Of(p)[size] }
			took := uint64(0)
			for _, p := range tablePaths() {
				took += grown(p, size)
			}
			// The 65th signature is a batch of its own.
			if after.Sum() != before.Sum()+2 || took != 1 || n >= lanes && grown(path, size) != 1 || grown(PathStdlib, "1") != 1 {
				t.Errorf("%v: %d signatures: %v, before %v", path, n, after, before)
			}
		}
	}
}

func TestTooLittleMemoryIsRefused(t *testing.T) {
	if _, err := NewTables(TablesConfig{Memory: make([]byte, TablesMemoryMin-1)}); !errors.Is(err, ErrTablesMemory) {
		t.Error(err)
	}
	tables, err := NewTables(TablesConfig{Path: PathStdlib})
	if err != nil {
		t.Fatal(err)
	}
	s := testSigners(t, 1)[0]
	if tables.Build(s.key, time.Time{}) != 0 || s.key.table.Load() != nil || !verifyOne(tables.NewVerifier(), s.check("message")) {
		t.Error("without tables")
	}
}

func TestVerifierAllocatesNothing(t *testing.T) {
	tables := smallTables(t, 8)
	v := tables.NewVerifier()
	var checks []Check
	for i, s := range testSigners(t, 9) {
		if i < 8 {
			mustBuild(t, tables, s.key)
		}
		checks = append(checks, s.check("message"))
	}
	checks = append(checks, burstOf(t, &testSigners(t, 1)[0], 5)...)
	if n := testing.AllocsPerRun(20, func() { v.Verify(checks) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for i, c := range checks {
		if !c.Good {
			t.Errorf("%d refused", i)
		}
	}
}

// burstOf returns the checks of a burst of so many messages.
func burstOf(t testing.TB, s *testSigner, size int) (checks []Check) {
	t.Helper()
	return burstOfBytes(t, s, size, 8, 0)
}

// burstOfBytes returns another burst for each number.
func burstOfBytes(t testing.TB, s *testSigner, size, bytes, number int) (checks []Check) {
	t.Helper()
	var leaves [][32]byte
	for i := range size {
		message := make([]byte, bytes)
		binary.LittleEndian.PutUint32(message, uint32(number))
		binary.LittleEndian.PutUint32(message[4:], uint32(i))
		checks = append(checks, Check{Key: s.key, Signed: message})
		leaves = append(leaves, leafHash(message))
	}
	root := slowRoot(leaves)
	signature := ed25519.Sign(s.private, appendHead(nil, uint(size), &root))
	for i := range checks {
		field := append(slices.Clone(signature), byte(size>>8), byte(size), byte(i>>8), byte(i))
		for _, step := range slowPath(i, leaves) {
			field = append(field, step[:]...)
		}
		checks[i].Signature = field
	}
	return checks
}

func TestBurstsAreVerifiedWithTables(t *testing.T) {
	tables := smallTables(t, 1)
	v := tables.NewVerifier()
	s := &testSigners(t, 1)[0]
	for _, built := range []bool{false, true} {
		if built {
			mustBuild(t, tables, s.key)
		}
		for _, size := range []int{2, 3, 64, 70} {
			checks := burstOf(t, s, size)
			checks[size/2].Signed = append(checks[size/2].Signed, 'x')
			v.Verify(checks)
			for i, c := range checks {
				if c.Good != (i != size/2) {
					t.Errorf("burst of %d, frame %d: %v", size, i, c.Good)
				}
			}
		}
	}
}

// Workers verify while tables come and go: more signers than slots.
func TestWorkersAndBuilderAtOnce(t *testing.T) {
	tables := smallTables(t, 3)
	signers := testSigners(t, 7)
	done := make(chan struct{})
	var builder, workers sync.WaitGroup
	builder.Go(func() {
		for {
			select {
			case <-done:
				return
			case k := <-tables.Wanted():
				for tables.Build(k, time.Time{}) > 0 {
					time.Sleep(time.Microsecond)
				}
			}
		}
	})
	for w := range 3 {
		v := tables.NewVerifier()
		workers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 15))
			for tables.Stats().Evictions < 20 && !t.Failed() {
				var checks []Check
				var want []bool
				for range 1 + r.IntN(20) {
					c := signers[r.IntN(len(signers))].check("message")
					good := r.IntN(8) != 0
					if !good {
						c.Signature[r.IntN(64)] ^= 1
					}
					checks, want = append(checks, c), append(want, good)
				}
				v.Verify(checks)
				for i, c := range checks {
					if c.Good != want[i] {
						t.Errorf("verdict %v, want %v", c.Good, want[i])
					}
				}
			}
		})
	}
	workers.Wait()
	close(done)
	builder.Wait()
	if got := tables.Stats(); got.Differences != 0 || got.ByTable == 0 || got.ByStdlib == 0 || got.Tables > got.Slots {
		t.Errorf("%+v", got)
	}
}
