package confirm

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
	"datawatch/internal/ha/walktest"
)

// A model of a group: instances and watchers that follow the rules the package
// comment relies on, links that break, messages in order per connection, and
// a monitor that crashes, freezes and has a failing disk. After every step at
// most one database may be able to acknowledge commits (G3).

type mnode struct {
	name      string
	up, wup   bool
	primary   bool
	status    base.Status
	state     string
	lineage   base.Lineage
	arch      map[string]base.ArchState
	failed    map[string]bool
	claim     bool // heard from the primary, not renounced
	claimFrom string
	claimID   uint64
	keep      base.LSN
	seq       uint64
	inc       int
	asked     uint64 // request in this stay in CONFIRM
	askFor    []string
	taking    int // steps left of a takeover
	atLoss    string
}

type msg struct {
	deliver func()
}

type model struct {
	t       *rapid.T
	nodes   []*mnode
	cut     map[string]bool // "A-B", "A-mon", ...
	toMon   map[string][]Event
	toNode  map[string][]msg
	s       State
	now     time.Time
	disk    Record
	writing *Persist
	ids     uint64
	guid    int
	// mutations that must make the invariant fail
	noDrop, noTaken, forgetDisk bool
	bad                         string // first violation, when t is nil
}

func newModel(t *rapid.T) *model {
	m := &model{t: t, cut: map[string]bool{}, toMon: map[string][]Event{}, toNode: map[string][]msg{}, now: t0, guid: 10}
	for i, n := range []string{"A", "B", "C"} {
		x := &mnode{name: n, up: true, wup: true, status: base.StatusOpen, state: proto.DWOpen, lineage: lineage(3),
			arch: map[string]base.ArchState{}, failed: map[string]bool{}, claim: i > 0, claimFrom: "A", claimID: 3, primary: i == 0, keep: 100}
		for _, o := range []string{"A", "B", "C"} {
			if o != n {
				x.arch[o] = base.ArchInvalid
				if i == 0 {
					x.arch[o] = base.ArchValid
				}
			}
		}
		m.nodes = append(m.nodes, x)
	}
	m.s = New(m.cfg(), Record{}, m.now)
	for _, x := range m.nodes {
		m.mon(Link{x.name, true})
	}
	for range 20 {
		m.pass(200 * time.Millisecond)
	}
	return m
}

func (m *model) cfg() Config {
	return Config{Group: "G", ErrorTime: 10 * time.Second, Addrs: []string{"A", "B", "C"}}
}

func link(a, b string) string {
	if a > b {
		a, b = b, a
	}
	return a + "-" + b
}

func (m *model) ok(a, b string) bool { return !m.cut[link(a, b)] }
func (m *model) node(n string) *mnode {
	for _, x := range m.nodes {
		if x.name == n {
			return x
		}
	}
	return nil
}

func (x *mnode) reign() uint64 { return x.lineage.Last().ID }

func (m *model) status(x *mnode) proto.WatcherStatus {
	x.seq++
	mode := base.ModeStandby
	if x.primary {
		mode = base.ModePrimary
	}
	s := proto.WatcherStatus{Seq: x.seq, Incarnation: "w" + x.name, Group: "G", State: x.state, CtlStatus: proto.CtlValid, InstOK: x.up, StateAtLoss: x.atLoss,
		Config: proto.GroupConfig{Type: "GLOBAL", Mode: "AUTO", ErrorTime: 10},
		Inst: proto.InstanceStatus{InstName: x.name, Incarnation: fmt.Sprint(x.inc), Mode: mode, Status: x.status, Lineage: x.lineage,
			Keep: base.Position{Seq: base.Seq(x.keep), LSN: x.keep}, ValidClaim: x.claim, ValidClaimFrom: x.claimFrom, ValidClaimID: x.claimID}}
	for _, o := range m.nodes {
		if o == x {
			continue
		}
		s.Inst.Archives = append(s.Inst.Archives, proto.ArchStatus{Inst: o.name, Type: base.ArchRealtime, State: x.arch[o.name], SendFailed: x.failed[o.name]})
		s.Inst.Links = append(s.Inst.Links, proto.MALLink{Inst: o.name, Connected: m.mal(x, o)})
		s.Remotes = append(s.Remotes, proto.RemoteView{Inst: o.name, DWLink: o.wup && m.ok(x.name, o.name), MALLink: m.mal(x, o)})
	}
	s.Era = era(m.now)
	return s
}

func (m *model) mal(a, b *mnode) bool { return a.up && b.up && m.ok(a.name, b.name) }

// mon feeds the monitor and performs its actions.
func (m *model) mon(ev Event) {
	var acts []Action
	m.s, acts = Step(m.s, ev, m.now)
	if m.noDrop {
		m.s.rec.Dropped = nil
	}
	if m.noTaken {
		m.s.rec.Taken = nil
	}
	for _, a := range acts {
		switch a := a.(type) {
		case Persist:
			m.writing = &a
		case Answer:
			m.reply(a.ID, a.Reply)
		case SendGrant:
			x := m.node(a.Inst)
			if !m.ok(a.Inst, "mon") {
				m.mon(GrantReply{Term: a.Grant.Term, Err: true})
				continue
			}
			m.toNode[a.Inst] = append(m.toNode[a.Inst], msg{func() { m.takeover(x, a.Grant) }})
		case SendExitOld:
			x := m.node(a.Inst)
			m.toNode[a.Inst] = append(m.toNode[a.Inst], msg{func() {
				if x.primary && x.up {
					m.crash(x)
				}
			}})
		case Reconnect:
			m.toMon, m.toNode = map[string][]Event{}, map[string][]msg{}
			for _, x := range m.nodes {
				x.asked = 0
			}
		}
	}
}

func (m *model) reply(id uint64, r proto.ConfirmReply) {
	for _, x := range m.nodes {
		if x.asked != id || !m.ok(x.name, "mon") {
			continue
		}
		m.toNode[x.name] = append(m.toNode[x.name], msg{func() {
			// Only in the stay in CONFIRM in which it was asked.
			if x.asked != id || x.state != proto.DWConfirm || !x.up {
				return
			}
			x.asked = 0
			if !r.Granted {
				return
			}
			for _, f := range x.askFor {
				x.arch[f] = base.ArchInvalid
			}
			m.reopen(x)
		}})
	}
}

func (m *model) reopen(x *mnode) {
	x.failed = map[string]bool{}
	x.state, x.status, x.asked = proto.DWOpen, base.StatusOpen, 0
}

// takeover is the candidate's watcher: it rechecks and mounts at once, which
// ends accepting redo; the opening follows later.
func (m *model) takeover(x *mnode, g proto.Grant) {
	old := m.node(g.OldPrimary)
	if !x.up || !x.wup || x.primary || x.status != base.StatusOpen || !x.claim || x.claimID != g.Lineage || x.reign() != g.Lineage || m.mal(x, old) || g.Era+1 < era(m.now) ||
		(old.wup && old.up && m.ok(x.name, old.name)) {
		m.toMon[x.name] = append(m.toMon[x.name], GrantReply{Term: g.Term, Msg: "refused"})
		return
	}
	x.state, x.status, x.taking = proto.DWTakeover, base.StatusMount, 2
}

func (m *model) crash(x *mnode) {
	x.up, x.claim, x.taking, x.atLoss = false, false, 0, x.state
	x.inc++
	x.failed, x.asked = map[string]bool{}, 0
	if x.wup {
		x.state = proto.DWStartup
	}
	if !x.primary && x.status != base.StatusOpen {
		x.status = base.StatusMount
	}
}

// commit is one attempt of every Open primary to acknowledge.
func (m *model) commit(x *mnode) {
	if !x.primary || !x.up || x.status != base.StatusOpen {
		return
	}
	bad := false
	for _, o := range m.nodes {
		if o == x || x.arch[o.name] != base.ArchValid {
			continue
		}
		if !m.accepts(x, o) {
			x.failed[o.name], bad = true, true
		}
	}
	if bad {
		x.status, x.state, x.asked = base.StatusSuspend, proto.DWConfirm, 0
		return
	}
	x.keep++
	for _, o := range m.nodes {
		if x.arch[o.name] == base.ArchValid && o != x {
			o.keep = x.keep
		}
	}
}

func (m *model) accepts(x, o *mnode) bool {
	return m.mal(x, o) && !o.primary && o.status == base.StatusOpen && o.taking == 0 && o.reign() == x.reign() && o.lineage.Last().TGUID == x.lineage.Last().TGUID
}

// canAck: an attempt now would be acknowledged.
func (m *model) canAck(x *mnode) bool {
	if !x.primary || !x.up || x.status != base.StatusOpen {
		return false
	}
	for _, o := range m.nodes {
		if o != x && x.arch[o.name] == base.ArchValid && !m.accepts(x, o) {
			return false
		}
	}
	return true
}

func (m *model) check() {
	var who []string
	for _, x := range m.nodes {
		if m.canAck(x) {
			who = append(who, fmt.Sprintf("%s (reign %d)", x.name, x.reign()))
		}
	}
	if len(who) > 1 {
		m.bad = fmt.Sprintf("two databases can acknowledge: %v; record %+v", who, m.disk)
		if m.t != nil {
			m.t.Fatal(m.bad)
		}
	}
}

// pass lets time go by: reports, ticks, deliveries.
func (m *model) pass(d time.Duration) {
	for end := m.now.Add(d); m.now.Before(end); {
		m.now = m.now.Add(200 * time.Millisecond)
		for _, x := range m.nodes {
			if x.wup && m.ok(x.name, "mon") {
				m.toMon[x.name] = append(m.toMon[x.name], Report{x.name, m.status(x)})
			}
			m.deliver(x)
			m.local(x)
		}
		if m.writing != nil && m.now.UnixMilli()%3 == 0 {
			m.written(true)
		}
		m.mon(Tick{})
		m.check()
	}
}

func (m *model) deliver(x *mnode) {
	for _, e := range m.toMon[x.name] {
		m.mon(e)
	}
	m.toMon[x.name] = nil
	q := m.toNode[x.name]
	m.toNode[x.name] = nil
	for _, e := range q {
		if x.wup {
			e.deliver()
		}
	}
}

// local is what a watcher does by itself.
func (m *model) local(x *mnode) {
	if !x.wup || !x.up {
		return
	}
	if x.taking > 0 {
		if x.taking--; x.taking == 0 {
			m.guid++
			x.lineage = x.lineage.Append(base.OpenRecord{ID: x.reign() + 1, TGUID: fmt.Sprint("g", m.guid)})
			x.primary, x.status, x.state = true, base.StatusOpen, proto.DWOpen
			for o := range x.arch {
				x.arch[o] = base.ArchInvalid
			}
		}
		return
	}
	newer := false
	for _, o := range m.nodes {
		if o != x && o.up && o.wup && m.ok(x.name, o.name) && o.primary && o.reign() > x.reign() && o.status == base.StatusOpen {
			newer = true
			if x.primary {
				m.crash(x)
				x.primary, x.status = false, base.StatusOpen
				return
			}
			x.lineage, x.keep = o.lineage, o.keep // recovered
			x.status, x.state = base.StatusOpen, proto.DWOpen
		}
	}
	if x.primary && x.status == base.StatusOpen && !newer {
		for _, o := range m.nodes { // recovery, and the word that it is Valid
			if o == x || !m.accepts(x, o) {
				continue
			}
			if x.arch[o.name] == base.ArchInvalid && x.state == proto.DWOpen {
				x.arch[o.name] = base.ArchValid
				o.keep = x.keep
			}
			if x.arch[o.name] == base.ArchValid {
				o.claim, o.claimFrom, o.claimID = true, x.name, x.reign()
			}
		}
	}
	if x.primary && x.status == base.StatusSuspend && x.asked == 0 && m.ok(x.name, "mon") {
		again := true
		x.askFor = nil
		for _, o := range m.nodes {
			if x.failed[o.name] {
				x.askFor = append(x.askFor, o.name)
				again = again && m.accepts(x, o)
			}
		}
		if again {
			m.reopen(x)
			return
		}
		m.ids++
		x.asked = m.ids
		m.toMon[x.name] = append(m.toMon[x.name], Ask{m.ids, proto.ConfirmRequest{Status: m.status(x), Failed: x.askFor}})
	}
}

func (m *model) written(ok bool) {
	p := m.writing
	m.writing = nil
	if !ok {
		m.mon(PersistFailed{p.Seq, "disk"})
		return
	}
	m.disk = p.Record
	m.mon(Persisted{p.Seq})
}

func (m *model) restartMonitor() {
	if m.writing != nil && m.t != nil && rapid.Bool().Draw(m.t, "written before the crash") {
		m.disk = m.writing.Record
	}
	m.writing = nil
	m.toMon = map[string][]Event{}
	if m.forgetDisk {
		m.disk = Record{}
	}
	for _, x := range m.nodes {
		x.asked = 0
	}
	m.s = New(m.cfg(), m.disk, m.now)
	for _, x := range m.nodes {
		m.mon(Link{x.name, true})
	}
}

func (m *model) step() {
	t := m.t
	pick := func() *mnode { return m.nodes[rapid.IntRange(0, 2).Draw(t, "node")] }
	switch rapid.SampledFrom([]string{"pass", "pass", "long", "cut", "isolate", "cut", "heal", "healall", "crash", "commit", "commit", "monitor", "freeze", "diskfail", "start", "watcher"}).Draw(t, "do") {
	case "pass":
		m.pass(time.Duration(rapid.IntRange(1, 8).Draw(t, "n")) * 200 * time.Millisecond)
	case "long":
		m.pass(time.Duration(rapid.IntRange(9, 26).Draw(t, "s")) * time.Second)
	case "cut":
		ends := []string{"A", "B", "C", "mon"}
		a, b := rapid.SampledFrom(ends).Draw(t, "a"), rapid.SampledFrom(ends).Draw(t, "b")
		if a != b {
			m.breakLink(a, b)
		}
	case "isolate":
		x := pick()
		for _, o := range []string{"A", "B", "C", "mon"} {
			if o != x.name {
				m.breakLink(x.name, o)
			}
		}
	case "heal", "healall":
		for _, k := range slices.Sorted(maps.Keys(m.cut)) {
			if rapid.Bool().Draw(t, "heal "+k) {
				delete(m.cut, k)
			}
		}
	case "crash":
		m.crash(pick())
	case "start":
		if x := pick(); !x.up && !x.primary {
			x.up, x.status = true, base.StatusOpen
			if x.wup {
				x.state = proto.DWOpen
			}
		}
	case "watcher":
		x := pick()
		if x.wup = !x.wup; x.wup {
			x.state, x.asked = proto.DWStartup, 0
			if x.up && x.status == base.StatusOpen {
				x.state = proto.DWOpen
			}
			if x.primary && x.up && x.status == base.StatusSuspend {
				x.state = proto.DWConfirm
			}
			x.claim = false
		} else {
			m.toMon[x.name], m.toNode[x.name] = nil, nil
			m.mon(Link{x.name, false})
		}
	case "commit":
		for _, x := range m.nodes {
			m.commit(x)
		}
	case "monitor":
		m.restartMonitor()
	case "freeze":
		m.now = m.now.Add(time.Duration(rapid.IntRange(4, 30).Draw(t, "freeze")) * time.Second)
		m.mon(Tick{})
	case "diskfail":
		if m.writing != nil {
			m.written(false)
		}
	}
	m.check()
}

func (m *model) breakLink(a, b string) {
	m.cut[link(a, b)] = true
	for _, e := range [][2]string{{a, b}, {b, a}} {
		if e[1] == "mon" {
			m.toMon[e[0]], m.toNode[e[0]] = nil, nil
			m.node(e[0]).asked = 0
			m.mon(Link{e[0], false})
		}
	}
}

func TestRandomWalksKeepG3(t *testing.T) {
	taken, failovers := 0, 0
	walktest.Run(t, 40, func(t *rapid.T) {
		m := newModel(t)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			m.step()
		}
		if m.disk.Taken != nil {
			taken++
		}
		if len(m.disk.Dropped) > 0 {
			failovers++
		}
	})
	t.Logf("walks with a takeover %d, with a standing Failover %d", taken, failovers)
	if taken == 0 || failovers == 0 {
		t.Fatal("the walks never reached a decision: they prove nothing")
	}
}

// Stories that are safe because of one rule each; without the rule the model
// must find two databases that can acknowledge.
func TestMutationsAreCaught(t *testing.T) {
	alone := func(m *model) { // A is let go on without B and C, then falls silent before it can report so
		m.breakLink("A", "B")
		m.breakLink("A", "C")
		m.commit(m.node("A"))
		for i := 0; i < 30 && !m.canAck(m.node("A")); i++ {
			m.pass(200 * time.Millisecond)
		}
		if !m.canAck(m.node("A")) {
			t.Fatal("the story went wrong: A was not let go on")
		}
		m.breakLink("A", "mon")
		m.pass(30 * time.Second)
	}
	taken := func(m *model) { // B takes over, then is out of sight when A comes back
		for _, o := range []string{"B", "C", "mon"} {
			m.breakLink("A", o)
		}
		m.commit(m.node("A"))
		m.pass(12 * time.Second)
		if !m.node("B").primary {
			t.Fatal("the story went wrong: B did not take over")
		}
		m.breakLink("B", "mon")
		m.breakLink("C", "mon")
		m.restartMonitor()
		delete(m.cut, link("A", "mon"))
		m.pass(30 * time.Second)
	}
	for name, c := range map[string]struct {
		story func(*model)
		set   func(*model)
	}{
		"a Failover excludes the standby": {alone, func(m *model) { m.noDrop = true }},
		"a takeover excludes the reign":   {taken, func(m *model) { m.noTaken = true }},
		"decisions outlive a restart":     {taken, func(m *model) { m.forgetDisk = true }},
	} {
		t.Run(name, func(t *testing.T) {
			m := newModel(nil)
			c.story(m)
			if m.bad != "" {
				t.Fatalf("with the rule: %s", m.bad)
			}
			m = newModel(nil)
			c.set(m)
			c.story(m)
			if m.bad == "" {
				t.Fatal("without the rule nothing was found: the check is blind")
			}
		})
	}
}
