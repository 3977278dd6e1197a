package main

import "testing"

// inShort returns brief under -short, where the long scenarios have less of what
// they do, and full otherwise.
func inShort[T any](brief, full T) T {
	if testing.Short() {
		return brief
	}
	return full
}
