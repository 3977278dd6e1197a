// Package codec turns the bytes of Causeway's wire protocol into values and
// back: it knows PROTOCOL.md and nothing else.
//
// It has no goroutine, socket, clock or key. Whether a frame may travel, and
// whether its signature is good, is decided by others; here is only what the
// bytes say and which bytes are malformed.
//
// The words used here and everywhere else in the project:
//
//   - Frame: one routed message on the wire, with its header and signature.
//   - Signed bytes: the part of a frame that its signature covers: recipient
//     to body, so neither time to live nor the signature and its length.
//   - Digest: the first 16 bytes of SHA-256 of the signed bytes; names a frame.
//   - Cut: to find where a frame ends in a stream, checking nothing but what
//     makes it malformed.
//   - Malformed: breaks a rule of the wire format, so that the connection it
//     came by is closed. Every such error satisfies errors.Is(err, ErrMalformed).
//   - Time to live (TTL): hops left; the only byte that changes on the way.
//   - Category: what a body is for and who interprets it.
//   - Link control: frames of category 2, which two ends of one connection
//     exchange and nobody forwards.
//   - Control body: a body in CBOR: that of link control, a notice or an echo.
//   - Notice: a frame that tells a sender why its frames were not delivered.
//   - Echo: request and reply between two addresses; also receipts.
//   - Burst: several frames under one signature, each verifiable by itself.
//   - Domain: a trust boundary with its own certificate authority; its Prefix
//     begins all addresses in it.
//   - Grant: the certificate with which a domain lets a router route for it.
//   - Session: keys that two nodes have agreed on, and what they send under them.
//   - Sealed: a body that only the other end of a session can read.
//   - Credit: how many bytes a session's sender may have under way.
//   - Received: how many frames other than link control an end of a connection
//     has cut; a frame that it covers is confirmed.
//
// Encoders append to dst and give back the longer slice, decoders of frames
// alias what they are given, decoders of control bodies own their results.
package codec
