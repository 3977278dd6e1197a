//go:build !debug

package route

const debug = false
