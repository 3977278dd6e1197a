// Package buf owns the memory of frames in flight.
//
// A frame is copied once, when it is cut from its connection's plaintext, into
// a Buffer of this package; from then on the Buffer travels by pointer and has
// exactly one owner, who ends its life with Put. Get and Put are counted, so
// that a quiet router can be asked whether every buffer came back, and under
// the build tag "debug" Put poisons the memory and a second Put panics.
//
// A Budget is the cap on this memory and on what is kept beside it, and says
// who has it.
package buf
