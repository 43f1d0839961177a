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
