//go:build !race

package session

const propertySeeds = 1000
