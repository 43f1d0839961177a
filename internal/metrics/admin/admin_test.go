package admin

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"datawatch/internal/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var table = []Metric{
	{Name: "a_total", Type: "counter", Labels: "x,y", Help: "A."}, {Name: "b", Type: "gauge", Help: "B."}, {Name: "c_seconds", Type: "histogram", Help: "C."},
	{Name: "t", Type: "gauge", Help: "T."},
}

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w.Code, w.Body.String()
}

func TestMetrics(t *testing.T) {
	var h metrics.Histogram
	h.Observe(100 * time.Microsecond)
	r := Registry(table, func(e Emit) {
		e.Value("a_total", 3, "1", "2")
		e.Bool("b", true)
		e.Histogram("c_seconds", &h)
		e.Time("t", time.Time{})
	})
	code, text := get(t, (&Server{Registry: r}).Handler(), "/metrics")
	if code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	for _, want := range []string{`a_total{x="1",y="2"} 3`, "# TYPE a_total counter", "\nb 1\n", `c_seconds_bucket{le="6.4e-05"} 0`, `c_seconds_bucket{le="0.000128"} 1`, "c_seconds_count 1",
		"process_resident_memory_bytes", "go_goroutines"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text[:min(len(text), 2000)])
		}
	}
	if strings.Contains(text, "\nt ") {
		t.Error("a time that there is none of has a value")
	}
}

func TestUndeclared(t *testing.T) {
	for what, f := range map[string]func(Emit){
		"name": func(e Emit) { e.Value("zz", 1) }, "labels": func(e Emit) { e.Value("a_total", 1, "x") }, "no labels": func(e Emit) { e.Value("b", 1, "x") },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: accepted", what)
				}
			}()
			f(Emit{set: newSet(table, nil)})
		}()
	}
}

func TestHealth(t *testing.T) {
	st := State{OK: true}
	role := ""
	s := &Server{Log: slog.New(slog.DiscardHandler), Registry: Registry(nil, func(Emit) {}), Health: func(context.Context) State { return State{OK: true} },
		Ready: func(_ context.Context, r string) State { role = r; return st }}
	l, err := Listen("P", "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	s.Start(l)
	defer s.Close()
	ask := func(method, path string) (int, string) {
		req, _ := http.NewRequestWithContext(t.Context(), method, "http://"+l.Addr().String()+path, nil)
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if code, b := ask("GET", "/readyz?role=Primary"); code != 200 || b != "{\"ok\":true}\n" || role != "primary" {
		t.Errorf("%d %s %s", code, b, role)
	}
	st = State{Reason: "no"}
	if code, b := ask("GET", "/readyz"); code != 503 || !strings.Contains(b, `"reason":"no"`) {
		t.Errorf("%d %s", code, b)
	}
	for path, want := range map[string]int{"/healthz": 200, "/": 200, "/x": 404} {
		if code, _ := ask("GET", path); code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
	if code, _ := ask("POST", "/healthz"); code != 405 {
		t.Errorf("POST: %d", code)
	}
	if _, err := Listen("DW_ADMIN_PORT", "127.0.0.1", l.Addr().(*net.TCPAddr).Port); err == nil || !strings.Contains(err.Error(), "DW_ADMIN_PORT") {
		t.Errorf("a port in use: %v", err)
	}
	(*Server)(nil).Close()
}
