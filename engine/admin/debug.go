package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	httppprof "net/http/pprof"
	"runtime/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Dump is all that one can see of a process at one moment, as one text: what it
// is, its peers and routes in JSON, its metrics, its goroutines. It holds no secrets.
type Dump struct {
	About   string                        // program, version, process
	Metrics *Metrics                      //
	Peers   func(ctx context.Context) any // becomes JSON; nil: none
	Routes  func(ctx context.Context) any // becomes JSON; nil: none
}

// Write writes the dump. A section begins with a line "== name"; a process of
// 10,000 peers makes about 6 MB.
func (d Dump) Write(ctx context.Context, w io.Writer) error {
	if _, err := fmt.Fprintf(w, "%s, %s\n", d.About, time.Now().UTC().Format(time.RFC3339Nano)); err != nil {
		return err
	}
	for _, section := range []struct {
		name string
		ask  func(context.Context) any
	}{{"peers", d.Peers}, {"routes", d.Routes}} {
		var text []byte
		if section.ask != nil {
			var err error
			if text, err = json.MarshalIndent(section.ask(ctx), "", " "); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(w, "\n== %s\n%s\n", section.name, text); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(w, "\n== metrics\n"); err != nil {
		return err
	}
	if err := d.Metrics.Write(w); err != nil {
		return err
	}
	if _, err := io.WriteString(w, "\n== goroutines\n"); err != nil {
		return err
	}
	return pprof.Lookup("goroutine").WriteTo(w, goroutinesTogether)
}

// goroutinesTogether has goroutines with the same stack listed once.
const goroutinesTogether = 1

// Write writes the metrics in Prometheus' text format.
func (m *Metrics) Write(w io.Writer) error {
	request, err := http.NewRequest(http.MethodGet, "/metrics", nil)
	if err != nil {
		return err
	}
	answer := &written{header: http.Header{}, status: http.StatusOK}
	promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{DisableCompression: true}).ServeHTTP(answer, request)
	if answer.status != http.StatusOK {
		return fmt.Errorf("admin: metrics: %s", answer.body.Bytes())
	}
	_, err = w.Write(answer.body.Bytes())
	return err
}

// written is an answer kept in memory.
type written struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *written) Header() http.Header         { return w.header }
func (w *written) WriteHeader(status int)      { w.status = status }
func (w *written) Write(b []byte) (int, error) { return w.body.Write(b) }

// addDebug adds what is under /debug. One answer at a time is made and sent:
// each may take some memory, and requests that repeat must not multiply it.
func addDebug(mux *http.ServeMux, c Config) {
	dump := Dump{c.About, c.Metrics, c.Peers, c.Routes}
	turn := make(chan struct{}, 1)
	one := func(contentType string, write func(ctx context.Context, w io.Writer) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			select {
			case turn <- struct{}{}:
				defer func() { <-turn }()
			case <-r.Context().Done():
				return
			}
			var all bytes.Buffer
			if err := write(r.Context(), &all); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", contentType)
			_, _ = all.WriteTo(w)
		}
	}
	mux.HandleFunc("GET /debug/dump", one("text/plain; charset=utf-8", dump.Write))
	for path, ask := range map[string]func(context.Context) any{"GET /debug/peers": c.Peers, "GET /debug/routes": c.Routes} {
		if ask != nil {
			mux.HandleFunc(path, one("application/json", func(ctx context.Context, w io.Writer) error {
				return json.NewEncoder(w).Encode(ask(ctx))
			}))
		}
	}
	if c.Pprof {
		mux.HandleFunc("GET /debug/pprof/", httppprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", httppprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", httppprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", httppprof.Symbol)
		mux.HandleFunc("POST /debug/pprof/symbol", httppprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", httppprof.Trace)
	}
}
