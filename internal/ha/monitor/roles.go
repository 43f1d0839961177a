package monitor

import (
	"context"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/cond"
	"datawatch/internal/ha/confirm"
	"datawatch/internal/ha/proto"
)

func equalFold(a, b string) bool { return strings.EqualFold(a, b) }

// Choice is one database with the conditions of a command for it.
type Choice struct {
	Name  string    `json:"name"`
	OK    bool      `json:"ok"`
	Conds cond.List `json:"conditions"`
}

// Login checks user and password on the primary, or on an active standby
// (manual 4.4 #13).
func (m *Monitor) Login(ctx context.Context, user, password string) error {
	if user == "" || password == "" {
		return base.Errorf(-8197, "user name or password is empty")
	}
	done, err := m.begin("login", false)
	if err != nil {
		return err
	}
	defer done()
	var active []cond.Peer
	var in []*group
	for _, want := range []base.Mode{base.ModePrimary, base.ModeStandby, base.ModeNormal} {
		for _, g := range m.groups {
			v := m.view(g)
			for _, p := range v.Peers {
				if v.InstOK(p) && p.Status.Inst.Mode == want {
					active, in = append(active, p), append(in, g)
				}
			}
		}
	}
	if len(active) == 0 {
		return base.Errorf(CodeNoActive, "no active instance can check the login")
	}
	_, err = m.call(ctx, in[0], active[0], proto.WatcherCommand{Cmd: proto.DWCmdLogin, Inst: active[0].Inst(), User: user, Password: password})
	if err != nil {
		return base.Errorf(base.CodeOf(err, CodeLoginFailed), "login checked by %s: %v", active[0].Inst(), plainText(err))
	}
	m.mu.Lock()
	m.login = user
	m.mu.Unlock()
	// The watcher leaves LOGIN CHECK only now; the next command must see that.
	answered := m.clk.Now()
	m.settle(ctx, in[0], 2*time.Second, "the login check has ended", func(v cond.View) bool {
		p, ok := v.Find(active[0].Inst())
		return ok && p.Heard.After(answered) && p.Status.State != proto.DWLoginCheck
	})
	return nil
}

// Logout forgets the login.
func (m *Monitor) Logout() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.login = ""
}

// LoggedIn returns the user that is logged in, "" when none.
func (m *Monitor) LoggedIn() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.login
}

// target resolves [group.][db]; an empty db stands for the only standby.
func (m *Monitor) target(groupName, db string) (*group, cond.Peer, error) {
	if db != "" {
		return m.database(groupName, db)
	}
	g, err := m.group(groupName)
	if err != nil {
		return nil, cond.Peer{}, err
	}
	sb := m.view(g).Standbys()
	if len(sb) != 1 {
		return nil, cond.Peer{}, base.Errorf(CodeArgument, "group %s has %d standbys: name the database", g.Name, len(sb))
	}
	return g, sb[0], nil
}

// ChooseSwitchover lists the standbys with the conditions of a switchover (manual 4.4 #24).
func (m *Monitor) ChooseSwitchover(groupName string) ([]Choice, error) {
	return m.choose(groupName, func(v cond.View, _ *group, p cond.Peer) cond.List { return cond.Switchover(v, p) })
}

// ChooseTakeover lists the standbys with the conditions of a takeover (manual 4.4 #26, #28).
func (m *Monitor) ChooseTakeover(groupName string, force bool) ([]Choice, error) {
	return m.choose(groupName, func(v cond.View, g *group, p cond.Peer) cond.List {
		if force {
			return cond.TakeoverForce(v, p)
		}
		return m.takeoverConds(v, g, p)
	})
}

func (m *Monitor) choose(groupName string, conds func(cond.View, *group, cond.Peer) cond.List) ([]Choice, error) {
	g, err := m.group(groupName)
	if err != nil {
		return nil, err
	}
	v := m.view(g)
	var out []Choice
	for _, p := range v.Standbys() {
		l := conds(v, g, p)
		out = append(out, Choice{p.Inst(), l.OK(), l})
	}
	return out, nil
}

func (m *Monitor) takeoverConds(v cond.View, g *group, p cond.Peer) cond.List {
	if m.cfg.Confirm {
		m.mu.Lock()
		defer m.mu.Unlock()
		return g.st.Takeover(p.Inst(), false, m.clk.Now())
	}
	return cond.Takeover(v, p, cond.TakeoverOptions{ConfirmElsewhere: v.Auto() && confirmSeen(v)})
}

func confirmSeen(v cond.View) bool {
	for _, p := range v.Peers {
		if v.Alive(p) {
			for _, x := range p.Status.Monitors {
				if x.Confirm {
					return true
				}
			}
		}
	}
	return false
}

// Switchover swaps the roles of a standby and the primary (manual 4.4 #25, 6.5).
func (m *Monitor) Switchover(ctx context.Context, groupName, db string) error {
	done, err := m.begin(strings.TrimSpace("switchover "+db), true)
	if err != nil {
		return err
	}
	defer done()
	g, b, err := m.target(groupName, db)
	if err != nil {
		return err
	}
	if l := cond.Switchover(m.view(g), b); !l.OK() {
		return condError(b.Inst()+" cannot be switched to primary", l)
	}
	a, err := m.primary(g)
	if err != nil {
		return err
	}
	h, err := m.hold(ctx, g, proto.KindSwitchover, a, b)
	if err != nil {
		return err
	}
	return h.end(h.switchover(ctx, a, b))
}

func (h *held) switchover(ctx context.Context, a, b cond.Peer) error {
	an, bn := a.Inst(), b.Inst()
	ra, err := h.step(ctx, a, an+" Mount", proto.InstanceCommand{Cmd: proto.CmdMount})
	if err != nil {
		return err
	}
	rb, err := h.step(ctx, b, bn+" applies the kept package", proto.InstanceCommand{Cmd: proto.CmdApplyKeep})
	if err != nil {
		return err
	}
	// Nothing the old primary has may be missing on the new one.
	if have, want := rb.Status.Inst.Apply, ra.Status.Inst.File; have.LSN < want.LSN {
		return h.failed(bn+" applies the kept package", base.Errorf(CodeNotNormal, "%s has %s, %s has %s", bn, have, an, want))
	}
	for _, s := range []struct {
		p     cond.Peer
		text  string
		order proto.InstanceCommand
	}{
		{b, bn + " Mount", proto.InstanceCommand{Cmd: proto.CmdMount}},
		{a, an + " -> Standby mode", proto.InstanceCommand{Cmd: proto.CmdSetMode, Mode: base.ModeStandby}},
		{b, bn + " -> Primary mode", proto.InstanceCommand{Cmd: proto.CmdSetMode, Mode: base.ModePrimary}},
		{b, bn + " makes all its archives Invalid", proto.InstanceCommand{Cmd: proto.CmdSetArch, State: base.ArchInvalid}},
		{a, an + " Open", proto.InstanceCommand{Cmd: proto.CmdOpen, Force: true}},
		{b, bn + " Open", proto.InstanceCommand{Cmd: proto.CmdOpen, Force: true}},
	} {
		_, err := h.step(ctx, s.p, s.text, s.order)
		// The watcher of the new primary may not have heard yet that the old
		// one is no primary any more.
		for end := h.m.clk.Now().Add(h.m.view(h.g).ErrorTime()); base.CodeOf(err, 0) == codeActive && h.m.clk.Now().Before(end); {
			if h.m.clk.Sleep(ctx, h.m.cfg.Heartbeat/2) != nil {
				break
			}
			h.n--
			_, err = h.step(ctx, s.p, s.text, s.order)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// codeActive: a watcher still sees another primary (manual 10.2.8).
const codeActive base.Code = -8399

// Takeover makes a standby the primary in place of the failed one (manual
// 4.4 #27, #29, 6.6, 6.7).
func (m *Monitor) Takeover(ctx context.Context, groupName, db string, force bool) error {
	name := "takeover "
	if force {
		name = "takeover force "
	}
	done, err := m.begin(strings.TrimSpace(name+db), true)
	if err != nil {
		return err
	}
	defer done()
	g, b, err := m.target(groupName, db)
	if err != nil {
		return err
	}
	v := m.view(g)
	decided := v.Now
	l := cond.TakeoverForce(v, b)
	if !force {
		l = m.takeoverConds(v, g, b)
	}
	if !l.OK() {
		return condError(b.Inst()+" cannot take over", l)
	}
	evidence := "takeover by command"
	var term uint64
	if m.cfg.Confirm {
		r, err := m.reserve(ctx, g, b.Inst(), force)
		if err != nil {
			return err
		}
		term = r.Grant.Term
	}
	h, err := m.holdAs(ctx, g, proto.WatcherCommand{Kind: proto.KindTakeover, Force: force, Era: b.Status.Era}, decided, b)
	if err == nil {
		err = h.end(h.takeover(ctx, b, evidence))
	}
	if m.cfg.Confirm {
		m.mu.Lock()
		m.step(g, confirm.GrantReply{Term: term, OK: err == nil, Msg: errText(err)})
		m.mu.Unlock()
	}
	return err
}

func (h *held) takeover(ctx context.Context, b cond.Peer, evidence string) error {
	bn := b.Inst()
	for _, s := range []struct {
		text  string
		order proto.InstanceCommand
	}{
		{bn + " applies the kept package", proto.InstanceCommand{Cmd: proto.CmdApplyKeep}},
		{bn + " Mount", proto.InstanceCommand{Cmd: proto.CmdMount}},
		{bn + " -> Primary mode", proto.InstanceCommand{Cmd: proto.CmdSetMode, Mode: base.ModePrimary}},
		{bn + " makes all its archives Invalid", proto.InstanceCommand{Cmd: proto.CmdSetArch, State: base.ArchInvalid}},
		{bn + " Open", proto.InstanceCommand{Cmd: proto.CmdOpen, Force: true}},
	} {
		s.order.Evidence = evidence
		if _, err := h.step(ctx, b, s.text, s.order); err != nil {
			return err
		}
	}
	return nil
}

// reserve has the confirm decisions write a manual takeover down first.
func (m *Monitor) reserve(ctx context.Context, g *group, inst string, force bool) (confirm.Reserved, error) {
	ch := make(chan confirm.Reserved, 1)
	m.mu.Lock()
	m.reqID++
	id := m.reqID
	m.waits[id] = ch
	m.step(g, confirm.Reserve{ID: id, Inst: inst, Force: force})
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.waits, id)
		m.mu.Unlock()
	}()
	select {
	case r := <-ch:
		if !r.OK {
			return r, base.Errorf(CodeNotNormal, "%s cannot take over: %s", inst, r.Why)
		}
		return r, nil
	case <-ctx.Done():
		return confirm.Reserved{}, ctx.Err()
	case <-m.ctx.Done():
		return confirm.Reserved{}, m.ended()
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// OpenDatabase opens a database by force (manual 4.4 #23, 6.3).
func (m *Monitor) OpenDatabase(ctx context.Context, groupName, db string) error {
	done, err := m.begin("open database "+db, true)
	if err != nil {
		return err
	}
	defer done()
	g, p, err := m.database(groupName, db)
	if err != nil {
		return err
	}
	v := m.view(g)
	in := p.Status.Inst
	switch {
	case !v.InstOK(p):
		return base.Errorf(CodeInstFailed, "%s or its watcher is in Error", p.Inst())
	case in.Status == base.StatusOpen:
		return base.Errorf(CodeAlready, "%s is Open", p.Inst())
	case in.Status != base.StatusMount:
		return base.Errorf(-8037, "%s is %s, not Mount", p.Inst(), in.Status)
	case p.Status.CtlStatus != proto.CtlValid:
		return base.Errorf(-8380, "the control file of %s is %s", p.Inst(), p.Status.CtlStatus)
	}
	for _, q := range v.ActivePrimaries() {
		if in.Mode == base.ModePrimary && q.Inst() != p.Inst() {
			return base.Errorf(-8360, "%s is an active primary already", q.Inst())
		}
	}
	// What its watcher is about to do by itself, with archives as they should be,
	// is not to be forced (manual 4.4 #23).
	if r, err := m.CheckOpen(g.Name, p.Inst()); err == nil && r.OK {
		return base.Errorf(-8368, "the watcher of %s opens it by itself: wait for it", p.Inst())
	}
	h, err := m.hold(ctx, g, proto.KindOpenForce, p)
	if err != nil {
		return err
	}
	if in.Mode == base.ModePrimary {
		_, err = h.step(ctx, p, p.Inst()+" makes all its archives Invalid", proto.InstanceCommand{Cmd: proto.CmdSetArch, State: base.ArchInvalid})
	}
	if err == nil {
		_, err = h.step(ctx, p, p.Inst()+" Open", proto.InstanceCommand{Cmd: proto.CmdOpen, Force: true, Evidence: "open database by command"})
	}
	return h.end(err)
}
