package pagestore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"datawatch/internal/base"
	"datawatch/internal/storage/page"
)

// checkRun is how many bytes CheckPages reads at a time.
const checkRun = 1 << 20

// CheckPages reads every page of the data file and verifies its checksum,
// without the cache, beside readers and writers. progress is called now and then
// with what was read of how many pages; bad for each page that is damaged, with
// its number from 1, its offset and what is wrong. Nothing is repaired. The error
// is that of the disk or of ctx.
//
// A page that the checkpointer is just writing may look damaged: it is read again
// with the checkpointer stopped, and then it counts.
func (s *Store) CheckPages(ctx context.Context, progress func(done, total uint32), bad func(page uint32, offset int64, err error)) error {
	ps := int64(s.ps)
	buf := make([]byte, checkRun/s.ps*s.ps)
	for done := uint32(0); ; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		size, err := s.f.Size() // it may grow or be cut meanwhile
		if err != nil {
			return fmt.Errorf("check %s: %w", s.path, err)
		}
		total := uint32(size / ps)
		progress(min(done, total), total)
		if done >= total {
			return nil
		}
		n := min(len(buf)/s.ps, int(total-done))
		got, err := s.f.ReadAt(buf[:n*s.ps], int64(done)*ps)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("check %s, offset %d: %w", s.path, int64(done)*ps+int64(got), err)
		}
		for i := range n {
			no := done + uint32(i) + 1
			if (i+1)*s.ps > got {
				break // cut off since
			}
			if _, err := page.Verify(buf[i*s.ps : (i+1)*s.ps]); err == nil {
				continue
			}
			if err := s.checkAgain(no, buf[i*s.ps:(i+1)*s.ps]); errors.Is(err, ErrDamaged) {
				bad(no, int64(no-1)*ps, err)
			} else if err != nil {
				return err
			}
		}
		done += uint32(n)
	}
}

// checkAgain reads a page while nobody writes to the file.
func (s *Store) checkAgain(no uint32, buf []byte) error {
	s.cmu.Lock()
	defer s.cmu.Unlock()
	_, err := readPage(s.f, s.path, no, buf)
	return err
}

// Snapshot returns the LSN of the snapshot that is pinned, 0 when none is.
func (h *Handle) Snapshot() base.LSN {
	if h.snap == nil {
		return 0
	}
	return h.snap.lsn
}
