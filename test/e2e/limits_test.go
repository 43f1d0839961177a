package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"datawatch/internal/app/dw"
)

// rss returns the resident memory of a process in bytes.
func rss(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range strings.Split(string(b), "\n") {
		if f := strings.Fields(l); len(f) == 3 && f[0] == "VmRSS:" {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			return kb << 10
		}
	}
	t.Fatalf("no VmRSS in /proc/%d/status", pid)
	return 0
}

// TestMemory: an idle instance stays under 100 MB, 1,000 idle connections keep
// it under 1 GB.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	sys := up(t, dw.Options{Standbys: 0, Mode: "manual", Fast: true})
	pid := sys.PID(sys.DBs[0].Name)
	idle := rss(t, pid)
	t.Logf("idle instance: %d MB", idle>>20)
	if idle > 100<<20 {
		t.Errorf("an idle instance uses %d MB, must be under 100", idle>>20)
	}
	mustExec(t, sys, "CREATE TABLE m(a INTEGER PRIMARY KEY, b TEXT)")
	var conns []*pgconn.PgConn
	defer func() {
		for _, c := range conns {
			c.Close(context.Background())
		}
	}()
	for i := range 1000 {
		c, err := dw.Connect(t.Context(), sys.DBs[0].Port)
		if err != nil {
			t.Fatalf("connection %d: %v", i+1, err)
		}
		conns = append(conns, c)
		// Each does a little work first, as an application's pool would.
		if _, err := c.Exec(t.Context(), fmt.Sprintf("INSERT INTO m VALUES (%d, 'x'); SELECT * FROM m WHERE a = %d", i, i)).ReadAll(); err != nil {
			t.Fatalf("connection %d: %v", i+1, err)
		}
	}
	many := rss(t, pid)
	t.Logf("1,000 idle connections: %d MB", many>>20)
	if many > 1<<30 {
		t.Errorf("1,000 idle connections use %d MB, must be under 1024", many>>20)
	}
}

// TestGarbageOnEveryPort sends nonsense, oversized lengths and half messages to
// every port of a running system: everything stays up and serves (G8).
func TestGarbageOnEveryPort(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	sys := up(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true})
	before := map[string]int{}
	for _, n := range sys.Names() {
		before[n] = sys.PID(n)
	}
	random := make([]byte, 64<<10)
	if _, err := io.ReadFull(rand.Reader, random); err != nil {
		t.Fatal(err)
	}
	inputs := map[string][]byte{
		"random bytes":         random,
		"zeros":                make([]byte, 4096),
		"half a frame":         []byte("DWF1\x10\x00\x00\x00\x01\x00"),
		"frame of 4 GB":        append([]byte("DWF1\xff\xff\xff\xff\x01\x00\x00\x00"), make([]byte, 12)...),
		"http":                 []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"startup of 2 GB":      {0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		"cancel with no key":   {0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 0, 0, 0, 0, 0},
		"query before startup": []byte("Q\x00\x00\x00\x0dSELECT 1\x00"),
		"nothing":              nil,
	}
	for _, d := range sys.DBs {
		for _, port := range []int{d.Port, d.MAL, d.InstDW, d.DW} {
			for name, in := range inputs {
				c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 5*time.Second)
				if err != nil {
					t.Fatalf("port %d, %s: %v", port, name, err)
				}
				_ = c.SetDeadline(time.Now().Add(3 * time.Second))
				_, _ = c.Write(in)
				if name != "nothing" {
					_ = c.(*net.TCPConn).CloseWrite()
					if n, _ := io.Copy(io.Discard, io.LimitReader(c, 1<<20)); n >= 1<<20 {
						t.Errorf("port %d, %s: answered with a megabyte", port, name)
					}
				}
				c.Close()
			}
		}
	}
	mustExec(t, sys, "CREATE TABLE still_here(a INTEGER)")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := sys.WaitHealthy(ctx); err != nil {
		t.Errorf("not healthy after garbage: %v", err)
	}
	for n, pid := range before {
		if now := sys.PID(n); now != pid {
			t.Errorf("%s had pid %d and has %d: garbage ended it", n, pid, now)
		}
	}
}

// TestBadFiles: a damaged or foreign file, a newer format and bad configuration
// give an error that names the file, exit code 2 or 1, and change nothing.
func TestBadFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	bin := programs(t)
	dir := t.TempDir()
	port := freePort(t, 1)
	run(t, 0, filepath.Join(bin, "dminit"), "PATH="+dir, "INSTANCE_NAME=ONE", fmt.Sprintf("PORT_NUM=%d", port), "LOG_SIZE=64")
	db := filepath.Join(dir, "DAMENG")
	ini := filepath.Join(db, "dm.ini")
	server := filepath.Join(bin, "dmserver")

	t.Run("dminit refuses a directory that holds a database", func(t *testing.T) {
		out := run(t, -1, filepath.Join(bin, "dminit"), "PATH="+dir, "INSTANCE_NAME=TWO")
		wants(t, out, "DAMENG")
	})
	t.Run("unknown key", func(t *testing.T) {
		restore := patch(t, ini, func(b []byte) []byte { return append(b, "\nPORT_NUMM = 5\n"...) })
		defer restore()
		wants(t, run(t, 2, server, ini), "dm.ini", "PORT_NUMM")
	})
	t.Run("value out of range", func(t *testing.T) {
		restore := patch(t, ini, func(b []byte) []byte {
			return bytes.Replace(b, []byte(strconv.Itoa(port)), []byte("99999"), 1)
		})
		defer restore()
		wants(t, run(t, 2, server, ini), "dm.ini", "PORT_NUM", "65534")
	})
	t.Run("missing file", func(t *testing.T) {
		wants(t, run(t, 2, server, filepath.Join(db, "nothing.ini")), "nothing.ini")
	})
	ctl := filepath.Join(db, "dm.ctl")
	t.Run("both copies of the control file damaged", func(t *testing.T) {
		r1 := patch(t, ctl, flip(20))
		defer r1()
		r2 := patch(t, ctl+".bak", flip(20))
		defer r2()
		wants(t, run(t, 1, server, ini), "dm.ctl")
	})
	logs, _ := filepath.Glob(filepath.Join(db, "*.log"))
	if len(logs) < 2 {
		t.Fatalf("online logs not found in %s: %v", db, logs)
	}
	t.Run("foreign log file", func(t *testing.T) {
		restore := patch(t, logs[0], func(b []byte) []byte { copy(b, bytes.Repeat([]byte("foreign!"), 4096)); return b })
		defer restore()
		wants(t, run(t, 1, server, ini), filepath.Base(logs[0]))
	})
	t.Run("second server on the same directory", func(t *testing.T) {
		p := start(t, server, ini)
		defer p.stop(t)
		waitSQL(t, port)
		wants(t, run(t, -1, server, ini), "DAMENG")
	})
	t.Run("after all that it starts", func(t *testing.T) {
		p := start(t, server, ini)
		defer p.stop(t)
		waitSQL(t, port)
	})
}

func flip(at int) func([]byte) []byte {
	return func(b []byte) []byte { b[at] ^= 0xff; return b }
}

// patch changes a file and returns what puts it back.
func patch(t *testing.T, path string, f func([]byte) []byte) func() {
	t.Helper()
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, f(bytes.Clone(old)), 0o644); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.WriteFile(path, old, 0o644); err != nil {
			t.Error(err)
		}
	}
}

// run runs a program that must end by itself with the given exit code (-1: any
// but 0) and returns its output.
func run(t *testing.T, want int, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	out, err := cmd.CombinedOutput()
	code := 0
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		code = ee.ExitCode()
	} else if err != nil {
		t.Fatalf("%s %v: %v", name, args, err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%s %v did not end:\n%s", filepath.Base(name), args, out)
	}
	if code != want && (want != -1 || code == 0) {
		t.Fatalf("%s %v: exit code %d, want %d\n%s", filepath.Base(name), args, code, want, out)
	}
	return string(out)
}

func wants(t *testing.T, out string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(out, w) {
			t.Errorf("the message does not name %q:\n%s", w, out)
		}
	}
	if strings.Contains(out, "goroutine ") {
		t.Errorf("a panic reached the user:\n%s", out)
	}
}

// proc is a process of this test.
type proc struct {
	cmd *exec.Cmd
	out *bytes.Buffer
}

func start(t *testing.T, name string, args ...string) *proc {
	t.Helper()
	p := &proc{cmd: exec.Command(name, args...), out: &bytes.Buffer{}}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // registered first, so run after the process has ended
		if t.Failed() {
			out := p.out.String()
			t.Logf("---- %s %v\n%s", filepath.Base(name), args, out[max(0, len(out)-8000):])
		}
	})
	return p
}

func (p *proc) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%s: %v\n%s", p.cmd.Path, err, p.out)
	}
}

func waitSQL(t *testing.T, port int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		c, err := dw.Connect(ctx, port)
		if err == nil {
			c.Close(ctx)
			return
		}
		pause(ctx, 50*time.Millisecond)
	}
	t.Fatalf("nothing answers on port %d", port)
}
