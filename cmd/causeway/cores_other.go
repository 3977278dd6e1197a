//go:build !linux

package main

import "runtime"

// allowedCores returns the numbers of all cores.
func allowedCores() (cores []int, err error) {
	for core := range runtime.NumCPU() {
		cores = append(cores, core)
	}
	return cores, nil
}
