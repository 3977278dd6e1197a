//go:build !debug

package engine

const debug = false
