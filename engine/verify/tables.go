package verify

import (
	"runtime"
	"time"

	"causeway/crypto/sign"
)

// buildPause is the least time between two tables being built: signers who come
// and go cost at most a tenth of one core.
const buildPause = 3 * time.Millisecond

// treePart is the part of the tables' memory that may be taken beside it to
// remember bursts, by all workers together, if that is enough for the least.
const treePart = 8

// newTables prepares signers' tables in memory of their own; without it
// signatures are checked by crypto/ed25519, and Err says why.
func (p *Pool) newTables(memory int) {
	trees := memory / treePart / max(p.workers, runtime.GOMAXPROCS(0)) // the loops check when there are no workers
	c := sign.TablesConfig{Path: p.chosen, BuildPause: buildPause, TreeMemory: trees}
	if p.chosen != sign.PathStdlib {
		if c.Memory, p.failed = newArena(memory); p.failed == nil {
			p.arena = c.Memory
			if p.tables, p.failed = sign.NewTables(c); p.failed == nil {
				p.maker.Go(p.makeTables)
				return
			}
		}
		c.Path, c.Memory = sign.PathStdlib, nil
	}
	var err error
	if p.tables, err = sign.NewTables(c); err != nil {
		panic("verify: no Tables without tables: " + err.Error())
	}
}

// makeTables makes a table for each signer who has earned it, until Close.
func (p *Pool) makeTables() {
	for {
		select {
		case <-p.quit:
			return
		case k := <-p.tables.Wanted():
			p.build(k)
		}
	}
}

// build has a table made for k, however long it has to wait for its slot.
func (p *Pool) build(k *sign.Key) {
	for {
		again := p.tables.Build(k, time.Now())
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

// Stats returns what was checked, and what the signers' tables have done.
func (p *Pool) Stats() sign.TablesStats { return p.tables.Stats() }

// Err returns why there are no tables, and signatures are checked by
// crypto/ed25519 alone; nil when there are, or none were asked for.
func (p *Pool) Err() error { return p.failed }

// Chosen returns how signatures were to be checked.
func (p *Pool) Chosen() sign.Path { return p.chosen }

// Path returns how they are checked: by the path chosen, or by crypto/ed25519
// when there are no tables, or since one gave another verdict than that.
func (p *Pool) Path() sign.Path {
	if p.Stats().Differences > 0 {
		return sign.PathStdlib
	}
	return p.tables.Path()
}

// checker checks signatures for one goroutine at a time.
type checker struct {
	verifier *sign.Verifier
	checks   [gatherMax]sign.Check
}

func (p *Pool) newChecker() *checker { return &checker{verifier: p.tables.NewVerifier()} }

// check returns the verdicts of the slots given, in order, borrowed.
func (c *checker) check(slots []*slot) []sign.Check {
	checks := c.checks[:len(slots)]
	for i, s := range slots {
		f := s.raw()
		checks[i] = sign.Check{Key: s.key, Signed: f.Signed(), Signature: f.Signature()}
	}
	c.verifier.Verify(checks)
	return checks
}
