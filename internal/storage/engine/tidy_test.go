package engine

import "testing"

// TestKickIsAHint: who kicked while a checkpoint ran does not get a second one for
// what it has written already; with its reason still there, it does.
func TestKickIsAHint(t *testing.T) {
	limit := int64(8 * testPS)
	d := newDB(t, func(c *Config) { c.DirtyBytes = limit }, nil)
	if err := d.e.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	at := d.e.LogInfo().CkptLSN
	lsn := d.publish(2, false)
	if err := d.e.WaitHardened(t.Context(), lsn); err != nil {
		t.Fatal(err)
	}
	if d.e.checkpointDue() {
		t.Fatalf("%d dirty pages are more than expected", d.e.store.Dirty())
	}
	d.e.tidy(true)
	if now := d.e.LogInfo().CkptLSN; now != at {
		t.Errorf("a kick without a reason moved the checkpoint from LSN %d to %d", at, now)
	}
	d.e.Suspend("only the test looks at the limit from here on")
	if err := d.e.Quiesce(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.e.cfg.DirtyBytes = 0
	d.e.tidy(true)
	if now := d.e.LogInfo().CkptLSN; now < lsn {
		t.Errorf("a kick with a reason left the checkpoint at LSN %d, the newest is %d", now, lsn)
	}
}
