package cluster

import (
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// TestTakeover: the host of the primary loses its power; the standby takes over,
// nothing acknowledged or seen is lost, and the old primary comes back as a
// standby (G1-G3, G6).
func TestTakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := settings{dbs: 2, confirm: true, auto: true, restart: true, reconnect: true, force: true, errorTime: 5, instErrorTime: 5,
			recoverTime: 3, malCheck: 1, malFail: 3, ckpt: 5, clients: 3, readers: 2}
		w := newWorld(1, cfg)
		defer w.stop()
		defer func() {
			if f := w.chain.failed(); len(f) > 0 {
				t.Error(f)
				w.dump(os.Stdout)
			}
		}()
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		if !w.settle(time.Minute) {
			return
		}
		w.log("test", "whole; now the power goes")
		time.Sleep(3 * time.Second)
		before, _ := w.chain.far()
		w.hosts[0].cut()
		time.Sleep(20 * time.Second)
		if after, by := w.chain.far(); before == 0 || after == before || by != "B" {
			w.chain.fault("%d commits before, %d after, the last by %s", before, after, by)
		}
		w.hosts[0].boot()
		w.settle(time.Minute)
		acks, _ := w.chain.far()
		t.Logf("%d acknowledged", acks)
	})
}
