package main

import (
	"errors"
	"fmt"
	"os"

	"causeway/engine/gate"
)

// readFirewall reads a --firewall file. Its errors name the file and the line.
func readFirewall(name string) (*gate.List, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("--firewall: %w", err)
	}
	defer file.Close()
	l, err := gate.ParseList(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}

// admission fills in who may connect, and checks what the flags say of it.
func (f *serveFlags) admission() (err error) {
	c := &f.engine
	if c.HandshakesMax < 1 || c.BadSignatures < 1 {
		return usageError{errors.New("--max-handshakes and --max-bad-signatures must be at least 1")}
	}
	if c.IdleTimeout < 0 {
		return usageError{errors.New("--idle-timeout must not be negative; 0: never")}
	}
	if f.limits.Check() != nil {
		return usageError{errors.New("--max-connections, --max-connections-per-source, --max-waiting, --max-handshakes-per-source and --max-handshake-rate must not be negative; 0: no limit")}
	}
	c.Limits = &f.limits
	if f.firewall != "" {
		c.Firewall, err = readFirewall(f.firewall)
	}
	return err
}
