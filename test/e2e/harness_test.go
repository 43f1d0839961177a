// Package e2e runs real systems: every part its own process, started by dw,
// killed with SIGKILL, used through a real PostgreSQL client. Each system
// lives in a temporary directory on loopback ports of its own; every process
// started is stopped by the test that started it.
package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"datawatch/internal/app/dw"
)

var (
	buildOnce sync.Once
	buildDir  string
	buildErr  error
)

func TestMain(m *testing.M) {
	code := m.Run()
	if buildDir != "" {
		os.RemoveAll(buildDir)
	}
	os.Exit(code)
}

// programs builds every program once and returns their directory. With
// DW_E2E_BIN set, that directory is used as it is (a race-detector build,
// say).
func programs(t testing.TB) string {
	t.Helper()
	if d := os.Getenv("DW_E2E_BIN"); d != "" {
		return d
	}
	buildOnce.Do(func() {
		if buildDir, buildErr = os.MkdirTemp("", "dw-e2e-bin-"); buildErr != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", buildDir+"/", "datawatch/cmd/...")
		if out, err := cmd.CombinedOutput(); err != nil {
			buildErr = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if buildErr != nil {
		t.Fatal(buildErr)
	}
	return buildDir
}

var (
	portsMu  sync.Mutex
	nextPort = envInt("DW_E2E_PORT", 20000+os.Getpid()%200*40)
)

// freePort finds a base port such that all ports of a system of n databases
// are free now; no two tests of this process get the same.
func freePort(t testing.TB, n int) int {
	t.Helper()
	portsMu.Lock()
	defer portsMu.Unlock()
	for range 300 {
		p := nextPort
		// Other ports of a system are 100 to 500 above: steps of 10 within 100,
		// then 600 on.
		if nextPort += 10; nextPort%100 == 0 {
			nextPort += 500
		}
		if nextPort > 31000 {
			nextPort = 20000
		}
		if portsFree(p, n) {
			return p
		}
	}
	t.Fatal("no free range of ports")
	return 0
}

func portsFree(base, n int) bool {
	for i := range n {
		for _, off := range []int{0, 100, 200, 300, 400, 500} {
			l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(base+off+i))
			if err != nil {
				return false
			}
			l.Close()
		}
	}
	return true
}

// up starts a system and stops it at the end of the test. On failure the end
// of every log is printed.
func up(t *testing.T, o dw.Options) *dw.System {
	t.Helper()
	bin := programs(t)
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "run")
	}
	if o.TLS == "" {
		o.TLS = os.Getenv("DW_TLS")
	}
	if o.Port == 0 {
		o.Port = freePort(t, o.Standbys+1)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	sys, err := dw.Up(ctx, o, bin, testWriter{t})
	t.Cleanup(func() {
		if t.Failed() {
			printLogs(t, o.Dir)
		}
		if sys == nil {
			sys, _ = dw.Load(o.Dir)
		}
		if sys != nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := sys.Down(ctx, false, testWriter{t}); err != nil {
				t.Errorf("down: %v", err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return sys
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Helper()
	w.t.Logf("%s", b)
	return len(b), nil
}

func printLogs(t *testing.T, dir string) {
	logs, _ := filepath.Glob(filepath.Join(dir, "log", "*.log"))
	own, _ := filepath.Glob(filepath.Join(dir, "*", "DAMENG", "log", "dm_*.log"))
	for _, l := range append(logs, own...) {
		b, err := os.ReadFile(l)
		if err != nil {
			continue
		}
		if len(b) > 6000 {
			b = b[len(b)-6000:]
		}
		t.Logf("---- %s\n%s", filepath.Base(l), b)
	}
	if keep := os.Getenv("DW_E2E_KEEP"); keep != "" {
		_ = os.MkdirAll(keep, 0o755)
		out, err := exec.Command("cp", "-r", dir, filepath.Join(keep, t.Name())).CombinedOutput()
		t.Logf("kept in %s: %v %s", keep, err, out)
	}
}

// timeline merges what every process logged between from and to.
func timeline(sys *dw.System, from, to time.Time) string {
	type line struct {
		at   time.Time
		text string
	}
	from = from.Truncate(time.Millisecond) // as the logs write it
	var all []line
	for _, n := range sys.Names() {
		for _, l := range logLines(sys, n) {
			stamp, rest, _ := strings.Cut(strings.TrimPrefix(l, "time="), " ")
			at, err := time.Parse(time.RFC3339Nano, stamp)
			if err == nil && !at.Before(from) && at.Before(to) {
				all = append(all, line{at, at.Format("05.000 ") + n + " " + rest})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b line) int { return a.at.Compare(b.at) })
	var sb strings.Builder
	for _, l := range all {
		sb.WriteString(l.text + "\n")
	}
	return sb.String()
}

// logLines are the lines a process wrote: to its output, which dw keeps, and,
// a database that has started, to its own log file.
func logLines(sys *dw.System, name string) []string {
	files := []string{filepath.Join(sys.Dir, "log", name+".log")}
	own, _ := filepath.Glob(filepath.Join(sys.Dir, name, "DAMENG", "log", "dm_*.log"))
	var out []string
	seen := map[string]bool{}
	for _, f := range append(files, own...) {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for _, l := range strings.Split(string(b), "\n") {
			if !seen[l] {
				seen[l] = true
				out = append(out, l)
			}
		}
	}
	return out
}

// envInt reads a number from the environment.
func envInt(name string, def int) int {
	if v, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return v
	}
	return def
}
