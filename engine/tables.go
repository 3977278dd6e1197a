package engine

import "causeway/engine/buf"

// tableAlarm remembers what was said about verification tables, and what was
// counted of them. It belongs to the first loop.
type tableAlarm struct {
	failed, differ bool
	bytes          int64
}

// lookAtTables counts what the tables take, and tells the operator, once, when
// signatures are no longer checked by them. Frames are checked all the same, more
// slowly.
func (r *Router) lookAtTables() {
	done := r.pool.Stats()
	bytes := int64(done.Bytes + done.TreeBytes)
	r.budget.Use(buf.PartTables, bytes-r.alarmed.bytes)
	r.alarmed.bytes = bytes
	if err := r.pool.Err(); err != nil && !r.alarmed.failed {
		r.alarmed.failed = true
		r.log.Error("no tables for signatures: crypto/ed25519 checks them, which is slower", "error", err)
	}
	if done.Differences > 0 && !r.alarmed.differ {
		r.alarmed.differ = true
		r.log.Error("a table gave another verdict on a signature than crypto/ed25519, whose verdict was taken; tables are not used any more: "+
			"this is a fault of this program or of the machine's memory; restart with --verify-path stdlib and report it", "path", r.pool.Chosen().String())
	}
}
