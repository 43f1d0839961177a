package fsm_test

import (
	"fmt"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/fsm"
	"datawatch/internal/ha/proto"
)

// entry is one package of a modelled database: a commit, or the record of an
// opening.
type entry struct {
	id   uint64 // of the commit; 0 for an opening
	open *base.OpenRecord
}

type marc struct {
	state  base.ArchState
	failed bool
	slow   time.Duration // how long a send takes
	lag
}

// mdb models a database with realtime or timely archives: what it has on disk,
// what it keeps in memory, and the rules of the server's manual.
type mdb struct {
	w       *world
	name    string
	ep      string // its end of MAL links
	up      bool
	hung    bool
	inc     int
	incName string
	goneAt  time.Time // when its watcher hears that the process that was killed has ended
	mode    base.Mode // on disk
	status  base.Status
	log     []entry // on disk
	lin     base.Lineage
	seq     uint64
	// memory
	keep     *entry
	arch     map[string]*marc
	pending  *entry // not hardened
	logged   bool   // it is the end of the log
	claim    string
	claimID  uint64
	normal   bool
	dieNext  bool
	lease    mlease
	replay   time.Duration // how long replaying a package takes
	archFull string        // its local archive has no space: it takes nothing
	full     bool          // its disk: it cannot be opened from Suspend
}

func (d *mdb) pos(n int) base.Position { return base.Position{Seq: base.Seq(n), LSN: base.LSN(n)} }

func (d *mdb) start() {
	if d.up {
		return
	}
	d.dieNext, d.lease, d.logged = false, mlease{}, false
	d.up, d.hung, d.inc, d.status, d.keep, d.pending, d.claim, d.normal = true, false, d.inc+1, base.StatusMount, nil, nil, "", false
	d.incName = fmt.Sprintf("%s%d", d.name, d.inc)
	d.arch = map[string]*marc{}
	for _, n := range d.w.names {
		if n != d.name {
			d.arch[n] = &marc{state: base.ArchValid}
		}
	}
}

func (d *mdb) crash() {
	if d.up {
		pid, name, news := d.pid(), d.name, ms(20)
		if d.w.slowEnds && d.w.now.UnixMilli()%3 == 0 { // the process takes its time to end: its memory, its files
			news = ms(1500)
		}
		d.goneAt = d.w.now.Add(news)
		d.w.after(news, func() { d.w.ev(name, fsm.InstGone{PID: pid}) })
	}
	d.harden() // a restart finds in the log what is there
	d.up, d.keep, d.pending, d.claim, d.lease = false, nil, nil, "", mlease{}
}

func (d *mdb) append(e entry) {
	d.log = append(d.log, e)
	if e.open != nil {
		d.lin = d.lin.Append(*e.open)
	}
}

// accept is the receiving side: the redo must continue what is there and come
// from a database of the same lineage.
func (d *mdb) accept(from *mdb, e entry, at int) bool {
	if !d.up || d.hung || d.mode != base.ModeStandby || d.status != base.StatusOpen || d.lease.frozen {
		return false
	}
	ok := d.take(from, e, at)
	if ok {
		d.lease.promised, d.lease.to = d.w.now, from.incName
	}
	return ok
}

func (d *mdb) take(from *mdb, e entry, at int) bool {
	if d.w.timely {
		return d.takeTimely(from, e, at)
	}
	have := len(d.log)
	if d.keep != nil {
		have++
	}
	if have == at+1 && (d.keep != nil && same(*d.keep, e) || d.keep == nil && same(d.log[at], e)) {
		return true // sent again
	}
	if have != at || from.lin.Last().TGUID != d.fullLin().Last().TGUID {
		return false
	}
	if d.keep != nil {
		d.append(*d.keep)
	}
	d.keep = &e
	return true
}

// fullLin is the lineage with a kept opening counted.
func (d *mdb) fullLin() base.Lineage {
	if d.keep != nil && d.keep.open != nil {
		return d.lin.Append(*d.keep.open)
	}
	return d.lin
}

func same(a, b entry) bool {
	if a.open != nil || b.open != nil {
		return a.open != nil && b.open != nil && a.open.TGUID == b.open.TGUID
	}
	return a.id == b.id
}

// ship sends a package to every Valid standby; then it is on the own disk.
func (d *mdb) ship(e entry) bool {
	if d.w.timely {
		return d.shipTimely(e)
	}
	ok := d.sendAll(e, d.hardened())
	if d.dieNext && !d.logged {
		d.crash() // after the send, before the local write
		return false
	}
	if !ok {
		d.pending, d.status = &e, base.StatusSuspend
		return false
	}
	d.write(e)
	if d.stall(e) {
		return false
	}
	d.harden()
	return true
}

// write puts a package on the own disk.
func (d *mdb) write(e entry) {
	if !d.logged {
		d.log, d.pending, d.logged = append(d.log, e), &e, true
	}
}

// harden ends the way of the package that is the end of the log, if one is
// under way.
func (d *mdb) harden() {
	if d.logged && d.pending.open != nil {
		d.lin = d.lin.Append(*d.pending.open)
	}
	if d.logged {
		d.pending, d.logged = nil, false
	}
}

// hardened is the length of the log without the package under way.
func (d *mdb) hardened() int {
	if d.logged {
		return len(d.log) - 1
	}
	return len(d.log)
}

// sendAll sends a package to every Valid standby.
func (d *mdb) sendAll(e entry, at int) bool {
	ok := true
	for _, n := range d.w.names {
		a := d.arch[n]
		if a == nil || a.state != base.ArchValid {
			continue
		}
		s := d.w.dbs[n]
		a.failed = !(d.w.passes(d, s) && s.accept(d, e, at) && d.w.passes(s, d) && d.inTime(a, s))
		ok = ok && !a.failed
	}
	return ok
}

// commit is a client's write; true means acknowledged.
func (d *mdb) commit(id uint64) bool {
	if d.up && !d.hung && d.lease.half != nil {
		return d.release()
	}
	if !d.up || d.hung || d.mode != base.ModePrimary || d.status != base.StatusOpen || d.waitsForLease() {
		return false
	}
	return d.ship(entry{id: id})
}

// chatter is what flows on MAL links without being asked for.
func (d *mdb) chatter() {
	if !d.up || d.hung {
		return
	}
	d.probe()
	for _, n := range d.w.names {
		s := d.w.dbs[n]
		if n == d.name || !d.w.speaks(d, s) || d.mode != base.ModePrimary || s.mode != base.ModeStandby || !s.up || s.hung || !d.w.passes(d, s) {
			continue
		}
		if r, _ := d.lin.Compare(s.lin); r != base.Equal && r != base.RemoteContained {
			continue
		}
		// Whatever the primary hardened may be replayed.
		if s.keep != nil && d.hardened() > len(s.log) && same(*s.keep, d.log[len(s.log)]) {
			s.append(*s.keep)
			s.keep = nil
		}
		if d.arch[n].state == base.ArchValid && d.status != base.StatusMount {
			// Only a standby that has what it must have is told so.
			have := len(s.log)
			if s.keep != nil {
				have++
			}
			if h := d.hardened(); have != h && (d.pending == nil || have != h+1) {
				continue
			}
			s.claim, s.claimID = d.name, d.lin.Last().ID
		} else if s.claim == d.name && !d.arch[n].failed { // a failed send decides nothing
			s.claim = ""
		}
	}
}

func (d *mdb) do(c proto.InstanceCommand) (base.Code, string) {
	fail := func(f string, a ...any) (base.Code, string) { return -1, fmt.Sprintf(f, a...) }
	switch c.Cmd {
	case proto.CmdOpen:
		switch {
		case d.mode != base.ModePrimary:
			d.status, d.lease.frozen = base.StatusOpen, false
		case d.status == base.StatusOpen:
		case d.status == base.StatusSuspend && d.full:
			return fail("the database is suspended: disk is full")
		case d.status == base.StatusSuspend && d.w.timely && d.undecided() != "":
			return fail("the send to %s has failed, and nothing is decided about it", d.undecided())
		case d.status == base.StatusSuspend:
			d.status = base.StatusOpen
			for _, a := range d.arch {
				a.failed = false
			}
			if d.pending != nil && !d.ship(*d.pending) {
				return fail("send failed again")
			}
		default:
			d.w.opens++
			r := &base.OpenRecord{ID: d.lin.Last().ID + 1, TGUID: fmt.Sprintf("%s-%d", d.name, d.w.opens), CurInst: d.name,
				Apply: []base.Position{d.pos(len(d.log))}}
			d.status = base.StatusOpen
			if !d.ship(entry{open: r}) {
				return fail("send failed at open")
			}
		}
	case proto.CmdMount:
		if d.status == base.StatusSuspend {
			return fail("suspended")
		}
		d.status = base.StatusMount
	case proto.CmdSuspend:
		if d.status != base.StatusOpen && d.status != base.StatusSuspend {
			return fail("not open")
		}
		d.status = base.StatusSuspend
	case proto.CmdSetMode:
		if d.mode != c.Mode && d.status != base.StatusMount {
			return fail("not mounted")
		}
		d.mode, d.lease.frozen = c.Mode, false
		if d.mode == base.ModePrimary {
			d.claim = ""
		}
	case proto.CmdSetArch:
		if c.Told && c.State == base.ArchInvalid && d.mode == base.ModePrimary && (!d.w.both(d, d.w.dbs[c.Inst]) || d.w.lags(d, d.w.dbs[c.Inst])) {
			return fail("cannot be told")
		}
		for _, n := range d.w.names {
			if a := d.arch[n]; a != nil && (c.Inst == "" || c.Inst == n) {
				if c.State == base.ArchValid && (a.late || !d.inTime(a, d.w.dbs[n])) {
					return fail("its answers are too late")
				}
				a.state = c.State
				if c.State == base.ArchInvalid {
					a.failed = false
				}
			}
		}
	case proto.CmdApplyKeep:
		if d.keep != nil {
			d.append(*d.keep)
			d.keep = nil
		}
	case proto.CmdEnded:
		return d.told(c)
	case proto.CmdDropKeep:
		if d.mode != base.ModeStandby {
			return fail("no standby")
		}
		d.keep, d.lease.frozen = nil, false
	case proto.CmdArchSend:
		s := d.w.dbs[c.Inst]
		if !d.w.both(d, s) || !s.up || s.hung || s.mode != base.ModeStandby || s.status != base.StatusOpen || s.keep != nil || !d.inTime(d.arch[c.Inst], s) {
			return fail("cannot send")
		}
		// The standby takes nothing of a lineage that its own does not begin
		// (G5): a primary that stood still sends to who has gone on meanwhile.
		if r, _ := d.lin.Compare(s.lin); r != base.Equal && r != base.RemoteContained {
			return fail("refused")
		}
		for i, e := range s.log {
			if i >= len(d.log) || !same(e, d.log[i]) {
				d.w.bad("%s and %s differ at package %d: recovery would overwrite", d.name, s.name, i)
				return fail("gap")
			}
		}
		for _, e := range d.log[len(s.log):max(len(s.log), d.hardened())] {
			s.append(e)
		}
	case proto.CmdShutdown:
		d.crash()
		d.normal = c.How == "normal"
	}
	return 0, ""
}

func (d *mdb) pid() int { return 1000*int(d.name[0]) + d.inc }

func (d *mdb) report() proto.InstanceStatus {
	d.seq++
	at := d.pos(len(d.log))
	st := proto.InstanceStatus{Seq: d.seq, PID: d.pid(), Incarnation: d.incName, InstName: d.name,
		Mode: d.mode, Status: d.status, PmntMagic: 7, Cur: at, File: at, Apply: at, Stand: at, Keep: at, Replay: at,
		RecentReplays: 8, ReplayTime: 8 * d.replay.Microseconds(),
		ArchFull: d.archFull,
		Lineage:  d.lin, ValidClaim: d.claim != "", ValidClaimFrom: d.claim, ValidClaimID: d.claimID}
	if d.keep != nil {
		st.Keep = d.pos(len(d.log) + 1)
	}
	st.Archives, st.Links = make([]proto.ArchStatus, 0, len(d.w.names)), make([]proto.MALLink, 0, len(d.w.names))
	for _, n := range d.w.names {
		if n == d.name {
			continue
		}
		st.Archives = append(st.Archives, proto.ArchStatus{Inst: n, Type: d.w.archType(), State: d.arch[n].state, SendFailed: d.arch[n].failed, Late: d.arch[n].late,
			RecentSends: 8, RecentTime: 8 * d.arch[n].slow.Microseconds()})
		o := d.w.dbs[n]
		st.Links = append(st.Links, proto.MALLink{Inst: n, Connected: o.up && !o.hung && d.w.both(d, o)})
	}
	return st
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }
