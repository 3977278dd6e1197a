package main

import "syscall"

// demoProcessAttr keeps a terminal's Ctrl-C from the process, so that the
// demonstration ends it in order, and has the kernel end it with its parent.
func demoProcessAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
