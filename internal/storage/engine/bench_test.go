package engine

import (
	"encoding/binary"
	"path/filepath"
	"sync"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/vfs"
)

// BenchmarkCommit64 is 64 goroutines that each commit two changed pages and wait
// for the disk.
func BenchmarkCommit64(b *testing.B) {
	dir := b.TempDir()
	logs := []string{filepath.Join(dir, "1.log"), filepath.Join(dir, "2.log")}
	err := Create(CreateConfig{FS: vfs.OS{}, Dir: dir, CtlPath: filepath.Join(dir, "dm.ctl"), LogPaths: logs,
		LogSize: 64 << 20, DBName: "B", PageSize: 4096, Mode: base.ModeNormal})
	if err != nil {
		b.Fatal(err)
	}
	e, err := Open(b.Context(), Config{FS: vfs.OS{}, Dir: dir, CtlPath: filepath.Join(dir, "dm.ctl"), LogPaths: logs})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Abort()
	if err := e.OpenDatabase(b.Context()); err != nil {
		b.Fatal(err)
	}
	s := e.Store()
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			h := s.NewHandle(false)
			buf := make([]byte, 4096)
			for i := g; i < b.N; i += 64 {
				if err := s.LockWrite(b.Context(), h); err != nil {
					b.Error(err)
					return
				}
				_ = h.Lock(pagestore.LockExclusive) // errors show in WriteAt
				for _, p := range []int64{0, 1 + int64(i%500)} {
					_, _ = h.ReadAt(buf, p*4096) // beyond the end at first
					binary.BigEndian.PutUint64(buf[24:], uint64(i))
					copy(buf[200+i%2000:], "a row of about a hundred bytes, a row of about a hundred bytes, a row of about a hundred bytes")
					if _, err := h.WriteAt(buf, p*4096); err != nil {
						b.Error(err)
					}
				}
				if err := h.Sync(); err != nil {
					b.Error(err)
				}
				h.CommitPhaseTwo()
				_ = h.Unlock(pagestore.LockNone)
				s.UnlockWrite(h)
				if err := e.WaitHardened(b.Context(), h.LastCommit()); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
}
