package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"causeway/codec"
)

// connectionsSizeMax bounds node.connections, in bytes.
const connectionsSizeMax = 1 << 20

// Connections is the content of node.connections (PROTOCOL.md section 10).
type Connections struct {
	VersionCutoff string // peers that state an older semantic version are refused; "" for none
	NodeCost      uint16
	Listen        []string // host:port
	Connect       []string // host:port
}

// connectionKeys are the keys of node.connections, in the order of its
// documentation.
var connectionKeys = []string{"versionCutoff", "nodeCost", "listenTo", "connectTo"}

// ParseConnections reads node.connections. Errors name the key and say what
// would be right; they do not name the file, which the caller knows.
func ParseConnections(r io.Reader) (c Connections, err error) {
	data, err := io.ReadAll(io.LimitReader(r, connectionsSizeMax+1))
	if err != nil {
		return c, err
	}
	if len(data) > connectionsSizeMax {
		return c, fmt.Errorf("larger than %d bytes", connectionsSizeMax)
	}
	var keys map[string]json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&keys); err != nil {
		return c, jsonError(data, err)
	}
	if dec.More() {
		return c, errors.New("more than one JSON value; it must be one object")
	}
	for _, key := range unknownKeys(keys) {
		return c, fmt.Errorf("unknown key %q; the keys are %s", key, strings.Join(connectionKeys, ", "))
	}
	var cost string
	if err := errors.Join(
		textKey(keys, "versionCutoff", &c.VersionCutoff), textKey(keys, "nodeCost", &cost),
		urlsKey(keys, "listenTo", &c.Listen), urlsKey(keys, "connectTo", &c.Connect),
	); err != nil {
		return c, err
	}
	if c.VersionCutoff != "" {
		if _, err := codec.ParseVersion(c.VersionCutoff); err != nil {
			return c, fmt.Errorf("versionCutoff: %w", err)
		}
	}
	if cost != "" {
		n, err := strconv.ParseUint(cost, 10, 16)
		if err != nil {
			return c, fmt.Errorf("nodeCost: %q is not a whole number from 0 to %d, in quotes", cost, codec.NodeCostMax)
		}
		c.NodeCost = uint16(n)
	}
	return c, nil
}

// unknownKeys returns what is no key of node.connections, sorted. Upper and
// lower case differ, as everywhere in the file.
func unknownKeys(keys map[string]json.RawMessage) (unknown []string) {
	for key := range keys {
		if !slices.Contains(connectionKeys, key) {
			unknown = append(unknown, key)
		}
	}
	slices.Sort(unknown)
	return unknown
}

func textKey(keys map[string]json.RawMessage, key string, to *string) error {
	raw, ok := keys[key]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, to); err != nil {
		return fmt.Errorf("%s: must be a string in quotes", key)
	}
	return nil
}

func urlsKey(keys map[string]json.RawMessage, key string, to *[]string) error {
	raw, ok := keys[key]
	if !ok {
		return nil
	}
	var urls []string
	if err := json.Unmarshal(raw, &urls); err != nil {
		return fmt.Errorf(`%s: must be a list such as ["dbw://0.0.0.0:7100"]`, key)
	}
	for _, u := range urls {
		hostPort, err := ParseURL(u)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		*to = append(*to, hostPort)
	}
	return nil
}

// ParseURL returns the host:port that a dbw:// URL names.
func ParseURL(u string) (string, error) {
	host, port, err := codec.ParseURL(u)
	if err != nil {
		return "", fmt.Errorf("%q is not a URL such as dbw://router.example:7100: %w", u, err)
	}
	return net.JoinHostPort(host, port), nil
}

// jsonError adds the line to a JSON error.
func jsonError(data []byte, err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		line := 1 + bytes.Count(data[:min(int(syntax.Offset), len(data))], []byte("\n"))
		return fmt.Errorf("line %d: not JSON: %w", line, err)
	}
	return fmt.Errorf("not a JSON object: %w", err)
}
