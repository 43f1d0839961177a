package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"datawatch/internal/app/dump"
	"datawatch/internal/app/dw"
)

// TestOperations: what somebody who runs a system uses: health and metrics of
// every process, a check of both databases and a look at their files while they
// run, log files moved away, and a little harm.
func TestOperations(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	s := up(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true})
	get := func(port int, path string) (int, string) {
		t.Helper()
		req, _ := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	a, b := s.DBs[0], s.DBs[1]
	for _, x := range []struct {
		port int
		path string
		code int
		text string
	}{
		{a.Admin, "/healthz", 200, `"ok":true`}, {a.Admin, "/readyz?role=primary", 200, `"mode":"Primary"`}, {b.Admin, "/readyz?role=primary", 503, "Standby"},
		{b.Admin, "/readyz?role=standby", 200, `"status":"Open"`}, {a.Admin, "/metrics", 200, `dw_archive_valid{standby="` + b.Name + `",type="REALTIME"} 1`},
		{a.DWAdmin, "/readyz", 200, "OPEN"}, {b.DWAdmin, "/metrics", 200, `dw_watcher_confirm_monitors{group="GRP1",instance="` + b.Name + `"} 1`},
	} {
		if code, body := get(x.port, x.path); code != x.code || !strings.Contains(body, x.text) {
			t.Errorf("%d%s: %d, no %q in %.500s", x.port, x.path, code, x.text, body)
		}
	}
	for _, d := range s.DBs {
		ini := filepath.Join(s.Dir, d.Name, "DAMENG", "dm.ini")
		for _, what := range []string{"redo", "arch", "page", "ctl"} {
			var out bytes.Buffer
			if err := dump.Main([]string{what, ini}, &out); err != nil || out.Len() == 0 {
				t.Errorf("dump %s of %s: %v\n%.1000s", what, d.Name, err, out.String())
			}
		}
	}
	// logrotate: the server opens its log by name again.
	logs, _ := filepath.Glob(filepath.Join(s.Dir, a.Name, "DAMENG", "log", "dm_"+a.Name+"_*.log"))
	if len(logs) != 1 {
		t.Fatalf("log files: %v", logs)
	}
	if err := os.Rename(logs[0], logs[0]+".1"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(s.PID(a.Name), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if b, err := os.ReadFile(logs[0]); err == nil && strings.Contains(string(b), "opened again") {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the log is not opened again")
		}
	}
	// dw chaos compares rows and checks both databases itself.
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var out bytes.Buffer
	if err := s.Chaos(ctx, dw.ChaosOptions{Seconds: 4, Clients: 2, Seed: 1, Harm: "kill,watcher"}, &out); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), "0 of ") || !strings.Contains(out.String(), "no damage found") {
		t.Errorf("%s", out.String())
	}
	if err := s.Chaos(ctx, dw.ChaosOptions{Seconds: 1, Clients: 1, Harm: "nonsense"}, io.Discard); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("an unknown harm: %v", err)
	}
}
