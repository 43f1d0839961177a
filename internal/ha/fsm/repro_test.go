package fsm_test

import (
	"testing"
	"time"
)

func TestRepro(t *testing.T) {
	cfg := auto()
	cfg.Reconnect, cfg.FailoverForce = false, true
	w := newWorld(t, 0x17, 3, cfg)
	w.startAll()
	w.settle(2 * time.Minute)
	for _, k := range []int{0, 1, 4, 0, 63, 7, 1, 4629, 26} {
		w.fault(k % 1024)
		w.run(time.Duration(k/1024) * 600 * time.Millisecond)
		w.fail()
	}
	w.repair()
	w.settle(10 * time.Minute)
}
