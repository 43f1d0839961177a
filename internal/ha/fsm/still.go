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

// passed is the time between two moments; that for which the whole machine was
// suspended shows on the wall clock only.
func passed(from, to time.Time) time.Duration {
	return max(to.Sub(from), to.Round(0).Sub(from.Round(0)))
}

// noteTime counts the eras and notices that this watcher stood still. Step calls
// it before anything else, so that nothing which was already on its way is
// carried out first.
func (x *m) noteTime() {
	gap := time.Duration(0)
	if !x.stepAt.IsZero() {
		gap = passed(x.stepAt, x.now)
	}
	x.stepAt = x.now
	if half := max(x.Cfg.ErrorTime/2, time.Millisecond); passed(x.eraAt, x.now) >= half {
		x.era += uint64(passed(x.eraAt, x.now) / half)
		x.eraAt = x.now
	}
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
	if x.p != nil && (x.p.kind == procTakeover || x.p.kind == procToPrimary) && x.p.wait != 0 && !x.unsure {
		x.unsure, x.unsureOf = true, x.p.wait // its last order may still be carried out
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

// outdated tells why a decision made by this watcher's report of that era must
// not be carried out any more: it is two eras old, whatever stood still since,
// or this watcher has just begun to hear again.
func (x *m) outdated(era uint64) string {
	switch {
	case era+1 < x.era:
		return "the decision is older than DW_ERROR_TIME; look again, then repeat it"
	case !x.awake.IsZero() && passed(x.awake, x.now) < x.Cfg.ErrorTime:
		return "its watcher stood still until a moment ago; try again"
	}
	return ""
}
