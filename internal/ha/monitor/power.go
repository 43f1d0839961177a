package monitor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/cond"
	"datawatch/internal/ha/proto"
)

// pick returns the databases a command is for: one, or all known of a group.
func (m *Monitor) pick(groupName, db string) (*group, []cond.Peer, error) {
	if db != "" {
		g, p, err := m.database(groupName, db)
		return g, []cond.Peer{p}, err
	}
	g, err := m.group(groupName)
	if err != nil {
		return nil, nil, err
	}
	var ps []cond.Peer
	for _, p := range m.view(g).Peers {
		if p.Known {
			ps = append(ps, p)
		}
	}
	if len(ps) == 0 {
		return nil, nil, base.Errorf(-8243, "no message yet from any watcher of group %s", g.Name)
	}
	return g, ps, nil
}

// each runs one command at the watchers of ps, goes on after failures, and
// returns them joined; notice 100 when skip held for all.
func (m *Monitor) each(ctx context.Context, g *group, ps []cond.Peer, verb string, skip func(cond.View, cond.Peer) (string, bool), cmd func(cond.Peer) proto.WatcherCommand) error {
	var errs []error
	did := 0
	for _, p := range ps {
		v := m.view(g)
		if why, ok := skip(v, p); ok {
			m.tell("monitor", "%s %s: skipped, %s", verb, p.Inst(), why)
			continue
		}
		did++
		if _, err := m.call(ctx, g, p, cmd(p)); err != nil {
			errs = append(errs, base.Errorf(base.CodeOf(err, CodeError), "%s %s: %s", verb, p.Inst(), plainText(err)))
			m.tell("monitor", "%s %s failed: %v", verb, p.Inst(), err)
			continue
		}
		m.tell("monitor", "%s %s: done", verb, p.Inst())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if did == 0 {
		return base.Errorf(CodeAlready, "%s: there was nothing to do", verb)
	}
	return nil
}

func plain(cmd string) func(cond.Peer) proto.WatcherCommand {
	return func(p cond.Peer) proto.WatcherCommand { return proto.WatcherCommand{Cmd: cmd, Inst: p.Inst()} }
}

func guardOff(v cond.View, p cond.Peer) (string, bool) {
	return "the watcher is in " + proto.DWShutdown, v.State(p) == proto.DWShutdown
}

func guardOn(v cond.View, p cond.Peer) (string, bool) {
	return "the watcher is not in " + proto.DWShutdown, v.State(p) != proto.DWShutdown
}

// StartupWatch turns the guarding on (manual 4.4 #17, #18); db "" means the group.
func (m *Monitor) StartupWatch(ctx context.Context, groupName, db string) error {
	done, err := m.begin("startup dmwatcher", false)
	if err != nil {
		return err
	}
	defer done()
	g, ps, err := m.pick(groupName, db)
	if err != nil {
		return err
	}
	return m.each(ctx, g, ps, "startup dmwatcher", guardOn, plain(proto.DWCmdStartDW))
}

// StopWatch turns the guarding off (manual 4.4 #19, #20).
func (m *Monitor) StopWatch(ctx context.Context, groupName, db string) error {
	done, err := m.begin("stop dmwatcher", true)
	if err != nil {
		return err
	}
	defer done()
	g, ps, err := m.pick(groupName, db)
	if err != nil {
		return err
	}
	return m.each(ctx, g, ps, "stop dmwatcher", guardOff, plain(proto.DWCmdStopDW))
}

// StopGroup exits every instance normally: watchers first, then the Open
// primary, then the others in dmmonitor.ini order (manual 4.4 #22, 6.4).
func (m *Monitor) StopGroup(ctx context.Context, groupName string) error {
	done, err := m.begin("stop group", true)
	if err != nil {
		return err
	}
	defer done()
	g, ps, err := m.pick(groupName, "")
	if err != nil {
		return err
	}
	v := m.view(g)
	var live, rest []cond.Peer
	for _, p := range ps {
		if !v.Alive(p) {
			continue
		}
		live = append(live, p)
		if p.Status.Inst.Mode == base.ModePrimary && p.Status.Inst.Status == base.StatusOpen && p.Status.InstOK {
			rest = append([]cond.Peer{p}, rest...)
		} else {
			rest = append(rest, p)
		}
	}
	if len(live) == 0 {
		return base.Errorf(CodeInstFailed, "no watcher of group %s answers", g.Name)
	}
	if err := m.each(ctx, g, live, "stop dmwatcher", guardOff, plain(proto.DWCmdStopDW)); err != nil && base.CodeOf(err, CodeError) < 0 {
		return err
	}
	// One at a time: the primary's shutdown still needs its standbys.
	did := false
	for _, p := range rest {
		err := m.stopInst(ctx, g, p)
		if err != nil && base.CodeOf(err, CodeError) < 0 {
			return err
		}
		did = did || err == nil
	}
	if !did {
		return base.Errorf(CodeAlready, "every instance of group %s had exited", g.Name)
	}
	return nil
}

// stopInst exits one instance and waits until its watcher sees it gone. The
// instance may be gone before it has answered: what counts is that it is.
func (m *Monitor) stopInst(ctx context.Context, g *group, p cond.Peer) error {
	gone := func(v cond.View) bool {
		q, ok := v.Find(p.Inst())
		return ok && v.Alive(q) && !q.Status.InstOK
	}
	if gone(m.view(g)) {
		return base.Errorf(CodeAlready, "%s had exited", p.Inst())
	}
	limit := m.cfg.StepTime
	_, err := m.call(ctx, g, p, proto.WatcherCommand{Cmd: proto.DWCmdStopInst, Inst: p.Inst()})
	if err != nil {
		limit = 2 * time.Second
	}
	if e := m.settle(ctx, g, limit, p.Inst()+" has exited", gone); e != nil {
		if err == nil {
			err = e
		}
		return base.Errorf(base.CodeOf(err, CodeError), "stop %s: %s", p.Inst(), plainText(err))
	}
	m.tell("monitor", "stop %s: done", p.Inst())
	return nil
}

// KillGroup kills every active instance of a group (manual 4.4 #45).
func (m *Monitor) KillGroup(ctx context.Context, groupName string) error {
	return m.kill(ctx, "kill group", groupName, "")
}

// KillDatabase kills one instance (manual 4.4 #50).
func (m *Monitor) KillDatabase(ctx context.Context, groupName, db string) error {
	return m.kill(ctx, "kill database", groupName, db)
}

func (m *Monitor) kill(ctx context.Context, name, groupName, db string) error {
	done, err := m.begin(name, false)
	if err != nil {
		return err
	}
	defer done()
	g, ps, err := m.pick(groupName, db)
	if err != nil {
		return err
	}
	return m.each(ctx, g, ps, "kill", func(v cond.View, p cond.Peer) (string, bool) {
		return "its watcher does not answer or everything is down already", !v.Alive(p) || (!p.Status.InstOK && v.State(p) == proto.DWShutdown)
	}, plain(proto.DWCmdKillInst))
}

// StartupGroup starts every instance of a group (manual 4.4 #21).
func (m *Monitor) StartupGroup(ctx context.Context, groupName string) error {
	return m.startup(ctx, "startup group", groupName, "")
}

// StartupDatabase starts one instance (manual 4.4 #48).
func (m *Monitor) StartupDatabase(ctx context.Context, groupName, db string) error {
	return m.startup(ctx, "startup database", groupName, db)
}

func (m *Monitor) startup(ctx context.Context, name, groupName, db string) error {
	done, err := m.begin(name, false)
	if err != nil {
		return err
	}
	defer done()
	g, ps, err := m.pick(groupName, db)
	if err != nil {
		return err
	}
	guard := m.each(ctx, g, ps, "startup dmwatcher", guardOn, plain(proto.DWCmdStartDW))
	if guard != nil && base.CodeOf(guard, CodeError) < 0 {
		return guard
	}
	err = m.each(ctx, g, ps, "startup", func(v cond.View, p cond.Peer) (string, bool) {
		if p.Status.Config.AutoRestart {
			return "INST_AUTO_RESTART is 1: its watcher starts it by itself", true
		}
		return "it is active", v.InstOK(p)
	}, plain(proto.DWCmdStartInst))
	if base.CodeOf(err, CodeError) == CodeAlready && guard == nil {
		return nil // guarding was turned on, and the watchers do the rest
	}
	return err
}

// RejoinDatabase allows a database that is split from its group to rejoin once
// (docs/decisions/0008): it gives up the redo that the new primary is without,
// which is saved to a file, and fetches the pages that redo touched. It returns
// when the watcher has taken the order; Explain tells how things stand.
func (m *Monitor) RejoinDatabase(ctx context.Context, groupName, db string) error {
	done, err := m.begin("rejoin database "+db, true)
	if err != nil {
		return err
	}
	defer done()
	g, p, err := m.database(groupName, db)
	if err != nil {
		return err
	}
	_, err = m.call(ctx, g, p, proto.WatcherCommand{Cmd: proto.DWCmdRejoin})
	return err
}

// StopDatabase exits one instance normally (manual 4.4 #49): a standby must be
// detached first, and in AUTO mode a primary needs all standbys detached.
func (m *Monitor) StopDatabase(ctx context.Context, groupName, db string) error {
	done, err := m.begin("stop database "+db, true)
	if err != nil {
		return err
	}
	defer done()
	g, p, err := m.database(groupName, db)
	if err != nil {
		return err
	}
	v := m.view(g)
	if !v.InstOK(p) {
		return base.Errorf(CodeAlready, "%s had exited", p.Inst())
	}
	for _, q := range v.ActivePrimaries() {
		for _, a := range q.Status.Inst.Archives {
			if a.State != base.ArchValid || (a.Type != base.ArchRealtime && a.Type != base.ArchTimely) {
				continue
			}
			if a.Inst == p.Inst() || (q.Inst() == p.Inst() && v.Auto()) {
				return base.Errorf(-8656, "the archive %s -> %s is Valid: detach database %s first", q.Inst(), a.Inst, a.Inst)
			}
		}
	}
	return m.stopInst(ctx, g, p)
}

// SetRecoverTime sets INST_RECOVER_TIME in the memory of the primary's watcher,
// 3-86400 s (manual 4.4 #32, #35); db "" means all standbys.
func (m *Monitor) SetRecoverTime(ctx context.Context, groupName, db string, seconds int) error {
	if seconds < 3 || seconds > 86400 {
		return base.Errorf(CodeArgument, "recover time %d is outside 3-86400 s", seconds)
	}
	done, err := m.begin("set recover time", true)
	if err != nil {
		return err
	}
	defer done()
	return m.onPrimaries(groupName, db, func(g *group, prim cond.Peer, sb string) error {
		return m.recoverTime(ctx, g, prim, sb, seconds)
	})
}

func (m *Monitor) recoverTime(ctx context.Context, g *group, prim cond.Peer, standby string, seconds int) error {
	_, err := m.call(ctx, g, prim, proto.WatcherCommand{Cmd: proto.DWCmdRecoverT, Inst: standby, Value: fmt.Sprint(seconds)})
	if err != nil {
		return base.Errorf(base.CodeOf(err, CodeError), "recover time of %s at the watcher of %s: %s", standby, prim.Inst(), plainText(err))
	}
	m.tell("monitor", "recover time of %s at the watcher of %s is %d s", standby, prim.Inst(), seconds)
	return nil
}

// onPrimaries calls fn for the standby db, or for every standby whose control
// file is Valid of the group, or of all groups.
func (m *Monitor) onPrimaries(groupName, db string, fn func(g *group, prim cond.Peer, standby string) error) error {
	gs, err := m.groupsOf(groupName)
	if err != nil {
		return err
	}
	if db != "" {
		g, p, err := m.database(groupName, db)
		if err != nil {
			return err
		}
		if in := p.Status.Inst; in.Mode != base.ModeStandby {
			// The mode of one that has not told any yet is not known.
			if in.Mode != base.ModePrimary && !p.Status.InstOK {
				return base.Errorf(-8459, "%s has not started yet, so it is not known to be a standby: try again when it is Open", p.Inst())
			}
			return base.Errorf(-8459, "%s is not a standby", p.Inst())
		}
		prim, err := m.primary(g)
		if err != nil {
			return err
		}
		return fn(g, prim, p.Inst())
	}
	for _, g := range gs {
		prim, err := m.primary(g)
		if err != nil {
			return err
		}
		for _, p := range m.view(g).Standbys() {
			if p.Status.CtlStatus != proto.CtlValid {
				continue
			}
			if err := fn(g, prim, p.Inst()); err != nil {
				return err
			}
		}
	}
	return nil
}

// SetArchInvalid makes archives Invalid (manual 4.4 #33, #36); db "" means all.
func (m *Monitor) SetArchInvalid(ctx context.Context, groupName, db string) error {
	done, err := m.begin("set arch invalid", true)
	if err != nil {
		return err
	}
	defer done()
	return m.onPrimaries(groupName, db, func(g *group, prim cond.Peer, sb string) error { return m.archInvalid(ctx, g, prim, sb) })
}

func (m *Monitor) archInvalid(ctx context.Context, g *group, prim cond.Peer, standby string) error {
	// In AUTO mode cutting off a standby that cannot be told is a Failover, and
	// that is the confirm monitor's to allow (G3).
	v := m.view(g)
	if link, ok := prim.Link(standby); v.Auto() && (!ok || !link.Connected) {
		return base.Errorf(-8528, "the MAL link %s -> %s is broken: in AUTO mode the watchers decide about its archive", prim.Inst(), standby)
	}
	h, err := m.hold(ctx, g, proto.KindChangeArch, prim)
	if err != nil {
		return err
	}
	_, err = h.step(ctx, prim, "archive "+prim.Inst()+" -> "+standby+" Invalid",
		proto.InstanceCommand{Cmd: proto.CmdSetArch, Inst: standby, State: base.ArchInvalid})
	return h.end(err)
}

// detachTime is the recover time of a detached standby, in seconds: the longest there is.
const detachTime = 86400

// Detach takes a standby out of the group (manual 4.4 #43).
func (m *Monitor) Detach(ctx context.Context, groupName, db string) error {
	done, err := m.begin("detach database "+db, true)
	if err != nil {
		return err
	}
	defer done()
	if _, p, err := m.database(groupName, db); err != nil {
		return err
	} else if p.Status.CtlStatus != proto.CtlValid {
		return base.Errorf(-8380, "the control file of %s is %s", p.Inst(), p.Status.CtlStatus)
	}
	return m.onPrimaries(groupName, db, func(g *group, prim cond.Peer, sb string) error {
		if err := m.recoverTime(ctx, g, prim, sb, detachTime); err != nil {
			return err
		}
		return m.archInvalid(ctx, g, prim, sb)
	})
}

// Attach brings a detached standby back (manual 4.4 #44).
func (m *Monitor) Attach(ctx context.Context, groupName, db string) error {
	if db == "" {
		return base.Errorf(CodeArgument, "a database name is needed")
	}
	done, err := m.begin("attach database "+db, true)
	if err != nil {
		return err
	}
	defer done()
	return m.onPrimaries(groupName, db, func(g *group, prim cond.Peer, sb string) error { return m.recoverTime(ctx, g, prim, sb, 3) })
}

// SetGroupPara changes a watcher parameter in memory and in dmwatcher.ini
// (manual 4.4 #34). Watchers that have failed are skipped.
func (m *Monitor) SetGroupPara(ctx context.Context, groupName, name, value string) error {
	known := ""
	for _, p := range proto.GroupParas {
		if equalFold(p, name) {
			known = p
		}
	}
	if known == "" {
		return base.Errorf(CodeArgument, "%q is none of the parameters that can be set: %v", name, proto.GroupParas)
	}
	done, err := m.begin("set group "+known, true)
	if err != nil {
		return err
	}
	defer done()
	gs, err := m.groupsOf(groupName)
	if err != nil {
		return err
	}
	for _, g := range gs {
		err := m.each(ctx, g, m.view(g).Peers, "set "+known+" at the watcher of", func(v cond.View, p cond.Peer) (string, bool) {
			return "it does not answer", !v.Alive(p)
		}, func(p cond.Peer) proto.WatcherCommand {
			return proto.WatcherCommand{Cmd: proto.DWCmdSetPara, Inst: p.Inst(), Name: known, Value: value}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ClearSend clears the last-N send statistics (manual 4.4 #37, #38), ClearApply
// those of replay (#39, #40); db "" means every standby.
func (m *Monitor) ClearSend(ctx context.Context, groupName, db string) error {
	return m.clear(ctx, "clear arch send info", proto.KindClearSend, proto.CmdClearSend, groupName, db)
}
func (m *Monitor) ClearApply(ctx context.Context, groupName, db string) error {
	return m.clear(ctx, "clear apply stat", proto.KindClearApply, proto.CmdClearApply, groupName, db)
}

func (m *Monitor) clear(ctx context.Context, name, kind, cmd, groupName, db string) error {
	done, err := m.begin(name, true)
	if err != nil {
		return err
	}
	defer done()
	return m.onPrimaries(groupName, db, func(g *group, prim cond.Peer, sb string) error {
		at := prim
		if cmd == proto.CmdClearApply {
			at, _ = m.view(g).Find(sb)
		}
		h, err := m.hold(ctx, g, kind, at)
		if err != nil {
			return err
		}
		_, err = h.step(ctx, at, name+" "+sb, proto.InstanceCommand{Cmd: cmd, Inst: sb})
		return h.end(err)
	})
}
