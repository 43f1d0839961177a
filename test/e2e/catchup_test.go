package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"datawatch/internal/app/dw"
)

// TestCatchUp: a standby that was away while much redo was made is recovered from
// the primary's archive (manual 3.1.9). DW_CATCHUP_MB is how much, DW_CATCHUP_LOG is LOG_SIZE,
// by default what a new database has; the times are printed as a table for
// docs/measured.md, from the start of its process and from the begin of the recovery.
//
// Each kind of redo is recovered twice: with the machine's memory free, as the rounds
// before left it, and in use by the system's cache, as that of a machine that has been
// up for a while: the target is for that. A virtual machine may have given free memory
// back to its host; then every page that is touched first costs, those of the new
// process and those of the files that it writes.
func TestCatchUp(t *testing.T) {
	if os.Getenv("DW_CATCHUP_MB") == "" {
		t.Skip("takes minutes: DW_CATCHUP_MB=1000 has the standby miss so much redo")
	}
	want := int64(envInt("DW_CATCHUP_MB", 40)) << 20
	var table strings.Builder
	fmt.Fprintf(&table, "| redo | memory | MB | from the start of its process | MB/s | recovery itself | MB/s | processor time of both | target |\n"+
		"|---|---|--:|--:|--:|--:|--:|--:|---|\n")
	for _, kind := range []string{"rows of 1 kB, 2,000 in a statement", "single rows of 100 bytes"} {
		for _, memory := range []string{"free", "in use"} {
			t.Run(kind+", memory "+memory, func(t *testing.T) {
				c := catchUp(t, want, kind[0] == 'r', memory == "in use")
				mb, rate := float64(c.redo)/1e6, float64(c.redo)/1e6/c.recovery.Seconds()
				target := "none"
				if memory == "in use" {
					target = fmt.Sprintf("%d MB/s", catchUpTarget)
					if rate < catchUpTarget {
						t.Errorf("%s: %.0f MB/s, the target is %d", kind, rate, catchUpTarget)
					}
				}
				fmt.Fprintf(&table, "| %s | %s | %.0f | %.1f s | %.0f | %.1f s | %.0f | %.1f s | %s |\n", kind, memory, mb,
					c.all.Seconds(), mb/c.all.Seconds(), c.recovery.Seconds(), rate, c.cpu.Seconds(), target)
			})
		}
	}
	t.Logf("recovery of a standby:\n%s", table.String())
}

type caughtUp struct {
	redo          int64 // bytes
	all, recovery time.Duration
	cpu           time.Duration // of both databases
}

func catchUp(t *testing.T, want int64, bulk, memoryInUse bool) (c caughtUp) {
	sys := up(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true, LogSize: envInt("DW_CATCHUP_LOG", 256)})
	prim := primary(t, sys)
	sb := standbyOf(sys, prim)
	mustExec(t, sys, "CREATE TABLE c(id INT PRIMARY KEY, v VARCHAR(2000)); CREATE INDEX cv ON c(v)")
	watcher := "W_" + sb
	for _, n := range []string{watcher, sb} {
		if err := sys.Kill(n); err != nil {
			t.Fatal(err)
		}
	}
	port := sys.DBs[0].Port
	used := func() int64 {
		n, err := strconv.ParseInt(queryOne(t, port, "SELECT SUM(FREE) FROM V$ARCH_FILE"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := used()
	fillRedo(t, port, bulk, func() bool { return used()-before >= want })
	c.redo = used() - before
	if memoryInUse {
		useMemory(t)
	}
	at, was := time.Now(), cpuOf(t, sys.PID(prim))
	for _, n := range []string{sb, watcher} {
		if err := sys.Start(n); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	if err := sys.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	c.all, c.cpu = time.Since(at), cpuOf(t, sys.PID(prim), sys.PID(sb))-was
	lines := timeline(sys, at, time.Now())
	c.recovery = logTime(sys, prim, at, "recovery done").Sub(logTime(sys, prim, at, "recovery begins"))
	t.Logf("the standby is Valid again\n%s", lines)
	rows, got := queryOne(t, port, "SELECT COUNT(*) FROM c"), ""
	waitFor(t, "the standby to show the same rows", 20*time.Second, func() bool {
		got = queryOne(t, sys.DBs[1].Port, "SELECT COUNT(*) FROM c")
		return got == rows
	})
	return c
}

// useMemory has the system's cache take the free memory, for the rest of the test.
func useMemory(t *testing.T) {
	t.Helper()
	const leave, step = 512 << 20, 8 << 20
	name, buf := filepath.Join(t.TempDir(), "cache"), make([]byte, step)
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	free := memFree(t)
	var s syscall.Statfs_t
	if err := syscall.Statfs(name, &s); err != nil {
		t.Fatal(err)
	}
	if s.Bsize*int64(s.Bavail) < 4<<30+free {
		t.Skipf("no room for %d MB in files", free>>20)
	}
	for ; free > leave; free -= step {
		if _, err := f.Write(buf); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// memFree is the memory in bytes that nothing is in.
func memFree(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "MemFree:")
	f := strings.Fields(rest)
	if len(f) == 0 {
		t.Fatal("no MemFree in /proc/meminfo")
	}
	n, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// catchUpTarget is in MB of redo a second.
const catchUpTarget = 100

// logTime is when a watcher of a database first logged msg after from.
func logTime(sys *dw.System, db string, from time.Time, msg string) time.Time {
	for _, l := range logLines(sys, "W_"+db) {
		stamp, _, _ := strings.Cut(strings.TrimPrefix(l, "time="), " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err == nil && at.After(from) && strings.Contains(l, msg) {
			return at
		}
	}
	return time.Time{}
}

// cpuOf is the processor time that processes have used.
func cpuOf(t *testing.T, pids ...int) (sum time.Duration) {
	t.Helper()
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		f := strings.Fields(rest)
		for _, ticks := range f[11:13] { // utime, stime
			n, err := strconv.ParseInt(ticks, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += time.Duration(n) * time.Second / 100
		}
	}
	return sum
}

// fillRedo writes until done says that it is enough.
func fillRedo(t *testing.T, port int, bulk bool, done func() bool) {
	t.Helper()
	if bulk {
		c := connect(t, port)
		for i := 0; !done(); i++ {
			_, err := c.Exec(t.Context(), fmt.Sprintf("INSERT INTO c SELECT i + %d, i || '-%d-' || REPEAT('x', 1000) FROM generate_series(1, 2000) g(i)", i*2000, i))
			if err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	const clients = 16
	stop := make(chan struct{})
	errs := make(chan error, clients)
	for k := range clients {
		c := connect(t, port)
		go func() {
			for i := k; ; i += clients {
				select {
				case <-stop:
					errs <- nil
					return
				default:
				}
				if _, err := c.Exec(t.Context(), "INSERT INTO c VALUES ($1, $2)", i, fmt.Sprintf("%d-%80d", i*7919%100003, i)); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	for !done() {
		pause(t.Context(), 100*time.Millisecond)
	}
	close(stop)
	for range clients {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
