package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"datawatch/internal/app/dw"
)

// flushes watches the hardened LSN of a primary while a large transaction is on its
// way: count is how often it moved, longest the longest time between two moves.
// What another session has committed before waits for no more than that, as its
// package is hardened with the next move at the latest.
func flushes(ctx context.Context, t *testing.T, sys *dw.System, port int) func() (count int, longest time.Duration) {
	t.Helper()
	c, err := sys.Connect(ctx, port)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var count int
	var longest time.Duration
	done := make(chan error, 1)
	go func() {
		last, at := "", time.Time{}
		for {
			res, err := c.Exec(ctx, "SELECT FILE_LSN FROM V$RLOG").ReadAll()
			if ctx.Err() != nil {
				err = nil
			}
			if err != nil || ctx.Err() != nil {
				done <- err
				return
			}
			if now := string(res[0].Rows[0][0]); now != last {
				if count++; count > 2 { // the first is what was there, the second the first part
					longest = max(longest, time.Since(at))
				}
				last, at = now, time.Now()
			}
			pause(ctx, 2*time.Millisecond)
		}
	}()
	return func() (int, time.Duration) {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("watching the log: %v", err)
		}
		c.Close(context.Background())
		return count, longest
	}
}

// TestHuge fills a table far beyond memory, in transactions of a million rows, and
// then reads, changes and folds it at random on both databases. DW_HUGE_MB is how
// much data (0: not run), DW_HUGE_MEMORY the MEMORY_LIMIT of each server (512),
// DW_HUGE_DIR where it is kept; `make huge` runs it. The archives keep 2 GB, so
// that the disk has to hold about twice the data. A run that is cut off has
// printed how far it came.
func TestHuge(t *testing.T) {
	size, limit := envInt("DW_HUGE_MB", 0), envInt("DW_HUGE_MEMORY", 512)
	if size == 0 {
		t.Skip("DW_HUGE_MB is not set")
	}
	dir := os.Getenv("DW_HUGE_DIR")
	if dir == "" {
		dir = t.TempDir()
	}
	sys := largeSystem(t, filepath.Join(dir, "run"), limit, func(name, text string) string {
		if name == "dmarch.ini" {
			return strings.ReplaceAll(text, "ARCH_SPACE_LIMIT = 0", "ARCH_SPACE_LIMIT = 2048")
		}
		return text
	})
	mustExec(t, sys, "CREATE TABLE huge(id INTEGER PRIMARY KEY, k INTEGER, v TEXT)")
	const batch = 1_000_000
	rows, begun := 0, time.Now()
	memory := func(what string) {
		for _, d := range sys.DBs {
			mb := peak(t, sys.PID(d.Name))
			t.Logf("%8v  %s: %s used at most %d MB", time.Since(begun).Round(time.Second), what, d.Name, mb)
			if mb > limit*3/2 {
				t.Errorf("%s: %s used %d MB, MEMORY_LIMIT is %d", what, d.Name, mb, limit)
			}
		}
	}
	conn, i, err := connectPrimary(t.Context(), sys)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	port := sys.DBs[i].Port
	pages := func() int {
		n, err := strconv.Atoi(one(t, sys, port, "PRAGMA page_count"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for last := -1; pages()>>8 < size; rows += batch { // pages of 4 KB
		_, err := conn.Exec(t.Context(), fmt.Sprintf("WITH RECURSIVE c(i) AS (SELECT %d UNION ALL SELECT i+1 FROM c WHERE i < %d) "+
			"INSERT INTO huge SELECT i, (i*7919)%%1000003, hex(randomblob(50)) FROM c", rows+1, rows+batch)).ReadAll()
		if err != nil {
			t.Fatalf("after %d rows: %v", rows, err)
		}
		if gb := pages() >> 18; gb != last {
			last = gb
			memory(fmt.Sprintf("%d rows, %d MB", rows+batch, pages()>>8))
		}
	}
	const sum = "SELECT count(*), sum(k), max(id), min(v) FROM huge WHERE k >= 0"
	start := time.Now()
	want := one(t, sys, port, sum)
	t.Logf("%s: %s in %v", sum, want, time.Since(start).Round(time.Millisecond))
	memory("scan")
	for _, d := range sys.DBs {
		for limit := time.Now().Add(10 * time.Minute); one(t, sys, d.Port, sum) != want; pause(t.Context(), time.Second) {
			if time.Now().After(limit) {
				t.Fatalf("%s has %s, the primary %s", d.Name, one(t, sys, d.Port, sum), want)
			}
		}
	}
	for _, w := range []struct {
		what, sql string
		port      int
	}{
		{"random selects on the primary", "SELECT v FROM huge WHERE id = abs(random()) %% %d + 1", port},
		{"random selects on the standby", "SELECT v FROM huge WHERE id = abs(random()) %% %d + 1", sys.DBs[1-i].Port},
		{"random updates", "UPDATE huge SET v = v || 'x' WHERE id = abs(random()) %% %d + 1", port},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		var done atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			c, err := sys.Connect(t.Context(), w.port)
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				defer c.Close(context.Background())
				for ctx.Err() == nil {
					if _, err := c.Exec(context.WithoutCancel(ctx), fmt.Sprintf(w.sql, rows)).ReadAll(); err != nil {
						t.Errorf("%s: %v", w.what, err)
						return
					}
					done.Add(1)
				}
			})
		}
		wg.Wait()
		cancel()
		t.Logf("%s: %d in 30 s by 8 clients", w.what, done.Load())
		memory(w.what)
	}
}
