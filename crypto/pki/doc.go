// Package pki decides who is who in a domain, and who may route for it.
//
// A domain is a trust boundary with its own certificate authority. Its nodes
// carry certificates that bind an address and a name to a key; its routers
// carry grants, which do the same and add the right to route. The rules are
// enforced when a chain is verified (Store.Verify), not only when a
// certificate is issued (Authority.Issue), so a careless authority harms
// nobody but itself.
//
// The package is pure: files come through fs.FS, the time is an argument, and
// so is the source of randomness. Writing files is the caller's business.
package pki
