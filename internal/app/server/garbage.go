package server

import (
	"runtime"
	"runtime/metrics"
)

// How much garbage there may be before the next collection, in percent of what
// is alive. With little alive, some memory is traded for fewer collections: a
// quarter more commits per second at 64 clients. But most of what is alive are
// pages, which cost a collection almost nothing, while memory that was never used
// costs a processor much more than memory that is used again: above all in a
// process that has just started, as a standby that catches up.
const (
	mostGarbage  = 400
	leastGarbage = 50
	garbageRoom  = 128 << 20 // bytes, between the two
)

func garbagePercent(live uint64) int {
	return int(min(max(garbageRoom*100/max(live, 1), leastGarbage), mostGarbage))
}

// everyCollection calls fn after each collection of garbage with the bytes that
// were alive then.
func everyCollection(fn func(live uint64)) {
	// The object is garbage at once; what is called when it goes makes the next.
	type mark struct{ again func() }
	var arm func()
	arm = func() {
		runtime.SetFinalizer(&mark{arm}, func(m *mark) {
			m.again() // before anybody is told, who may wait for the next collection
			sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
			metrics.Read(sample)
			fn(sample[0].Value.Uint64())
		})
	}
	arm()
}
