package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Bounds of one request, so that a stuck client holds nothing for long.
const (
	headerTimeout = 5 * time.Second
	writeTimeout  = 30 * time.Second
	headerMax     = 16 << 10
)

// Sample is one value of a Family, with a value for each of its labels.
type Sample struct {
	Labels []string
	Value  float64
}

// Family is one metric: what Read returns becomes its samples at every scrape.
type Family struct {
	Name    string
	Help    string
	Counter bool     // only grows, and by convention its name ends in _total; else a gauge
	Labels  []string // label names
	Read    func() []Sample
}

// Histogram counts observations in buckets. Observe is safe for concurrent use.
type Histogram interface{ Observe(float64) }

// Metrics collects families and histograms until they are served.
type Metrics struct{ registry *prometheus.Registry }

// NewMetrics returns metrics of the Go runtime and the process alone.
func NewMetrics() *Metrics {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return &Metrics{r}
}

// Add registers f. A name used twice is a programming error and panics.
func (m *Metrics) Add(f Family) {
	kind := prometheus.GaugeValue
	if f.Counter {
		kind = prometheus.CounterValue
	}
	m.registry.MustRegister(&reader{f, kind, prometheus.NewDesc(f.Name, f.Help, f.Labels, nil)})
}

// Histogram registers and returns a histogram with these upper bounds.
func (m *Metrics) Histogram(name, help string, bounds []float64) Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: bounds})
	m.registry.MustRegister(h)
	return h
}

type reader struct {
	family Family
	kind   prometheus.ValueType
	desc   *prometheus.Desc
}

func (r *reader) Describe(to chan<- *prometheus.Desc) { to <- r.desc }

func (r *reader) Collect(to chan<- prometheus.Metric) {
	for _, s := range r.family.Read() {
		to <- prometheus.MustNewConstMetric(r.desc, r.kind, s.Value, s.Labels...)
	}
}

// Config of a Server.
type Config struct {
	Listen  string // host:port; port 0 picks a free one
	Metrics *Metrics
	Live    func() error // nil: alive
	Ready   func() error // nil: may get traffic; the error's text is shown

	About  string                        // first words of /debug/dump
	Peers  func(ctx context.Context) any // becomes JSON at /debug/peers; nil: no such path
	Routes func(ctx context.Context) any // becomes JSON at /debug/routes; nil: no such path
	Pprof  bool                          // serve /debug/pprof
}

// Server answers /metrics, /healthz, /readyz and /debug.
type Server struct {
	http     *http.Server
	listener net.Listener
	served   chan error
}

// Serve starts listening. The error of a port in use satisfies
// errors.Is(err, syscall.EADDRINUSE).
func Serve(c Config) (*Server, error) {
	network := "tcp"
	if a, err := netip.ParseAddrPort(c.Listen); err == nil && a.Addr().Is4() {
		network = "tcp4" // "tcp" would take 0.0.0.0 for IPv6, too
	}
	l, err := net.Listen(network, c.Listen)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.Metrics.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /healthz", verdict(c.Live))
	mux.HandleFunc("GET /readyz", verdict(c.Ready))
	addDebug(mux, c)
	s := &Server{
		http: &http.Server{
			Handler:           mux,
			ReadHeaderTimeout: headerTimeout,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       writeTimeout,
			MaxHeaderBytes:    headerMax,
		},
		listener: l,
		served:   make(chan error, 1),
	}
	go func() { s.served <- s.http.Serve(l) }()
	return s, nil
}

// Addr returns where the server listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close stops listening, lets running answers end until ctx does, and waits.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-s.served
	return err
}

func verdict(ask func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if ask != nil {
			if err := ask(); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprintln(w, err)
				return
			}
		}
		fmt.Fprintln(w, "ok")
	}
}
