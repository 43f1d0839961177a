package fsm_test

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/confirm"
	"datawatch/internal/ha/fsm"
	"datawatch/internal/ha/proto"
)

type mwatch struct {
	name string
	up   bool
	inc  int
	seq  uint64
	st   fsm.State
	ctl  bool
	desc string
	// frozen: the process is stopped; what arrives waits.
	frozen  bool
	backlog []fsm.Event
}

type event struct {
	at  time.Time
	n   int
	run func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].n < q[j].n
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(v any)   { *q = append(*q, v.(event)) }
func (q *queue) Pop() any {
	o := *q
	v := o[len(o)-1]
	*q = o[:len(o)-1]
	return v
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
	t       tester
	now     time.Time
	rng     *rand.Rand
	names   []string
	cfg     fsm.Config
	dbs     map[string]*mdb
	ws      map[string]*mwatch
	mon     confirm.State
	monUp   bool
	idle    bool // clients write nothing
	monInc  int
	rec     confirm.Record
	cut     map[string]bool
	up      map[string]bool // links as last seen
	epoch   map[string]int
	last    map[string]time.Time // in-order delivery
	q       queue
	n       int
	opens   int
	next    uint64
	acked   map[uint64]bool
	faults  []string
	trace   []string
	replies map[uint64]func(proto.WatcherReply)
	reqs    uint64
	granted *confirm.Reserved
	did     [numDeeds]int
	forge   bool // watchers decide as in MANUAL mode and claim AUTO
	mutate  func(fsm.Action) fsm.Action
}

func newWorld(t tester, seed uint64, n int, cfg fsm.Config) *world {
	w := &world{t: t, now: time.Unix(1e9, 0), rng: rand.New(rand.NewPCG(seed, 1)), cfg: cfg, dbs: map[string]*mdb{}, ws: map[string]*mwatch{},
		cut: map[string]bool{}, up: map[string]bool{}, epoch: map[string]int{}, last: map[string]time.Time{}, acked: map[uint64]bool{},
		replies: map[uint64]func(proto.WatcherReply){}}
	for i := range n {
		w.names = append(w.names, string(rune('A'+i)))
	}
	for i, name := range w.names {
		d := &mdb{w: w, name: name, mode: base.ModeStandby}
		if i == 0 {
			d.mode = base.ModePrimary
		}
		d.append(entry{open: &base.OpenRecord{ID: 1, TGUID: "first", CurInst: "A", Apply: []base.Position{{}}}})
		w.dbs[name] = d
		w.ws[name] = &mwatch{name: name}
	}
	return w
}

func auto() fsm.Config {
	return fsm.Config{Group: "G", Global: true, Auto: true, ErrorTime: 5 * time.Second, InstErrorTime: 5 * time.Second, RecoverTime: 10,
		AutoRestart: true, Reconnect: true, FailoverForce: true, StartupCmd: "x"}
}

func (w *world) bad(f string, a ...any) { w.faults = append(w.faults, fmt.Sprintf(f, a...)) }

func (w *world) log(f string, a ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%7.2f ", w.now.Sub(time.Unix(1e9, 0)).Seconds())+fmt.Sprintf(f, a...))
}

func link(a, b string) string {
	if a > b {
		a, b = b, a
	}
	return a + "|" + b
}

func (w *world) reach(a, b string) bool { return !w.cut[link(a, b)] }

func (w *world) after(d time.Duration, f func()) {
	w.n++
	heap.Push(&w.q, event{w.now.Add(d), w.n, f})
}

// send delivers over a link, in order, unless the link breaks meanwhile.
func (w *world) send(a, b string, f func()) {
	l := link(a, b)
	if !w.up[l] {
		return
	}
	at := w.now.Add(ms(1 + w.rng.IntN(60)))
	if w.rng.IntN(40) == 0 {
		at = at.Add(ms(w.rng.IntN(1500)))
	}
	key := a + ">" + b
	if at.Before(w.last[key]) {
		at = w.last[key]
	}
	w.last[key] = at
	ep := w.epoch[l]
	w.n++
	heap.Push(&w.q, event{at, w.n, func() {
		if w.epoch[l] == ep && w.up[l] {
			f()
		}
	}})
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
	x.frozen, x.backlog = false, nil
	x.st = fsm.New(c, x.ctl, x.desc, w.now)
}

func (w *world) startMonitor() {
	if w.monUp {
		return
	}
	w.monUp, w.monInc = true, w.monInc+1
	w.mon = confirm.New(confirm.Config{Group: "G", ErrorTime: w.cfg.ErrorTime, Addrs: w.names}, w.rec, w.now)
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
	var acts []fsm.Action
	x.st, acts = fsm.Step(x.st, e, w.now)
	if f := x.st.Fault(); f != "" {
		w.bad("undeclared transition at %s: %s", name, f)
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
	me := "w:" + x.name
	d := w.dbs[x.name]
	switch e := a.(type) {
	case fsm.SendInst:
		di := "i:" + x.name
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
			code, msg := d.do(e.Cmd)
			st := proto.InstanceStatus{}
			if d.up {
				st = d.report()
			}
			w.send(di, me, func() {
				w.ev(x.name, fsm.InstReply{Req: e.Req, Reply: proto.InstanceReply{Code: code, Msg: msg, Status: st}})
			})
		}
		w.send(me, di, exec)
	case fsm.TellRemote:
		if !w.up[link(me, "w:"+e.Inst)] {
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
		if d.up && e.PID == d.report().PID {
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
			w.ev(x.name, fsm.Started{PID: d.report().PID})
		})
	case fsm.WriteCtl:
		x.ctl, x.desc = true, e.Desc
		w.bad("%s was marked split: %s", x.name, e.Desc)
	case fsm.Broadcast:
		w.broadcast(x)
	case fsm.Log:
		w.log("%s %s %v", x.name, e.Event, e.Attrs)
	}
}

// command sends a WatcherCommand from endpoint `from` to the watcher of inst.
func (w *world) command(from, inst, fromInst, mon string, c proto.WatcherCommand, done func(proto.WatcherReply)) {
	to := "w:" + inst
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
	st.Seq, st.Incarnation = x.seq, fmt.Sprintf("%s-%d", x.name, x.inc)
	return st
}

func (w *world) broadcast(x *mwatch) {
	x.seq++
	st := w.fill(x, x.st.Report(x.seq, w.now))
	for _, n := range w.names {
		if n != x.name {
			w.send("w:"+x.name, "w:"+n, func() { w.ev(n, fsm.RemoteStatus{Inst: x.name, Status: st}) })
		}
	}
	w.send("w:"+x.name, "m:", func() { w.monStep(confirm.Report{Addr: x.name, Status: st}) })
}

func (w *world) monStep(e confirm.Event) {
	if !w.monUp {
		return
	}
	var acts []confirm.Action
	w.mon, acts = confirm.Step(w.mon, e, w.now)
	inc := w.monInc
	for _, a := range acts {
		switch e := a.(type) {
		case confirm.Persist:
			w.after(ms(10), func() {
				if w.monUp && w.monInc == inc {
					w.rec = e.Record
					w.monStep(confirm.Persisted{Seq: e.Seq})
				}
			})
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
		case confirm.Tell:
			w.log("monitor: %s", e.Text)
		}
	}
}

// links brings connections up and down, and tells both ends.
func (w *world) links() {
	set := func(a, b string, on bool, upf, downf func()) {
		l := link(a, b)
		if on == w.up[l] {
			return
		}
		w.up[l] = on
		w.epoch[l]++
		if on {
			upf()
		} else {
			downf()
		}
	}
	for i, a := range w.names {
		x, d := w.ws[a], w.dbs[a]
		set("w:"+a, fmt.Sprintf("i:%s", a), x.up && d.up, func() { w.ev(a, fsm.InstUp{PID: d.report().PID}) },
			func() { w.ev(a, fsm.InstDown{Gone: !d.up}) })
		set("w:"+a, "m:", x.up && w.monUp && w.reach("w:"+a, "m:"), func() {
			w.ev(a, fsm.MonUp{ID: "mon", Confirm: true})
			w.monStep(confirm.Link{Addr: a, Up: true})
			w.broadcast(x)
		}, func() {
			w.ev(a, fsm.MonDown{ID: "mon"})
			w.monStep(confirm.Link{Addr: a})
		})
		for _, b := range w.names[i+1:] {
			set("w:"+a, "w:"+b, x.up && w.ws[b].up && w.reach("w:"+a, "w:"+b), func() {
				w.ev(a, fsm.RemoteUp{Inst: b})
				w.ev(b, fsm.RemoteUp{Inst: a})
			}, func() {
				w.ev(a, fsm.RemoteDown{Inst: b})
				w.ev(b, fsm.RemoteDown{Inst: a})
			})
		}
	}
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for w.now.Before(end) {
		w.now = w.now.Add(ms(50))
		w.links()
		for len(w.q) > 0 && !w.q[0].at.After(w.now) {
			e := heap.Pop(&w.q).(event)
			e.run()
		}
		k := w.now.Sub(time.Unix(1e9, 0)).Milliseconds()
		for _, n := range w.names {
			x, d := w.ws[n], w.dbs[n]
			d.chatter()
			if k%200 == 0 && d.up && !d.hung {
				st := d.report()
				w.send("i:"+n, "w:"+n, func() { w.ev(n, fsm.InstStatus{Status: st}) })
			}
			if !x.up {
				continue
			}
			if k%100 == 0 && !x.frozen {
				w.ev(n, fsm.Tick{})
			}
			if k%200 == 0 {
				if !x.frozen {
					w.broadcast(x)
				}
				w.send("m:", "w:"+n, func() { w.ev(n, fsm.MonStatus{ID: "mon"}) })
			}
		}
		if k%100 == 0 {
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
	var got []string
	for _, n := range w.names {
		w.next++
		if !w.idle && w.dbs[n].commit(w.next) {
			w.acked[w.next] = true
			got = append(got, n)
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

// settle runs until healthy, or fails.
func (w *world) settle(limit time.Duration) {
	w.t.Helper()
	for end := w.now.Add(limit); w.now.Before(end); {
		w.run(ms(500))
		if len(w.faults) > 0 {
			break
		}
		if w.healthy() == "" {
			return
		}
	}
	w.fail()
	for _, n := range w.names {
		if g := w.ws[n]; g != nil {
			w.t.Log(fmt.Sprintf("%s waits: %v", n, g.st.Why))
		}
	}
	w.t.Fatalf("not healthy after %s: %s", limit, w.healthy())
}

func (w *world) fail() {
	w.t.Helper()
	if len(w.faults) > 0 {
		n := max(0, len(w.trace)-120)
		w.t.Fatalf("%s\n%s", strings.Join(w.faults, "\n"), strings.Join(w.trace[n:], "\n"))
	}
	if h := w.healthy(); h != "" && testing.Verbose() {
		n := max(0, len(w.trace)-80)
		w.t.Log(strings.Join(w.trace[n:], "\n"))
	}
}

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
	for id := range w.acked {
		if !have[id] {
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
