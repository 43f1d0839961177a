package server

import (
	"runtime"
	"testing"
)

func TestGarbagePercent(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 400}, {8 << 20, 400}, {32 << 20, 400}, {64 << 20, 200}, {128 << 20, 100}, {256 << 20, 50}, {4 << 30, 50}} {
		if got := garbagePercent(c.live); got != c.want {
			t.Errorf("%d MB alive: %d%%, want %d%%", c.live>>20, got, c.want)
		}
	}
}

// Each collection is told, not the first alone, with what is alive.
func TestEveryCollection(t *testing.T) {
	told := make(chan uint64)
	stop := make(chan struct{})
	defer close(stop)
	everyCollection(func(live uint64) {
		select {
		case told <- live:
		case <-stop:
		}
	})
	const size = 64 << 20
	var kept []byte
	for i := range 3 {
		if i == 1 {
			kept = make([]byte, size)
		}
		runtime.GC()
		live := <-told
		if i > 0 && live < size {
			t.Errorf("collection %d: %d bytes are alive, %d of them here", i, live, size)
		}
	}
	runtime.KeepAlive(kept)
}
