package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Columns of /proc/net/tcp, and its state LISTEN (proc(5)).
const (
	tcpLocalColumn = 1
	tcpStateColumn = 3
	tcpInodeColumn = 9
	tcpListen      = "0A"
)

// portOwner names the process that listens on a TCP port of this machine, or
// returns "" when it can't be seen.
func portOwner(port string) string {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return ""
	}
	inodes := listeningInodes(fmt.Sprintf(":%04X", number))
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // its only error is a bad pattern
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !inodes[target] {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			return "process " + pid
		}
		return fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(name)))
	}
	return ""
}

// listeningInodes returns the sockets, as links in /proc/PID/fd name them,
// that listen on an address with this suffix.
func listeningInodes(suffix string) map[string]bool {
	inodes := make(map[string]bool)
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if c := strings.Fields(line); len(c) > tcpInodeColumn && c[tcpStateColumn] == tcpListen && strings.HasSuffix(c[tcpLocalColumn], suffix) {
				inodes["socket:["+c[tcpInodeColumn]+"]"] = true
			}
		}
	}
	return inodes
}
