package fsm

import (
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// Restart delays: the first start is at once, later ones wait longer, and a
// database that has run for restartCalm starts the series again.
const (
	restartFirst = time.Second
	restartMax   = 30 * time.Second
	restartCalm  = 3 * time.Second
	// startPatience is how long a start that gives no process id (a service)
	// may take before it is tried again.
	startPatience = 60 * time.Second
)

func (x *m) instUp(e InstUp) {
	x.In.Link = true
	x.log("instance connected", "pid", e.PID)
}

func (x *m) instStatus(st proto.InstanceStatus) {
	if x.In.Known && st.Incarnation == x.In.Status.Incarnation && st.Seq != 0 && st.Seq < x.In.Status.Seq {
		return // overtaken by the status in an answer
	}
	if st.Seq == 0 && st.Incarnation == x.In.Status.Incarnation {
		st.Seq = x.In.Status.Seq // an answer's status carries no number
	}
	old, wasOK := x.In.Status, x.In.OK
	if x.killed && st.Incarnation == old.Incarnation {
		return // last words of a process that has been condemned
	}
	if st.Incarnation != old.Incarnation {
		x.claim, x.killed, x.unsure, x.In.AtLoss = claim{}, false, false, x.W
		x.starting, x.startPID = false, 0
	}
	x.In.Known, x.In.Link, x.In.Status, x.In.Heard, x.In.Gone = true, true, st, x.now, false
	x.In.Normal = st.ExitingNormal
	x.In.OK = !st.ExitingNormal
	if !x.In.OK && wasOK {
		x.lose("it exits normally")
		return
	}
	if x.In.OK && !wasOK {
		x.okSince, x.In.Lost = x.now, time.Time{}
		x.log("instance is OK", "pid", st.PID, "incarnation", st.Incarnation, "mode", st.Mode.String(), "status", st.Status.String())
	} else if old.Status != st.Status || old.Mode != st.Mode {
		x.log("instance changed", "mode", st.Mode.String(), "status", st.Status.String(), "was_mode", old.Mode.String(),
			"was_status", old.Status.String(), "reason", st.SuspendReason)
	}
	if !st.ValidClaim {
		x.claim = claim{}
	}
	if st.Status != base.StatusSuspend {
		x.suspSince, x.unwatched = time.Time{}, false
	} else if x.suspSince.IsZero() {
		x.suspSince = x.now
	}
}

// lose judges the instance failed.
func (x *m) lose(why string) {
	if x.In.OK || x.In.Lost.IsZero() {
		x.In.Lost = x.now
	}
	x.In.OK, x.unwatched = false, true
	x.In.AtLoss = x.W
	if x.W == Takeover || x.W == Switchover || x.W == OpenForce || x.p != nil && (x.p.kind == procOpen || x.p.kind == procToPrimary) {
		x.unsure, x.unsureOf = true, 0
	}
	// What others hear from now on is "failed": whatever they conclude, this
	// incarnation must not take over on the claim it had (package comment).
	x.claim = claim{burned: true}
	x.log("instance failed", "why", why, "pid", x.In.Status.PID, "mode", x.In.Status.Mode.String(),
		"status", x.In.Status.Status.String(), "normal_exit", x.In.Normal, "watcher_state", x.W.String(), "silent_for", x.now.Sub(x.In.Heard).String())
	x.failPending(func(p pend) bool { return p.remote == "" && p.kind != pendConfirm }, "the instance failed: "+why)
	x.endProc("the instance failed")
	clear(x.rec)
	if x.Held == nil && x.W != Shutdown {
		x.to(Startup, "INSTANCE LOST", "the instance failed: "+why)
	}
}

func (x *m) instDown(e InstDown) {
	if !x.In.Link && !e.Gone {
		return
	}
	x.In.Link = false
	x.failPending(func(p pend) bool { return p.remote == "" && p.kind != pendConfirm }, "the connection to the instance was lost")
	switch {
	case e.Gone:
		x.gone("its process has ended")
	case x.In.Normal:
	case x.In.OK && !x.Cfg.Reconnect && x.W != Shutdown:
		x.lose("its connection broke and DW_RECONNECT is 0")
		x.kill("declared failed")
	default:
		x.log("instance link lost", "pid", x.In.Status.PID)
	}
}

func (x *m) instGone(e InstGone) {
	if x.starting && e.PID == x.startPID {
		x.log("instance start failed", "pid", e.PID, "attempt", x.starts)
		x.starting, x.startPID = false, 0
		x.backOff()
	}
	if e.PID == x.In.Status.PID {
		x.gone("its process has ended")
	}
}

func (x *m) gone(why string) {
	if x.In.Gone {
		return
	}
	x.In.Link = false
	if x.In.OK {
		x.lose(why)
	}
	x.In.Gone = true
	if !x.okSince.IsZero() && x.now.Sub(x.okSince) >= restartCalm {
		x.starts = 0
	}
	switch {
	case x.svcDone:
		// It was ended so that another takes over (unserved): that needs a moment.
		x.startAt = x.now.Add(x.Cfg.ErrorTime)
	case x.starts == 0:
		x.startAt = x.now
	default:
		x.backOff()
	}
}

func (x *m) backOff() {
	d := restartFirst << min(max(x.starts-1, 0), 5)
	x.startAt = x.now.Add(min(d, restartMax))
}

func (x *m) kill(why string) {
	if x.In.Status.PID == 0 || x.In.Gone {
		return
	}
	x.killed = true
	x.log("killing the instance", "pid", x.In.Status.PID, "why", why)
	x.acts = append(x.acts, KillInst{x.In.Status.PID})
}

func (x *m) started(e Started) {
	if !x.starting {
		return
	}
	if e.Err != "" {
		x.log("instance start failed", "error", e.Err, "attempt", x.starts)
		x.starting = false
		x.backOff()
		return
	}
	x.startPID = e.PID
	x.log("instance started", "pid", e.PID, "attempt", x.starts)
}

// guard judges the instance by silence and restarts a dead one (manual 3.1.1).
func (x *m) guard() {
	if x.In.OK && x.now.Sub(x.In.Heard) >= x.Cfg.InstErrorTime {
		x.lose("it has been silent for INST_ERROR_TIME")
		if x.W != Shutdown && x.Cfg.AutoRestart {
			x.kill("silent for INST_ERROR_TIME; it will be restarted")
		}
	}
	if x.W == Shutdown || x.Held != nil || x.In.OK || x.Ctl == proto.CtlSplit && x.rejoinPermit() == "" {
		return
	}
	x.why("the instance is not running or does not answer since %s", x.In.Lost.Format(time.DateTime))
	switch {
	case !x.Cfg.AutoRestart:
		x.why("INST_AUTO_RESTART is 0: start the instance by hand")
		return
	case x.Cfg.StartupCmd == "":
		x.why("INST_STARTUP_CMD is not set: start the instance by hand")
		return
	}
	x.start("INST_AUTO_RESTART")
}

// start starts the instance when none can be running: its process is known to
// be gone, or none was ever heard of.
func (x *m) start(why string) {
	if x.starting && x.startPID == 0 && x.now.Sub(x.startedAt) >= startPatience {
		x.starting = false // a service was asked to start it, and it did not come
		x.backOff()
	}
	if x.starting || x.In.Link || (x.In.Known && !x.In.Gone) || x.now.Before(x.startAt) {
		return
	}
	x.starting, x.startPID, x.startedAt = true, 0, x.now
	x.starts++
	x.log("starting the instance", "attempt", x.starts, "why", why, "cmd", x.Cfg.StartupCmd)
	x.acts = append(x.acts, StartInst{})
}

// ready: the instance answers and is done with its own start.
func (x *m) ready() bool {
	return x.In.OK && x.In.Link
}

// whyUnready: what is wrong with an instance that has failed guard says.
func (x *m) whyUnready() {
	if x.In.OK {
		x.why("the connection to the instance is being restored")
	}
}

// effectiveClaim is the claim to take over as others should see it.
func (s *State) effectiveClaim() bool {
	return s.In.OK && s.In.Status.ValidClaim && !s.claim.burned && s.claim.from != "" &&
		strings.EqualFold(s.claim.from, s.In.Status.ValidClaimFrom)
}

// renewClaim believes in our claim when the primary, Open, says that its
// archive to us is Valid, and in the contrary when it says so.
func (x *m) renewClaim(n string, st proto.WatcherStatus) {
	in := st.Inst
	if !st.InstOK || in.Mode != base.ModePrimary || in.Status != base.StatusOpen {
		return
	}
	for _, a := range in.Archives {
		if !strings.EqualFold(a.Inst, x.Cfg.Name) {
			continue
		}
		switch {
		case a.State != base.ArchValid && !a.SendFailed:
			x.claim = claim{}
		case !a.SendFailed: // a failed send, which makes a timely archive Invalid, decides nothing yet
			x.claim = claim{from: n}
		}
	}
}
