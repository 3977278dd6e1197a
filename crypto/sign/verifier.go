package sign

import (
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/binary"
	"hash"
	"sync/atomic"
)

// Check is one signature to be checked, and its verdict. The slices are borrowed.
type Check struct {
	Key       *Key
	Signed    []byte // of the frame
	Signature []byte // the frame's field
	Good      bool   // set by Verify
}

// Verifier checks signatures by batches, with the tables of its Tables. Each
// worker has its own: it is not safe for concurrent use. It allocates nothing
// for Ed25519.
//
// Stages of a batch: (1) sort out what has no table, (2) hash and cut the scalars
// into steps, (3) add up sB - kA, (4) divide by Z, one inversion for all,
// (5) compare with R, byte by byte. R is never decoded.
type Verifier struct {
	tables *Tables
	next   *Verifier // in Tables.verifiers
	hash   hash.Hash
	digest [sha512.Size]byte
	count  verifierCounts
	alone  bool // no second opinions: tests want the tables' own verdicts

	// batch is odd while a batch runs.
	batch atomic.Uint64

	jobs   [batchMax]job
	n      int // jobs
	groups [batchMax / lanes]group
	points [batchMax]point
	prefix [batchMax]fe
	lanes  laneState
	heads  [batchMax][burstHeadLen]byte

	trees   trees
	waiting [batchMax]waiting
	waits   int // waiting
	others  int // signatures that were checked without a table
}

// batchMax is how many signatures share an inversion at most.
const batchMax = 64

// job is an Ed25519 signature that is checked by a table.
type job struct {
	check     *Check
	message   []byte // check.Signed, or the head of its burst
	signature []byte
	table     *table
	tree      uint32 // whose head this is, if not 0
	s         scalar // of the signature, odd
	good      bool
}

// waiting is a frame of a burst whose head is a job of this batch.
type waiting struct {
	check *Check
	job   int
}

// verifierCounts is written by the worker and read by Stats.
type verifierCounts struct {
	byTable, byStdlib, byTree, byP256, rechecked, differences atomic.Uint64

	batches [pathEnd][sizeClasses]atomic.Uint64
}

// recheckEvery is how often a signature that was accepted by a table is checked
// again with crypto/ed25519: a fault of tables would be found, at a cost of a
// thousandth of its time.
const recheckEvery = 1024

// NewVerifier returns a Verifier for one worker. It lives as long as t.
func (t *Tables) NewVerifier() *Verifier {
	v := &Verifier{tables: t, hash: sha512.New()}
	v.lanes.init()
	v.trees.init(t.treeNodes)
	t.treeBytes.Add(int64(treesBytes(t.treeNodes)))
	for {
		v.next = t.verifiers.Load()
		if t.verifiers.CompareAndSwap(v.next, v) {
			return v
		}
	}
}

// Verify sets the verdicts of checks, that of Key.Verify for each. A batch of
// more than 64 is cut.
func (v *Verifier) Verify(checks []Check) {
	for len(checks) > 0 {
		n := min(len(checks), batchMax)
		v.verify(checks[:n])
		checks = checks[n:]
	}
}

func (v *Verifier) verify(checks []Check) {
	v.batch.Add(1)
	v.n, v.waits, v.others = 0, 0, 0
	for i := range checks {
		v.sortOut(&checks[i])
	}
	v.count.batch(PathStdlib, v.others)
	if v.n > 0 {
		v.count.batch(v.decide(), v.n)
	}
	v.batch.Add(1)
	for i := range v.n {
		j := &v.jobs[i]
		if v.settle(j); j.tree != 0 {
			v.trees.decided(j.signature, j.tree, j.check.Good)
		}
	}
	for _, w := range v.waiting[:v.waits] {
		w.check.Good = v.jobs[w.job].check.Good
	}
	clear(v.jobs[:v.n])
	clear(v.waiting[:v.waits])
}

// sortOut makes a job of c, or gives its verdict.
func (v *Verifier) sortOut(c *Check) {
	c.Good = false
	switch {
	case c.Key.algorithm == ECDSAP256:
		v.count.byP256.Add(1)
		c.Good = c.Key.Verify(c.Signed, c.Signature)
	case len(c.Signature) == ed25519.SignatureSize:
		v.plain(job{check: c, message: c.Signed, signature: c.Signature})
	default:
		v.burst(c)
	}
}

// burst has the tree head of c's burst verified, unless that was done, or waits
// to be in this batch.
func (v *Verifier) burst(c *Check) {
	var p path
	if !v.trees.read(&p, c.Signed, c.Signature) {
		return
	}
	signature := c.Signature[:ed25519.SignatureSize]
	s := v.trees.find(c.Key.ed, signature, p.size)
	if s != nil && v.trees.leads(s, &p) {
		v.count.byTree.Add(1)
		if c.Good = s.good; !s.good {
			v.waiting[v.waits] = waiting{c, s.job}
			v.waits++
		}
		return
	}
	root := rootFromPath(p.leaf, p.index, p.size, p.steps)
	j := job{check: c, message: appendHead(v.heads[v.n][:0], p.size, &root), signature: signature}
	if s != nil { // the signature, but another root: not to be remembered
		v.plain(j)
		return
	}
	s = v.trees.add(c.Key.ed, signature, p.size, &root)
	v.trees.leads(s, &p) // it does, which is remembered
	s.job = v.n
	j.tree = s.id
	if v.plain(j); v.n == s.job { // no job was made: the verdict is known
		v.trees.decided(signature, s.id, c.Good)
	}
}

// plain makes a job of an Ed25519 signature, or gives its verdict.
func (v *Verifier) plain(j job) {
	k := j.check.Key
	t := k.lookUp(v.tables)
	if t == nil || v.tables.distrusted.Load() {
		v.count.byStdlib.Add(1)
		v.others++
		if j.check.Good = ed25519.Verify(k.ed, j.message, j.signature); j.check.Good {
			k.wantTable(v.tables)
		}
		return
	}
	if !t.recent.Load() {
		t.recent.Store(true)
	}
	j.table = t
	v.prepare(j)
}

// prepare makes a job; a signature whose s is not below L has its verdict here.
func (v *Verifier) prepare(j job) {
	if !j.s.setCanonical((*[32]byte)(j.signature[32:])) {
		v.settle(&j)
		return
	}
	j.s.makeOdd()
	v.jobs[v.n] = j
	v.n++
}

// hashEach sets the jobs' steps, one after the other.
func (v *Verifier) hashEach() {
	for i := range v.n {
		j := &v.jobs[i]
		var k scalar
		v.hashOne(j, &k)
		v.groups[i/lanes].setSteps(i%lanes, j.table.offset, &k, &j.s)
	}
}

// hashOne sets k to SHA-512 of R, A as it is encoded in the key, and the message.
func (v *Verifier) hashOne(j *job, k *scalar) {
	v.hash.Reset()
	v.hash.Write(j.signature[:32])
	v.hash.Write(j.table.key[:])
	v.hash.Write(j.message)
	v.hash.Sum(v.digest[:0])
	var x [8]uint64
	for i := range x {
		x[i] = binary.LittleEndian.Uint64(v.digest[8*i:])
	}
	k.setHash(&x)
}

// decideEach hashes and adds up one after the other, and divides by their Z
// together. No Z is zero: the formulas are complete, so no signature disturbs the
// others' inversion.
func (v *Verifier) decideEach() {
	v.hashEach()
	for i := range v.n {
		v.tables.path.evaluate(&v.points[i], v.tables.arena, &v.groups[i/lanes], i%lanes)
	}
	product := feOne
	for i := range v.n {
		v.prefix[i] = product
		product.mul(&product, &v.points[i].z)
	}
	product.invert(&product)
	for i := v.n - 1; i >= 0; i-- {
		p := &v.points[i]
		var inverse, x, y fe
		inverse.mul(&product, &v.prefix[i])
		product.mul(&product, &p.z)
		x.mul(&p.x, &inverse)
		y.mul(&p.y, &inverse)
		v.jobs[i].compare(&x, &y)
	}
}

// compare sets j's verdict: whether the encoding of x, y is R.
func (j *job) compare(x, y *fe) {
	encoded := y.words()
	encoded[3] |= x.words()[0] << 63
	j.good = encoded == wordsOf((*[32]byte)(j.signature))
}

// settle gives the verdict of j, after crypto/ed25519's when it was rejected, and
// now and then when it was accepted. If they differ tables are used no more.
func (v *Verifier) settle(j *job) {
	j.check.Good = j.good
	if n := v.count.byTable.Add(1); j.good && n%recheckEvery != 0 || v.alone {
		return
	}
	v.count.rechecked.Add(1)
	j.check.Good = ed25519.Verify(j.check.Key.ed, j.message, j.signature)
	if j.check.Good != j.good {
		v.count.differences.Add(1)
		v.tables.distrusted.Store(true)
	}
}

// wantTable counts a good signature of a key without table.
func (k *Key) wantTable(t *Tables) {
	if t.path != PathStdlib && !t.distrusted.Load() && k.table.Load() != noTable && k.verified.Add(1)%buildAfter == 0 {
		t.want(k)
	}
}
