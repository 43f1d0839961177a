package fsm

import (
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// procPause keeps a sequence that has failed from being tried again at once.
const procPause = time.Second

// takeoverTries is how often a step of a takeover is tried: once its state is
// taken nobody else may serve, so giving up early would help nobody.
const takeoverTries = 5

// run starts a sequence of orders to the own instance.
func (x *m) run(p proc) {
	x.p = &p
	x.log("sequence begins", "what", procNames[p.kind], "why", p.why)
	x.next()
}

// next sends the next order of the sequence, or ends it.
func (x *m) next() {
	p := x.p
	if len(p.steps) == 0 {
		x.procDone()
		return
	}
	if !x.ready() {
		x.procFailed("the instance does not answer")
		return
	}
	c := p.steps[0]
	if c.Evidence == "" {
		c.Evidence = procNames[p.kind] + ": " + p.why
	}
	x.Sub = strings.ToUpper(c.Cmd)
	p.wait = x.order(c, pend{kind: pendProc})
}

func (x *m) procReply(req uint64, code base.Code, err string) {
	p := x.p
	if p == nil || p.wait != req {
		return
	}
	p.wait = 0
	if err == "" {
		p.steps, p.tries = p.steps[1:], 0
		x.next()
		return
	}
	if p.kind == procTakeover && p.tries+1 < takeoverTries && x.In.OK {
		p.tries++
		p.retryAt = x.now.Add(procPause)
		return
	}
	x.procFailed(err)
	if p.kind == procRejoin {
		x.rejoinFailed(p, code, err)
	}
}

// procTick repeats a step of a takeover that has failed, and ends a round of
// questions that a watcher leaves open.
func (x *m) procTick() {
	p := x.p
	if p != nil && len(p.asked) > 0 && x.now.Sub(p.askedAt) >= x.Cfg.ErrorTime {
		x.procFailed("no answer from the watchers of " + strings.Join(sorted(p.asked), ", "))
		return
	}
	if p != nil && p.wait == 0 && len(p.asked) == 0 && !p.retryAt.IsZero() && !x.now.Before(p.retryAt) {
		p.retryAt = time.Time{}
		x.next()
	}
}

func (x *m) procDone() {
	p := x.p
	x.p = nil
	x.log("sequence done", "what", procNames[p.kind])
	switch p.kind {
	case procOpen, procTakeover:
		x.opened()
		x.to(Open, "", procNames[p.kind]+" is done")
	case procStandbyCheck:
		x.to(Open, "", procNames[p.kind]+" is done")
	case procStandbyOpen, procLocalOpen:
		if p.kind == procStandbyOpen {
			x.unsure = false // what was ordered before has been carried out before
			x.rejoinBy = ""
		}
		x.to(Open, "", procNames[p.kind]+" is done")
	case procFailover, procReopen:
		for _, t := range p.targets {
			if x.known(t) != nil {
				x.change(t, func(v *interval) { v.cut = x.now })
			}
		}
		x.to(Open, "", procNames[p.kind]+" is done")
	case procRejoin:
		x.rejoinInc = x.In.Status.Incarnation
		x.joined("it has rejoined " + p.targets[0])
	case procToStandby, procToPrimary, procExit:
		x.to(Startup, "", procNames[p.kind]+" is done")
	}
	if p.reply != nil {
		x.answer(*p.reply, 0, "%s is done", procNames[p.kind])
	}
	if p.cmdID != "" {
		x.Last = p.cmdID
	}
}

func (x *m) procFailed(why string) {
	p := x.p
	x.p = nil
	x.log("sequence failed", "what", procNames[p.kind], "error", why)
	x.notBefore, x.lastFail = x.now.Add(procPause), procNames[p.kind]+" failed: "+why
	if p.reply != nil {
		x.answer(*p.reply, codeFail, "%s failed: %s", procNames[p.kind], why)
	}
	switch p.kind {
	case procExit:
		if x.ready() {
			x.kill("it did not shut down: " + why)
		}
		x.to(Startup, "", "shutting down failed")
	case procStandbyCheck:
		if n := p.steps[0].Inst; x.known(n) != nil {
			x.change(n, func(v *interval) { v.untold = x.now })
		}
		x.to(Open, "", procNames[p.kind]+" failed: "+why)
	case procFailover, procReopen:
		if x.W == Failover {
			x.to(Open, "", procNames[p.kind]+" failed: "+why)
		}
	default:
		if p.kind == procOpen && x.In.Status.Status == base.StatusSuspend {
			// Its open record could not be sent: what Failover leaves behind is
			// recovered as after any opening.
			x.opened()
		}
		if x.Held == nil && x.W != Shutdown {
			x.to(Startup, "", procNames[p.kind]+" failed: "+why)
		}
	}
}

// endProc drops the sequence because of something outside it.
func (x *m) endProc(why string) {
	if x.p == nil {
		return
	}
	p := x.p
	x.p = nil
	x.log("sequence ends", "what", procNames[p.kind], "why", why)
	if p.reply != nil {
		x.answer(*p.reply, codeInst, "%s: %s", procNames[p.kind], why)
	}
}

// ask puts drop_claim or drop_keep to the watchers in the map before p goes on.
func (x *m) ask(p *proc, cmds map[string]string, evidence string) {
	p.asked, p.askedAt = map[string]uint64{}, x.now
	for _, n := range sorted(cmds) {
		p.asked[n] = x.tell(n, proto.WatcherCommand{Cmd: cmds[n], Evidence: evidence}, pend{kind: pendAsk})
	}
	x.Sub = "ASK STANDBY WATCHERS"
}

// asked takes an answer of that round.
func (x *m) asked(n string, req uint64, err string) {
	p := x.p
	if p == nil || p.asked[n] != req {
		return
	}
	delete(p.asked, n)
	if err != "" {
		x.procFailed("the watcher of " + n + " does not agree: " + err)
		return
	}
	if len(p.asked) > 0 {
		return
	}
	switch p.kind {
	case procOpen:
		x.openAsked()
	case procFailover:
		x.next()
	}
}

func setArch(inst string, st base.ArchState) proto.InstanceCommand {
	return proto.InstanceCommand{Cmd: proto.CmdSetArch, Inst: inst, State: st}
}

func setMode(mode base.Mode) proto.InstanceCommand {
	return proto.InstanceCommand{Cmd: proto.CmdSetMode, Mode: mode}
}

func simple(cmd string) proto.InstanceCommand { return proto.InstanceCommand{Cmd: cmd} }
