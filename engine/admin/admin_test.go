package admin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(t *testing.T, s *Server, path string) (int, string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get("http://" + s.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

func serve(t *testing.T, c Config) *Server {
	t.Helper()
	c.Listen = "127.0.0.1:0"
	if c.Metrics == nil {
		c.Metrics = NewMetrics()
	}
	s, err := Serve(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestMetricsShowWhatTheFunctionsReturn(t *testing.T) {
	m := NewMetrics()
	var n atomic.Int64
	m.Add(Family{Name: "frames_total", Help: "Frames.", Counter: true, Labels: []string{"reason"}, Read: func() []Sample {
		return []Sample{{[]string{"ttl"}, float64(n.Load())}, {[]string{"late"}, 0}}
	}})
	h := m.Histogram("batch", "Batch.", []float64{1, 8})
	h.Observe(5)
	s := serve(t, Config{Metrics: m})
	n.Store(7)
	_, body := get(t, s, "/metrics")
	for _, want := range []string{
		"# TYPE frames_total counter", `frames_total{reason="ttl"} 7`, `frames_total{reason="late"} 0`,
		`batch_bucket{le="1"} 0`, `batch_bucket{le="8"} 1`, "go_goroutines",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}
}

func TestReadinessTellsWhyNot(t *testing.T) {
	var why atomic.Pointer[string]
	s := serve(t, Config{Ready: func() error {
		if p := why.Load(); p != nil {
			return errors.New(*p)
		}
		return nil
	}})
	if code, body := get(t, s, "/readyz"); code != 200 || body != "ok\n" {
		t.Errorf("%d %q", code, body)
	}
	text := "draining"
	why.Store(&text)
	if code, body := get(t, s, "/readyz"); code != 503 || body != "draining\n" {
		t.Errorf("%d %q", code, body)
	}
	if code, _ := get(t, s, "/healthz"); code != 200 {
		t.Errorf("healthz: %d", code)
	}
	if code, _ := get(t, s, "/"); code != 404 {
		t.Errorf("/: %d", code)
	}
}

func TestAPortInUseIsTold(t *testing.T) {
	s := serve(t, Config{})
	_, err := Serve(Config{Listen: s.Addr().String(), Metrics: NewMetrics()})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%v", err)
	}
}
