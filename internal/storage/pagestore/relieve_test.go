package pagestore

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"datawatch/internal/base"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

// TestReplayWaitsForCheckpoint: replay that has filled the memory for versions with
// pages which a checkpoint is writing waits for that, and does not write them to
// the spill file; without a checkpoint, or when that finds the disk full, it does.
func TestReplayWaitsForCheckpoint(t *testing.T) {
	const limit = 64 // pages
	apply := func(t *testing.T, s *Store, lsn base.LSN, from, n uint32) {
		var b redo.Builder
		b.Begin(redo.PTXHeader{LSN: lsn, Kind: redo.KindCommit})
		for p := from; p < from+n; p++ {
			b.Diff(redo.Addr{Page: p}, nil, []byte(strings.Repeat("x", testPS)))
		}
		batch := s.NewBatch()
		l := &memLog{ptx: map[base.LSN][]byte{lsn: b.Finish()}}
		if err := batch.Add(l.decode(t, lsn), nil); err != nil {
			t.Error(err)
		}
		if err := s.ApplyBatch(batch, 1); err != nil {
			t.Error(err)
		}
	}
	type checkpoint struct {
		running bool
		ends    error
	}
	for _, c := range []checkpoint{{true, nil}, {true, syscall.ENOSPC}, {false, nil}} {
		synctest.Test(t, func(t *testing.T) {
			fs := vfs.NewMem()
			newFile(t, fs, "/db")
			s := openStore(t, fs, &memLog{ptx: map[base.LSN][]byte{}, versionBytes: limit * testPS}, 0, 0)
			apply(t, s, 1, 2, limit-4)
			s.SetHardened(1)
			gate, ended := make(chan struct{}), make(chan error, 1)
			if c.running {
				fs.SetHook(func(op vfs.Op) error {
					if op.Kind == vfs.OpSync && op.Path == "/db" && !op.After {
						<-gate
						return c.ends
					}
					return nil
				})
				go func() {
					_, err := s.Checkpoint(context.Background(), 1)
					ended <- err
				}()
				synctest.Wait()
			}
			applied := make(chan struct{})
			go func() {
				apply(t, s, 2, 2+limit, 8)
				close(applied)
			}()
			synctest.Wait()
			close(gate)
			<-applied
			if most := s.Stats().SpillMax; (c.running && c.ends == nil) != (most == 0) {
				t.Errorf("%+v; bytes in the spill file: %d", c, most)
			}
			if c.running {
				if err := <-ended; !errors.Is(err, c.ends) {
					t.Error(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
