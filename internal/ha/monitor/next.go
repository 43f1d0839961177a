package monitor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/cond"
	"datawatch/internal/ha/proto"
)

// steps are what a person can type about the state v of group g, one line each.
// Tip shows them behind what is wrong: whoever is woken reads a command, not only
// a cause. What the watchers mend by themselves has no step.
func (m *Monitor) steps(v cond.View, g *group, prims []cond.Peer) []string {
	var out []string
	say := func(f string, a ...any) {
		if s := fmt.Sprintf(f, a...); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	for _, p := range v.Peers {
		switch t := m.peerStep(v, g, p); {
		case t != "":
			say("%s", t)
		case v.InstOK(p) && diskFull(p):
			say("%s", freeSpace(p))
		case v.InstOK(p) && len(prims) == 1 && detached(prims[0], p):
			say("attach database %s.%s, if it was detached and shall be recovered", g.Name, p.Inst())
		case v.InstOK(p) && len(prims) == 1 && behindArchive(prims[0], p):
			say("rebuild %s (docs/operations.md, Rebuilding a standby): the archive of %s no longer has the redo that it lacks", p.Inst(), prims[0].Inst())
		}
	}
	arbiter := confirmSeen(v) || m.cfg.Confirm
	if v.Auto() && !arbiter {
		say("start the confirm monitor: dmmonitor dmmonitor.ini -service (MON_DW_CONFIRM = 1)")
	}
	switch {
	case len(prims) > 1:
		say("find out which of %s your applications use; show open info DB shows the history of each", peerNames(prims))
	case len(prims) == 0:
		m.takeoverSteps(v, g, v.Auto() && arbiter, say)
	case diskFull(prims[0]): // said above
	case prims[0].Status.Inst.Status == base.StatusSuspend:
		say("explain %s.%s tells what it waits for", g.Name, prims[0].Inst())
	}
	return out
}

// peerStep is what a person can do about a watcher that is not there or does not
// guard, or about an instance that does not run; "" when both are well.
func (m *Monitor) peerStep(v cond.View, g *group, p cond.Peer) string {
	if t := refusedStep(m.linkError(g, p.Addr)); t != "" && !v.Alive(p) {
		return t
	}
	name := v.Group + "." + p.Inst()
	switch {
	case !p.Known:
		return fmt.Sprintf("start dmwatcher at %s, or mend its machine or the network", p.Addr)
	case !v.Alive(p):
		return fmt.Sprintf("start dmwatcher of %s, or mend its machine or the network", p.Inst())
	case p.Status.State == proto.DWShutdown:
		return "startup dmwatcher database " + name
	case v.InstOK(p) || p.Status.CtlStatus == proto.CtlSplit:
		return ""
	case !restarts(p):
		return fmt.Sprintf("startup database %s, or start its dmserver with mount on its machine", name)
	}
	return fmt.Sprintf("when %s does not come back: log/%s_start.log in its SYSTEM_PATH ends with the reason", p.Inst(), p.Inst())
}

// restarts tells whether the watcher of p starts its instance again by itself.
func restarts(p cond.Peer) bool {
	return p.Status.Config.AutoRestart && p.Status.Config.StartupCmd != ""
}

// lost says what has become of an instance that its watcher does not take for OK.
func lost(p cond.Peer) string {
	st := p.Status
	what, when := "it does not answer", " since "
	switch {
	case st.InstExitNorm:
		what, when = "it was ended normally", " at "
	case st.InstGone:
		what, when = "its process ended", " at "
	}
	if st.InstLost.IsZero() {
		return what
	}
	return what + when + st.InstLost.Format(time.DateTime)
}

// takeoverSteps are those in a group without an active primary; auto: the
// confirm monitor lets a standby take over that can.
func (m *Monitor) takeoverSteps(v cond.View, g *group, auto bool, say func(string, ...any)) {
	for _, p := range v.Standbys() {
		if cond.Takeover(v, p, cond.TakeoverOptions{Suspend: auto}).OK() {
			if !auto {
				say("if the old primary does not come back: login, then takeover %s.%s; nothing acknowledged is lost", g.Name, p.Inst())
			}
			return
		}
	}
	say("explain %s tells what each database waits for", g.Name)
	for _, p := range v.Standbys() {
		if q := v.HeardBy(p); q != "" {
			say("%s runs, as the watcher of %s hears: mend the network of this machine, or ask a monitor on another", q, p.Inst())
			return
		}
	}
	silent := slices.ContainsFunc(v.Peers, func(p cond.Peer) bool { return !v.Alive(p) })
	for _, p := range v.Standbys() {
		if cond.TakeoverForce(v, p).OK() {
			if auto && silent { // it knows more than a monitor that has just begun
				say("look again after DW_ERROR_TIME (%.0f s): the confirm monitor may let a standby take over", v.ErrorTime().Seconds())
			}
			say("only if the old primary is lost for good (while its machine runs, tip there shows it): login, then takeover force %s.%s; what %s lacks is lost", g.Name, p.Inst(), p.Inst())
			return
		}
	}
}

// detached: the watcher of the primary prim does not recover p, because of the
// interval that detach sets or of one as long. Nothing else ends that for a day.
func detached(prim, p cond.Peer) bool {
	arch, ok := prim.Arch(p.Inst())
	return ok && arch.State != base.ArchValid && p.Status.Inst.Status == base.StatusOpen && prim.Status.RecoverTime[p.Inst()] == detachTime
}

// behindArchive: the last recovery of p found that the archive of the primary prim
// does not reach back to where p ends. Another is tried after half an hour.
func behindArchive(prim, p cond.Peer) bool {
	arch, ok := prim.Arch(p.Inst())
	c := prim.Status.Recovered[p.Inst()].Code
	return ok && arch.State != base.ArchValid && (c == codeNoArchive || c == codeArchiveGap)
}

// Codes of a primary that has not what a standby lacks (manual 10.2.8.1).
const (
	codeNoArchive  base.Code = -715
	codeArchiveGap base.Code = -718
)

// diskFull: the database waits for space, which no watcher can give it.
func diskFull(p cond.Peer) bool {
	in := p.Status.Inst
	return in.Status == base.StatusSuspend && strings.HasPrefix(in.SuspendReason, "disk is full")
}

// freeSpace is what to do then.
func freeSpace(p cond.Peer) string {
	return fmt.Sprintf("free space on the disk of %s; it opens by itself within seconds", p.Inst())
}

// forces reports whether the suspended primary p goes on by DW_FAILOVER_FORCE,
// which it does only where the watchers of the standbys that failed answer it.
func forces(p cond.Peer) bool {
	for _, a := range p.Status.Inst.Archives {
		if r, _ := p.Remote(a.Inst); a.SendFailed && !r.DWLink {
			return false
		}
	}
	return p.Status.Config.FailoverForce
}

// handled tells whether somebody is about to give group its primary back: a
// watcher whose database is no standby, or an arbiter that has a standby which
// may take over, or all watchers together, who choose one (guarantees: who
// becomes primary when nobody is). Otherwise a person has to.
func (m *Monitor) handled(v cond.View) bool {
	arbiter := v.Auto() && (confirmSeen(v) || m.cfg.Confirm)
	all, any, full := true, false, false
	for _, p := range v.Peers {
		guards := p.Known && v.Alive(p) && p.Status.State != proto.DWShutdown && p.Status.CtlStatus != proto.CtlSplit
		all, any, full = all && guards, any || guards, full || diskFull(p)
		switch {
		case !guards, diskFull(p):
		case p.Status.Inst.Mode != base.ModeStandby:
			// It comes back by itself, unless it waits for leave that nobody gives.
			if arbiter || v.State(p) != proto.DWConfirm || forces(p) {
				return true
			}
		case arbiter && cond.Takeover(v, p, cond.TakeoverOptions{Suspend: true}).OK():
			return true
		}
	}
	return arbiter && all && any && !full
}
