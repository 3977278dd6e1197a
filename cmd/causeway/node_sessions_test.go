package main

import (
	"encoding/json"
	"net"
	"syscall"
	"testing"
)

// failingOnce fails to accept, accepts one connection, and is closed.
type failingOnce struct {
	net.Listener
	accepts int
	conn    net.Conn
}

func (l *failingOnce) Accept() (net.Conn, error) {
	switch l.accepts++; l.accepts {
	case 1:
		return nil, syscall.EMFILE
	case 2:
		return l.conn, nil
	}
	return nil, net.ErrClosed
}

func TestSessionsAreShownAfterAFailedAccept(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer there.Close()
		answerAll(&failingOnce{conn: there}, func() nodeSessions { return nodeSessions{Name: "bob"} })
	}()
	var got nodeSessions
	if err := json.NewDecoder(here).Decode(&got); err != nil || got.Name != "bob" {
		t.Errorf("answered %+v, %v", got, err)
	}
	<-ended
}
