package fsm

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// TestRules reads testdata/rules: what the watcher of A does, whose group has B
// and C, in one situation after another. `go test -run TestRules -rewrite` writes
// the answers anew.
//
//	scene ROLE     everything is normal: A is Primary or Standby (of B) and Open
//	set K=V ...    changes the situation (scene.set lists what there is)
//	ev KIND ...    an event (scene.event lists them)
//	reply [WHY] [code=N]    answers the oldest order to the instance
//	said INST [WHY]         answers the oldest question to that watcher
//	still TIME              the watcher stands still so long
//	pass TIME      time passes; who is not said to be silent reports every 200 ms
//
// The answer is what it did, its state, and what it says it waits for.
func TestRules(t *testing.T) {
	datadriven.Walk(t, "testdata/rules", func(t *testing.T, path string) {
		var c *scene
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var words []string
			for _, a := range d.CmdArgs {
				words = append(words, a.String())
			}
			if d.Cmd == "scene" {
				c = newScene(words[0])
				words = words[1:]
				d.Cmd = "set"
			}
			c.out.Reset()
			switch d.Cmd {
			case "set":
				for _, w := range append(words, strings.Fields(d.Input)...) {
					k, v, _ := strings.Cut(w, "=")
					if !c.set(k, v) {
						d.Fatalf(t, "unknown: set %s", w)
					}
				}
				return ""
			case "ev":
				e := c.event(words)
				if e == nil {
					d.Fatalf(t, "unknown: ev %v", words)
				}
				c.do(e)
			case "reply":
				c.reply(words)
			case "said":
				c.said(words[0], strings.Join(words[1:], " "))
			case "still":
				n, err := time.ParseDuration(words[0])
				if err != nil {
					d.Fatalf(t, "%v", err)
				}
				c.now = c.now.Add(n)
				c.do(Tick{})
			case "pass":
				n, err := time.ParseDuration(words[0])
				if err != nil {
					d.Fatalf(t, "%v", err)
				}
				c.pass(n)
			default:
				d.Fatalf(t, "unknown: %s", d.Cmd)
			}
			return c.result()
		})
	})
}

type scene struct {
	s      State
	now    time.Time
	silent map[string]bool
	orders []SendInst
	tells  []TellRemote
	asks   []AskConfirm
	out    strings.Builder
	seq    uint64
}

func history(spec string) base.Lineage {
	var l base.Lineage
	for i, w := range strings.Split(spec, ",") {
		r := base.OpenRecord{ID: uint64(i + 1), TGUID: w, CurInst: "B"}
		if g, at, ok := strings.Cut(w, "@"); ok {
			n, _ := strconv.Atoi(at)
			r.TGUID, r.Apply = g, []base.Position{at2(n)}
		}
		if id, g, ok := strings.Cut(r.TGUID, ":"); ok {
			n, _ := strconv.Atoi(id)
			r.ID, r.TGUID = uint64(n), g
		}
		if g, ok := strings.CutPrefix(r.TGUID, "own-"); ok {
			r.TGUID, r.CurInst = g, "A"
		}
		l = append(l, r)
	}
	return l
}

func at2(n int) base.Position { return base.Position{Seq: base.Seq(n), LSN: base.LSN(n)} }

func instance(name string, mode base.Mode) proto.InstanceStatus {
	in := proto.InstanceStatus{PID: 100 + int(name[0]), Incarnation: name + "1", InstName: name, Mode: mode, Status: base.StatusOpen, PmntMagic: 7,
		File: at2(10), Apply: at2(10), Stand: at2(10), Keep: at2(10), Lineage: history("x,y@5")}
	for _, o := range []string{"A", "B", "C"} {
		if o != name {
			in.Archives = append(in.Archives, proto.ArchStatus{Inst: o, Type: base.ArchRealtime, State: base.ArchValid})
			in.Links = append(in.Links, proto.MALLink{Inst: o, Connected: true})
		}
	}
	return in
}

func newScene(role string) *scene {
	c := &scene{now: time.Unix(1e9, 0).UTC(), silent: map[string]bool{}}
	c.s = New(Config{Group: "G", Name: "A", Remotes: []string{"B", "C"}, Global: true, Auto: true, ErrorTime: 5 * time.Second,
		InstErrorTime: 5 * time.Second, RecoverTime: 10, AutoRestart: true, Reconnect: true, FailoverForce: true, StartupCmd: "run"}, false, "", c.now)
	own, first := base.ModePrimary, base.ModeStandby
	if role == "standby" {
		own, first = base.ModeStandby, base.ModePrimary
	}
	c.now = c.now.Add(time.Minute)
	c.s.stepAt, c.s.eraAt, c.s.era = c.now, c.now, 5
	c.s.W, c.s.Since, c.s.unwatched = Open, c.now, false
	c.s.In = Inst{Link: true, Known: true, OK: true, Heard: c.now, Status: instance("A", own)}
	c.s.okSince = c.now.Add(-time.Minute)
	for _, n := range []string{"B", "C"} {
		in := instance(n, first)
		first = base.ModeStandby
		*c.s.known(n) = Remote{Link: true, UpAt: c.now, Known: true, Heard: c.now, LastInst: in,
			Status: proto.WatcherStatus{Incarnation: "w" + n, State: proto.DWOpen, CtlStatus: proto.CtlValid, InstOK: true, Inst: in}}
	}
	if role == "standby" {
		c.s.In.Status.ValidClaim, c.s.In.Status.ValidClaimFrom = true, "B"
		c.s.claim = claim{from: "B"}
	}
	c.s.told = (&m{State: &c.s, now: c.now}).digest(nil)
	return c
}

// statuses, modes and so on by the names they print.
func named[T interface {
	~uint8
	fmt.Stringer
}](s string) T {
	for i := range 32 {
		if strings.EqualFold(T(i).String(), strings.ReplaceAll(s, "_", " ")) {
			return T(i)
		}
	}
	panic("no such name: " + s) // in a file of testdata
}

// set changes one thing: of A's instance, of its watcher, or, with a prefix, of
// another watcher and its instance.
func (c *scene) set(k, v string) bool {
	n, _ := strconv.Atoi(v)
	if inst, key, ok := strings.Cut(k, "."); ok {
		return c.setRemote(inst, key, v, n)
	}
	s, in := &c.s, &c.s.In.Status
	switch k {
	case "watcher":
		s.W, _ = stateOf(strings.ReplaceAll(v, "_", " "))
	case "back":
		s.back, _ = stateOf(v)
	case "held":
		s.Held = &Held{ID: "h", Kind: v, Mon: "mon", MonID: "mon", Last: c.now}
	case "busy":
		s.Held.Busy = true
	case "last":
		s.Last = v
	case "local":
		s.Cfg.Global = false
	case "manual":
		s.Cfg.Auto = false
	case "alone":
		s.Cfg.Remotes, s.remotes = nil, nil
	case "force":
		s.Cfg.FailoverForce = n == 1
	case "rejoin":
		s.Cfg.Rejoin = n == 1
	case "servicecheck":
		s.Cfg.ServiceCheck = n == 1
	case "restart":
		s.Cfg.AutoRestart = n == 1
	case "reconnect":
		s.Cfg.Reconnect = n == 1
	case "startcmd":
		s.Cfg.StartupCmd = v
	case "threshold":
		s.Cfg.ApplyThresh = n
	case "send_threshold":
		s.Cfg.SendThreshold = n
	case "split":
		s.Ctl, s.CtlDesc = proto.CtlSplit, v
	case "monitor":
		s.Mons["mon"] = Monitor{Confirm: v == "confirm", Since: c.now, Seen: c.now}
	case "term":
		s.term = uint64(n)
	case "unsure":
		s.unsure = true
	case "unwatched":
		s.unwatched = true
	case "claim":
		s.claim, in.ValidClaim, in.ValidClaimFrom = claim{from: v}, v != "", v
	case "began":
		s.Begun, s.okSince = c.now, c.now
	case "starting":
		s.starting, s.startPID, s.startedAt = true, n, c.now
	case "told_exit":
		s.exitInc = in.Incarnation
	case "ok":
		s.In.OK = n == 1
		s.In.Lost = c.now
	case "link":
		s.In.Link = n == 1
	case "known":
		s.In.Known = n == 1
	case "gone":
		s.In.Gone, s.In.OK, s.In.Link, s.In.Lost = true, false, false, c.now
	case "normal":
		s.In.Normal = true
	case "silent":
		c.silent["A"] = true
	default:
		return setInst(in, k, v, n)
	}
	return true
}

func setInst(in *proto.InstanceStatus, k, v string, n int) bool {
	switch k {
	case "mode":
		in.Mode = named[base.Mode](v)
	case "status":
		in.Status = named[base.Status](v)
	case "inc":
		in.Incarnation = v
	case "pid":
		in.PID = n
	case "magic":
		in.PmntMagic = base.Magic(n)
	case "log": // File, Apply, Keep
		in.File, in.Apply, in.Stand, in.Keep = at2(n), at2(n), at2(n), at2(n)
	case "stand":
		in.Stand = at2(n)
	case "keep":
		in.Keep = at2(n)
	case "history":
		in.Lineage = history(v)
		if v == "" {
			in.Lineage = nil
		}
	case "exiting":
		in.ExitingNormal = true
	case "replays":
		in.RecentReplays, in.ReplayTime = 1, int64(n)*1e6
	case "arch_unnamed":
		in.Archives = append([]proto.ArchStatus{{Inst: v, State: base.ArchValid, SendFailed: true}}, in.Archives[1:]...)
	case "archives":
		in.Archives = append([]proto.ArchStatus(nil), in.Archives...)
		for i := range in.Archives {
			in.Archives[i].State = named[base.ArchState](v)
		}
	default:
		return false
	}
	return true
}

func (c *scene) setRemote(inst, k, v string, n int) bool {
	r, own := c.s.known(inst), &c.s.In.Status
	if r == nil {
		return false
	}
	switch k {
	case "silent":
		c.silent[inst] = true
		r.Heard = c.now.Add(-time.Minute)
	case "unknown":
		*r = Remote{}
		c.silent[inst] = true
	case "link":
		r.Link = n == 1
	case "ok":
		r.Status.InstOK = n == 1
	case "gone":
		r.Status.InstOK, r.Status.InstGone = false, n == 1
	case "state":
		r.Status.State = v
	case "ctl":
		r.Status.CtlStatus = v
	case "cmd":
		r.Status.Cmd = &proto.HeldCommand{Kind: v}
	case "claim":
		r.Status.Inst.ValidClaim = n == 1
	case "confirm":
		r.Status.Monitors = []proto.MonitorInfo{{ID: "m", Confirm: true}}
	case "arch", "failed", "mal", "slow", "late":
		for i := range own.Archives {
			if own.Archives[i].Inst != inst {
				continue
			}
			switch k {
			case "arch":
				own.Archives[i].State = named[base.ArchState](v)
			case "failed":
				own.Archives[i].SendFailed = n == 1
			case "slow":
				own.Archives[i].RecentSends, own.Archives[i].RecentTime = 1, int64(n)*1e6
			case "late":
				own.Archives[i].Late = n == 1
			case "mal":
				own.Links[i].Connected = n == 1
			}
		}
	default:
		if !setInst(&r.Status.Inst, k, v, n) {
			return false
		}
		r.LastInst = r.Status.Inst
	}
	return true
}

// event makes an event: NAME k=v ...
func (c *scene) event(words []string) Event {
	a := map[string]string{}
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		if k == "err" || k == "kind" || k == "why" || k == "evidence" {
			v = strings.ReplaceAll(v, "_", " ")
		}
		a[k] = v
	}
	n := func(k string) int { i, _ := strconv.Atoi(a[k]); return i }
	switch words[0] {
	case "tick":
		return Tick{}
	case "inst-up":
		return InstUp{PID: c.s.In.Status.PID}
	case "inst-down":
		return InstDown{Gone: a["gone"] != ""}
	case "inst-gone":
		return InstGone{PID: n("pid")}
	case "inst-status":
		st := c.s.In.Status
		for k, v := range a {
			if k == "seq" {
				st.Seq = uint64(n(k))
			} else if !setInst(&st, k, v, n(k)) {
				return nil
			}
		}
		return InstStatus{st}
	case "started":
		return Started{PID: n("pid"), Err: a["err"]}
	case "remote-up":
		return RemoteUp{words[1]}
	case "remote-down":
		return RemoteDown{words[1]}
	case "remote-status":
		st := c.s.remote(words[1]).Status
		for k, v := range a {
			if k != words[1] && !setInst(&st.Inst, k, v, n(k)) {
				return nil
			}
		}
		return RemoteStatus{words[1], st}
	case "remote-reply":
		return RemoteReply{Inst: words[1], Req: 999}
	case "inst-reply":
		return InstReply{Req: 999}
	case "monitor":
		return MonUp{ID: "mon", Confirm: true}
	case "monitor-down":
		return MonDown{words[1]}
	case "confirm":
		e := ConfirmReply{Req: 999, Reply: proto.ConfirmReply{Granted: a["granted"] != "", Term: 9, Why: a["why"]}, Err: a["err"]}
		if len(c.asks) > 0 {
			e.Req, c.asks = c.asks[0].Req, c.asks[1:]
		}
		return e
	case "service":
		return Service{Why: a["why"]}
	case "ctl-saved":
		return CtlSaved{Err: a["err"]}
	}
	if _, ok := cmdEvents[words[0]]; !ok {
		return nil
	}
	era := c.s.era
	if a["era"] != "" {
		era = uint64(n("era"))
	}
	cmd := Command{To: Reply{1, 1}, Cmd: proto.WatcherCommand{Cmd: words[0], ID: "1", Mon: "mon", Kind: a["kind"], Name: a["name"], Value: a["value"],
		Inst: a["inst"], Force: a["force"] != "", Era: era, Evidence: a["evidence"]}, From: a["from"], MonID: a["mon"]}
	if v, ok := a["id"]; ok {
		cmd.Cmd.ID = v
	}
	if o := a["order"]; o != "" {
		cmd.Cmd.Order = &proto.InstanceCommand{Cmd: o}
		if m := a["mode"]; m != "" {
			cmd.Cmd.Order.Mode = named[base.Mode](m)
		}
	}
	if old := a["old"]; old != "" {
		cmd.Cmd.Grant = &proto.Grant{Term: uint64(n("term")), OldPrimary: old, Lineage: uint64(n("reign")), MinKeep: at2(n("need")), Era: era}
	}
	return cmd
}

func (c *scene) do(e Event) {
	var acts []Action
	c.s, acts = Step(c.s, e, c.now)
	for _, a := range acts {
		switch e := a.(type) {
		case SendInst:
			c.orders = append(c.orders, e)
			fmt.Fprintf(&c.out, "order %s", e.Cmd.Cmd)
			if e.Cmd.Inst != "" {
				c.out.WriteString(" " + e.Cmd.Inst)
			}
			switch e.Cmd.Cmd {
			case proto.CmdSetArch:
				c.out.WriteString(" " + e.Cmd.State.String())
			case proto.CmdSetMode:
				c.out.WriteString(" " + e.Cmd.Mode.String())
			case proto.CmdShutdown:
				c.out.WriteString(" because: " + e.Cmd.Evidence)
			}
			for _, inc := range e.Cmd.Ended {
				c.out.WriteString(" ended:" + inc)
			}
			c.out.WriteString("\n")
		case TellRemote:
			c.tells = append(c.tells, e)
			fmt.Fprintf(&c.out, "tell %s %s\n", e.Inst, e.Cmd.Cmd)
		case AskConfirm:
			c.asks = append(c.asks, e)
			fmt.Fprintf(&c.out, "ask %s about %s\n", e.Mon, strings.Join(e.Request.Failed, ","))
		case Answer:
			fmt.Fprintf(&c.out, "answer %d %s\n", e.Reply.Code, e.Reply.Msg)
		case Log:
			if e.Event == "order" || e.Event == "watcher state" || e.Event == "sequence begins" {
				continue
			}
			fmt.Fprintf(&c.out, "log: %s", e.Event)
			for i := 0; i+1 < len(e.Attrs); i += 2 {
				fmt.Fprintf(&c.out, " %v=%v", e.Attrs[i], e.Attrs[i+1])
			}
			c.out.WriteString("\n")
		case Broadcast:
		case WriteCtl:
			fmt.Fprintf(&c.out, "write the control file: %s\n", e.Desc)
		default:
			fmt.Fprintf(&c.out, "%s %+v\n", strings.TrimPrefix(fmt.Sprintf("%T", a), "fsm."), a)
		}
	}
}

// reply answers the oldest order; what a good one does to the instance is set by hand.
func (c *scene) reply(words []string) {
	if len(c.orders) == 0 {
		c.out.WriteString("(nothing was ordered)\n")
		return
	}
	o := c.orders[0]
	c.orders = c.orders[1:]
	e := InstReply{Req: o.Req}
	for _, w := range words {
		if v, ok := strings.CutPrefix(w, "code="); ok {
			n, _ := strconv.Atoi(v)
			e.Reply.Code = base.Code(n)
		} else {
			e.Err = strings.ReplaceAll(w, "_", " ")
		}
	}
	c.do(e)
}

func (c *scene) said(inst, why string) {
	for i, q := range c.tells {
		if q.Inst != inst {
			continue
		}
		c.tells = append(c.tells[:i:i], c.tells[i+1:]...)
		e := RemoteReply{Inst: inst, Req: q.Req, Reply: proto.WatcherReply{Msg: strings.ReplaceAll(why, "_", " "), Status: c.s.remote(inst).Status}}
		if why != "" {
			e.Reply.Code = codeFail
		}
		c.do(e)
		return
	}
	c.out.WriteString("(nothing was asked)\n")
}

func (c *scene) pass(d time.Duration) {
	for end := c.now.Add(d); c.now.Before(end); {
		c.now = c.now.Add(100 * time.Millisecond)
		if c.now.UnixMilli()%200 == 0 {
			if !c.silent["A"] && c.s.In.Link {
				c.seq++
				st := c.s.In.Status
				st.Seq = max(st.Seq, c.seq)
				c.do(InstStatus{st})
			}
			for _, n := range c.s.Cfg.Remotes {
				if !c.silent[n] {
					c.do(RemoteStatus{n, c.s.remote(n).Status})
				}
			}
			for id := range c.s.Mons {
				c.do(MonStatus{id})
			}
		}
		c.do(Tick{})
	}
}

func (c *scene) result() string {
	fmt.Fprintf(&c.out, "%s", c.s.W)
	if c.s.Sub != "" {
		fmt.Fprintf(&c.out, " (%s)", c.s.Sub)
	}
	if c.s.effectiveClaim() {
		c.out.WriteString(" may take over")
	}
	c.out.WriteString("\n")
	for _, w := range c.s.Why {
		c.out.WriteString("  waits: " + w + "\n")
	}
	if c.s.fault != "" {
		c.out.WriteString("FAULT " + c.s.fault + "\n")
	}
	return c.out.String()
}
