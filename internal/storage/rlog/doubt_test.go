package rlog

import (
	"math/rand/v2"
	"syscall"
	"testing"

	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

// TestRecoveredInDoubt: a write whose sync fails is found in the system's cache by
// the next start. What that start recovers, and appends behind it, is there after
// a power failure too.
func TestRecoveredInDoubt(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		fsys := newFS(t, MinFileSize)
		l, _ := mustCollect(t, fsys)
		mk := newMaker(seed)
		if err := l.Append(mk.pkg(t, 100)); err != nil {
			t.Fatal(err)
		}
		heal := fsys.Inject(vfs.Fault{Kind: vfs.OpSync, Err: syscall.EIO})
		if err := l.Append(mk.pkg(t, 700), mk.pkg(t, 100), mk.pkg(t, 900)); err == nil {
			t.Fatal("a sync that fails is no error")
		}
		heal()
		l, had := mustCollect(t, fsys)
		if len(had) != 4 {
			t.Fatalf("%d packages found by the next start", len(had))
		}
		if err := l.Append(mk.pkg(t, 300)); err != nil {
			t.Fatal(err)
		}
		var got []*redo.Package
		after, err := Open(fsys.CrashClone(rnd), paths, cfg)
		if err == nil {
			err = after.Recover(func(p *redo.Package) error { got = append(got, p); return nil })
		}
		if err != nil || len(got) != len(had)+1 {
			t.Fatalf("seed %d: %d packages after the power failure, %d were there: %v", seed, len(got), len(had)+1, err)
		}
	}
}

// TestHeaderInDoubt: a checkpoint whose sync failed, which the next start finds in
// the system's cache, is on disk before the log that it frees is written over, also
// when the power fails while it is written once more.
func TestHeaderInDoubt(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		fsys := newFS(t, MinFileSize)
		l, _ := mustCollect(t, fsys)
		mk := newMaker(seed)
		put := func(n int) {
			t.Helper()
			for range n {
				if err := l.Append(mk.pkg(t, 5000)); err != nil {
					t.Fatal(err)
				}
			}
		}
		put(5)
		if err := l.SetCheckpoint(l.end.prevLSN, 0, 0); err != nil {
			t.Fatal(err)
		}
		for free, total := l.Space(); free > total/4; free, _ = l.Space() {
			put(1)
		}
		heal := fsys.Inject(vfs.Fault{Kind: vfs.OpSync, Err: syscall.EIO})
		if err := l.SetCheckpoint(l.end.prevLSN, 0, 0); err == nil {
			t.Fatal("a sync that fails is no error")
		}
		heal()
		upTo := l.end.prevLSN
		var torn []vfs.FS // what a power failure during the next start leaves
		fsys.SetHook(func(op vfs.Op) error {
			if op.Kind.Changes() {
				torn = append(torn, fsys.CrashClone(rnd))
			}
			return nil
		})
		l, had := mustCollect(t, fsys)
		fsys.SetHook(nil)
		if len(had) != 0 || len(torn) == 0 {
			t.Fatalf("%d packages after the checkpoint, %d changes at the next start", len(had), len(torn))
		}
		for i, fs := range torn {
			after, err := Open(fs, paths, cfg)
			if err == nil {
				err = after.Recover(func(*redo.Package) error { return nil })
			}
			if err != nil || after.end.prevLSN != upTo {
				t.Fatalf("seed %d, power failure %d during the next start: %v", seed, i, err)
			}
		}
		for free, total := l.Space(); free > total/2; free, _ = l.Space() { // more than was free before the checkpoint
			put(1)
		}
		after, err := Open(fsys.CrashClone(rnd), paths, cfg)
		if err == nil {
			err = after.Recover(func(*redo.Package) error { return nil })
		}
		if err != nil || after.end.prevLSN != l.end.prevLSN {
			t.Fatalf("seed %d: after the power failure the log ends at LSN %d, it was at %d: %v", seed, after.end.prevLSN, l.end.prevLSN, err)
		}
	}
}
