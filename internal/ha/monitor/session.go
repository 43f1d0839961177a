package monitor

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/cond"
	"datawatch/internal/ha/confirm"
	"datawatch/internal/ha/proto"
)

func (m *Monitor) commandID() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// begin marks this monitor as running a manual command: one at a time, and no
// automatic decision beside it (manual 10.2.4 #26).
func (m *Monitor) begin(name string, needLogin bool) (func(), error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed || m.ctx.Err() != nil:
		return nil, errors.New("the monitor is closed")
	case needLogin && m.login == "":
		return nil, base.Errorf(CodeLogin, "%s needs a login", name)
	case m.running != "":
		return nil, base.Errorf(CodeBusy, "%s is running", m.running)
	}
	m.running = name
	for _, g := range m.groups {
		m.step(g, confirm.Busy{On: true})
	}
	m.tellLocked("monitor", "command: %s", name)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.running = ""
		for _, g := range m.groups {
			m.step(g, confirm.Busy{On: false})
		}
	}, nil
}

// group finds a group by name; "" stands for the only one.
func (m *Monitor) group(name string) (*group, error) {
	if name == "" {
		if len(m.groups) == 1 {
			return m.groups[0], nil
		}
		return nil, base.Errorf(CodeArgument, "several groups are configured: name one")
	}
	for _, g := range m.groups {
		if equalFold(g.Name, name) {
			return g, nil
		}
	}
	return nil, base.Errorf(CodeArgument, "no group %q in dmmonitor.ini", name)
}

// groupsOf is group, with "" standing for all.
func (m *Monitor) groupsOf(name string) ([]*group, error) {
	if name == "" {
		return m.groups, nil
	}
	g, err := m.group(name)
	return []*group{g}, err
}

func (m *Monitor) view(g *group) cond.View {
	m.mu.Lock()
	defer m.mu.Unlock()
	return g.st.View(m.clk.Now())
}

// database finds a database in a group, or in all of them when the name of the
// group is "".
func (m *Monitor) database(groupName, db string) (*group, cond.Peer, error) {
	if db == "" {
		return nil, cond.Peer{}, base.Errorf(CodeArgument, "a database name is needed")
	}
	gs, err := m.groupsOf(groupName)
	if err != nil {
		return nil, cond.Peer{}, err
	}
	for _, g := range gs {
		if p, ok := m.view(g).Find(db); ok {
			return g, p, nil
		}
	}
	for _, g := range gs {
		v := m.view(g)
		for _, p := range v.Peers {
			if !p.Known { // it may be that one
				return nil, cond.Peer{}, base.Errorf(CodeInstFailed, "no message of a database %q has been received, and none from the watcher at %s%s: %s",
					db, p.Addr, m.linkError(g, p.Addr), m.peerStep(v, g, p))
			}
		}
	}
	return nil, cond.Peer{}, base.Errorf(CodeArgument, "no message of a database %q has been received; known are %s", db, strings.Join(m.names(gs), ", "))
}

// names are those of the databases of gs that have been heard of.
func (m *Monitor) names(gs []*group) []string {
	var out []string
	for _, g := range gs {
		for _, p := range m.view(g).Peers {
			if p.Known {
				out = append(out, p.Inst())
			}
		}
	}
	return out
}

// Heard is nil when a message of the database has been received; otherwise it
// says why nothing can be answered about it.
func (m *Monitor) Heard(groupName, db string) error {
	_, _, err := m.database(groupName, db)
	return err
}

// primary returns the one active primary of a group.
func (m *Monitor) primary(g *group) (cond.Peer, error) {
	ps := m.view(g).ActivePrimaries()
	if len(ps) != 1 {
		return cond.Peer{}, base.Errorf(-8148, "group %s has %d active primaries", g.Name, len(ps))
	}
	return ps[0], nil
}

// call sends one command to the watcher of a database.
func (m *Monitor) call(ctx context.Context, g *group, p cond.Peer, cmd proto.WatcherCommand) (proto.WatcherReply, error) {
	m.mu.Lock()
	c := m.connOf(g, p.Addr)
	m.mu.Unlock()
	if c == nil {
		return proto.WatcherReply{}, base.Errorf(CodeInstFailed, "no connection to the watcher of %s", p.Inst())
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.StepTime)
	defer cancel()
	cmd.Mon = m.cfg.MonID
	if cmd.ID == "" {
		cmd.ID = m.commandID()
	}
	r, err := c.call(ctx, cmd)
	if err != nil && errors.Is(err, errLink) {
		err = base.Errorf(CodeInstFailed, "the connection to the watcher of %s was lost", p.Inst())
	}
	return r, err
}

// held is a command that holds watchers from begin to end. The heartbeat of this
// monitor tells those that wait while another has a long step that it goes on.
type held struct {
	m     *Monitor
	g     *group
	id    string
	kind  string
	peers []cond.Peer // begun
	n     int
}

// hold begins a command at every watcher given; on failure it ends it where it
// had begun.
func (m *Monitor) hold(ctx context.Context, g *group, kind string, peers ...cond.Peer) (*held, error) {
	return m.holdAs(ctx, g, proto.WatcherCommand{Kind: kind}, time.Time{}, peers...)
}

// holdAs is hold for a decision made at that time: when DW_ERROR_TIME has passed
// since, because this monitor or its disk stood still, others may have decided
// otherwise, and nothing is begun.
func (m *Monitor) holdAs(ctx context.Context, g *group, cmd proto.WatcherCommand, decided time.Time, peers ...cond.Peer) (*held, error) {
	kind := cmd.Kind
	h := &held{m: m, g: g, id: m.commandID(), kind: kind}
	for _, p := range peers {
		h.peers = append(h.peers, p) // before the answer: it may be lost
		h.n++
		m.tell("monitor", "%s, step %d: the watcher of %s -> %s", kind, h.n, p.Inst(), proto.StateOf(kind))
		if now, limit := m.clk.Now(), m.view(g).ErrorTime(); !decided.IsZero() && max(now.Sub(decided), now.Round(0).Sub(decided.Round(0))) >= limit {
			h.peers = h.peers[:len(h.peers)-1]
			return nil, h.end(h.failed("the watcher of "+p.Inst()+" -> "+proto.StateOf(kind),
				base.Errorf(CodeNotNormal, "the conditions were checked more than DW_ERROR_TIME (%s) ago; look again, then repeat the command", limit)))
		}
		cmd.Cmd, cmd.ID, cmd.Inst = proto.DWCmdBegin, h.id, p.Inst()
		if _, err := m.call(ctx, g, p, cmd); err != nil {
			return nil, h.end(h.failed("the watcher of "+p.Inst()+" -> "+proto.StateOf(kind), err))
		}
	}
	return h, nil
}

// step performs one order on the instance of p.
func (h *held) step(ctx context.Context, p cond.Peer, text string, order proto.InstanceCommand) (proto.WatcherReply, error) {
	h.n++
	h.m.tell("monitor", "%s, step %d: %s", h.kind, h.n, text)
	r, err := h.m.call(ctx, h.g, p, proto.WatcherCommand{Cmd: proto.DWCmdStep, ID: h.id, Kind: h.kind, Inst: p.Inst(), Order: &order})
	if err != nil {
		return r, h.failed(text, err)
	}
	return r, nil
}

func (h *held) failed(text string, err error) error {
	return base.Errorf(base.CodeOf(err, CodeError), "%s failed at step %d (%s): %v", h.kind, h.n, text, plainText(err))
}

// end ends the command everywhere, as failed when err is not nil, and returns
// the error to report. It goes on when the caller's context is over.
func (h *held) end(err error) error {
	ctx, cancel := context.WithTimeout(h.m.ctx, 5*time.Second)
	defer cancel()
	for _, p := range h.peers {
		_, e := h.m.call(ctx, h.g, p, proto.WatcherCommand{Cmd: proto.DWCmdEnd, ID: h.id, Kind: h.kind, Inst: p.Inst(), Failed: err != nil})
		if e != nil {
			h.m.tell("monitor", "%s: ending it at the watcher of %s: %v; it will drop the command by itself", h.kind, p.Inst(), e)
		}
	}
	if err != nil {
		h.m.tell("monitor", "%v", err)
	} else {
		// So that the next command does not meet the state of this one.
		ended := h.m.clk.Now()
		h.m.settle(ctx, h.g, 2*time.Second, "the watchers have left the command", func(v cond.View) bool {
			for _, p := range h.peers {
				q, ok := v.Find(p.Inst())
				if !ok || !q.Heard.After(ended) || q.Status.Cmd != nil && q.Status.Cmd.ID == h.id {
					return false
				}
			}
			return true
		})
		h.m.tell("monitor", "%s is complete", h.kind)
	}
	return err
}

// plainText is the text of an error without its code, for wrapping into one
// that carries the code itself.
func plainText(err error) string {
	var e *base.Error
	if errors.As(err, &e) && err == error(e) {
		return e.Msg
	}
	return err.Error()
}

// condError says which conditions are not met, with the manual's code of the first.
func condError(what string, l cond.List) error {
	return base.Errorf(cmp.Or(l.Code(), CodeNotNormal), "%s: %s", what, l.Why())
}

// settle waits until ok holds for the group's view, at most limit.
func (m *Monitor) settle(ctx context.Context, g *group, limit time.Duration, what string, ok func(cond.View) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := m.waitFor(ctx, func() bool { return ok(g.st.View(m.clk.Now())) }); err != nil {
		return fmt.Errorf("waiting until %s: %w", what, err)
	}
	return nil
}
