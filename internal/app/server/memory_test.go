package server

import "testing"

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
