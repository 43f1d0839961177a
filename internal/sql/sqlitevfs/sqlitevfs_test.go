package sqlitevfs

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

// memHandle is a handle over bytes in memory whose Sync can fail.
type memHandle struct {
	data   []byte
	level  int
	fail   error
	closed bool
	phase2 int
}

func (h *memHandle) Lock(l int) error    { h.level = max(l, h.level); return nil }
func (h *memHandle) Unlock(l int) error  { h.level = min(l, h.level); return nil }
func (h *memHandle) CheckReserved() bool { return false }
func (h *memHandle) ReadAt(b []byte, off int64) (int, error) {
	if off >= int64(len(h.data)) {
		return 0, ErrShortRead
	}
	return copy(b, h.data[off:]), nil
}
func (h *memHandle) WriteAt(b []byte, off int64) (int, error) {
	if n := int(off) + len(b); n > len(h.data) {
		h.data = append(h.data, make([]byte, n-len(h.data))...)
	}
	return copy(h.data[off:], b), nil
}
func (h *memHandle) Truncate(n int64) error { h.data = h.data[:n]; return nil }
func (h *memHandle) Size() (int64, error)   { return int64(len(h.data)), nil }
func (h *memHandle) Sync() error            { return h.fail }
func (h *memHandle) CommitPhaseTwo()        { h.phase2++ }
func (h *memHandle) Close() error           { h.closed = true; return nil }

func TestAdapter(t *testing.T) {
	h := &memHandle{}
	sys, err := New(nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	c, f, err := sys.Open(t.Context(), h, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Exec("pragma journal_mode=truncate; create table t(a); insert into t values(1)"); err != nil {
		t.Fatal(err)
	}
	if h.phase2 != 2 || f.Written() == 0 || f.Written() != 0 {
		t.Errorf("%d commits marked", h.phase2)
	}
	// A failure of Sync fails the commit, and Err has the store's own error.
	h.fail = fmt.Errorf("log: %w", syscall.ENOSPC)
	err = c.Exec("insert into t values(2)")
	if !errors.Is(err, sqlite3.IOERR) {
		t.Errorf("failed commit: %v", err)
	}
	if err := f.Err(); !errors.Is(err, syscall.ENOSPC) || f.Err() != nil {
		t.Errorf("error of the store: %v", err)
	}
	if h.phase2 != 2 {
		t.Error("a failed commit was marked")
	}
	h.fail = nil
	if err := c.Exec("attach 'other' as o; create table o.x(a)"); err == nil {
		t.Error("a second database file could be opened")
	}
	if f.DeviceCharacteristics()&vfs.IOCAP_BATCH_ATOMIC != 0 {
		t.Error("batch-atomic writes are offered: updates would be lost")
	}
	if err := c.Close(); err != nil || !h.closed {
		t.Errorf("close: %v %v", err, h.closed)
	}
}

func TestErrors(t *testing.T) {
	f := &File{}
	for in, want := range map[error]error{ErrBusy: sqlite3.BUSY, ErrNotOwner: sqlite3.BUSY, ErrReadOnly: sqlite3.READONLY, ErrBusySnapshot: sqlite3.BUSY_SNAPSHOT} {
		if got := f.fail(fmt.Errorf("x: %w", in), sqlite3.IOERR_LOCK); !errors.Is(got, want) {
			t.Errorf("%v: %v, want %v", in, got, want)
		}
	}
	short := &File{h: &memHandle{}}
	if _, err := short.ReadAt(make([]byte, 10), 0); err != io.EOF {
		t.Errorf("short read: %v", err)
	}
}
