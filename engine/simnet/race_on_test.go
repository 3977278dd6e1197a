//go:build race

package simnet_test

const sessionSeedsDefault = 15
