package engine

import (
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"datawatch/internal/vfs"
)

// TestPagesInDoubt: a checkpoint whose sync of the data file fails leaves pages in
// the system's cache that are perhaps never on disk, and the next start finds them
// there. When a checkpoint after it has given their redo up and the power fails,
// they are there all the same (G1, G4).
func TestPagesInDoubt(t *testing.T) {
	for seed := range uint64(20) {
		d := newDB(t, nil, nil)
		d.rnd = rand.New(rand.NewPCG(seed, 3))
		for range 5 {
			d.commit(4)
		}
		heal := d.fs.Inject(vfs.Fault{Kind: vfs.OpSync, Path: "*.DBF", Err: syscall.EIO})
		if err := d.e.Checkpoint(t.Context()); !errors.Is(err, syscall.EIO) {
			t.Fatalf("checkpoint on a broken disk: %v", err)
		}
		d.e.Abort()
		heal()
		d.open(nil, nil)
		if err := d.openDatabase(); err != nil {
			t.Fatal(err)
		}
		d.commit(1)
		if err := d.e.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.e.Abort()
		d.fs = d.fs.CrashClone(d.rnd)
		d.open(nil, nil)
		d.check()
		d.e.Abort()
	}
}
