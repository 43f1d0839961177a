package engine

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/vfs"
)

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestDiskStaysFull: a full disk that is tried again and again is one suspension: it
// is logged once, and since when it lasts is said, not when it was tried last.
func TestDiskStaysFull(t *testing.T) {
	var log lockedBuffer
	d := newDB(t, func(c *Config) {
		c.Log, c.RetryInterval = slog.New(slog.NewTextHandler(&log, nil)), time.Millisecond
	}, nil)
	d.commit(1)
	heal := d.fs.Inject(vfs.Fault{Kind: vfs.OpWrite, Path: "A_*.log", Err: syscall.ENOSPC})
	lsn := d.publish(1, false)
	var begun time.Time
	for _, tries := range []int{1, 5} {
		await(t, d.e, "suspended", func() bool {
			d.e.mu.Lock()
			defer d.e.mu.Unlock()
			return d.e.status == base.StatusSuspend && int(d.e.suspends) >= tries
		})
		if _, at := d.e.SuspendReason(); begun.IsZero() {
			begun = at
		} else if !at.Equal(begun) {
			t.Errorf("suspended since %v, then since %v", begun, at)
		}
	}
	if n := strings.Count(log.String(), "database suspended"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, &log)
	}
	heal()
	if err := d.e.WaitHardened(t.Context(), lsn); err != nil {
		t.Fatal(err)
	}
	d.e.Suspend("asked")
	if n := strings.Count(log.String(), "database suspended"); n != 2 {
		t.Errorf("another suspension: logged %d times:\n%s", n, &log)
	}
}
