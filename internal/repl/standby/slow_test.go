package standby_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/repltest"
	"datawatch/internal/repl/standby"
	"datawatch/internal/storage/redo"
)

// slowDisk is an engine whose disk takes a time for every sync and for every byte.
type slowDisk struct {
	*repltest.Engine
	sync time.Duration
	rate int64 // bytes per second
}

func (s slowDisk) LogForeign(ctx context.Context, pkgs []*redo.Package) (func() error, error) {
	n := int64(0)
	for _, p := range pkgs {
		n += int64(p.EncodedLen())
	}
	time.Sleep(s.sync + time.Duration(n)*time.Second/time.Duration(s.rate))
	return s.Engine.LogForeign(ctx, pkgs)
}

// TestSlowDisk: a primary that sends faster than the standby's disk writes is slowed
// down to the disk by late answers; what waits in memory stays within REDOS_BUF_SIZE
// and REDOS_BUF_NUM and what one more message brings (manual 5.1).
func TestSlowDisk(t *testing.T) {
	const size, packages = 8000, 3000
	for _, c := range []struct {
		name  string
		kind  mal.Kind
		bytes int64
		num   int
	}{
		{"by size", mal.KindRealtime, 256 << 10, 0},
		{"by number", mal.KindRealtime, 0, 20},
		{"timely", mal.KindTimely, 256 << 10, 50},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := repltest.NewEngine("B", base.ModeStandby)
				e.Set(base.ModeStandby, base.StatusOpen)
				disk := slowDisk{e, 5 * time.Millisecond, 1 << 20}
				r := standby.New(standby.Config{Engine: disk, PmntMagic: repltest.Magic, Log: repltest.Quiet, BufBytes: c.bytes, BufNum: c.num,
					MaxDelay: time.Minute, OnHalt: func(err error) { t.Error(err) }})
				t.Cleanup(r.Close)
				x := &chain{}
				must(t, offer(r, "A", headOf(x, x.open("one")), first(x)))
				begun, sent, most, num := time.Now(), int64(0), int64(0), 0
				for range packages {
					p := repltest.Package(x.pos, x.id, 1, nil, size)
					x.pos = p.Pos()
					sent += int64(p.EncodedLen())
					res := <-offer(r, "A", x.head(c.kind), p)
					if res.err != nil {
						t.Fatal(res.err)
					}
					i := r.Info()
					most, num = max(most, i.TaskMem), max(num, i.NTask)
				}
				took := time.Since(begun)
				if c.bytes > 0 && most > c.bytes+2*size || c.num > 0 && num > c.num+1 {
					t.Errorf("%d bytes, %d packages waited at most, limits %d and %d", most, num, c.bytes, c.num)
				}
				if c.bytes > 0 && most < c.bytes/2 && num < c.num {
					t.Errorf("only %d bytes and %d packages waited at most: the disk was not slow", most, num)
				}
				if rate := float64(sent) / took.Seconds(); rate > 1.2*float64(disk.rate) {
					t.Errorf("%.0f bytes a second were taken, the disk writes %d", rate, disk.rate)
				}
				if err := r.Drain(t.Context()); err != nil {
					t.Fatal(err)
				}
				t.Logf("%v for %d MB; at most %d bytes, %d packages waited", took, sent>>20, most, num)
			})
		})
	}
}
