// Package verify has frames wait for a verdict on their signature in a worker
// pool, and gives them back in the order of their connection.
//
// Stages: the home loop pushes a frame into the next slot of its connection's
// Ring and notes a job in its Batch; once per turn the Batch goes to the Pool;
// any worker takes some jobs, checks them, marks their slots and notifies the
// rings' owners; the home loop pops from the Ring's head whatever is done.
//
//	ring.go    the frames of one connection, in order
//	pool.go    the queue, the workers and what they take together
//	tables.go  who makes signers' tables; arena_linux.go their memory
package verify
