package cluster

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// procClock is the clock of a process. While the process stands still its tickers
// and sleeps do not end; contexts with a deadline and bare timers do, as they do
// in a process that is stopped and goes on later than they were due. The wall
// clock of its host can be set: times keep their monotonic part, as Go's do.
type procClock struct {
	nd   *node
	wall *atomic.Int64 // seconds that the host's wall clock is ahead
}

func (c procClock) Now() time.Time { return twoClocks(time.Now(), c.wall.Load()) }

// A bubble's times have no monotonic part, so that a wall clock that is set would
// move everything. twoClocks gives t one, its time in the bubble, and sets the
// wall clock ahead. The layout is that of package time: bit 63 of wall says that
// there are both, bits 30 to 62 are seconds since 1885, ext is the monotonic part.
func twoClocks(t time.Time, ahead int64) time.Time {
	x := (*layout)(unsafe.Pointer(&t))
	if x.wall>>63 != 0 {
		panic("a time in a bubble has a monotonic part: package time has changed")
	}
	mono := t.UnixNano()
	sec := t.Unix() + ahead + unixTo1885
	x.wall = 1<<63 | uint64(sec)<<30 | uint64(t.Nanosecond())
	x.ext = mono
	return t
}

type layout struct {
	wall uint64
	ext  int64
	loc  *time.Location
}

// unixTo1885 is how many seconds 1970 is after 1885.
const unixTo1885 = (85*365 + 20) * 86400

// bubble is the time in the bubble of a time of a process.
func bubble(t time.Time) time.Time {
	if x := (*layout)(unsafe.Pointer(&t)); x.wall>>63 != 0 {
		return time.Unix(0, x.ext)
	}
	return t
}

func (c procClock) NewTimer(d time.Duration) *time.Timer { return time.NewTimer(d) }

// NewTicker returns a ticker whose channel is fed by a goroutine that waits while
// the process stands still.
func (c procClock) NewTicker(d time.Duration) *time.Ticker {
	t := time.NewTicker(d)
	from, to := t.C, make(chan time.Time, 1)
	t.C = to
	go func() {
		for {
			select {
			case x := <-from:
				c.nd.still()
				select {
				case to <- twoClocks(x, c.wall.Load()):
				default:
				}
			case <-c.nd.gone:
				t.Stop()
				return
			}
		}
	}()
	return t
}

func (c procClock) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		c.nd.still()
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestTwoClocks: setting the wall clock changes what is shown, and nothing that
// is measured.
func TestTwoClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wall atomic.Int64
		c := procClock{wall: &wall}
		a := c.Now()
		if !a.Round(0).Equal(time.Now()) || !bubble(a).Equal(time.Now()) {
			t.Fatalf("%v, %v in the bubble", a, time.Now())
		}
		wall.Store(-3600)
		time.Sleep(time.Second)
		b := c.Now()
		if d := b.Sub(a); d != time.Second {
			t.Errorf("measured %v", d)
		}
		if d := b.Round(0).Sub(a.Round(0)); d != time.Second-time.Hour {
			t.Errorf("shown %v", d)
		}
		if !bubble(b.Add(time.Minute)).Equal(time.Now().Add(time.Minute)) {
			t.Errorf("%v in the bubble", bubble(b))
		}
	})
}
