package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	demoStop      = 10 * time.Second // for a process to end by itself
	demoUnreadMax = 1000             // lines kept for line; older ones are only in the file
	demoTail      = 5                // lines shown of a process that died
)

// demoProcess is a process that the demonstration has started. What it prints
// goes into a file, and line by line to who asks for it.
type demoProcess struct {
	// Fixed after start.
	name, logFile string
	cmd           *exec.Cmd
	lifetime      context.Context // ends with the process
	more          chan struct{}   // capacity 1: there are lines
	log           *os.File        // the reading goroutine's

	exit error // of the process; to be read when lifetime has ended

	mu     sync.Mutex
	unread []string
	tail   []string // the last lines
	told   bool     // its death was reported, or wanted
}

// selfCommand prepares a process of this program that ends when ctx does, and
// on Linux also when this process does.
func selfCommand(ctx context.Context, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.SysProcAttr = demoProcessAttr()
	return cmd, nil
}

// startDemoProcess starts this program as a process of its own.
func startDemoProcess(name, logFile string, args ...string) (*demoProcess, error) {
	cmd, err := selfCommand(context.Background(), args...)
	if err != nil {
		return nil, err
	}
	p := &demoProcess{name: name, logFile: logFile, cmd: cmd, more: make(chan struct{}, 1)}
	if p.log, err = os.OpenFile(logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, modeSecret); err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		p.log.Close()
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = write, write
	err = cmd.Start()
	write.Close() // the process has its own
	if err != nil {
		read.Close()
		p.log.Close()
		return nil, err
	}
	var ended context.CancelFunc
	p.lifetime, ended = context.WithCancel(context.Background())
	go func() {
		defer ended()
		p.read(read)
		p.exit = cmd.Wait()
	}()
	return p, nil
}

// read takes what the process prints, until it ends.
func (p *demoProcess) read(from *os.File) {
	defer p.log.Close()
	defer from.Close()
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			_, _ = io.WriteString(p.log, line) // for the curious; the demonstration goes on without
			p.add(strings.TrimRight(line, "\n"))
		}
		if err != nil {
			return
		}
	}
}

func (p *demoProcess) add(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unread = append(p.unread, line)
	p.unread = p.unread[max(0, len(p.unread)-demoUnreadMax):]
	p.tail = append(p.tail, line)
	p.tail = p.tail[max(0, len(p.tail)-demoTail):]
	select {
	case p.more <- struct{}{}:
	default:
	}
}

// line waits for the next line that contains text; lines before it are left
// out. It fails when ctx or the process ends, or demoStep has gone by; with an
// empty text it waits for ever.
func (p *demoProcess) line(ctx context.Context, text string) (string, error) {
	if text != "" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, demoStep)
		defer cancel()
	}
	for {
		ended := p.hasEnded() // before looking: then nothing comes after
		if line, ok := p.take(text); ok {
			return line, nil
		}
		if ended {
			return "", p.died()
		}
		select {
		case <-p.more:
		case <-p.lifetime.Done():
		case <-ctx.Done():
			return "", fmt.Errorf("%s has not printed %q: %w; see %s", p.name, text, ctx.Err(), p.logFile)
		}
	}
}

func (p *demoProcess) take(text string) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.unread) > 0 {
		line := p.unread[0]
		p.unread = p.unread[1:]
		if strings.Contains(line, text) {
			return line, true
		}
	}
	return "", false
}

// logged waits for a line of a JSON log and returns one of its values.
func (p *demoProcess) logged(ctx context.Context, message, key string) (string, error) {
	line, err := p.line(ctx, fmt.Sprintf(`"msg":%q`, message))
	if err != nil {
		return "", err
	}
	var values map[string]any
	if err := json.Unmarshal([]byte(line), &values); err != nil {
		return "", fmt.Errorf("%s's log: %w", p.name, err)
	}
	value, ok := values[key].(string)
	if !ok {
		return "", fmt.Errorf("%s's log: %q has no %s", p.name, message, key)
	}
	return value, nil
}

func (p *demoProcess) pid() int { return p.cmd.Process.Pid }

func (p *demoProcess) hasEnded() bool { return p.lifetime.Err() != nil }

// died says how the process ended, and what it printed last.
func (p *demoProcess) died() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = true
	how := "exit status 0"
	if p.exit != nil {
		how = p.exit.Error()
	}
	return fmt.Errorf("%s (process %d) ended with %s; its last lines:\n  %s", p.name, p.pid(), how, strings.Join(p.tail, "\n  "))
}

// stop has the process end, by SIGKILL if it does not otherwise. The error says
// that this was needed, or that it ended badly or before. A nil process has
// nothing to stop.
func (p *demoProcess) stop() error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	told := p.told
	p.told = true
	p.mu.Unlock()
	switch {
	case told:
		return nil
	case p.hasEnded():
		return p.died()
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended meanwhile
	patience := time.NewTimer(demoStop)
	defer patience.Stop()
	select {
	case <-p.lifetime.Done():
		if p.exit != nil {
			return p.died()
		}
		return nil
	case <-patience.C:
	}
	_ = p.cmd.Process.Kill()
	<-p.lifetime.Done()
	return fmt.Errorf("%s (process %d) did not end within %v of SIGTERM and was killed", p.name, p.pid(), demoStop)
}
