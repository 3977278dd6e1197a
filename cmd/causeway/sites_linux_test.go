package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// do calls f on a thread that is in the site's namespace and ends with f: sockets
// and processes that f makes are there.
func (s *site) do(f func()) {
	if s.ns == nil {
		f()
		return
	}
	onOwnThread(func() {
		if err := unix.Setns(int(s.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(fmt.Sprintf("site %s: setns: %v", s.name, err)) // what made the namespace may enter it
		}
		f()
	})
}

// onOwnThread calls f on a thread that nothing else runs on, before or after.
func onOwnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and no unlock: the thread ends with the goroutine
		f()
	}()
	<-done
}

// newNamespace makes a network namespace in which the loopback interface is up,
// and closes it when the test ends. The error says why that is not permitted.
func newNamespace(t *testing.T) (ns *os.File, err error) {
	onOwnThread(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("unshare: %w", err)
			return
		}
		if ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return
		}
		if err = ipBatch("link set lo up"); err != nil {
			ns.Close()
			return
		}
		// A hub is no way from one site to another. (New namespaces may inherit this.)
		err = os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0)
	})
	if err == nil {
		t.Cleanup(func() { ns.Close() })
	}
	return ns, err
}

// join joins a site to the hub with a pair of veth interfaces.
func join(hub, to *site, number int) error {
	outer := fmt.Sprintf("site%d", number)
	var err error
	hub.do(func() {
		err = ipBatch(
			fmt.Sprintf("link add %s type veth peer name eth0 netns /proc/%d/fd/%d", outer, os.Getpid(), to.ns.Fd()),
			fmt.Sprintf("addr add %s/30 dev %s", to.hub, outer),
			fmt.Sprintf("link set %s up", outer))
	})
	if err != nil {
		return err
	}
	to.do(func() {
		err = ipBatch(fmt.Sprintf("addr add %s/30 dev eth0", to.address), "link set eth0 up")
	})
	return err
}

// ipBatch has ip(8) carry out commands on this thread's namespace.
func ipBatch(commands ...string) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s (.ci/deps installs it)", strings.Join(commands, "; ip "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
