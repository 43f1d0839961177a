package engine

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestArchiveExpires: archive files older than ARCH_RESERVE_TIME go within five
// minutes, also when nothing more is written; the newest file stays (manual 5.3).
func TestArchiveExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDB(t, func(c *Config) { c.Arch.ReserveTime = 10 * time.Minute }, nil)
		for d.bulk = true; len(d.e.Archive().Files()) < 4; {
			d.commit(40)
		}
		// A checkpoint within a large transaction keeps the file where that begins.
		if err := d.e.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Minute)
		if n := len(d.e.Archive().Files()); n < 4 {
			t.Fatalf("%d files after nine minutes", n)
		}
		time.Sleep(7 * time.Minute)
		if n := len(d.e.Archive().Files()); n != 1 {
			t.Fatalf("%d files after sixteen minutes", n)
		}
		d.check()
		d.e.Abort()
	})
}
