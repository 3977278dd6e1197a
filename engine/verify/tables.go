package verify

import (
	"time"

	"causeway/crypto/sign"
)

// buildPause is the least time between two tables being built: signers who come
// and go cost at most a tenth of one core.
const buildPause = 3 * time.Millisecond

// TableStats are those of the signers' tables.
type TableStats struct {
	sign.TablesStats
	Bytes int // of memory that they take, together with the base point's
}

// tableMaker is the goroutine that owns the signers' tables: it makes those of
// the base point while workers already check by crypto/ed25519, then one for each
// signer who has earned it.
func (p *Pool) makeTables(memory int) {
	arena, err := newArena(memory)
	if err != nil {
		p.failed.Store(&err)
		return
	}
	p.arena = arena
	tables, err := sign.NewTables(sign.TablesConfig{Memory: arena, Path: p.path, BuildPause: buildPause})
	if err != nil {
		p.failed.Store(&err)
		return
	}
	p.tables.Store(tables)
	for {
		select {
		case <-p.quit:
			return
		case k := <-tables.Wanted():
			p.build(tables, k)
		}
	}
}

// build has a table made for k, however long it has to wait for its slot.
func (p *Pool) build(tables *sign.Tables, k *sign.Key) {
	for {
		again := tables.Build(k, time.Now())
		if again <= 0 {
			return
		}
		t := time.NewTimer(again)
		select {
		case <-t.C:
		case <-p.quit:
			t.Stop()
			return
		}
	}
}

// Tables returns what the signers' tables have done; zero while there are none.
func (p *Pool) Tables() (s TableStats) {
	tables := p.tables.Load()
	if tables == nil {
		return s
	}
	s.TablesStats = tables.Stats()
	s.Bytes = sign.TablesMemory(s.TablesStats.Tables)
	return s
}

// Err returns why there are no tables, and signatures are checked by
// crypto/ed25519 alone; nil when there are, will be soon, or none were asked for.
func (p *Pool) Err() error {
	if err := p.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Path returns how signatures are checked.
func (p *Pool) Path() sign.Path { return p.path }

// checker checks signatures for one goroutine at a time.
type checker struct {
	pool     *Pool
	verifier *sign.Verifier // nil while there are no tables
	checks   [gatherMax]sign.Check
}

// check returns the verdicts of the slots given, in order, borrowed.
func (c *checker) check(slots []*slot) []sign.Check {
	checks := c.checks[:len(slots)]
	for i, s := range slots {
		f := s.raw()
		checks[i] = sign.Check{Key: s.key, Signed: f.Signed(), Signature: f.Signature()}
	}
	if c.verifier == nil {
		if t := c.pool.tables.Load(); t != nil {
			c.verifier = t.NewVerifier()
		}
	}
	if c.verifier != nil {
		c.verifier.Verify(checks)
		return checks
	}
	for i := range checks {
		checks[i].Good = checks[i].Key.Verify(checks[i].Signed, checks[i].Signature)
	}
	return checks
}
