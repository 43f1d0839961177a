package fsm_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
	"datawatch/internal/ha/walktest"

	"pgregory.net/rapid"
)

// What the model of a database has of timely archives and of the lease
// (repl/standby.Promise).
const (
	promiseTime = 3 * time.Second
	leaseTime   = promiseTime * 5 / 6
)

// mlease is what a database knows of promises.
type mlease struct {
	// half: the primary stood still between the answers to a package, sent at
	// sent, and the acknowledgement of its commit.
	half  *entry
	sent  time.Time
	stall bool // it will, at the next commit

	frozen   bool      // a standby that accepts nothing (ApplyKeep)
	promised time.Time // when it last took a package
	to       string    // from which process
	ended    []string  // processes that it was told have ended
}

func (w *world) archType() base.ArchType {
	if w.timely {
		return base.ArchTimely
	}
	return base.ArchRealtime
}

// undecided names a standby whose archive a failed send has made Invalid.
func (d *mdb) undecided() string {
	for _, n := range d.w.names {
		if a := d.arch[n]; a != nil && a.failed && a.state == base.ArchInvalid {
			return n
		}
	}
	return ""
}

// shipTimely is the way of a package with timely archives: the own disk first.
// One that was under way when a send failed goes on there.
func (d *mdb) shipTimely(e entry) bool {
	if !d.logged {
		d.write(e)
		if d.dieNext {
			d.crash() // after the local write, before the send
			return false
		}
	}
	if !d.sendAll(e, d.hardened()) {
		for _, a := range d.arch {
			if a.failed {
				a.state = base.ArchInvalid
			}
		}
		d.status = base.StatusSuspend
		return false
	}
	if d.stall(e) {
		return false
	}
	d.harden()
	return true
}

// takeTimely is the receiving side: what comes is replayed at once.
func (d *mdb) takeTimely(from *mdb, e entry, at int) bool {
	if len(d.log) == at+1 && same(d.log[at], e) {
		return true // sent again
	}
	if len(d.log) != at || from.lin.Last().TGUID != d.lin.Last().TGUID {
		return false
	}
	d.append(e)
	return true
}

// stall lets the process stand still before it acknowledges a commit.
func (d *mdb) stall(e entry) bool {
	if !d.lease.stall || e.open != nil {
		return false
	}
	d.w.log("%s stands still with commit %d everywhere and not acknowledged", d.name, e.id)
	d.lease.stall, d.hung = false, true
	d.lease.half, d.lease.sent = &e, d.w.now
	return true
}

// release acknowledges the commit that a process which goes on again holds,
// unless somebody may have become primary meanwhile.
func (d *mdb) release() bool {
	e := *d.lease.half
	d.lease.half = nil
	if d.w.now.Sub(d.lease.sent) >= leaseTime && !d.w.noLease {
		if !d.sendAll(e, d.hardened()) {
			d.w.log("%s does not acknowledge commit %d: it may be no primary any more", d.name, e.id)
			for _, a := range d.arch {
				if d.w.timely && a.failed {
					a.state = base.ArchInvalid
				}
			}
			d.status = base.StatusSuspend
			return false
		}
	}
	d.w.log("%s acknowledges commit %d late", d.name, e.id)
	d.w.did[didLate]++
	d.harden()
	d.w.acked = append(d.w.acked, e.id)
	return true
}

// mustWait tells whether an order has to wait until what was promised to an old
// primary is over; the standby takes nothing from then on.
func (d *mdb) mustWait(c proto.InstanceCommand) bool {
	if d.mode != base.ModeStandby || c.Cmd != proto.CmdApplyKeep && (c.Cmd != proto.CmdSetMode || c.Mode != base.ModePrimary) {
		return false
	}
	d.lease.frozen = true
	d.lease.ended = append(d.lease.ended, c.Ended...)
	return !d.w.noWait && d.promises()
}

// promises: what it promised to an old primary is not over.
func (d *mdb) promises() bool {
	return d.w.now.Sub(d.lease.promised) < promiseTime && !slices.Contains(d.lease.ended, d.lease.to)
}

// told is the order ended.
func (d *mdb) told(c proto.InstanceCommand) (base.Code, string) {
	if d.w.old {
		return -1, "unknown instance command"
	}
	waited := d.lease.frozen && d.promises()
	d.lease.ended = append(d.lease.ended, c.Ended...)
	if waited && !d.promises() {
		d.w.did[didEnded]++
	}
	return 0, ""
}

// goOn lets a process that stood still go on.
func (w *world) goOn(name string) {
	d := w.dbs[name]
	d.hung, d.lease.stall = false, false
}

// reigns is the primary of the newest reign, whether it runs at this moment or not.
func (w *world) reigns() *mdb {
	var p *mdb
	for _, n := range w.names {
		if d := w.dbs[n]; d.mode == base.ModePrimary && (p == nil || p.lin.Last().ID < d.lin.Last().ID) {
			p = d
		}
	}
	return p
}

// wasSplit judges a database that its watcher has marked split: only a primary
// with timely archives can have redo that the others are without, and none of it
// was acknowledged (manual 2.2.15).
func (w *world) wasSplit(x *mwatch, desc string) {
	d, p := w.dbs[x.name], w.reigns()
	if !w.timely && !w.personDecided() || p == nil {
		w.bad("%s was marked split: %s", x.name, desc)
		return
	}
	w.did[didSplit]++
	acked := map[uint64]bool{}
	for _, id := range w.acked {
		acked[id] = true
	}
	for i, e := range d.log {
		if i < len(p.log) && same(e, p.log[i]) {
			continue
		}
		if acked[e.id] && !w.personDecided() {
			w.bad("%s was marked split with acknowledged commit %d: %s", x.name, e.id, desc)
		}
	}
}

// byHand is what a person does about a group with timely archives that has not
// become healthy for a while.
func (w *world) byHand(waited time.Duration) {
	if !w.timely && !w.personDecided() {
		return
	}
	w.rebuild()
	if waited%time.Minute >= ms(500) || waited < time.Minute {
		return
	}
	// Two primaries in Mount, one with redo that the other is without, or one and a
	// standby with such redo: watchers do not choose (manual 3.6, 6.7). The one that
	// opened last does not lack anything acknowledged.
	asked := false
	var ps []*mdb
	for _, n := range w.names {
		if d := w.dbs[n]; d.up && d.mode == base.ModePrimary && d.status == base.StatusMount {
			ps = append(ps, d)
			asked = asked || strings.Contains(strings.Join(w.ws[n].st.Why, "; "), "`open database "+n)
		}
	}
	if len(ps) < 2 && !asked || w.primary() != "" {
		return
	}
	best := ps[0]
	for _, d := range ps[1:] {
		if rel, _ := best.lin.Compare(d.lin); rel == base.LocalContained {
			best = d
		}
	}
	w.did[didByHand]++
	w.log("COMMAND open database %s", best.name)
	id := fmt.Sprint("of", w.reqs)
	for _, c := range []proto.WatcherCommand{{Cmd: proto.DWCmdBegin, Kind: proto.KindOpenForce},
		{Cmd: proto.DWCmdStep, Order: &proto.InstanceCommand{Cmd: proto.CmdSetArch, State: base.ArchInvalid}},
		{Cmd: proto.DWCmdStep, Order: &proto.InstanceCommand{Cmd: proto.CmdOpen}}, {Cmd: proto.DWCmdEnd}} {
		c.ID = id
		if r, ok := w.ask(best.name, c); !ok || r.Code != 0 {
			w.log("COMMAND open database: %v %s", ok, r.Msg)
			return
		}
	}
}

// rebuild is what a person does about a split database: a copy of the primary.
func (w *world) rebuild() {
	p := w.dbs[w.primary()]
	if p == nil {
		return
	}
	for _, n := range w.names {
		x, d := w.ws[n], w.dbs[n]
		if !x.ctl || d == p {
			continue
		}
		w.log("REBUILD %s from %s", n, p.name)
		d.crash()
		x.up = false
		w.links()
		d.log = append([]entry(nil), p.log[:p.hardened()]...)
		d.lin, d.mode = append(base.Lineage(nil), p.lin...), base.ModeStandby
		x.ctl, x.desc = false, ""
		d.start()
		w.startWatcher(n)
		w.links()
	}
}

// pauseHost stops database and watcher of a machine at once: a paused virtual
// machine. The database stops in the middle of a commit if it makes one.
func (w *world) pauseHost(n string) {
	w.log("FAULT pause host of %s", n)
	w.did[didPause]++
	w.ws[n].frozen = true
	if d := w.dbs[n]; d.mode == base.ModePrimary && d.status == base.StatusOpen && !w.idle {
		d.lease.stall = true
	} else {
		d.hung = true
	}
}

// TestTimelyWalks: as TestRandomWalks, with timely archives.
func TestTimelyWalks(t *testing.T) {
	walktest.Run(t, 25, func(rt *rapid.T) {
		cfg := auto()
		cfg.Reconnect = rapid.Bool().Draw(rt, "reconnect")
		cfg.FailoverForce = rapid.Bool().Draw(rt, "force")
		w := newWorld(rt, rapid.Uint64().Draw(rt, "seed"), rapid.IntRange(2, 4).Draw(rt, "databases"), cfg)
		w.timely = true
		w.walk(rapid.SliceOfN(rapid.IntRange(0, 1<<14), 1, 25).Draw(rt, "faults"))
	})
}

// TestTimelyPrimaryAhead: a primary dies with a commit on its disk that no
// standby has (manual 2.2.15). Nobody was told of it. When a standby has taken
// over, the old primary is split; when none could, it opens again and its
// standby gets that commit too.
func TestTimelyPrimaryAhead(t *testing.T) {
	for _, over := range []bool{true, false} {
		t.Run(fmt.Sprint("takeover ", over), func(t *testing.T) {
			w := newWorld(t, 1, 2, auto())
			w.timely = true
			w.startAll()
			w.settle(time.Minute)
			w.run(5 * time.Second)
			a, b := w.dbs["A"], w.dbs["B"]
			if !over {
				w.monUp = false
				w.links()
				w.run(time.Second)
			}
			a.dieNext = true
			for a.up {
				w.run(ms(50))
			}
			if len(a.log) != len(b.log)+1 {
				t.Fatalf("A has %d packages, B %d", len(a.log), len(b.log))
			}
			ahead := a.log[len(a.log)-1].id
			for _, id := range w.acked {
				if id == ahead {
					t.Fatal("it was acknowledged")
				}
			}
			w.run(20 * time.Second)
			if got := w.ws["A"].ctl; got != over {
				t.Fatalf("A is split: %v, want %v\n%s", got, over, w.text(traceLines))
			}
			w.repair()
			w.settle(time.Minute)
			w.durable()
			p := w.dbs[w.primary()]
			if has := len(p.log) > 0 && strings.Contains(fmt.Sprint(ids(p)), fmt.Sprintf(" %d ", ahead)); has == over || (p.name == "B") != over {
				t.Fatalf("primary %s has commit %d: %v", p.name, ahead, has)
			}
		})
	}
}

func ids(d *mdb) []uint64 {
	out := []uint64{0}
	for _, e := range d.log {
		out = append(out, e.id)
	}
	return append(out, 0)
}

// TestPausedHost: the machine of the primary, or only its database, stands
// still in the middle of a commit, for any time; meanwhile the standby takes
// over, by itself or by command. When the old primary goes on it must not
// acknowledge that commit while another database is primary (G3). Without the
// lease, or without the wait of a takeover, that is what happens.
func TestPausedHost(t *testing.T) {
	for _, m := range []struct {
		name            string
		noLease, noWait bool
	}{{"as built", false, false}, {"without the lease", true, false}, {"without the wait", false, true}} {
		for _, timely := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/timely %v", m.name, timely), func(t *testing.T) {
				violated, late := "", 0
				for at := range 40 {
					cfg := auto()
					cfg.ErrorTime, cfg.InstErrorTime = time.Second, time.Second
					w := newWorld(t, uint64(at), 2, cfg)
					w.timely, w.noLease, w.noWait = timely, m.noLease, m.noWait
					w.startAll()
					w.settle(time.Minute)
					w.run(5 * time.Second)
					w.pauseHost("A")
					w.run(time.Duration(at) * 200 * time.Millisecond)
					w.thaw("A")
					w.goOn("A")
					w.run(3 * time.Second)
					late += w.did[didLate]
					if len(w.faults) > 0 {
						violated = strings.Join(w.faults, "\n")
						continue
					}
					w.repair()
					w.settle(2 * time.Minute)
					w.durable()
				}
				if mutated := m.noLease || m.noWait; mutated != strings.Contains(violated, "G3") {
					t.Fatalf("G3 violated: %q", violated)
				}
				if late == 0 {
					t.Fatal("nothing was ever acknowledged after a pause")
				}
			})
		}
	}
}
