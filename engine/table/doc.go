// Package table finds the destination of a recipient address without locks.
//
// One goroutine at a time writes, any number read. A reader takes one pointer
// and then only looks at memory that never changes, or changes by a single
// atomic word, so a lookup finishes whatever the writer is doing, or has been
// stopped while doing.
package table
