package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
)

type testPeers struct {
	Names []string `json:"names"`
}

func debugConfig() Config {
	m := NewMetrics()
	m.Add(Family{Name: "frames_total", Help: "Frames.", Counter: true, Read: func() []Sample { return []Sample{{Value: 7}} }})
	return Config{Metrics: m, About: "causeway 1.2.3", Peers: func(context.Context) any { return testPeers{[]string{"alice"}} },
		Routes: func(context.Context) any { return testPeers{[]string{"router/r2"}} }}
}

func TestPeersAndRoutesAreServedAsJSON(t *testing.T) {
	s := serve(t, debugConfig())
	code, body := get(t, s, "/debug/peers")
	var p testPeers
	if err := json.Unmarshal([]byte(body), &p); err != nil || code != 200 || len(p.Names) != 1 || p.Names[0] != "alice" {
		t.Errorf("%d %q: %v", code, body, err)
	}
	if code, body := get(t, s, "/debug/routes"); code != 200 || !strings.Contains(body, "router/r2") {
		t.Errorf("%d %q", code, body)
	}
	for _, path := range []string{"/debug/peers", "/debug/routes"} {
		if code, _ := get(t, serve(t, Config{}), path); code != 404 {
			t.Errorf("%s, which nobody answers: %d", path, code)
		}
	}
}

func TestADumpHasEverything(t *testing.T) {
	c := debugConfig()
	s := serve(t, c)
	code, served := get(t, s, "/debug/dump")
	if code != 200 {
		t.Errorf("status %d", code)
	}
	var direct bytes.Buffer
	if err := (Dump{c.About, c.Metrics, c.Peers, c.Routes}).Write(t.Context(), &direct); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{served, direct.String()} {
		at := 0
		for _, want := range []string{"causeway 1.2.3, 2", "\n== peers\n{", `"alice"`, "\n== routes\n{", `"router/r2"`, "\n== metrics\n", "\nframes_total 7\n", "\n== goroutines\ngoroutine profile: total", "engine/admin"} {
			i := strings.Index(text[at:], want)
			if i < 0 {
				t.Errorf("the dump lacks %q after %d bytes", want, at)
				break
			}
			at += i
		}
	}
}

func TestProfilesAreServedOnlyWhenAskedFor(t *testing.T) {
	if code, _ := get(t, serve(t, debugConfig()), "/debug/pprof/heap"); code != 404 {
		t.Errorf("pprof without being asked for: %d", code)
	}
	c := debugConfig()
	c.Pprof = true
	s := serve(t, c)
	if code, body := get(t, s, "/debug/pprof/goroutine?debug=1"); code != 200 || !strings.Contains(body, "goroutine profile") {
		t.Errorf("%d %.100q", code, body)
	}
	if code, _ := get(t, s, "/debug/pprof/profile?seconds=1"); code != 200 {
		t.Errorf("profile: %d", code)
	}
}
