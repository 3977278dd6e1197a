// Package gate decides, before anything is spent on it, whether a connection
// may come in.
//
// A List is the operator's firewall: ordered lines, the first that matches
// decides. A Gate applies a List and Limits to live connections. It has no
// socket, goroutine or clock: it is told who comes, when, and who has gone.
//
// A source is what limits per source count as one: an IPv4 address, or an IPv6
// /64, which is what one subscriber has.
package gate
