package fsm

import "time"

// A watcher, or a monitor that orders it, can stand still in the middle of
// something: stopped, starved, its machine paused. Whoever gave it up meanwhile,
// and after DW_ERROR_TIME anybody may have, acted on that; so what it was about
// to do then must not be done when it goes on (G3). What it decides anew it
// decides by the ordinary rules, which ask.

// wake is the least pause between two events that is taken for standing still:
// ticks come every 100 ms.
const wake = time.Second

// noteTime notices that this watcher stood still. Step calls it before anything
// else, so that nothing which was already on its way is carried out first.
func (x *m) noteTime() {
	gap := time.Duration(0)
	if !x.stepAt.IsZero() {
		// A suspended machine shows on the wall clock only.
		gap = max(x.now.Sub(x.stepAt), x.now.Round(0).Sub(x.stepAt.Round(0)))
	}
	x.stepAt = x.now
	if gap < wake {
		return
	}
	// The instance may have spoken all the time: only silence heard counts.
	x.In.Heard = x.now
	if gap < x.Cfg.ErrorTime {
		return
	}
	x.awake, x.unwatched = x.now, true
	why := "this watcher stood still for " + gap.Truncate(time.Millisecond).String()
	x.log("stood still", "for", gap.String())
	if x.p != nil && (x.p.kind == procTakeover || x.p.kind == procToPrimary) {
		x.unsure = true // its last order may still be carried out
	}
	had := x.p != nil
	x.endProc(why)
	x.interruptRecovery(why)
	switch {
	case x.Held != nil:
		x.release(why, true)
	case had && x.W != Shutdown || x.W == Failover || x.W == Recovery:
		x.to(Startup, "", why)
	}
}

// outdated tells why what has just arrived from monitor mon may be a decision of
// long ago: this watcher or that monitor stood still until DW_ERROR_TIME ago.
func (x *m) outdated(mon string) string {
	if x.stoodStill() {
		return "this watcher stood still until a moment ago; try again"
	}
	if mo, ok := x.Mons[mon]; ok && (x.now.Sub(mo.Seen) >= x.Cfg.ErrorTime || !mo.Back.IsZero() && x.now.Sub(mo.Back) < x.Cfg.ErrorTime) {
		return "the monitor was silent for DW_ERROR_TIME until a moment ago; try again"
	}
	return ""
}

func (x *m) stoodStill() bool {
	return !x.awake.IsZero() && x.now.Sub(x.awake) < x.Cfg.ErrorTime
}
