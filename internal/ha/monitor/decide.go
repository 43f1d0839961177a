package monitor

import (
	"context"
	"errors"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/confirm"
	"datawatch/internal/ha/proto"
)

// report takes a watcher's status in and says what changed.
func (m *Monitor) report(c *conn, s proto.WatcherStatus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.l.conn != c {
		return
	}
	var old proto.WatcherStatus
	for _, p := range c.l.g.st.View(m.clk.Now()).Peers {
		if p.Addr == c.l.addr && p.Known {
			old = p.Status
		}
	}
	m.tellChange(old, s)
	m.step(c.l.g, confirm.Report{Addr: c.l.addr, Status: s})
	m.noteMonitors(c, s)
	m.wake()
}

func (m *Monitor) tellChange(old, s proto.WatcherStatus) {
	if old.State != s.State || old.InstOK != s.InstOK || old.Inst.Mode != s.Inst.Mode || old.Inst.Status != s.Inst.Status || old.CtlStatus != s.CtlStatus {
		m.tellLocked(s.Inst.InstName, "watcher %s %s, instance %s %s/%s, control file %s", s.State, s.SubState, okText(s.InstOK),
			s.Inst.Mode, s.Inst.Status, s.CtlStatus)
	}
	was := map[string]base.ArchState{}
	for _, a := range old.Inst.Archives {
		was[a.Inst] = a.State
	}
	for _, a := range s.Inst.Archives {
		if w, ok := was[a.Inst]; !ok || w != a.State {
			m.tellLocked(s.Inst.InstName, "archive to %s is %s", a.Inst, a.State)
		}
	}
}

// noteMonitors ends this confirm monitor when a watcher lists another that came
// first (manual 4.1: a later one reports an error and exits).
func (m *Monitor) noteMonitors(c *conn, s proto.WatcherStatus) {
	if !m.cfg.Confirm {
		return
	}
	now := m.clk.Now()
	for _, x := range s.Monitors {
		if x.ID == m.cfg.MonID {
			c.l.second = time.Time{}
			return
		}
		if !x.Confirm {
			continue
		}
		if c.l.second.IsZero() {
			c.l.second = now
		}
		if now.Sub(c.l.second) < m.cfg.ConfirmGrace {
			return
		}
		err := base.Errorf(CodeTwoConfirm, "group %s already has the confirm monitor %s at %s", c.l.g.Name, x.ID, x.Addr)
		if m.failure == nil {
			m.failure = err
			m.tellLocked("monitor", "%v", err)
		}
		m.stop()
		return
	}
}

// ask hands a primary's request to the decisions.
func (m *Monitor) ask(c *conn, id uint64, r proto.ConfirmRequest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.l.conn != c {
		return
	}
	m.reqID++
	m.asks[m.reqID] = askFrom{c, id}
	m.step(c.l.g, confirm.Ask{ID: m.reqID, Req: r})
}

// step feeds one event and performs the actions. mu is held.
func (m *Monitor) step(g *group, ev confirm.Event) {
	st, acts := confirm.Step(g.st, ev, m.clk.Now())
	g.st = st
	for _, a := range acts {
		m.perform(g, a)
	}
}

// perform starts what an action wants; everything that can block runs on its
// own goroutine and comes back as an event.
func (m *Monitor) perform(g *group, a confirm.Action) {
	switch a := a.(type) {
	case confirm.Tell:
		m.tellLocked("monitor", "%s", a.Text)
	case confirm.Persist:
		m.spawn(func() {
			err := m.store.save(g.Name, g.OGUID, a.Record)
			m.mu.Lock()
			defer m.mu.Unlock()
			if err != nil {
				m.step(g, confirm.PersistFailed{Seq: a.Seq, Why: err.Error()})
				return
			}
			m.step(g, confirm.Persisted{Seq: a.Seq})
		})
	case confirm.Answer:
		from, ok := m.asks[a.ID]
		delete(m.asks, a.ID)
		if ok {
			m.spawn(func() { from.conn.send(proto.TypeConfirmRep, from.id, a.Reply) })
		}
	case confirm.Reserved:
		if ch := m.waits[a.ID]; ch != nil {
			delete(m.waits, a.ID)
			ch <- a
		}
	case confirm.SendGrant:
		c := m.connOf(g, a.Addr)
		m.spawn(func() { m.sendGrant(g, c, a) })
	case confirm.SendExitOld:
		c := m.connOf(g, a.Addr)
		if c == nil {
			return
		}
		m.tellLocked("monitor", "telling the watcher of %s to shut its instance down: %s", a.Inst, a.Evidence)
		m.spawn(func() {
			ctx, cancel := context.WithTimeout(m.ctx, m.cfg.StepTime)
			defer cancel()
			if _, err := c.call(ctx, proto.WatcherCommand{Cmd: proto.DWCmdExitOld, ID: m.commandID(), Mon: m.cfg.MonID, Inst: a.Inst, Evidence: a.Evidence}); err != nil {
				m.tell("monitor", "%s was not shut down: %v", a.Inst, err)
			}
		})
	case confirm.Reconnect:
		for _, l := range g.links {
			if c := l.conn; c != nil {
				l.drop(c)
				c.nc.Close()
			}
		}
	}
}

// spawn runs fn unless the monitor is closing. mu is held.
func (m *Monitor) spawn(fn func()) {
	if !m.closed {
		m.wg.Go(fn)
	}
}

func okText(ok bool) string {
	if ok {
		return "Ok"
	}
	return "Error"
}

func (m *Monitor) connOf(g *group, addr string) *conn {
	for _, l := range g.links {
		if l.addr == addr {
			return l.conn
		}
	}
	return nil
}

func (m *Monitor) sendGrant(g *group, c *conn, a confirm.SendGrant) {
	err := errLink
	if c != nil {
		ctx, cancel := context.WithTimeout(m.ctx, m.cfg.StepTime)
		defer cancel()
		grant := a.Grant
		_, err = c.call(ctx, proto.WatcherCommand{Cmd: proto.DWCmdTakeover, ID: m.commandID(), Mon: m.cfg.MonID, Inst: a.Inst,
			Kind: proto.KindTakeover, Grant: &grant, Evidence: "decision of the confirm monitor: " + a.Grant.OldPrimary + " is gone"})
	}
	ev := confirm.GrantReply{Term: a.Grant.Term, OK: err == nil}
	if err != nil {
		var coded *base.Error
		ev.Err, ev.Msg = !errors.As(err, &coded), err.Error()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.step(g, ev)
}
