package sign

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var (
	casesFlag = flag.Int("verify.cases", 6_000, "random cases that are compared with crypto/ed25519")
	seedFlag  = flag.Uint64("verify.seed", 1, "seed of the cases")
	fileFlag  = flag.String("verify.file", "", "files of further cases, separated by commas: published sets as they are, or lines (published_test.go)")
)

// checker gives the verdicts of one way to verify on cases, some of which may
// share a key.
type checker struct {
	name  string
	check func(t testing.TB, cases []signedCase) []bool
}

// checkers returns every way to verify that this CPU has: each path, one at a
// time, in full batches and in batches of random sizes. Of the paths with tables
// it is their own verdict, without crypto/ed25519's on what they refuse.
func checkers(t testing.TB) []checker {
	all := []checker{{"Key.Verify", func(t testing.TB, cases []signedCase) (verdicts []bool) {
		for _, c := range cases {
			verdicts = append(verdicts, edKey(t, c.key).Verify(c.message, c.signature))
		}
		return verdicts
	}}}
	for _, path := range Paths() {
		for mode := range modes {
			if raceDetector && mode != len(modes)-1 {
				continue // ten times as slow; what it sees is the same in all modes
			}
			all = append(all, pathChecker(t, path, mode))
		}
	}
	return all
}

// modes are how cases are cut into batches.
var modes = []struct {
	name string
	size func(r *rand.Rand) int
}{
	{"one", func(*rand.Rand) int { return 1 }},
	{"full", func(*rand.Rand) int { return batchMax }},
	{"random", func(r *rand.Rand) int { return 1 + r.IntN(batchMax) }},
}

func pathChecker(t testing.TB, path Path, mode int) checker {
	tables := sharedTables(t, path)
	v := tables.NewVerifier()
	v.alone = true
	r := rand.New(rand.NewPCG(*seedFlag, 3))
	return checker{path.String() + ", " + modes[mode].name, func(t testing.TB, cases []signedCase) (verdicts []bool) {
		for len(cases) > 0 {
			n := min(len(cases), modes[mode].size(r))
			verdicts = append(verdicts, verifyWithTables(t, tables, v, cases[:n])...)
			cases = cases[n:]
		}
		return verdicts
	}}
}

// verifyWithTables has v check cases as one batch, every key of which has a
// table that can have one.
func verifyWithTables(t testing.TB, tables *Tables, v *Verifier, cases []signedCase) (verdicts []bool) {
	t.Helper()
	checks := make([]Check, len(cases))
	keys := map[string]*Key{}
	for i, c := range cases {
		k := keys[string(c.key)]
		if k == nil {
			k = edKey(t, c.key)
			keys[string(c.key)] = k
		}
		checks[i] = Check{Key: k, Signed: c.message, Signature: c.signature, Good: i%2 == 0}
		if again := tables.Build(checks[i].Key, time.Time{}); again != 0 {
			t.Fatalf("no table for another %v, without a pause or a running batch", again)
		}
	}
	v.Verify(checks)
	for _, c := range checks {
		verdicts = append(verdicts, c.Good)
	}
	return verdicts
}

// sharedTables returns Tables of path with room for two batches of distinct keys.
func sharedTables(t testing.TB, path Path) *Tables {
	t.Helper()
	made := shared[path]
	if made == nil {
		var err error
		if made, err = NewTables(TablesConfig{Memory: make([]byte, TablesMemoryMin+(2*batchMax-1)*tableSize), Path: path}); err != nil {
			t.Fatal(err)
		}
		shared[path] = made
	}
	return made
}

var shared = map[Path]*Tables{}

func TestPathsThatThisCPULacksAreNamed(t *testing.T) {
	have, lacking := Paths(), LackingPaths()
	if len(have) < 2 || have[0] != PathStdlib || have[1] != PathPortable || len(have)+len(lacking) != int(pathEnd-1) {
		t.Errorf("has %v, lacks %v", have, lacking)
	}
	t.Logf("this machine: paths tested %v; its CPU lacks %v", have, lacking)
	for _, p := range have {
		if got, err := ParsePath(p.String()); got != p || err != nil {
			t.Errorf("%v: %v, %v", p, got, err)
		}
	}
	for _, p := range lacking {
		if _, err := ParsePath(p.String()); !errors.Is(err, ErrPath) {
			t.Errorf("%v: %v", p, err)
		}
		if _, err := NewTables(TablesConfig{Path: p}); !errors.Is(err, ErrPath) {
			t.Errorf("%v: %v", p, err)
		}
	}
	if p, err := ParsePath("auto"); p != have[len(have)-1] || err != nil {
		t.Errorf("auto: %v, %v", p, err)
	}
	if _, err := ParsePath("sideways"); !errors.Is(err, ErrPath) {
		t.Errorf("%v", err)
	}
}

// tablePaths are the paths that this CPU has, besides the standard library.
func tablePaths() []Path { return Paths()[1:] }

func edKey(t testing.TB, public []byte) *Key {
	t.Helper()
	k, err := NewKey(ed25519.PublicKey(public))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// compare returns how many of cases were accepted, and fails t where a verdict
// is not that of crypto/ed25519.
func compare(t testing.TB, c checker, cases []signedCase) (accepted map[string]int) {
	t.Helper()
	accepted = map[string]int{}
	for i, got := range c.check(t, cases) {
		want := cases[i].want
		if got != want {
			t.Errorf("%s: %s: verdict %v, of crypto/ed25519 %v\nkey %x\nmessage %x\nsignature %x", c.name, cases[i].class,
				got, want, cases[i].key, cases[i].message, cases[i].signature)
		}
		if want {
			accepted[cases[i].class]++
		}
	}
	return accepted
}

func TestEdgeCasesHaveTheVerdictOfTheStandardLibrary(t *testing.T) {
	t.Run("plain", func(t *testing.T) { compareEdgeCases(t, edgeCases(*seedFlag, false)) })
	t.Run("bursts", func(t *testing.T) { compareEdgeCases(t, edgeCases(*seedFlag, true)) })
}

func compareEdgeCases(t *testing.T, cases []signedCase) {
	some := raceDetector || testing.Short() // building a table for every key takes most of the time
	if r := rand.New(rand.NewPCG(*seedFlag, 4)); some {
		cases = slices.DeleteFunc(cases, func(signedCase) bool { return r.IntN(10) != 0 })
	}
	for _, c := range checkers(t) {
		accepted := compare(t, c, cases)
		if some {
			continue
		}
		// Both verdicts occur where they should, or the cases show nothing.
		for _, class := range []string{"good", "R is the identity", "small multiple as A", "mixed order", "mixed order, fitting", "small A", "small A and R", "small R", "re-encoded A"} {
			if accepted[class] == 0 {
				t.Errorf("%s: of class %q none was accepted", c.name, class)
			}
		}
		for _, class := range []string{"s + jL", "sign of R", "short", "non-canonical R"} {
			if accepted[class] != 0 {
				t.Errorf("%s: of class %q some were accepted", c.name, class)
			}
		}
	}
	t.Logf("%d cases", len(cases))
}

// Batches of every size, of plain signatures and bursts.
func TestBatchesOfEverySizeHaveTheVerdictOfTheStandardLibrary(t *testing.T) {
	cases := append(edgeCases(*seedFlag, false), edgeCases(*seedFlag, true)...)
	r := rand.New(rand.NewPCG(*seedFlag, 5))
	inEverySize(t, func(way checker, size int) { compare(t, way, sample(r, cases, size)) })
}

// inEverySize calls do for each path and each size of batches; the race detector has
// some of these.
func inEverySize(t *testing.T, do func(way checker, size int)) {
	step := 1
	if raceDetector {
		step = 21
	}
	for _, path := range tablePaths() {
		tables := sharedTables(t, path)
		v := tables.NewVerifier()
		v.alone = true
		for size := 1; size <= batchMax; size += step {
			do(checker{fmt.Sprintf("%v, %d", path, size), func(t testing.TB, cases []signedCase) []bool {
				return verifyWithTables(t, tables, v, cases)
			}}, size)
		}
		t.Logf("%v: batches of 1 to %d", path, batchMax)
	}
}

// sample returns so many of cases.
func sample(r *rand.Rand, cases []signedCase, n int) (some []signedCase) {
	for range n {
		some = append(some, cases[r.IntN(len(cases))])
	}
	return some
}

// Each path sees all cases, in one of the modes, as plain signatures or as bursts.
func TestRandomCasesHaveTheVerdictOfTheStandardLibrary(t *testing.T) {
	total := rounds(*casesFlag)
	m := &caseMaker{rand: rand.New(rand.NewPCG(*seedFlag, 2))}
	var ways [][]checker // by path, by mode
	for _, path := range tablePaths() {
		var way []checker
		for mode := range modes {
			way = append(way, pathChecker(t, path, mode))
		}
		ways = append(ways, way)
	}
	var signers []caseSigner
	accepted := 0
	for done, round := 0, 0; done < total && !t.Failed(); round++ {
		if round%1000 == 0 {
			signers = signers[:0]
			for range 24 {
				signers = append(signers, m.randomSigner())
			}
		}
		m.cases, m.bursts, m.frames = m.cases[:0], round/len(modes)%2 == 1, nil
		for range min(200, total-done) {
			m.random(signers)
		}
		for _, way := range ways {
			accepted += compare(t, way[round%len(modes)], m.cases)["random"]
		}
		if done += len(m.cases); done%500_000 == 0 {
			t.Logf("%d cases", done)
		}
	}
	if all := total * len(ways); accepted < all/4 || accepted > all*3/4 {
		t.Errorf("%d accepted of %d cases by %d ways", accepted, total, len(ways))
	}
}

const rfc8032 = `d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a,,e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b
3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c,72,92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00
fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025,af82,6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a`

func TestVectorsOfTheRFCAreAccepted(t *testing.T) {
	for line := range bytes.Lines([]byte(rfc8032)) {
		f := bytes.Split(bytes.TrimSpace(line), []byte(","))
		var b [3][]byte
		for i := range b {
			b[i], _ = hex.DecodeString(string(f[i]))
		}
		if !edKey(t, b[0]).Verify(b[1], b[2]) {
			t.Errorf("refused: %s", line)
		}
	}
}

func FuzzVerifyAgainstStdlib(f *testing.F) {
	for i, c := range append(edgeCases(1, false), edgeCases(1, true)...) {
		if i%20 == 0 && (i%400 == 0 || !raceDetector) { // the other tests see all
			f.Add(c.key, c.message, c.signature)
		}
	}
	var all []checker
	for _, path := range tablePaths() {
		all = append(all, pathChecker(f, path, 1))
	}
	f.Fuzz(func(t *testing.T, key, message, signature []byte) {
		if len(key) != ed25519.PublicKeySize {
			return
		}
		// A neighbour that differs in one bit, and one by another key, share the batch.
		cases := []signedCase{
			newCase("fuzz", key, message, signature),
			newCase("fuzz", key, append([]byte{1}, message...), signature),
			newCase("fuzz", refB.encode(), message, signature),
		}
		for _, c := range all {
			compare(t, c, cases)
		}
	})
}
