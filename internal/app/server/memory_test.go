package server

import (
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"testing"
)

// TestShareMemory: whatever the parameters say, what is kept in memory on purpose
// fits MEMORY_LIMIT with room for what SQL needs; without one they are as given.
func TestShareMemory(t *testing.T) {
	for _, c := range []struct{ limit, buffer, received int }{
		{0, 256, 1024}, {0, 8, 0}, {1, 256, 1024}, {256, 64, 0}, {512, 4096, 1024}, {65536, 256, 16},
	} {
		m := shareMemory(c.limit, c.buffer, c.received)
		if c.limit == 0 {
			if want := (memory{buffer: int64(c.buffer) << 20, received: int64(c.received) << 20}); m != want {
				t.Errorf("no limit: %+v, want %+v", m, want)
			}
			continue
		}
		all := int64(max(c.limit, minMemory)) << 20
		if sum := m.buffer + m.spill + m.versions + m.received + int64(m.redo) + int64(m.writerCache)<<10; sum > all || m.heap >= all {
			t.Errorf("%+v: %d of %d bytes given away: %+v", c, sum, all, m)
		}
		if m.buffer > int64(c.buffer)<<20 || c.received > 0 && m.received > int64(c.received)<<20 {
			t.Errorf("%+v: more than the parameters allow: %+v", c, m)
		}
		if min(m.buffer, m.spill, m.versions, m.dirty, m.received, m.heap) < 8<<20 || m.redo < 4<<20 || m.writerCache < 8<<10 {
			t.Errorf("%+v: too little to work with: %+v", c, m)
		}
	}
}

// TestApplyMemory: the runtime is told the limit, and how much garbage there may be,
// anew with each collection; what the environment says stays.
func TestApplyMemory(t *testing.T) {
	// In a process of its own: what is applied stays.
	const child = "DW_TEST_APPLY_MEMORY"
	if os.Getenv(child) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestApplyMemory$", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1", "GOGC=100", "GOMEMLIMIT=off")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestApplyMemory") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	check := func(when string, percent int, limit int64) {
		t.Helper()
		if p, l := gogc(), debug.SetMemoryLimit(-1); p != percent || l != limit {
			t.Errorf("%s: %d%% and %d bytes, want %d%% and %d", when, p, l, percent, limit)
		}
	}
	m := memory{heap: 3 << 30}
	m.apply()
	check("told by the environment", 100, math.MaxInt64)
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "")
	m.apply()
	check("before a collection", mostGarbage, m.heap)
	// Who is told of a collection runs some time after it.
	kept := make([]byte, 2*garbageRoom)
	for try := 0; gogc() != leastGarbage; try++ {
		if try == 1000 {
			t.Fatalf("%d bytes are alive, and still %d%%", len(kept), gogc())
		}
		runtime.GC()
	}
	runtime.KeepAlive(kept)
	memory{}.apply()
	if l := debug.SetMemoryLimit(-1); l != math.MaxInt64 {
		t.Errorf("no MEMORY_LIMIT: %d bytes", l)
	}
}

func gogc() int {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64())
}
