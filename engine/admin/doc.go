// Package admin is what an operator sees of a running process over HTTP:
// metrics in Prometheus' text format, health and readiness, and for diagnosis
// its peers, profiles, and a dump of everything.
//
// It knows nothing of the router: it is given functions that return numbers
// and verdicts.
package admin
