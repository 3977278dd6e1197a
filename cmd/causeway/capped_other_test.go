//go:build !linux

package main

import (
	"errors"
	"os/exec"
	"testing"
)

func residentPeak(int) (int64, error) { return 0, errors.New("it is not known on this system") }

func startOnFirstCore(cmd *exec.Cmd) error { return cmd.Start() }

func leaveFirstCore(*testing.T) func() float64 { return func() float64 { return 0 } }
