package watcher

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/fsm"
	"datawatch/internal/ha/proto"
	"datawatch/internal/secure"
)

// dials: of a pair of watchers the one with the smaller instance name dials.
func (g *Guard) dials(peer string) bool {
	return strings.ToUpper(g.cfg.FSM.Name) < strings.ToUpper(peer)
}

// dialLoop keeps one outgoing connection alive: to the watcher of peer, or to
// the own instance when peer is "".
func (g *Guard) dialLoop(peer, addr string) {
	last := ""
	for g.ctx.Err() == nil {
		err := g.dialOnce(peer, addr)
		if err != nil && err.Error() != last && g.ctx.Err() == nil {
			last = err.Error()
			g.deps.Log.Info("not connected", "to", addr, "peer", peer, "error", err)
		} else if err == nil {
			last = ""
		}
		if g.deps.Clock.Sleep(g.ctx, redialEvery) != nil {
			return
		}
	}
}

// dialOnce connects, says hello and serves until the connection ends.
func (g *Guard) dialOnce(peer, addr string) error {
	nc, err := g.deps.Dial(g.ctx, addr)
	if err != nil {
		return err
	}
	whom := secure.Want{Role: secure.Watcher, Name: peer}
	if peer == "" {
		whom = secure.Want{Role: secure.Instance, Name: g.cfg.FSM.Name}
	}
	if nc, err = g.deps.Secure.Client(g.ctx, nc, whom); err != nil {
		return err
	}
	c := newConn(nc, g.deps.Clock)
	defer c.close()
	stop := g.closeOnEnd(c)
	defer stop()
	_ = nc.SetDeadline(g.deps.Clock.Now().Add(helloWait))
	err = c.direct(proto.TypeHello, proto.Hello{Role: proto.RoleWatcher, GuardVersion: proto.GuardVersion, Name: g.cfg.FSM.Name,
		OGUID: g.cfg.FSM.OGUID, Group: g.cfg.FSM.Group, Auto: g.cfg.FSM.Auto, PID: g.deps.PID})
	if err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	f, err := c.r.Read()
	if err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	var r proto.HelloReply
	if f.Type != proto.TypeHelloReply {
		return fmt.Errorf("hello: answered by message type %d", f.Type)
	}
	if err := json.Unmarshal(f.Payload, &r); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	want := peer
	if peer == "" {
		want = g.cfg.FSM.Name
	}
	switch {
	case r.Code != 0:
		return fmt.Errorf("refused: %s [code %d]", r.Msg, r.Code)
	case r.GuardVersion != proto.GuardVersion:
		return fmt.Errorf("guard version %q there, %q here: they must be equal", r.GuardVersion, proto.GuardVersion)
	case !strings.EqualFold(r.Name, want):
		return fmt.Errorf("%s answered instead of %s: check dmmal.ini", r.Name, want)
	case peer != "" && r.OGUID != g.cfg.FSM.OGUID:
		return fmt.Errorf("OGUID %d there, %d here", r.OGUID, g.cfg.FSM.OGUID)
	}
	_ = nc.SetDeadline(time.Time{})
	c.role, c.name = roleWatcher, peer
	if peer == "" {
		c.role, c.name = roleInstance, want
	}
	ok := make(chan bool, 1)
	if !g.post(dialledMsg{c, peer, r.PID, ok}) {
		return g.ctx.Err()
	}
	select {
	case yes := <-ok:
		if !yes {
			return nil
		}
	case <-g.ctx.Done():
		return g.ctx.Err()
	}
	g.serve(c)
	return nil
}

// closeOnEnd closes c when the guard ends while its hello is in progress.
func (g *Guard) closeOnEnd(c *conn) func() {
	stop := make(chan struct{})
	g.spawn(func() {
		select {
		case <-g.ctx.Done():
			c.close()
		case <-stop:
		}
	})
	return func() { close(stop) }
}

func (g *Guard) acceptLoop() {
	for {
		nc, err := g.ln.Accept()
		if err != nil {
			if g.ctx.Err() != nil {
				return
			}
			g.deps.Log.Warn("accept", "error", err)
			if g.deps.Clock.Sleep(g.ctx, redialEvery) != nil {
				return
			}
			continue
		}
		g.spawn(func() { g.welcome(nc) })
	}
}

// welcome reads the hello of a dialling watcher or monitor.
func (g *Guard) welcome(nc net.Conn) {
	c := newConn(nc, g.deps.Clock)
	defer c.close()
	stop := g.closeOnEnd(c)
	defer stop()
	_ = nc.SetDeadline(g.deps.Clock.Now().Add(helloWait))
	f, err := c.r.Read()
	if err != nil || f.Type != proto.TypeHello {
		g.complain("connection without a hello", "", nc, "error", err)
		return
	}
	h, err := decodeAs[proto.Hello](f)
	if err != nil {
		g.complain("connection without a hello", "", nc, "error", err)
		return
	}
	r := g.judgeHello(h)
	if err := checkPeer(nc, h); err != nil && r.Code == 0 {
		r.Code, r.Msg = -1, err.Error()
	}
	if r.Code == 0 {
		m := acceptedMsg{c, h, make(chan proto.HelloReply, 1)}
		if !g.post(m) {
			return
		}
		select {
		case r = <-m.reply:
		case <-g.ctx.Done():
			return
		}
	}
	if r.Code != 0 {
		g.complain("connection refused", r.Msg, nc, "role", string(h.Role), "name", h.Name, "why", r.Msg)
		_ = c.direct(proto.TypeHelloReply, r)
		return
	}
	if c.direct(proto.TypeHelloReply, r) != nil {
		g.post(closedMsg{c})
		return
	}
	_ = nc.SetDeadline(time.Time{})
	g.serve(c)
}

// complain logs why a connection came to nothing, once in half a minute for each
// host and reason: who is refused tries again five times a second.
func (g *Guard) complain(what, reason string, nc net.Conn, args ...any) {
	addr := nc.RemoteAddr().String()
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	ok, more := g.gate.Pass(what + " " + host + " " + reason)
	if !ok {
		return
	}
	args = append([]any{"addr", addr}, args...)
	if more > 0 {
		args = append(args, "like_it_since", more)
	}
	g.deps.Log.Warn(what, args...)
}

// allow says which programs of the group this port is for.
func allow(p secure.Peer) error {
	if p.Role == secure.Instance {
		return fmt.Errorf("MAL_DW_PORT is for watchers and monitors, not for %s", p)
	}
	return nil
}

// refusal is how package secure tells a peer in plain text what this port
// takes, and the other way round.
func refusal(msg string) (uint16, []byte) {
	b, _ := json.Marshal(proto.HelloReply{Code: -1, Msg: msg, GuardVersion: proto.GuardVersion})
	return proto.TypeHelloReply, b
}

// checkPeer compares a hello with the program that opened the link.
func checkPeer(nc net.Conn, h proto.Hello) error {
	if h.Role == proto.RoleWatcher {
		return secure.Check(nc, secure.Watcher, h.Name)
	}
	if p, ok := secure.PeerOf(nc); ok && p.Role != secure.Monitor {
		return fmt.Errorf("the link was opened by %s, the hello says %s", p, h.Role)
	}
	return nil
}

// judgeHello checks what needs no state.
func (g *Guard) judgeHello(h proto.Hello) proto.HelloReply {
	r := proto.HelloReply{GuardVersion: proto.GuardVersion, Name: g.cfg.FSM.Name, OGUID: g.cfg.FSM.OGUID, PID: g.deps.PID}
	refuse := func(code base.Code, format string, a ...any) proto.HelloReply {
		r.Code, r.Msg = code, fmt.Sprintf(format, a...)
		return r
	}
	switch {
	case h.GuardVersion != proto.GuardVersion:
		return refuse(-1, "guard version %q there, %q here: they must be equal", h.GuardVersion, proto.GuardVersion)
	case h.OGUID != g.cfg.FSM.OGUID:
		return refuse(-1, "OGUID %d there, %d here", h.OGUID, g.cfg.FSM.OGUID)
	case h.Role == proto.RoleWatcher:
		if g.peerName(h.Name) == "" {
			return refuse(-8045, "%s is no archive target of %s", h.Name, g.cfg.FSM.Name)
		}
	case h.Role == proto.RoleMonitor, h.Role == proto.RoleTool:
	default:
		return refuse(-16, "unknown role %q", h.Role)
	}
	return r
}

func (g *Guard) peerName(n string) string {
	for _, p := range g.cfg.FSM.Remotes {
		if strings.EqualFold(p, n) {
			return p
		}
	}
	return ""
}

// accepted takes an incoming connection into the loop's tables.
func (g *Guard) accepted(e acceptedMsg) {
	r := g.judgeHello(e.hello)
	c := e.c
	if e.hello.Role == proto.RoleWatcher {
		c.role, c.name = roleWatcher, g.peerName(e.hello.Name)
		g.take(c)
		e.reply <- r
		return
	}
	c.role, c.name, c.confirm = roleMonitor, e.hello.MonID, e.hello.MonConfirm
	if c.name == "" {
		c.name = c.nc.RemoteAddr().String()
	}
	if old := g.mons[c.name]; old != nil {
		g.drop(old)
	}
	if len(g.mons) >= maxMonitors {
		r.Code, r.Msg = -19, fmt.Sprintf("%d monitors are connected already", maxMonitors)
		e.reply <- r
		return
	}
	if c.confirm {
		for _, id := range sortedKeys(g.mons) {
			if o := g.mons[id]; o.confirm {
				r.Code, r.Msg = -14, "confirm monitor "+o.nc.RemoteAddr().String()+" is connected already"
				e.reply <- r
				return
			}
		}
	}
	g.take(c)
	e.reply <- r
}

func (g *Guard) dialled(e dialledMsg) {
	g.take(e.c)
	if e.c.role == roleInstance {
		g.step(fsm.InstUp{PID: e.pid})
	}
	e.ok <- true
}

// take registers a connection; one it replaces is ended first, so that nothing
// of the old one can arrive after the new one has spoken.
func (g *Guard) take(c *conn) {
	g.nextConn++
	c.id, c.since, c.up = g.nextConn, g.deps.Clock.Now(), true
	c.heard = c.since
	switch c.role {
	case roleInstance:
		if g.inst != nil {
			g.drop(g.inst)
		}
		g.inst = c
		g.info.toldAt, g.info.deaf = time.Time{}, false
		c.late = func(id uint64) {
			g.post(fsm.InstReply{Req: id, Err: "this watcher stood still before it could give the order"})
		}
	case roleWatcher:
		if old := g.remotes[c.name]; old != nil {
			g.drop(old)
		}
		g.remotes[c.name] = c
	case roleMonitor:
		g.mons[c.name] = c
	}
	g.conns[c.id] = c
	g.info.maxConns = max(g.info.maxConns, len(g.conns))
	switch c.role {
	case roleWatcher:
		g.step(fsm.RemoteUp{Inst: c.name})
	case roleMonitor:
		g.step(fsm.MonUp{ID: c.name, Addr: c.nc.RemoteAddr().String(), Confirm: c.confirm})
	}
}

// drop ends a connection and tells the state machine.
func (g *Guard) drop(c *conn) {
	c.close()
	g.closed(c)
}

func (g *Guard) closed(c *conn) {
	if !c.up {
		return
	}
	c.up = false
	delete(g.conns, c.id)
	switch c.role {
	case roleInstance:
		if g.inst == c {
			g.inst = nil
		}
		gone := g.watchPID != 0 && g.gonePID != g.watchPID && !g.deps.Procs.Alive(g.watchPID, g.watchID)
		if gone {
			g.gonePID = g.watchPID
		}
		g.step(fsm.InstDown{Gone: gone})
	case roleWatcher:
		if g.remotes[c.name] == c {
			delete(g.remotes, c.name)
		}
		g.step(fsm.RemoteDown{Inst: c.name})
	case roleMonitor:
		if g.mons[c.name] == c {
			delete(g.mons, c.name)
		}
		g.step(fsm.MonDown{ID: c.name})
	}
}

// frame turns a message into an event. Messages of a connection that has been
// replaced are dropped.
func (g *Guard) frame(c *conn, v any) {
	if !c.up {
		return
	}
	c.heard = g.deps.Clock.Now()
	switch e := v.(type) {
	case proto.InstanceStatus:
		g.noteProcess(e.PID)
		g.cfg.Switches.Add(g.info.switches(e.Lineage))
		g.step(fsm.InstStatus{Status: e})
	case reply[proto.InstanceReply]:
		if e.id == 0 { // an older instance, which does not know what tellInst says
			g.info.deaf = true
			break
		}
		g.step(fsm.InstReply{Req: e.id, Reply: e.v})
	case proto.WatcherStatus:
		g.info.heardOf(c.name, e)
		g.cfg.Switches.Add(g.info.switches(e.Inst.Lineage))
		g.step(fsm.RemoteStatus{Inst: c.name, Status: e})
	case reply[proto.WatcherReply]:
		g.step(fsm.RemoteReply{Inst: c.name, Req: e.id, Reply: e.v})
	case reply[proto.WatcherCommand]:
		ev := fsm.Command{To: fsm.Reply{Conn: c.id, Req: e.id}, Cmd: e.v}
		if c.role == roleWatcher {
			ev.From = c.name
		} else {
			ev.MonID = c.name
		}
		g.step(ev)
	case proto.MonitorStatus:
		g.step(fsm.MonStatus{ID: c.name})
	case reply[proto.ConfirmReply]:
		g.step(fsm.ConfirmReply{Req: e.id, Reply: e.v})
	}
}

// leaveSilent closes connections of watchers and monitors that have said nothing
// for twice DW_ERROR_TIME. They have failed by then, and their machine may have
// vanished without an end of its connections: TCP would keep ours for a quarter
// of an hour, and after a repair speak again only when its next repetition is
// due, which may be as far away as the failure was long; meanwhile the place of
// a confirm monitor would be taken by one that is gone.
func (g *Guard) leaveSilent() {
	now, limit := g.deps.Clock.Now(), 2*g.state.Cfg.ErrorTime
	stood := now.Sub(g.looked) > limit/2 // this process itself: what was said meanwhile waits to be read
	g.looked = now
	for _, c := range g.conns {
		switch {
		case c.role == roleInstance:
		case stood:
			c.heard = now
		case now.Sub(c.heard) > limit:
			g.deps.Log.Warn("connection closed: nothing heard for twice DW_ERROR_TIME", "peer", c.role.String(), "name", c.name, "addr", c.nc.RemoteAddr().String())
			c.close()
		}
	}
}
