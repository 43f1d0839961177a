package metrics

import (
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	var h Histogram
	for _, d := range []time.Duration{-1, 0, 64 * time.Microsecond, 64*time.Microsecond + 1, 128 * time.Microsecond, time.Millisecond, Bounds[len(Bounds)-1], time.Hour} {
		h.Observe(d)
	}
	n, sum, cum := h.Snapshot()
	if n != 8 || sum != 256*time.Microsecond+1+time.Millisecond+Bounds[len(Bounds)-1]+time.Hour {
		t.Errorf("%d observations, sum %v", n, sum)
	}
	for i, want := range map[int]uint64{0: 3, 1: 5, 2: 5, 3: 5, 4: 6, len(Bounds) - 2: 6, len(Bounds) - 1: 7} {
		if cum[i] != want {
			t.Errorf("at most %v: %d, want %d", Bounds[i], cum[i], want)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	var h Histogram
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			h.Observe(300 * time.Microsecond)
		}
	})
}
