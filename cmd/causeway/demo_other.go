//go:build !linux

package main

import "syscall"

// demoProcessAttr: this system has no way to end a process with its parent.
func demoProcessAttr() *syscall.SysProcAttr { return nil }
