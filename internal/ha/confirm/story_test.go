package confirm

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func lineage(n int) base.Lineage {
	var l base.Lineage
	for i := 1; i <= n; i++ {
		l = append(l, base.OpenRecord{ID: uint64(i), TGUID: fmt.Sprint("g", i)})
	}
	return l
}

// primary and standby are reports of a healthy group: A primary, B and C standbys.
func primary(inst string, reign int, seq uint64) proto.WatcherStatus {
	var arch []proto.ArchStatus
	for _, n := range []string{"A", "B", "C"} {
		if n != inst {
			arch = append(arch, proto.ArchStatus{Inst: n, Type: base.ArchRealtime, State: base.ArchValid})
		}
	}
	return proto.WatcherStatus{Seq: seq, Incarnation: "w" + inst, Group: "G", State: proto.DWOpen, CtlStatus: proto.CtlValid, InstOK: true,
		Config: proto.GroupConfig{Type: "GLOBAL", Mode: "AUTO", ErrorTime: 10},
		Inst: proto.InstanceStatus{InstName: inst, Incarnation: "i" + inst, Mode: base.ModePrimary, Status: base.StatusOpen,
			Archives: arch, Lineage: lineage(reign)}}
}

func standby(inst, prim string, reign int, keep base.LSN, linked bool) proto.WatcherStatus {
	return proto.WatcherStatus{Incarnation: "w" + inst, Group: "G", State: proto.DWOpen, CtlStatus: proto.CtlValid, InstOK: true,
		Config:  proto.GroupConfig{Type: "GLOBAL", Mode: "AUTO", ErrorTime: 10},
		Remotes: []proto.RemoteView{{Inst: prim, DWLink: linked, MALLink: linked}},
		Inst: proto.InstanceStatus{InstName: inst, Incarnation: "i" + inst, Mode: base.ModeStandby, Status: base.StatusOpen,
			Keep: base.Position{Seq: base.Seq(keep), LSN: keep}, Links: []proto.MALLink{{Inst: prim, Connected: linked}},
			ValidClaim: true, ValidClaimFrom: prim, ValidClaimID: uint64(reign), Lineage: lineage(reign)}}
}

// era of a watcher that has run since t0, with a DW_ERROR_TIME of 10 s.
func era(now time.Time) uint64 { return 1 + uint64(now.Sub(t0)/(5*time.Second)) }

// rig runs Step and keeps the actions of interest.
type rig struct {
	t    *testing.T
	s    State
	now  time.Time
	acts []Action
	disk Record
	hold bool // Persist is not answered
	seq  uint64
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, now: t0}
	r.s = New(Config{Group: "G", ErrorTime: 10 * time.Second, ShutdownWait: 0, Addrs: []string{"A", "B", "C"}}, Record{}, t0)
	return r
}

func (r *rig) do(ev Event) []Action {
	var acts []Action
	r.s, acts = Step(r.s, ev, r.now)
	all := acts
	for _, a := range acts {
		if p, ok := a.(Persist); ok && !r.hold {
			r.disk = p.Record
			all = append(all, r.do(Persisted{p.Seq})...)
		}
	}
	r.acts = append(r.acts, acts...)
	return all
}

func (r *rig) report(s proto.WatcherStatus) {
	r.seq++
	if s.Seq == 0 {
		s.Seq = r.seq
	}
	s.Era = era(r.now)
	r.do(Report{s.Inst.InstName, s})
}

// run passes time with the given reports every 200 ms.
func (r *rig) run(d time.Duration, sts ...proto.WatcherStatus) {
	for end := r.now.Add(d); r.now.Before(end); {
		r.now = r.now.Add(200 * time.Millisecond)
		for _, s := range sts {
			r.report(s)
		}
		r.do(Tick{})
	}
}

func (r *rig) healthy() {
	for _, n := range []string{"A", "B", "C"} {
		r.do(Link{n, true})
	}
	r.run(4*time.Second, primary("A", 3, 0), standby("B", "A", 3, 100, true), standby("C", "A", 3, 100, true))
}

func grants(acts []Action) (out []SendGrant) {
	for _, a := range acts {
		if g, ok := a.(SendGrant); ok {
			out = append(out, g)
		}
	}
	return out
}

func answer(acts []Action) (Answer, bool) {
	for _, a := range acts {
		if g, ok := a.(Answer); ok {
			return g, true
		}
	}
	return Answer{}, false
}

func suspended(seq uint64, failed ...string) proto.WatcherStatus {
	s := primary("A", 3, seq)
	s.State, s.Inst.Status = proto.DWConfirm, base.StatusSuspend
	for i := range s.Inst.Archives {
		for _, f := range failed {
			if s.Inst.Archives[i].Inst == f {
				s.Inst.Archives[i].SendFailed = true
			}
		}
	}
	return s
}

func dead(s proto.WatcherStatus) proto.WatcherStatus {
	s.InstOK, s.StateAtLoss, s.State = false, s.State, proto.DWStartup
	return s
}

func TestTakeoverCases(t *testing.T) {
	b, c := standby("B", "A", 3, 105, false), standby("C", "A", 3, 104, false)
	t.Run("instance dead, watcher normal: at once", func(t *testing.T) {
		r := newRig(t)
		r.healthy()
		r.report(b)
		r.report(c)
		r.report(dead(primary("A", 3, 0)))
		g := grants(r.acts)
		if len(g) != 1 || g[0].Inst != "B" || g[0].Grant.Lineage != 3 || g[0].Grant.MinKeep.LSN != 105 || g[0].Grant.OldPrimary != "A" {
			t.Fatalf("grants %+v", g)
		}
		if r.disk.Taken == nil || r.disk.Taken.Candidate != "B" {
			t.Fatalf("disk %+v", r.disk)
		}
	})
	t.Run("silent for DW_ERROR_TIME", func(t *testing.T) {
		r := newRig(t)
		r.healthy()
		r.run(9500*time.Millisecond, b, c)
		if g := grants(r.acts); len(g) != 0 {
			t.Fatalf("too early: %+v", g)
		}
		r.run(time.Second, b, c)
		if g := grants(r.acts); len(g) != 1 || g[0].Inst != "B" {
			t.Fatalf("grants %+v", g)
		}
	})
	t.Run("isolated: suspended by a failed send", func(t *testing.T) {
		r := newRig(t)
		r.healthy()
		r.report(suspended(0, "B", "C"))
		r.run(11*time.Second, b, c)
		if g := grants(r.acts); len(g) != 1 {
			t.Fatalf("grants %+v", g)
		}
	})
	t.Run("normal exit waits for MON_TAKEOVER_SHUTDOWN", func(t *testing.T) {
		for _, wait := range []time.Duration{0, 30 * time.Second} {
			r := newRig(t)
			r.s.cfg.ShutdownWait = wait
			r.healthy()
			gone := dead(primary("A", 3, 0))
			gone.InstExitNorm = true
			r.run(29*time.Second, gone, b, c)
			if g := grants(r.acts); len(g) != 0 {
				t.Fatalf("wait %s: too early", wait)
			}
			if inst, left, ok := r.s.TakeoverWait(r.now); wait > 0 && (!ok || inst != "A" || left > 2*time.Second) {
				t.Fatalf("TakeoverWait %s %s %v", inst, left, ok)
			}
			r.run(3*time.Second, gone, b, c)
			if g := grants(r.acts); (len(g) == 1) != (wait > 0) {
				t.Fatalf("wait %s: grants %+v", wait, g)
			}
		}
	})
}

// Every condition of an automatic takeover, false one at a time.
func TestTakeoverConditions(t *testing.T) {
	type w struct{ a, b proto.WatcherStatus }
	for name, c := range map[string]struct {
		change func(*w)
		rig    func(*rig)
		why    string
	}{
		"primary alive":              {func(x *w) { x.a = primary("A", 3, 0) }, nil, "the primary has failed"},
		"primary was in Mount":       {func(x *w) { x.a.Inst.Status = base.StatusMount }, nil, "Primary and Open when it failed"},
		"suspended by hand":          {func(x *w) { x.a.Inst.Status = base.StatusSuspend }, nil, "Primary and Open when it failed"},
		"watcher was in Switchover":  {func(x *w) { x.a.StateAtLoss = proto.DWSwitchover }, nil, "its watcher was in"},
		"watcher not guarding":       {func(x *w) { x.a.State = proto.DWShutdown }, nil, "its watcher was in"},
		"archive Invalid":            {func(x *w) { x.a.Inst.Archives[0].State = base.ArchInvalid }, nil, "archive to the standby was Valid"},
		"in Failover of the standby": {func(x *w) { x.a.StateAtLoss = proto.DWFailover; x.a.Inst.Archives[0].SendFailed = true }, nil, "not about to drop"},
		"standby dead":               {func(x *w) { x.b.InstOK = false }, nil, "the standby runs normally"},
		"standby in Mount":           {func(x *w) { x.b.Inst.Status = base.StatusMount }, nil, "Standby and Open"},
		"standby watcher Shutdown":   {func(x *w) { x.b.State = proto.DWShutdown }, nil, "standby's watcher is Open or Startup"},
		"control file":               {func(x *w) { x.b.CtlStatus = proto.CtlSplit }, nil, "control file"},
		"open records":               {func(x *w) { x.b.Inst.Lineage = lineage(2) }, nil, "open records"},
		"no claim":                   {func(x *w) { x.b.Inst.ValidClaim = false }, nil, "was told by this primary"},
		"claim of an old reign":      {func(x *w) { x.b.Inst.ValidClaimID = 2 }, nil, "was told by this primary"},
		"claim of another":           {func(x *w) { x.b.Inst.ValidClaimFrom = "C" }, nil, "was told by this primary"},
		"behind the primary":         {func(x *w) { x.a.Inst.File = base.Position{Seq: 106, LSN: 106} }, nil, "was last heard to have on disk"},
		"MAL link up":                {func(x *w) { x.b.Inst.Links[0].Connected = true }, nil, "MAL link"},
		"watcher has not heard yet":  {func(x *w) { x.b.Remotes[0].InstOK = true }, nil, "knows of the failure too"},
		"MAL link unknown":           {func(x *w) { x.b.Inst.Links = nil }, nil, "MAL link"},
		"command held":               {func(x *w) { x.b.Cmd = &proto.HeldCommand{Kind: "switchover"} }, nil, "no monitor command"},
		"command when it failed":     {func(x *w) { x.a.Cmd = &proto.HeldCommand{Kind: "switchover"} }, nil, "no monitor command"},
		"manual mode":                {func(x *w) { x.b.Config.Mode = "MANUAL" }, nil, "AUTO mode"},
		"normal exit":                {func(x *w) { x.a.InstExitNorm = true }, nil, "normal exit"},
		"busy":                       {func(*w) {}, func(r *rig) { r.do(Busy{true}) }, "no manual command"},
		"ordinary monitor":           {func(*w) {}, func(r *rig) { r.s.cfg.ViewOnly = true }, "confirm monitor"},
		"cut off by a Failover": {func(*w) {}, func(r *rig) {
			r.report(suspended(1000, "B"))
			if a, ok := answer(r.do(Ask{1, proto.ConfirmRequest{Status: suspended(1000, "B"), Failed: []string{"B"}}})); !ok || !a.Reply.Granted {
				r.t.Fatalf("not granted: %+v", a)
			}
		}, "granted Failover"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.healthy()
			x := w{dead(primary("A", 3, 0)), standby("B", "A", 3, 105, false)}
			c.change(&x)
			if c.rig != nil {
				c.rig(r)
			}
			r.acts = nil
			r.report(x.b)
			r.report(x.a)
			r.do(Tick{})
			if g := grants(r.acts); len(g) != 0 {
				t.Fatalf("granted %+v", g)
			}
			l := r.s.Takeover("B", true, r.now)
			if why := l.Why(); !strings.Contains(why, c.why) {
				t.Fatalf("why %q does not name %q", why, c.why)
			}
		})
	}
}

// Every condition of a Failover, false one at a time.
func TestFailoverConditions(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*proto.ConfirmRequest)
		rig    func(*rig)
		why    string
	}{
		"holds":         {func(*proto.ConfirmRequest) {}, nil, ""},
		"from Mount":    {func(q *proto.ConfirmRequest) { q.Status.Inst.Status = base.StatusMount }, nil, ""},
		"names none":    {func(q *proto.ConfirmRequest) { q.Failed = nil }, nil, "names"},
		"manual":        {func(q *proto.ConfirmRequest) { q.Status.Config.Mode = "MANUAL" }, nil, "AUTO"},
		"not Confirm":   {func(q *proto.ConfirmRequest) { q.Status.State = proto.DWOpen }, nil, "in Confirm"},
		"Open":          {func(q *proto.ConfirmRequest) { q.Status.Inst.Status = base.StatusOpen }, nil, "in Suspend"},
		"not primary":   {func(q *proto.ConfirmRequest) { q.Status.Inst.Mode = base.ModeStandby }, nil, "in Suspend"},
		"dead":          {func(q *proto.ConfirmRequest) { q.Status.InstOK = false }, nil, "in Suspend"},
		"split":         {func(q *proto.ConfirmRequest) { q.Status.CtlStatus = proto.CtlSplit }, nil, "control file"},
		"old reign":     {func(q *proto.ConfirmRequest) { q.Status.Inst.Lineage = lineage(2) }, nil, "newer reign"},
		"other primary": {func(*proto.ConfirmRequest) {}, func(r *rig) { r.report(primary("C", 3, 0)) }, "no other primary"},
		"command":       {func(*proto.ConfirmRequest) {}, func(r *rig) { s := standby("B", "A", 3, 1, false); s.State = proto.DWTakeover; r.report(s) }, "command runs"},
		"own command":   {func(q *proto.ConfirmRequest) { q.Status.Cmd = &proto.HeldCommand{} }, nil, "command runs"},
		"busy":          {func(*proto.ConfirmRequest) {}, func(r *rig) { r.do(Busy{true}) }, "manual command"},
		"cannot join": {func(*proto.ConfirmRequest) {}, func(r *rig) {
			s := standby("C", "A", 3, 1, true)
			s.Inst.Lineage = append(lineage(2), base.OpenRecord{ID: 3, TGUID: "other"})
			r.report(s)
		}, "can join"},
		"stalled":  {func(*proto.ConfirmRequest) {}, func(r *rig) { r.do(Stalled{}) }, "was heard since"},
		"ordinary": {func(*proto.ConfirmRequest) {}, func(r *rig) { r.s.cfg.ViewOnly = true }, "confirm monitor"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.healthy()
			q := proto.ConfirmRequest{Status: suspended(1000, "B"), Failed: []string{"B"}}
			c.change(&q)
			if c.rig != nil {
				c.rig(r)
			}
			a, ok := answer(r.do(Ask{7, q}))
			if !ok || a.ID != 7 || a.Reply.Granted != (c.why == "") || (c.why != "" && !strings.Contains(a.Reply.Why, c.why)) {
				t.Fatalf("answer %+v %v", a, ok)
			}
		})
	}
}

// A decision is on disk before anybody hears of it, and excludes the other one,
// whatever the crash leaves.
func TestExclusionAndCrash(t *testing.T) {
	b, c := standby("B", "A", 3, 105, false), standby("C", "A", 3, 104, false)
	ask := Ask{1, proto.ConfirmRequest{Status: suspended(1000, "B"), Failed: []string{"B"}}}

	t.Run("while a Failover is written nothing else is decided", func(t *testing.T) {
		r := newRig(t)
		r.healthy()
		r.hold = true
		acts := r.do(ask)
		if _, ok := answer(acts); ok || len(acts) != 1 {
			t.Fatalf("answered before it was written: %+v", acts)
		}
		r.report(b)
		r.report(dead(primary("A", 3, 0)))
		if len(grants(r.acts)) != 0 {
			t.Fatal("takeover decided beside it")
		}
		if a, ok := answer(r.do(Ask{2, ask.Req})); !ok || a.Reply.Granted {
			t.Fatal("second request granted beside it")
		}
		a, ok := answer(r.do(PersistFailed{1, "disk"}))
		if !ok || a.Reply.Granted || a.ID != 1 {
			t.Fatalf("answer after a failed write: %+v", a)
		}
		if r.s.rec.Term != 1 {
			t.Fatalf("term %d may repeat", r.s.rec.Term)
		}
	})
	t.Run("while a takeover is written no request is granted, nor after a restart", func(t *testing.T) {
		r := newRig(t)
		r.healthy()
		r.hold = true
		r.report(b)
		r.report(c)
		acts := r.do(Report{"A", dead(primary("A", 3, 0))})
		p, ok := acts[len(acts)-1].(Persist)
		if !ok {
			t.Fatalf("no Persist: %+v", acts)
		}
		if a, _ := answer(r.do(ask)); a.Reply.Granted {
			t.Fatal("granted beside a takeover")
		}
		raw, err := Encode("G", 7, p.Record)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := Decode(raw, "G", 7)
		if err != nil || !reflect.DeepEqual(rec, p.Record) {
			t.Fatalf("%+v, %v", rec, err)
		}
		r.s, r.hold = New(r.s.cfg, rec, r.now), false // crash after the write
		r.healthy()
		if a, ok := answer(r.do(ask)); !ok || a.Reply.Granted || !strings.Contains(a.Reply.Why, "not taken over") {
			t.Fatalf("granted after restart: %+v", a)
		}
		q := ask.Req
		q.Status.Inst.Lineage = lineage(4) // a newer reign may
		if a, ok := answer(r.do(Ask{3, q})); !ok || !a.Reply.Granted {
			t.Fatalf("newer reign refused: %+v", a)
		}
	})
	t.Run("a dropped standby is no candidate until the primary, Open, says Valid", func(t *testing.T) {
		r := newRig(t)
		r.healthy()
		r.report(suspended(1000, "B"))
		if a, _ := answer(r.do(ask)); !a.Reply.Granted {
			t.Fatalf("not granted: %s", a.Reply.Why)
		}
		r.s = New(r.s.cfg, r.disk, r.now)
		excluded := func() bool { _, ok := r.s.rec.dropped("B"); return ok }
		for _, n := range []string{"A", "B", "C"} {
			r.do(Link{n, true})
		}
		r.report(suspended(1001, "B")) // a report on its way
		s := primary("A", 3, 1002)
		s.State = proto.DWFailover
		r.report(s)
		r.report(primary("A", 3, 900)) // older than the request
		inv := primary("A", 3, 1003)
		inv.Inst.Archives[0].State = base.ArchInvalid
		r.report(inv)
		if !excluded() {
			t.Fatal("lifted too early")
		}
		r.report(primary("A", 3, 1004))
		if excluded() {
			t.Fatal("not lifted by the primary's own later report")
		}
	})
	t.Run("restart and freeze forget freshness", func(t *testing.T) {
		for _, how := range []string{"restart", "freeze", "stall"} {
			r := newRig(t)
			r.healthy()
			switch how {
			case "restart":
				r.s = New(r.s.cfg, Record{}, r.now)
				r.report(b)
			case "freeze":
				r.now = r.now.Add(6 * time.Second)
				if acts := r.do(Tick{}); len(acts) == 0 || acts[0] != (Reconnect{}) {
					t.Fatalf("no reconnect: %+v", acts)
				}
			case "stall":
				r.do(Stalled{})
			}
			r.run(60*time.Second, b, c)
			if g := grants(r.acts); len(g) != 0 {
				t.Fatalf("%s: decided from stale information", how)
			}
		}
	})
}

// After a granted takeover another may be granted only when the first candidate
// certainly did not open.
func TestSecondCandidate(t *testing.T) {
	b, c := standby("B", "A", 3, 105, false), standby("C", "A", 3, 104, false)
	start := func(t *testing.T) *rig {
		r := newRig(t)
		r.healthy()
		r.run(11*time.Second, b, c)
		if g := grants(r.acts); len(g) != 1 || g[0].Inst != "B" {
			t.Fatalf("grants %+v", g)
		}
		r.acts = nil
		return r
	}
	t.Run("candidate silent: nobody else", func(t *testing.T) {
		r := start(t)
		r.run(60*time.Second, c)
		if g := grants(r.acts); len(g) != 0 {
			t.Fatalf("grants %+v", g)
		}
	})
	t.Run("candidate in Takeover: nobody else", func(t *testing.T) {
		r := start(t)
		s := b
		s.State = proto.DWTakeover
		r.run(60*time.Second, s, c)
		s.State, s.Inst.Mode = proto.DWStartup, base.ModePrimary
		s.Inst.Status = base.StatusMount
		r.run(60*time.Second, s, c)
		if g := grants(r.acts); len(g) != 0 {
			t.Fatalf("grants %+v", g)
		}
	})
	t.Run("candidate still Standby: again, and another when it cannot", func(t *testing.T) {
		r := start(t)
		r.do(GrantReply{Term: 1, Msg: "refused"})
		s := b
		s.Inst.Links = []proto.MALLink{{Inst: "A", Connected: true}}
		r.run(12*time.Second, s, c)
		g := grants(r.acts)
		if len(g) == 0 || g[0].Inst != "C" || g[0].Grant.Term != 2 {
			t.Fatalf("grants %+v", g)
		}
	})
	t.Run("success ends it, and the old primary is told to exit", func(t *testing.T) {
		r := start(t)
		n := primary("B", 4, 0)
		r.run(time.Second, n, c, primary("A", 3, 0))
		var told bool
		for _, a := range r.acts {
			if e, ok := a.(SendExitOld); ok && e.Inst == "A" {
				told = true
			}
		}
		if !told || len(grants(r.acts)) != 0 {
			t.Fatalf("actions %+v", r.acts)
		}
	})
}

func TestReserve(t *testing.T) {
	r := newRig(t)
	r.healthy()
	reserved := func(e Reserve) Reserved {
		for _, a := range r.do(e) {
			if x, ok := a.(Reserved); ok {
				return x
			}
		}
		t.Fatal("no answer")
		return Reserved{}
	}
	if x := reserved(Reserve{1, "B", false}); x.OK {
		t.Fatal("reserved with the primary alive")
	}
	r.report(standby("B", "A", 3, 105, false))
	r.do(Busy{true})
	r.report(dead(primary("A", 3, 0)))
	if x := reserved(Reserve{2, "B", false}); !x.OK || x.Grant.Lineage != 3 || r.disk.Taken == nil || !r.disk.Taken.Manual {
		t.Fatalf("%+v, disk %+v", x, r.disk)
	}
	if a, ok := answer(r.do(Ask{9, proto.ConfirmRequest{Status: suspended(2000, "B"), Failed: []string{"B"}}})); !ok || a.Reply.Granted {
		t.Fatal("request of the reign granted after a manual takeover")
	}
}

func TestRecordRefused(t *testing.T) {
	good, err := Encode("G", 7, Record{Term: 3, Taken: &Taken{Reign: 2, Candidate: "B"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		b     []byte
		group string
		why   string
	}{
		"flipped":     {[]byte(strings.Replace(string(good), `"term":3`, `"term":4`, 1)), "G", "checksum"},
		"newer":       {[]byte(strings.Replace(string(good), `"version":1`, `"version":2`, 1)), "G", "version 2"},
		"cut":         {good[:len(good)-5], "G", "damaged"},
		"empty":       {nil, "G", "damaged"},
		"other group": {good, "H", "belongs to group G"},
	} {
		if _, err := Decode(c.b, c.group, 7); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
