package fsm_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/confirm"
	"datawatch/internal/ha/fsm"
	"datawatch/internal/ha/proto"
)

type mwatch struct {
	name    string
	me      string // its end of connections
	di      string // that of its instance
	up      bool
	inc     int
	incName string
	seq     uint64
	st      fsm.State
	ctl     bool
	desc    string
	stepped time.Time     // its newest event
	skew    time.Duration // its clock has jumped
	// frozen: the process is stopped; what arrives waits.
	frozen  bool
	backlog []fsm.Event
}

// line of the trace; its text is made when somebody reads it.
type line struct {
	at time.Time
	f  string
	a  []any
}

func (l line) String() string {
	return fmt.Sprintf("%7.2f ", l.at.Sub(time.Unix(1e9, 0)).Seconds()) + fmt.Sprintf(l.f, l.a...)
}

// tester is what the world needs of testing.T and rapid.T.
type tester interface {
	Helper()
	Fatalf(string, ...any)
	Log(...any)
}

// world is a whole group with faults: databases, watchers and one confirm
// monitor, over links that lose everything in flight when they break.
type world struct {
	t        tester
	now      time.Time
	rng      *rand.Rand
	names    []string
	cfg      fsm.Config
	dbs      map[string]*mdb
	ws       map[string]*mwatch
	mon      confirm.State
	monUp    bool
	timely   bool  // archives
	noLease  bool  // primaries acknowledge whatever time has passed
	noWait   bool  // standbys become primary whatever they have promised
	old      bool  // instances do not know the order ended
	idle     bool  // clients write nothing
	every    int64 // milliseconds between two reports without news
	beat     int64 // milliseconds between two ticks of the monitor
	monInc   int
	rec      confirm.Record
	cut      map[string]bool
	slowEnds bool                 // a process that is killed may take its time to end
	lagging  map[string]time.Time // links of databases with answers later than the lease, since when
	ends     map[[2]string]*end
	conns    []conn
	muted    []*end
	viewer   confirm.State // an ordinary monitor beside the confirm monitor
	viewed   bool
	noMon    bool            // nobody confirms
	monHeld  []confirm.Event // of a stopped monitor
	monStop  bool
	dropped  bool // the monitor has dropped its connections
	monSkew  time.Duration
	slow     bool // the monitor's disk takes its time, and fails
	q        queue
	n        int
	opens    int
	next     uint64
	acked    []uint64
	late     []string // who acknowledged between two turns of the clients
	faults   []string
	trace    []line
	replies  map[uint64]func(proto.WatcherReply)
	reqs     uint64
	granted  *confirm.Reserved
	did      [numDeeds]int
	forge    bool // watchers decide as in MANUAL mode and claim AUTO
	mutate   func(fsm.Action) fsm.Action
}

func newWorld(t tester, seed uint64, n int, cfg fsm.Config) *world {
	w := &world{t: t, every: 200, beat: 100, now: time.Unix(1e9, 0), rng: rand.New(rand.NewPCG(seed, 1)), cfg: cfg, dbs: map[string]*mdb{}, ws: map[string]*mwatch{}, cut: map[string]bool{}, lagging: map[string]time.Time{},
		ends: map[[2]string]*end{}, replies: map[uint64]func(proto.WatcherReply){}}
	for i := range n {
		w.names = append(w.names, string(rune('A'+i)))
	}
	for i, name := range w.names {
		d := &mdb{w: w, name: name, ep: "d:" + name, mode: base.ModeStandby}
		if i == 0 {
			d.mode = base.ModePrimary
		}
		d.append(entry{open: &base.OpenRecord{ID: 1, TGUID: "first", CurInst: "A", Apply: []base.Position{{}}}})
		w.dbs[name] = d
		w.ws[name] = &mwatch{name: name, me: "w:" + name, di: "i:" + name}
	}
	w.connect()
	return w
}

func auto() fsm.Config {
	return fsm.Config{Group: "G", Global: true, Auto: true, ErrorTime: 5 * time.Second, InstErrorTime: 5 * time.Second, RecoverTime: 10,
		AutoRestart: true, Reconnect: true, FailoverForce: true, StartupCmd: "x"}
}

func (w *world) bad(f string, a ...any) { w.faults = append(w.faults, fmt.Sprintf(f, a...)) }

func (w *world) log(f string, a ...any) { w.trace = append(w.trace, line{w.now, f, a}) }

// traceLines of a failed life are shown.
var traceLines = 120

// text is the trace, or the last lines of it.
func (w *world) text(last int) string {
	var b strings.Builder
	for _, l := range w.trace[max(0, len(w.trace)-last):] {
		b.WriteString(l.String() + "\n")
	}
	return b.String()
}

func (w *world) startWatcher(name string) {
	x := w.ws[name]
	if x.up {
		return
	}
	c := w.cfg
	c.Name = name
	for _, n := range w.names {
		if n != name {
			c.Remotes = append(c.Remotes, n)
		}
	}
	x.up, x.inc = true, x.inc+1
	x.incName = fmt.Sprintf("%s-%d", x.name, x.inc)
	x.frozen, x.backlog = false, nil
	x.st = fsm.New(c, x.ctl, x.desc, w.now.Add(x.skew))
}

func (w *world) startMonitor() {
	if w.monUp || w.noMon {
		return
	}
	w.monHeld, w.monStop = nil, false
	w.monUp, w.monInc = true, w.monInc+1
	w.mon = confirm.New(confirm.Config{Group: "G", ErrorTime: w.cfg.ErrorTime, Addrs: w.names}, w.rec, w.now.Add(w.monSkew))
}

func (w *world) ev(name string, e fsm.Event) {
	x := w.ws[name]
	if !x.up {
		return
	}
	if x.frozen {
		x.backlog = append(x.backlog, e)
		return
	}
	x.stepped = w.now
	acts := x.st.Advance(e, w.now.Add(x.skew))
	if f := x.st.Fault(); f != "" {
		w.bad("undeclared transition at %s: %s", name, f)
	}
	if h := x.st.Held; h != nil && x.st.W.String() != proto.StateOf(h.Kind) {
		w.bad("the watcher of %s is in %s while command %s holds it", name, x.st.W, h.Kind)
	}
	for _, a := range acts {
		if w.mutate != nil {
			a = w.mutate(a)
		}
		w.act(x, a)
	}
}

// thaw lets a stopped watcher go on: it finds what has arrived meanwhile.
func (w *world) thaw(name string) {
	x := w.ws[name]
	if !x.frozen {
		return
	}
	l := x.backlog
	x.frozen, x.backlog = false, nil
	for _, e := range l {
		w.ev(name, e)
	}
}

func (w *world) act(x *mwatch, a fsm.Action) {
	me := x.me
	d := w.dbs[x.name]
	switch e := a.(type) {
	case fsm.SendInst:
		di := x.di
		inc := d.inc
		var exec func()
		exec = func() {
			if !d.up || d.inc != inc {
				return
			}
			if d.hung {
				w.after(ms(100), exec) // a stopped process does it when it goes on
				return
			}
			if d.mustWait(e.Cmd) {
				w.after(ms(100), exec)
				return
			}
			if d.lease.half != nil && d.release() { // what was under way comes first
				w.late = append(w.late, d.name)
			}
			last := d.report()
			code, msg := d.do(e.Cmd)
			st := proto.InstanceStatus{}
			if d.up {
				st = d.report()
			} else if e.Cmd.Cmd == proto.CmdShutdown { // it says so before it goes
				st, st.Status = last, base.StatusShutdown
				w.after(ms(1), func() { w.ev(x.name, fsm.InstStatus{Status: st}) })
			}
			w.send(di, me, func() {
				w.ev(x.name, fsm.InstReply{Req: e.Req, Reply: proto.InstanceReply{Code: code, Msg: msg, Status: st}})
			})
		}
		w.send(me, di, exec)
	case fsm.TellRemote:
		if !w.end(me, w.ws[e.Inst].me).up {
			w.after(0, func() { w.ev(x.name, fsm.RemoteReply{Inst: e.Inst, Req: e.Req, Err: "down"}) })
			return
		}
		w.command(me, e.Inst, x.name, "", e.Cmd, func(r proto.WatcherReply) {
			w.ev(x.name, fsm.RemoteReply{Inst: e.Inst, Req: e.Req, Reply: r})
		})
	case fsm.AskConfirm:
		e.Request.Status = w.fill(x, e.Request.Status)
		w.send(me, "m:", func() {
			id := e.Req<<8 | uint64(x.name[0])
			w.replies[id] = nil
			w.monStep(confirm.Ask{ID: id, Req: e.Request})
		})
	case fsm.Answer:
		if f := w.replies[e.To.Conn]; f != nil {
			e.Reply.Status = w.fill(x, e.Reply.Status)
			delete(w.replies, e.To.Conn)
			f(e.Reply)
		}
	case fsm.KillInst:
		if d.up && e.PID == d.pid() {
			d.crash()
			w.log("%s killed by its watcher", x.name)
		}
	case fsm.StartInst:
		w.after(ms(300), func() {
			if d.up {
				w.ev(x.name, fsm.Started{Err: "already running"})
				return
			}
			d.start()
			w.ev(x.name, fsm.Started{PID: d.pid()})
		})
	case fsm.WriteCtl:
		x.ctl, x.desc = true, e.Desc
		w.wasSplit(x, e.Desc)
	case fsm.Broadcast:
		w.broadcast(x)
	case fsm.Log:
		if e.Event == "sequence done" && e.Attrs[1] == "failover" {
			w.did[didFailover] = 1
		}
		w.log("%s %s %v", x.name, e.Event, e.Attrs)
	}
}

// command sends a WatcherCommand from endpoint `from` to the watcher of inst.
func (w *world) command(from, inst, fromInst, mon string, c proto.WatcherCommand, done func(proto.WatcherReply)) {
	to := w.ws[inst].me
	w.send(from, to, func() {
		w.reqs++
		conn := w.reqs
		w.replies[conn] = func(r proto.WatcherReply) { w.send(to, from, func() { done(r) }) }
		w.ev(inst, fsm.Command{From: fromInst, MonID: mon, To: fsm.Reply{Conn: conn, Req: 1}, Cmd: c})
	})
}

func (w *world) fill(x *mwatch, st proto.WatcherStatus) proto.WatcherStatus {
	if w.forge {
		st.Config.Mode = "AUTO"
	}
	st.Seq, st.Incarnation = x.seq, x.incName
	return st
}

func (w *world) broadcast(x *mwatch) {
	x.seq++
	st := w.fill(x, x.st.Report(x.seq, w.now.Add(x.skew)))
	var said fsm.Event = fsm.RemoteStatus{Inst: x.name, Status: st} // one for all: nobody changes it
	for _, n := range w.names {
		if n != x.name {
			w.send(x.me, w.ws[n].me, func() { w.ev(n, said) })
		}
	}
	var told confirm.Event = confirm.Report{Addr: x.name, Status: st}
	w.send(x.me, "m:", func() { w.monStep(told) })
	if w.viewed {
		w.send(x.me, "v:", func() { w.view(told) })
	}
}

func (w *world) monStep(e confirm.Event) {
	if !w.monUp {
		return
	}
	if w.monStop {
		w.monHeld = append(w.monHeld, e)
		return
	}
	acts := w.mon.Advance(e, w.now.Add(w.monSkew))
	inc := w.monInc
	for _, a := range acts {
		switch e := a.(type) {
		case confirm.Persist:
			w.persist(e)
		case confirm.Answer:
			name := string(rune(e.ID & 0xff))
			w.send("m:", "w:"+name, func() { w.ev(name, fsm.ConfirmReply{Req: e.ID >> 8, Reply: e.Reply}) })
		case confirm.SendGrant:
			g := e.Grant
			w.command("m:", e.Inst, "", "mon", proto.WatcherCommand{Cmd: proto.DWCmdTakeover, ID: fmt.Sprint("g", g.Term, "-", inc), Mon: "mon", Grant: &g},
				func(r proto.WatcherReply) { w.monStep(confirm.GrantReply{Term: g.Term, OK: r.Code == 0, Msg: r.Msg}) })
		case confirm.Reserved:
			w.granted = &e
		case confirm.SendExitOld:
			w.command("m:", e.Inst, "", "mon", proto.WatcherCommand{Cmd: proto.DWCmdExitOld, ID: fmt.Sprint("x", w.reqs), Mon: "mon", Evidence: e.Evidence},
				func(proto.WatcherReply) {})
		case confirm.Reconnect:
			w.reconnect()
		case confirm.Tell:
			w.log("monitor: %s", e.Text)
		}
	}
}

// persist writes the monitor's record: at once, late, or not. What a crash cuts
// off, or what fails, may have reached the disk all the same.
func (w *world) persist(e confirm.Persist) {
	inc, took, fails, reaches := w.monInc, 10, false, false
	if w.slow {
		took, fails, reaches = 10+w.rng.IntN(1500), w.rng.IntN(4) == 0, w.rng.IntN(2) == 0
	}
	w.after(ms(took), func() {
		lost := !w.monUp || w.monInc != inc
		if reaches && w.monInc == inc || !lost && !fails {
			w.rec = e.Record
		}
		switch {
		case lost:
		case fails:
			w.monStep(confirm.PersistFailed{Seq: e.Seq, Why: "disk full"})
		default:
			w.monStep(confirm.Persisted{Seq: e.Seq})
		}
	})
}

// thawMonitor lets a stopped monitor go on. Its connections hold what arrived
// meanwhile, until it drops them.
func (w *world) thawMonitor() {
	l := w.monHeld
	w.monHeld, w.monStop = nil, false
	w.dropped = false
	for _, e := range l {
		switch e.(type) {
		case confirm.Report, confirm.Ask, confirm.Link:
			if w.dropped {
				continue
			}
		}
		w.monStep(e)
	}
}

// reconnect breaks all connections of the monitor; they come back at once.
func (w *world) reconnect() {
	w.dropped = true
	w.after(0, func() {
		for _, c := range w.conns {
			if c.mon && c.up {
				c.up = false
				c.epoch++
				c.downf()
			}
		}
	})
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for w.now.Before(end) {
		w.now = w.now.Add(ms(50))
		w.links()
		for len(w.q) > 0 && !w.q[0].at.After(w.now) {
			if e := w.q.pop(); e.pipe == nil || e.pipe.up && e.pipe.epoch == e.epoch {
				e.run()
			}
		}
		k := w.now.Sub(time.Unix(1e9, 0)).Milliseconds()
		for _, n := range w.names {
			x, d := w.ws[n], w.dbs[n]
			d.chatter()
			if k%200 == 0 && d.up && !d.hung {
				st := fsm.InstStatus{Status: d.report()}
				w.send(x.di, x.me, func() { w.ev(n, st) })
			}
			if !x.up {
				continue
			}
			if !x.frozen && w.now.Sub(x.stepped) >= ms(100) { // any event lets time pass
				w.ev(n, fsm.Tick{})
			}
			if k%w.every == 0 {
				if !x.frozen {
					w.broadcast(x)
				}
				if !w.monStop {
					w.send("m:", x.me, func() { w.ev(n, fsm.MonStatus{ID: "mon"}) })
				}
				if w.viewed {
					w.send("v:", x.me, func() { w.ev(n, fsm.MonStatus{ID: "view"}) })
				}
			}
		}
		if k%w.beat == 0 && !w.monStop {
			w.monStep(confirm.Tick{})
		}
		w.clients()
		if len(w.faults) > 0 {
			return
		}
	}
}

// clients write to whatever takes a write: G3 is that at most one does.
func (w *world) clients() {
	got := w.late
	w.late = nil
	for _, n := range w.names {
		w.next++
		half := w.dbs[n].lease.half != nil
		if !w.idle && w.dbs[n].commit(w.next) {
			if !half {
				w.acked = append(w.acked, w.next)
			}
			if !slices.Contains(got, n) { // one that was late may go on
				got = append(got, n)
			}
		}
	}
	if len(got) > 1 && (w.cfg.Auto || w.forge) {
		w.bad("G3: %v acknowledged commits at the same moment", got)
	}
}

// healthy: one Open primary, everything else a Valid, Open standby.
func (w *world) healthy() string {
	prim := ""
	for _, n := range w.names {
		d := w.dbs[n]
		if d.up && d.mode == base.ModePrimary && d.status == base.StatusOpen {
			prim += n
		}
	}
	if len(prim) != 1 {
		return "primaries: " + prim
	}
	for _, n := range w.names {
		d := w.dbs[n]
		if st := w.ws[n].st; st.W != fsm.Open {
			return fmt.Sprintf("the watcher of %s is %s: %s", n, st.W, strings.Join(st.Why, "; "))
		}
		if n != prim && (!d.up || d.mode != base.ModeStandby || d.status != base.StatusOpen || w.dbs[prim].arch[n].state != base.ArchValid) {
			return fmt.Sprintf("%s is up %v %s/%s archive %s", n, d.up, d.mode, d.status, w.dbs[prim].arch[n].state)
		}
	}
	return ""
}

// becomes runs until the group is healthy, and tells whether it is in time.
func (w *world) becomes(limit time.Duration) bool {
	for end := w.now.Add(limit); w.now.Before(end) && len(w.faults) == 0; {
		w.run(ms(500))
		if w.healthy() == "" {
			return len(w.faults) == 0
		}
		w.byHand(limit - end.Sub(w.now))
	}
	return false
}

// settle runs until healthy, or fails.
func (w *world) settle(limit time.Duration) {
	w.t.Helper()
	if w.becomes(limit) {
		return
	}
	w.fail()
	var waits strings.Builder
	for _, n := range w.names {
		if g := w.ws[n]; g != nil {
			fmt.Fprintf(&waits, "%s waits: %v\n", n, g.st.Why)
		}
	}
	w.t.Fatalf("not healthy after %s: %s\n%s%s", limit, w.healthy(), w.text(traceLines), waits.String())
}

func (w *world) fail() {
	w.t.Helper()
	if len(w.faults) > 0 {
		w.t.Fatalf("%s\n%s", strings.Join(w.faults, "\n"), w.text(traceLines))
	}
}

// personDecided: in MANUAL mode a person took over, and did without what a primary
// that nobody could ask had done alone (manual 6.6).
func (w *world) personDecided() bool { return !w.cfg.Auto && w.did[didCommandTakeover] > 0 }

// durable: every acknowledged commit is in the primary's log.
func (w *world) durable() {
	w.t.Helper()
	have := map[uint64]bool{}
	for _, n := range w.names {
		d := w.dbs[n]
		if d.up && d.mode == base.ModePrimary && d.status == base.StatusOpen {
			for _, e := range d.log {
				have[e.id] = true
			}
		}
	}
	for _, id := range w.acked {
		if !have[id] && !w.personDecided() {
			w.t.Fatalf("acknowledged commit %d is lost", id)
		}
	}
}

func (w *world) startAll() {
	for _, n := range w.names {
		w.dbs[n].start()
		w.startWatcher(n)
	}
	w.startMonitor()
}
