package watcher

import (
	"bufio"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/clock"
	"datawatch/internal/ha/proto"
	"datawatch/internal/wire"
)

// TestLateOrdersAreNotGiven: an order that could not be written in time, because
// this process or the peer stood still, is answered as failed and never written;
// what is ordered later goes out (G3).
func TestLateOrdersAreNotGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		c := newConn(a, clock.Real{})
		var late []uint64
		c.late = func(id uint64) { late = append(late, id) }
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.writeLoop(t.Context())
		}()
		order := func(id uint64) {
			c.order(proto.TypeInstCmd, id, proto.InstanceCommand{Cmd: proto.CmdOpen}, time.Now().Add(5*time.Second))
		}
		order(1) // is being written while the peer stands still
		order(2)
		c.send(proto.TypeDWReply, 9, proto.WatcherReply{}) // no order: may be late
		time.Sleep(6 * time.Second)
		order(3)
		var got []uint64
		r := wire.NewReader(bufio.NewReader(b), wire.MaxControl)
		for len(got) < 3 {
			f, err := r.Read()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, f.ID)
		}
		c.close()
		<-done
		if !slices.Equal(got, []uint64{1, 9, 3}) || !slices.Equal(late, []uint64{2}) {
			t.Fatalf("written %v, late %v; want 1 9 3 and 2", got, late)
		}
	})
}
