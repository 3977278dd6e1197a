//go:build !linux

package main

// portOwner names the process that listens on a TCP port; it is known how on
// Linux only.
func portOwner(string) string { return "" }
