// Package admin serves what a daemon says about itself over HTTP: /metrics for
// Prometheus, /healthz (is the process in order) and /readyz (does it serve).
// The metrics of a daemon are declared in one table, from which docs/metrics.md
// is made.
//
// Nobody logs in there and nothing can be changed: the address is loopback
// unless somebody says otherwise. It keeps its part of G8: requests are bounded
// in size and time.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"datawatch/internal/metrics"
)

// Metric declares one metric.
type Metric struct {
	Name   string // with unit, as Prometheus names them
	Type   string // counter, gauge, histogram
	Labels string // separated by commas
	Help   string
	On     string // where it says something: primary, standby; "" everywhere
}

// Emit takes a sample. The labels are in the order of the declaration.
type Emit struct {
	set *set
	ch  chan<- prometheus.Metric
}

// Value gives a counter or gauge.
func (e Emit) Value(name string, v float64, labels ...string) {
	d, m := e.set.get(name, len(labels))
	typ := prometheus.GaugeValue
	if m.Type == "counter" {
		typ = prometheus.CounterValue
	}
	e.ch <- prometheus.MustNewConstMetric(d, typ, v, labels...)
}

// Bool gives 1 or 0.
func (e Emit) Bool(name string, v bool, labels ...string) {
	n := 0.0
	if v {
		n = 1
	}
	e.Value(name, n, labels...)
}

// Time gives seconds since 1970, or nothing for no time.
func (e Emit) Time(name string, t time.Time, labels ...string) {
	if !t.IsZero() {
		e.Value(name, float64(t.UnixMilli())/1000, labels...)
	}
}

// Histogram gives a histogram, in seconds.
func (e Emit) Histogram(name string, h *metrics.Histogram, labels ...string) {
	d, _ := e.set.get(name, len(labels))
	n, sum, cum := h.Snapshot()
	b := make(map[float64]uint64, len(cum))
	for i, c := range cum {
		b[metrics.Bounds[i].Seconds()] = c
	}
	e.ch <- prometheus.MustNewConstHistogram(d, n, sum.Seconds(), b, labels...)
}

// set is a collector over a table of metrics.
type set struct {
	table   []Metric
	desc    map[string]*prometheus.Desc
	decl    map[string]Metric
	collect func(Emit)
}

func newSet(table []Metric, collect func(Emit)) *set {
	s := &set{table: table, desc: map[string]*prometheus.Desc{}, decl: map[string]Metric{}, collect: collect}
	for _, m := range table {
		var labels []string
		if m.Labels != "" {
			labels = strings.Split(m.Labels, ",")
		}
		s.desc[m.Name], s.decl[m.Name] = prometheus.NewDesc(m.Name, m.Help, labels, nil), m
	}
	return s
}

// get panics for a metric that is not declared: a programming error that the
// first scrape, and every test, shows.
func (s *set) get(name string, labels int) (*prometheus.Desc, Metric) {
	m, ok := s.decl[name]
	if !ok {
		panic("admin: metric " + name + " is not declared")
	}
	if want := strings.Count(m.Labels, ",") + 1; m.Labels != "" && labels != want || m.Labels == "" && labels != 0 {
		panic(fmt.Sprintf("admin: metric %s has labels %q, not %d", name, m.Labels, labels))
	}
	return s.desc[name], m
}

func (s *set) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range s.table {
		ch <- s.desc[m.Name]
	}
}

func (s *set) Collect(ch chan<- prometheus.Metric) { s.collect(Emit{s, ch}) }

// Registry makes a registry of a table, with the metrics of process and runtime.
func Registry(table []Metric, collect func(Emit)) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(newSet(table, collect), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// State is the answer of /healthz and /readyz.
type State struct {
	OK     bool           `json:"ok"`
	Reason string         `json:"reason,omitempty"` // when it is not
	Facts  map[string]any `json:"facts,omitempty"`
}

// Server serves one daemon.
type Server struct {
	Log      *slog.Logger
	Registry prometheus.Gatherer
	Health   func(ctx context.Context) State
	// Ready is asked with the role of the query, "" when it names none.
	Ready func(ctx context.Context, role string) State

	http *http.Server
	done chan struct{}
}

// Listen takes the port; parameter names it in an error.
func Listen(parameter, host string, port int) (net.Listener, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("%s = %d: %w", parameter, port, err)
	}
	return l, nil
}

// Start serves until Close.
func (s *Server) Start(l net.Listener) {
	if a, ok := l.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() {
		s.Log.Warn("metrics and health are served without a login on an address that is not loopback", "addr", a.String())
	}
	s.http = &http.Server{Handler: s.Handler(), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn)}
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		if err := s.http.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.Log.Error("admin port", "err", err)
		}
	}()
}

// Close ends it at once; a nil server closes too.
func (s *Server) Close() {
	if s == nil || s.http == nil {
		return
	}
	_ = s.http.Close()
	<-s.done
}

// Handler answers the requests.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { answer(w, s.Health(r.Context())) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		answer(w, s.Ready(r.Context(), strings.ToLower(r.URL.Query().Get("role"))))
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "/metrics\n/healthz\n/readyz[?role=primary|standby]\n")
	})
	return mux
}

func answer(w http.ResponseWriter, st State) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !st.OK {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(st) // the client is gone: nobody to tell
}

// Markdown documents a table.
func Markdown(table []Metric) string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | on | meaning |\n|---|---|---|---|---|\n")
	for _, m := range table {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", m.Name, m.Type, strings.ReplaceAll(m.Labels, ",", ", "), m.On, m.Help)
	}
	return b.String()
}
