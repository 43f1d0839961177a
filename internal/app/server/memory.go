package server

import (
	"math"
	"os"
	"runtime/debug"

	"datawatch/internal/storage/engine"
	"datawatch/internal/storage/pagestore"
)

// minMemory is the least MEMORY_LIMIT that is acted upon, in MB: the SQL engine's
// code, its connections and the page cache of the writer take half of it.
const minMemory = 256

// memory is how MEMORY_LIMIT is shared out, in bytes; 0: the default of whoever
// takes it.
type memory struct {
	buffer                 int64 // clean pages
	spill, versions, dirty int64 // pages of one writer, versions in memory, dirty pages before a checkpoint
	redo                   int   // commits on their way to the log
	received               int64 // packages on their way to replay
	writerCache            int   // page cache of a connection that writes, in KB
	heap                   int64 // of the Go runtime, which does not count what SQLite allocates
}

// shareMemory shares limit MB, 0 for no limit; buffer and received are what the
// parameters BUFFER and REDOS_BUF_SIZE allow, in MB.
func shareMemory(limit, buffer, received int) memory {
	m := memory{buffer: int64(buffer) << 20, received: int64(received) << 20}
	if limit == 0 {
		return m
	}
	all := int64(max(limit, minMemory)) << 20
	m.buffer = min(m.buffer, all/2)
	m.spill, m.versions = min(pagestore.DefaultSpill, all/16), min(pagestore.DefaultVersions, all/8)
	m.dirty, m.redo = min(64<<20, all/8), int(min(32<<20, all/32))
	if m.received == 0 || m.received > all/16 {
		m.received = all / 16
	}
	m.writerCache = int(min(32<<10, all/16>>10))
	m.heap = all - all/4
	return m
}

// apply sets the runtime's limits, unless the environment does (GOGC,
// GOMEMLIMIT).
func (m memory) apply() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(mostGarbage)
		everyCollection(func(live uint64) { debug.SetGCPercent(garbagePercent(live)) })
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		if m.heap == 0 {
			debug.SetMemoryLimit(math.MaxInt64)
		} else {
			debug.SetMemoryLimit(m.heap)
		}
	}
}

func (m memory) engine(c *engine.Config) {
	c.BufferBytes, c.SpillBytes, c.VersionBytes, c.DirtyBytes, c.RedoBuffer = m.buffer, m.spill, m.versions, m.dirty, m.redo
}
