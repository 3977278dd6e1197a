package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
)

// serveSink accepts connections and closes each at once, until ctx ends: what
// attackers cost the machine when nobody is attacked.
func serveSink(ctx context.Context, stderr io.Writer) error {
	l, err := net.Listen("tcp", anyPort)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	where := map[string]string{"msg": "listening", "address": l.Addr().String()}
	if err := json.NewEncoder(stderr).Encode(where); err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		c.Close()
	}
}
