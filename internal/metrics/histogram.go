// Package metrics is what the daemons count with: a histogram cheap enough for
// every commit. It knows nothing of who reads it; package admin serves the
// numbers over HTTP.
package metrics

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	first   = 64 * time.Microsecond // upper bound of the first bucket
	buckets = 19                    // the last bound is 16.8 s
)

// Bounds are the upper bounds of the buckets: powers of two from 64 µs on.
var Bounds = func() (b [buckets]time.Duration) {
	for i := range b {
		b[i] = first << i
	}
	return b
}()

// Histogram counts durations. The zero value is ready; its methods are safe for
// concurrent use and do not lock.
type Histogram struct {
	n   [buckets + 1]atomic.Uint64
	sum atomic.Int64 // nanoseconds
}

// Observe counts one duration; a negative one counts as 0.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	i := 0
	if d > first {
		i = min(bits.Len64(uint64((d-1)/first)), buckets)
	}
	h.n[i].Add(1)
	h.sum.Add(int64(d))
}

// Snapshot returns the number of observations, their sum, and how many are at
// most each of Bounds.
func (h *Histogram) Snapshot() (count uint64, sum time.Duration, cumulative [buckets]uint64) {
	sum = time.Duration(h.sum.Load())
	for i := range h.n {
		count += h.n[i].Load()
		if i < buckets {
			cumulative[i] = count
		}
	}
	return count, sum, cumulative
}
