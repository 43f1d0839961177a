package fsm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// m is one Step in progress.
type m struct {
	*State
	now  time.Time
	acts []Action
}

// Step applies one event at local time now. The given state is not changed;
// equal arguments give equal results.
func Step(s State, ev Event, now time.Time) (State, []Action) {
	s = s.clone()
	acts := s.Advance(ev, now)
	return s, acts
}

// Advance is Step for those who have no use for the state as it was: it
// changes s. No copy of s may be used afterwards.
func (s *State) Advance(ev Event, now time.Time) []Action {
	x := &m{State: s, now: now}
	x.noteTime()
	from := s.W
	c := table[from][ev.kind()]
	if c.refuse != "" {
		cmd := ev.(Command)
		x.log("command refused", "cmd", cmd.Cmd.Cmd, "kind", cmd.Cmd.Kind, "from", cmd.from(), "why", c.refuse)
		x.answer(cmd.To, c.code, "the watcher of %s is in state %s: %s", s.Cfg.Name, from, c.refuse)
		return x.acts
	}
	absorb[ev.kind()](x, ev)
	x.settle()
	x.tellEnded()
	if d := x.digest(make([]byte, 0, 256)); !bytes.Equal(d, x.told) {
		x.told = bytes.Clone(d)
		x.acts = append(x.acts, Broadcast{})
	}
	return x.acts
}

// settle lets the rules of the states act until nothing changes. Each round
// starts at most one thing, so the bound is never met in practice.
func (x *m) settle() {
	for range 8 {
		w, p := x.W, x.p
		x.Why = x.Why[:0]
		x.guard()
		x.heldWait()
		x.heldExpiry()
		x.archiveFull()
		deciders[x.W](x)
		if x.W == w && x.p == p {
			return
		}
	}
}

// deciders are the rules of each state.
var deciders = [numStates]func(*m){
	Startup: (*m).decideStartup, Open: (*m).decideOpen, Shutdown: (*m).idle, Switchover: (*m).idle,
	Failover: (*m).decideFailover, Recovery: (*m).decideRecovery, Confirm: (*m).decideConfirm, Takeover: (*m).decideTakeover,
	OpenForce: (*m).idle, LoginCheck: (*m).decideLogin, ChangeArch: (*m).idle, ClearSend: (*m).idle, ClearRapply: (*m).idle,
	StandbyCheck: (*m).decideStandbyCheck,
	Error:        (*m).stray, MppctlUpdate: (*m).stray, UnifyEP: (*m).stray, CssProcess: (*m).stray,
}

func (x *m) idle() {
	if x.Held != nil {
		x.why("monitor command %s of %s is running", x.Held.Kind, x.Held.Mon)
	}
	if x.W == Shutdown {
		if x.down != "" {
			x.why("%s: make room there, then startup dmwatcher", x.down)
		}
		x.why("the watcher is in Shutdown: startup dmwatcher makes it work again")
	}
}

// stray leaves a state that no rule enters.
func (x *m) stray() { x.to(Startup, "", "state is never entered by itself") }

// to changes the state.
func (x *m) to(w WState, sub, why string, attrs ...any) {
	if x.W != w {
		if _, ok := edges[edge{x.W, w}]; !ok {
			x.fault = fmt.Sprintf("%s to %s: %s", x.W, w, why)
		}
		x.log("watcher state", append([]any{"from", x.W.String(), "to", w.String(), "why", why}, attrs...)...)
		x.Since = x.now
	}
	x.W, x.Sub = w, sub
	if w != Confirm {
		x.confirmSince, x.confirmReq, x.confirmWhy, x.confirmNext, x.noMonSince = time.Time{}, 0, "", time.Time{}, time.Time{}
	}
	if w != Startup {
		x.readySince = time.Time{}
	}
}

func (x *m) log(event string, attrs ...any) { x.acts = append(x.acts, Log{event, attrs}) }

func (x *m) why(format string, a ...any) {
	t := fmt.Sprintf(format, a...)
	if !slices.Contains(x.Why, t) {
		x.Why = append(x.Why, t)
	}
}

func (x *m) answer(to Reply, code base.Code, format string, a ...any) {
	if to == (Reply{}) {
		return
	}
	x.acts = append(x.acts, Answer{to, proto.WatcherReply{Code: code, Msg: fmt.Sprintf(format, a...), Status: x.Report(0, x.now)}})
}

// order sends an instance command and notes what its answer is for.
func (x *m) order(c proto.InstanceCommand, p pend) uint64 {
	x.nextReq++
	p.cmd = c.Cmd
	if c.Cmd == proto.CmdApplyKeep || c.Cmd == proto.CmdSetMode && c.Mode == base.ModePrimary {
		c.Ended = x.ended()
		p.waits, p.ended = true, c.Ended
	}
	x.State.pend[x.nextReq] = p
	x.acts = append(x.acts, SendInst{x.nextReq, c})
	if c.Cmd != proto.CmdLogin {
		x.log("order", "cmd", c.Cmd, "inst", c.Inst, "mode", modeAttr(c), "state", stateAttr(c), "evidence", c.Evidence)
	}
	return x.nextReq
}

func modeAttr(c proto.InstanceCommand) string {
	if c.Cmd == proto.CmdSetMode {
		return c.Mode.String()
	}
	return ""
}

func stateAttr(c proto.InstanceCommand) string {
	if c.Cmd == proto.CmdSetArch {
		return c.State.String()
	}
	return ""
}

// tell sends an order to another watcher.
func (x *m) tell(inst string, c proto.WatcherCommand, p pend) uint64 {
	x.nextReq++
	p.remote, p.cmd = inst, c.Cmd
	c.ID, c.Mon = fmt.Sprintf("%s-%d", x.Cfg.Name, x.nextReq), x.Cfg.Name
	x.State.pend[x.nextReq] = p
	x.acts = append(x.acts, TellRemote{inst, x.nextReq, c})
	return x.nextReq
}

// failPending answers every request that can no longer be answered.
func (x *m) failPending(of func(pend) bool, why string) {
	ids := make([]uint64, 0, len(x.State.pend))
	for id, p := range x.State.pend {
		if of(p) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		p := x.State.pend[id]
		switch {
		case p.kind == pendConfirm:
			x.confirmed(ConfirmReply{Req: id, Err: why})
		case p.remote != "":
			x.remoteReply(RemoteReply{Inst: p.remote, Req: id, Err: why})
		default:
			x.instReply(InstReply{Req: id, Err: why})
		}
	}
}

// digest is what others should hear about at once when it changes. It is made
// in each Step, so without fmt.
func (x *m) digest(b []byte) []byte {
	in := x.In.Status
	flag := func(v bool) {
		if v {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	text := func(s string) { b = append(append(b, s...), 0) }
	b = append(b, byte(x.W), byte(in.Mode), byte(in.Status), byte(len(x.Mons)))
	b = binary.LittleEndian.AppendUint64(b, uint64(in.PID))
	for _, v := range [...]bool{x.In.OK, x.In.Normal, x.In.Gone, x.effectiveClaim(), in.ExitingNormal} {
		flag(v)
	}
	for _, s := range [...]string{x.Sub, in.Incarnation, x.Ctl, in.Lineage.Last().TGUID, x.Last} {
		text(s)
	}
	if x.Held != nil {
		text(x.Held.ID)
	}
	for _, a := range in.Archives {
		text(a.Inst)
		b = append(b, byte(a.State))
		flag(a.SendFailed)
	}
	for _, l := range in.Links {
		text(l.Inst)
		flag(l.Connected)
	}
	for _, n := range x.names() {
		flag(x.hears(n, x.now))
		flag(x.remote(n).Link && x.instOK(n, x.now))
	}
	return b
}

// absorb takes each event into the view. Commands have their own functions.
var absorb [numEvents]func(*m, Event)

func init() {
	absorb = [numEvents]func(*m, Event){
		EvTick:         func(*m, Event) {},
		EvInstUp:       func(x *m, e Event) { x.instUp(e.(InstUp)) },
		EvInstDown:     func(x *m, e Event) { x.instDown(e.(InstDown)) },
		EvInstStatus:   func(x *m, e Event) { x.instStatus(e.(InstStatus).Status) },
		EvInstReply:    func(x *m, e Event) { x.instReply(e.(InstReply)) },
		EvInstGone:     func(x *m, e Event) { x.instGone(e.(InstGone)) },
		EvStarted:      func(x *m, e Event) { x.started(e.(Started)) },
		EvRemoteUp:     func(x *m, e Event) { x.remoteUp(e.(RemoteUp).Inst) },
		EvRemoteDown:   func(x *m, e Event) { x.remoteDown(e.(RemoteDown).Inst) },
		EvRemoteStatus: func(x *m, e Event) { x.remoteStatus(e.(RemoteStatus)) },
		EvRemoteReply:  func(x *m, e Event) { x.remoteReply(e.(RemoteReply)) },
		EvMonUp:        func(x *m, e Event) { x.monUp(e.(MonUp)) },
		EvMonDown:      func(x *m, e Event) { x.monDown(e.(MonDown).ID) },
		EvMonStatus:    func(x *m, e Event) { x.monStatus(e.(MonStatus).ID) },
		EvConfirmReply: func(x *m, e Event) { x.confirmed(e.(ConfirmReply)) },
		EvCtlSaved:     func(x *m, e Event) { x.ctlSaved(e.(CtlSaved)) },
		EvService:      func(x *m, e Event) { x.service(e.(Service).Why) },
		EvBegin:        cmd((*m).begin),
		EvStep:         cmd((*m).step),
		EvEnd:          cmd((*m).end),
		EvLogin:        cmd((*m).login),
		EvStartDW:      cmd((*m).startDW),
		EvStopDW:       cmd((*m).stopDW),
		EvStartInst:    cmd((*m).startInst),
		EvStopInst:     cmd((*m).stopInst),
		EvKillInst:     cmd((*m).killInst),
		EvSetPara:      cmd((*m).setPara),
		EvRecoverTime:  cmd((*m).recoverTime),
		EvGrant:        cmd((*m).grant),
		EvExitOld:      cmd((*m).exitOld),
		EvDropKeep:     cmd((*m).dropKeep),
		EvDropClaim:    cmd((*m).dropClaim),
		EvRejoin:       cmd((*m).rejoinCmd),
		EvNoop:         cmd(func(x *m, c Command) { x.answer(c.To, 0, "") }),
		EvUnknownCmd: cmd(func(x *m, c Command) {
			x.answer(c.To, codeArg, "unknown watcher command %q", c.Cmd.Cmd)
		}),
	}
}

func cmd(f func(*m, Command)) func(*m, Event) {
	return func(x *m, e Event) { f(x, e.(Command)) }
}

func (c Command) from() string {
	if c.From != "" {
		return c.From
	}
	return c.Cmd.Mon
}

func (x *m) remoteUp(n string) {
	if r := x.known(n); r != nil {
		r.Link, r.UpAt = true, x.now
		x.log("watcher connected", "watcher", n)
	}
}

func (x *m) remoteDown(n string) {
	r := x.known(n)
	if r == nil {
		return
	}
	r.Link = false
	x.log("watcher link lost", "watcher", n)
	x.failPending(func(p pend) bool { return p.remote == n }, "the connection to the watcher of "+n+" was lost")
}

func (x *m) remoteStatus(e RemoteStatus) {
	r := x.known(e.Inst)
	if r == nil {
		return
	}
	if !x.alive(e.Inst, x.now) || r.Status.State != e.Status.State {
		x.log("watcher heard", "watcher", e.Inst, "state", e.Status.State, "inst_ok", e.Status.InstOK,
			"mode", e.Status.Inst.Mode.String(), "status", e.Status.Inst.Status.String())
	}
	x.seen(r, e.Inst, e.Status)
}

// seen takes a status of another watcher, from a message or an answer.
func (x *m) seen(r *Remote, n string, st proto.WatcherStatus) {
	r.Known, r.Heard, r.Status = true, x.now, st
	if st.Inst.Incarnation != "" {
		if r.LastInst.Incarnation != st.Inst.Incarnation {
			x.change(n, (*interval).reborn)
		}
		r.LastInst = st.Inst
	}
	x.renewClaim(n, st)
}

func (x *m) monUp(e MonUp) {
	x.Mons[e.ID] = Monitor{Addr: e.Addr, Confirm: e.Confirm, Since: x.now, Seen: x.now}
	x.log("monitor connected", "monitor", e.ID, "addr", e.Addr, "confirm", e.Confirm)
}

func (x *m) monDown(id string) {
	if _, ok := x.Mons[id]; !ok {
		return
	}
	delete(x.Mons, id)
	x.log("monitor left", "monitor", id)
	x.failPending(func(p pend) bool { return p.kind == pendConfirm && p.inst == id }, "the confirm monitor has left")
}

func (x *m) monStatus(id string) {
	if mo, ok := x.Mons[id]; ok {
		mo.Seen = x.now
		x.Mons[id] = mo
	}
}

func (x *m) remoteReply(e RemoteReply) {
	p, ok := x.State.pend[e.Req]
	if !ok || p.remote != e.Inst {
		return
	}
	delete(x.State.pend, e.Req)
	if e.Err == "" && e.Reply.Status.Incarnation != "" {
		x.seen(x.known(e.Inst), e.Inst, e.Reply.Status)
	}
	err := e.Err
	if err == "" && e.Reply.Code != 0 {
		err = refusal(e.Reply.Code, e.Reply.Msg)
	}
	switch p.kind {
	case pendAsk:
		x.asked(e.Inst, e.Req, err)
	case pendRec:
		x.recReply(p.inst, e.Req, e.Reply.Code, err)
	}
}

func (x *m) instReply(e InstReply) {
	p, ok := x.State.pend[e.Req]
	if !ok || p.remote != "" || p.kind == pendConfirm {
		return
	}
	delete(x.State.pend, e.Req)
	if e.Err == "" && e.Reply.Status.Incarnation != "" {
		x.instStatus(e.Reply.Status)
	}
	if e.Req == x.unsureOf && e.Err == "" {
		x.unsure, x.unsureOf = false, 0 // carried out or refused: the status says what became of it
	}
	err := e.Err
	if err == "" && e.Reply.Code != 0 {
		err = refusal(e.Reply.Code, e.Reply.Msg)
	}
	if err != "" {
		x.log("order failed", "cmd", p.cmd, "error", err, "code", e.Reply.Code)
	}
	switch p.kind {
	case pendProc:
		x.procReply(e.Req, e.Reply.Code, err)
	case pendRec:
		x.recReply(p.inst, e.Req, e.Reply.Code, err)
	case pendStep:
		x.stepReply(p, e.Reply.Code, err)
	case pendPlain:
		x.plainReply(p, e.Reply.Code, err)
	}
}

// refusal is the text of an answer with an error code, which travels beside it.
func refusal(code base.Code, msg string) string {
	if msg == "" {
		return fmt.Sprintf("refused with code %d", code)
	}
	return msg
}

func (x *m) ctlSaved(e CtlSaved) {
	if e.Err != "" {
		x.log("control file not written", "error", e.Err)
	}
}
