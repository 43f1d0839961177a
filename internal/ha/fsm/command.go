package fsm

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// heldMax ends a held command whose monitor lives but gives no step.
const heldMax = 20

func (x *m) begin(c Command) {
	kind := strings.ToLower(c.Cmd.Kind)
	name := proto.StateOf(kind)
	w, ok := stateOf(name)
	switch {
	case name == "" || !ok || c.Cmd.ID == "":
		x.answer(c.To, codeArg, "unknown kind of command %q", c.Cmd.Kind)
		return
	case x.Held != nil && x.Held.ID == c.Cmd.ID:
		x.Held.Last = x.now
		x.answer(c.To, 0, "")
		return
	case x.Held != nil:
		x.answer(c.To, codeBusy, "command %s of monitor %s is running", x.Held.Kind, x.Held.Mon)
		return
	case x.p != nil:
		x.answer(c.To, codeBusy, "%s is in progress; try again", procNames[x.p.kind])
		return
	case x.recSuspended():
		x.answer(c.To, codeBusy, "a recovery is about to end; try again")
		return
	}
	if w == Takeover {
		// The monitor has seen the conditions hold; meanwhile the primary may have
		// gone on without this standby.
		code, why := codeClash, x.outdated(c.Cmd.Era)
		if why == "" && !c.Cmd.Force {
			code, why = x.takeoverConditions(&proto.Grant{Term: x.term, OldPrimary: x.In.Status.ValidClaimFrom, Era: c.Cmd.Era})
		}
		if why != "" {
			x.answer(c.To, code, "%s does not take over: %s", x.Cfg.Name, why)
			return
		}
	}
	if w == Switchover && (!x.ready() || x.In.Status.Status != base.StatusOpen) {
		x.answer(c.To, codeInst, "%s is not Open", x.Cfg.Name)
		return
	}
	x.interruptRecovery("monitor command " + kind)
	x.Held = &Held{ID: c.Cmd.ID, Mon: c.Cmd.Mon, Kind: kind, MonID: c.MonID, Last: x.now}
	x.to(w, "", "monitor command", "id", c.Cmd.ID, "monitor", c.Cmd.Mon, "evidence", c.Cmd.Evidence)
	x.answer(c.To, 0, "")
}

// steps are the orders a monitor command may consist of.
var steps = map[string]bool{proto.CmdOpen: true, proto.CmdMount: true, proto.CmdSuspend: true, proto.CmdSetMode: true,
	proto.CmdSetArch: true, proto.CmdApplyKeep: true, proto.CmdDropKeep: true, proto.CmdArchSend: true, proto.CmdDropSessions: true,
	proto.CmdSetPara: true, proto.CmdClearSend: true, proto.CmdClearApply: true, proto.CmdNoop: true}

func (x *m) step(c Command) {
	o := c.Cmd.Order
	switch {
	case x.Held == nil || x.Held.ID != c.Cmd.ID:
		x.answer(c.To, codeClash, "command %s does not hold this watcher (any more)", c.Cmd.ID)
		return
	case o == nil || !steps[o.Cmd]:
		x.answer(c.To, codeArg, "the step has no order, or one that is no step")
		return
	case x.Held.Busy:
		x.answer(c.To, codeBusy, "the step before is still being performed")
		return
	case !x.ready():
		x.answer(c.To, codeInst, "the instance does not answer")
		return
	}
	if n := x.otherPrimary(*o); n != "" {
		// The old primary's change of mode may have been answered before its
		// watcher's report reached us.
		x.Held.Busy, x.Held.Last, x.Held.wait, x.Held.until = true, x.now, &c, x.now.Add(x.Cfg.ErrorTime)
		x.Sub = "WAIT FOR " + n
		return
	}
	x.Held.Busy, x.Held.Last = true, x.now
	x.Sub = strings.ToUpper(o.Cmd)
	cmd := *o
	if cmd.Evidence == "" {
		cmd.Evidence = "step of " + x.Held.Kind + " by monitor " + x.Held.Mon
	}
	if cmd.Cmd == proto.CmdOpen {
		cmd.Force = true
	}
	// In AUTO mode a standby that cannot be told might take over (G3).
	cmd.Told = x.Cfg.Auto && x.W == ChangeArch && cmd.State == base.ArchInvalid
	to := c.To
	x.order(cmd, pend{kind: pendStep, reply: &to, open: o.Cmd == proto.CmdOpen})
}

// otherPrimary names a live remote in Primary mode when o makes ours Primary.
func (x *m) otherPrimary(o proto.InstanceCommand) string {
	if o.Cmd != proto.CmdSetMode || o.Mode != base.ModePrimary {
		return ""
	}
	for _, n := range x.names() {
		if x.instOK(n, x.now) && x.remote(n).Status.Inst.Mode == base.ModePrimary {
			return n
		}
	}
	return ""
}

// heldWait performs or refuses a step that waits.
func (x *m) heldWait() {
	if x.Held == nil || x.Held.wait == nil {
		return
	}
	c, n := *x.Held.wait, x.otherPrimary(*x.Held.wait.Cmd.Order)
	if n != "" && x.now.Before(x.Held.until) {
		return
	}
	x.Held.wait, x.Held.Busy, x.Held.Last = nil, false, x.now
	if n != "" {
		x.answer(c.To, codeActive, "%s is in Primary mode", n)
		return
	}
	x.step(c)
}

func (x *m) stepReply(p pend, code base.Code, err string) {
	if x.Held != nil {
		x.Held.Busy, x.Held.Last = false, x.now
	}
	if err == "" && p.open && x.In.Status.Mode == base.ModePrimary {
		x.opened()
	}
	x.answerPend(p, code, err)
}

func (x *m) answerPend(p pend, code base.Code, err string) {
	if p.reply == nil {
		return
	}
	if err != "" && code == 0 {
		code = codeInst
	}
	x.answer(*p.reply, code, "%s", err)
}

func (x *m) plainReply(p pend, code base.Code, err string) {
	x.answerPend(p, code, err)
	if p.cmd == proto.CmdLogin && x.W == LoginCheck {
		x.to(x.back, "", "login was checked")
	}
}

func (x *m) end(c Command) {
	if x.Held == nil || x.Held.ID != c.Cmd.ID {
		if x.Last == c.Cmd.ID {
			x.answer(c.To, 0, "")
		} else {
			x.answer(c.To, codeClash, "command %s does not hold this watcher (any more)", c.Cmd.ID)
		}
		return
	}
	x.release("monitor command has ended", c.Cmd.Failed)
	x.answer(c.To, 0, "")
}

// release ends the held command.
func (x *m) release(why string, failed bool) {
	h := x.Held
	x.Held, x.Last = nil, h.ID
	w := Startup
	if !failed && x.ready() && x.In.Status.Status == base.StatusOpen {
		w = Open
	}
	x.to(w, "", why, "id", h.ID, "kind", h.Kind, "failed", failed)
}

// heldExpiry drops a command whose monitor has gone.
func (x *m) heldExpiry() {
	if x.Held == nil || x.Held.Busy {
		return
	}
	last := x.Held.Last
	if mo, ok := x.Mons[x.Held.MonID]; ok && x.now.Sub(last) < heldMax*x.Cfg.ErrorTime {
		last = maxTime(last, mo.Seen)
	}
	if x.now.Sub(last) >= x.Cfg.ErrorTime {
		x.release("the monitor is silent for DW_ERROR_TIME", true)
	}
}

func (x *m) login(c Command) {
	if !x.ready() {
		x.answer(c.To, codeLogin, "the instance of %s is not OK: login could not be checked", x.Cfg.Name)
		return
	}
	to := c.To
	x.order(proto.InstanceCommand{Cmd: proto.CmdLogin, User: c.Cmd.User, Password: c.Cmd.Password}, pend{kind: pendPlain, reply: &to})
	if x.p == nil && (x.W == Open || x.W == Startup) {
		x.back = x.W
		x.to(LoginCheck, "", "login check of monitor "+c.Cmd.Mon)
	}
}

// decideLogin ends the state when the answer went missing.
func (x *m) decideLogin() {
	for _, p := range x.State.pend {
		if p.cmd == proto.CmdLogin {
			return
		}
	}
	x.to(x.back, "", "login check has ended")
}

func (x *m) startDW(c Command) {
	if x.W == Shutdown {
		x.down = ""
		x.to(Startup, "", "startup dmwatcher by monitor "+c.Cmd.Mon)
	}
	x.answer(c.To, 0, "")
}

func (x *m) stopDW(c Command) {
	x.interruptRecovery("stop dmwatcher")
	x.endProc("stop dmwatcher")
	if x.In.OK && x.In.Link && x.In.Status.Status == base.StatusSuspend && x.In.Status.Mode == base.ModePrimary && len(x.blocked()) == 0 {
		x.order(openOrder(), pend{kind: pendPlain})
	}
	x.to(Shutdown, "", "stop dmwatcher by monitor "+c.Cmd.Mon)
	x.answer(c.To, 0, "")
}

func (x *m) startInst(c Command) {
	if x.W == Shutdown {
		x.down = ""
		x.to(Startup, "", "startup database by monitor "+c.Cmd.Mon)
	}
	if x.In.OK || x.In.Link {
		x.answer(c.To, 0, "%s is running", x.Cfg.Name)
		return
	}
	if x.Cfg.StartupCmd == "" {
		x.answer(c.To, codeStart, "INST_STARTUP_CMD is not set")
		return
	}
	x.startAt = x.now
	x.start("startup database by monitor " + c.Cmd.Mon)
	x.answer(c.To, 0, "")
}

func (x *m) stopInst(c Command) {
	x.interruptRecovery("stop database")
	x.endProc("stop database")
	x.to(Shutdown, "", "stop database by monitor "+c.Cmd.Mon)
	if !x.In.OK {
		x.answer(c.To, 0, "%s is not running", x.Cfg.Name)
		return
	}
	if !x.ready() {
		x.answer(c.To, codeStop, "the instance does not answer")
		return
	}
	to := c.To
	x.order(proto.InstanceCommand{Cmd: proto.CmdShutdown, How: "normal", Evidence: "stop database by monitor " + c.Cmd.Mon}, pend{kind: pendPlain, reply: &to})
}

func (x *m) killInst(c Command) {
	x.interruptRecovery("kill database")
	x.endProc("kill database")
	if x.Held != nil {
		x.release("kill database", true)
	}
	x.to(Shutdown, "", "kill database by monitor "+c.Cmd.Mon)
	if x.In.Known && !x.In.Gone {
		x.kill("monitor " + c.Cmd.Mon)
	}
	x.answer(c.To, 0, "")
}

// para is a parameter that can be changed at run time (manual 5.4).
type para struct {
	lo, hi int
	set    func(*Config, int)
}

var paras = map[string]para{
	"DW_ERROR_TIME":         {3, 32767, func(c *Config, v int) { c.ErrorTime = time.Duration(v) * time.Second }},
	"INST_ERROR_TIME":       {3, 32767, func(c *Config, v int) { c.InstErrorTime = time.Duration(v) * time.Second }},
	"INST_RECOVER_TIME":     {3, 86400, func(c *Config, v int) { c.RecoverTime = v }},
	"INST_AUTO_RESTART":     {0, 1, func(c *Config, v int) { c.AutoRestart = v == 1 }},
	"INST_SERVICE_IP_CHECK": {0, 1, func(c *Config, v int) { c.ServiceCheck = v == 1 }},
	"DW_REJOIN":             {0, 1, func(c *Config, v int) { c.Rejoin = v == 1 }},
	"RLOG_SEND_THRESHOLD":   {0, 86400, func(c *Config, v int) { c.SendThreshold = v }},
	"RLOG_APPLY_THRESHOLD":  {0, 86400, func(c *Config, v int) { c.ApplyThresh = v }},
}

func (x *m) setPara(c Command) {
	name := strings.ToUpper(c.Cmd.Name)
	p, ok := paras[name]
	v, err := strconv.Atoi(c.Cmd.Value)
	switch {
	case !ok:
		x.answer(c.To, codeArg, "%s cannot be changed at run time", c.Cmd.Name)
		return
	case err != nil || v < p.lo || v > p.hi:
		x.answer(c.To, codeArg, "%s is %q, allowed is %d to %d", name, c.Cmd.Value, p.lo, p.hi)
		return
	}
	p.set(&x.Cfg, v)
	if name == "INST_RECOVER_TIME" {
		for _, n := range x.names() {
			x.change(n, func(i *interval) { i.command(v, x.now) })
		}
	}
	x.log("parameter changed", "name", name, "value", v, "monitor", c.Cmd.Mon)
	// Who asked hears the new value before the answer, so that it shows no old one after it.
	x.acts = append(x.acts, SavePara{name, strconv.Itoa(v)}, Broadcast{})
	x.answer(c.To, 0, "")
}

func (x *m) recoverTime(c Command) {
	v, err := strconv.Atoi(c.Cmd.Value)
	if err != nil || v < minRecover || v > 86400 {
		x.answer(c.To, codeArg, "the recovery interval is %q, allowed is %d to 86400 seconds", c.Cmd.Value, minRecover)
		return
	}
	to := x.names()
	if c.Cmd.Inst != "" {
		n, ok := x.remoteName(c.Cmd.Inst)
		if !ok {
			x.answer(c.To, -8045, "%s", fmt.Sprintf("%s has no standby %s", x.Cfg.Name, c.Cmd.Inst))
			return
		}
		to = []string{n}
	}
	for _, n := range to {
		x.change(n, func(i *interval) { i.command(v, x.now) })
	}
	x.log("recovery interval changed", "standby", c.Cmd.Inst, "seconds", v)
	x.acts = append(x.acts, Broadcast{}) // as setPara
	x.answer(c.To, 0, "")
}
