package pagestore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"datawatch/internal/storage/page"
	"datawatch/internal/vfs"
)

// TestCheckPages: beside a checkpointer that writes all the time nothing is
// reported; a damaged page always is; an ended context ends it.
func TestCheckPages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	first := page.NewDatabase(testPS)
	page.Seal(first, 1, 0)
	if err := os.WriteFile(path, first, 0o600); err != nil {
		t.Fatal(err)
	}
	l := nullLog{&memLog{last: 1}}
	s, err := Open(vfs.OS{}, path, Options{PageSize: testPS, LSN: 1, Committer: l})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	h := s.NewHandle(false)
	const pages = 300
	write := func(v byte) {
		begin(t, s, h)
		b := make([]byte, testPS)
		for i := range b {
			b[i] = v
		}
		for n := int64(1); n < pages; n++ {
			if _, err := h.WriteAt(b, n*testPS); err != nil {
				t.Fatal(err)
			}
		}
		end(t, s, h, true)
		s.SetHardened(h.LastCommit())
	}
	write(1)
	if _, err := s.Checkpoint(t.Context(), s.Hardened()); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for v := byte(2); !stop.Load(); v++ {
			write(v)
			if _, err := s.Checkpoint(context.Background(), s.Hardened()); err != nil {
				t.Error(err)
			}
		}
	}()
	var last, total uint32
	progress := func(d, n uint32) { last, total = d, n }
	for range 30 {
		if err := s.CheckPages(t.Context(), progress, func(n uint32, off int64, err error) { t.Errorf("page %d, offset %d: %v", n, off, err) }); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	<-done
	if last != pages || total != pages {
		t.Errorf("read %d of %d pages", last, total)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{0xee}, 41*testPS+17); err != nil {
		t.Fatal(err)
	}
	var found []uint32
	if err := s.CheckPages(t.Context(), progress, func(n uint32, off int64, err error) {
		found = append(found, n)
		if off != 41*testPS || !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path) {
			t.Errorf("offset %d: %v", off, err)
		}
	}); err != nil || len(found) != 1 || found[0] != 42 {
		t.Errorf("found %v, %v", found, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	cancel(why)
	if err := s.CheckPages(ctx, progress, nil); !errors.Is(err, why) {
		t.Errorf("ended context: %v", err)
	}
}
