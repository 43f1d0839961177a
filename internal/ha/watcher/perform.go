package watcher

import (
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"strings"
	"syscall"

	"datawatch/internal/ha/fsm"
	"datawatch/internal/ha/proto"
)

// perform does what the state machine asks for. Failures come back as events.
func (g *Guard) perform(a fsm.Action) {
	switch e := a.(type) {
	case fsm.SendInst:
		if g.inst == nil {
			g.later(fsm.InstReply{Req: e.Req, Err: "the connection to the instance is down"})
			return
		}
		g.inst.order(proto.TypeInstCmd, e.Req, e.Cmd, g.stepped.Add(g.state.Cfg.ErrorTime))
	case fsm.TellRemote:
		c := g.remotes[e.Inst]
		if c == nil {
			g.later(fsm.RemoteReply{Inst: e.Inst, Req: e.Req, Err: "the connection to the watcher of " + e.Inst + " is down"})
			return
		}
		c.send(proto.TypeDWCmd, e.Req, e.Cmd)
	case fsm.AskConfirm:
		c := g.mons[e.Mon]
		if c == nil {
			g.later(fsm.ConfirmReply{Req: e.Req, Err: "the confirm monitor has left"})
			return
		}
		e.Request.Status = g.fill(e.Request.Status, g.deps.Clock.Now())
		c.send(proto.TypeConfirmReq, e.Req, e.Request)
	case fsm.Answer:
		if c := g.conns[e.To.Conn]; c != nil {
			e.Reply.Status = g.fill(e.Reply.Status, g.deps.Clock.Now())
			c.send(proto.TypeDWReply, e.To.Req, e.Reply)
		}
	case fsm.KillInst:
		if g.watchPID == e.PID {
			if err := g.deps.Procs.Kill(g.watchPID, g.watchID); err != nil {
				g.deps.Log.Error("kill", "pid", e.PID, "error", err)
			}
		}
	case fsm.StartInst:
		g.start()
	case fsm.WriteCtl:
		g.deps.Log.Error("[!!! " + e.Desc + " !!!]")
		msg := ""
		if err := writeCtl(g.deps.FS, g.cfg.CtlPath, e.Desc); err != nil {
			msg = err.Error()
			g.deps.Log.Error("dmwatcher.ctl", "error", err)
		}
		g.later(fsm.CtlSaved{Err: msg})
	case fsm.DropCtl:
		if err := dropCtl(g.deps.FS, g.cfg.CtlPath); err != nil {
			g.deps.Log.Error("dmwatcher.ctl", "error", err)
		}
	case fsm.SavePara:
		if g.deps.SavePara == nil {
			return
		}
		if err := g.deps.SavePara(g.cfg.FSM.Group, e.Name, e.Value); err != nil {
			g.deps.Log.Error("dmwatcher.ini", "parameter", e.Name, "error", err)
		}
	case fsm.Broadcast:
		g.broadcast()
	case fsm.Log:
		g.deps.Log.Info(e.Event, e.Attrs...)
	}
}

// later feeds an event back without re-entering Step.
func (g *Guard) later(ev fsm.Event) { g.spawn(func() { g.post(ev) }) }

// start starts the instance in the background.
func (g *Guard) start() {
	cmd := StartCommand{Line: g.cfg.FSM.StartupCmd, Ini: g.cfg.FSM.IniPath, Output: g.cfg.InstLog}
	g.spawn(func() {
		p, err := g.deps.Procs.Start(cmd)
		if err != nil {
			g.post(fsm.Started{Err: err.Error()})
			return
		}
		if !g.post(fsm.Started{PID: p.PID}) || p.PID == 0 {
			return
		}
		select {
		case <-p.Done:
			g.post(fsm.InstGone{PID: p.PID})
		case <-g.ctx.Done():
		}
	})
}

// noteProcess remembers which process talks to us: id and start time, so that
// a later process with the same id is not mistaken for it.
func (g *Guard) noteProcess(pid int) {
	if pid <= 0 || pid == g.watchPID && g.gonePID != pid {
		return
	}
	id, err := g.deps.Procs.Identity(pid)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		// It has ended since it spoke. No process is the one without identity, so
		// watchProcess reports the end.
		g.watchPID, g.watchID, g.gonePID = pid, "", 0
		return
	}
	if err != nil {
		g.deps.Log.Warn("instance process cannot be watched", "pid", pid, "error", err)
		return
	}
	if pid == g.gonePID {
		if id == g.watchID {
			return
		}
		g.gonePID = 0
	}
	g.watchPID, g.watchID = pid, id
}

// watchProcess reports the end of the instance's process once.
func (g *Guard) watchProcess() {
	if g.watchPID == 0 || g.gonePID == g.watchPID || g.deps.Procs.Alive(g.watchPID, g.watchID) {
		return
	}
	g.gonePID = g.watchPID
	g.step(fsm.InstGone{PID: g.watchPID})
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

func (g *Guard) links() []Link {
	var out []Link
	ids := make([]uint64, 0, len(g.conns))
	for id := range g.conns {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(i, j int) bool { return ids[i] < ids[j] })
	for _, id := range ids {
		c := g.conns[id]
		l := Link{From: c.role.String(), Inst: c.name, Handle: fmt.Sprint(c.id), Addr: c.nc.RemoteAddr().String(), Since: c.since, Confirm: c.confirm}
		if c.role == roleMonitor {
			l.Inst, l.MonID = "", c.name
		}
		out = append(out, l)
	}
	sort.SliceStable(out, func(i, j int) bool { return strings.Compare(out[i].From, out[j].From) < 0 })
	return out
}
