package confirm

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// TestStandbyIsBack: a standby whose reports were interrupted is a candidate
// again as soon as it says itself, over the new connection, that it has its claim
// to take over, and not before.
func TestStandbyIsBack(t *testing.T) {
	for _, claim := range []bool{true, false} {
		r := newRig(t)
		r.healthy()
		r.report(standby("B", "A", 3, 105, false))
		r.do(Link{"B", false})
		r.do(Link{"B", true})
		c := standby("C", "A", 3, 100, false)
		c.Inst.ValidClaim = false
		r.report(c)
		r.report(dead(primary("A", 3, 0)))
		r.do(Tick{})
		if g := grants(r.acts); len(g) != 0 {
			t.Fatalf("granted by what it said before: %+v", g)
		}
		if why := r.s.Takeover("B", true, r.now).Why(); !strings.Contains(why, "since the connection to its watcher came up") {
			t.Fatalf("why %q", why)
		}
		b := standby("B", "A", 3, 105, false)
		b.Inst.ValidClaim = claim
		r.report(b)
		if g := grants(r.acts); (len(g) > 0) != claim {
			t.Fatalf("claim %v: grants %+v", claim, g)
		}
	}
}

// TestNetworkIsBack: a monitor that was cut off from both watchers hears the
// standby's first, over a new connection or, where that of before outlived it,
// over the old one; the primary, silent for it so far, has a second to be heard.
func TestNetworkIsBack(t *testing.T) {
	for name, c := range map[string]struct {
		prim  func(proto.WatcherStatus) proto.WatcherStatus // what is heard of it 2 ms later; nil: nothing
		taken time.Duration                                 // when B is told to take over; 0: never
		same  bool                                          // the connections are those of before
	}{
		"the primary waits":                     {prim: func(s proto.WatcherStatus) proto.WatcherStatus { return s }},
		"its instance is dead":                  {prim: dead, taken: 2 * time.Millisecond},
		"its machine is dead":                   {taken: backGrace},
		"the primary waits, same connections":   {same: true, prim: func(s proto.WatcherStatus) proto.WatcherStatus { return s }},
		"its machine is dead, same connections": {same: true, taken: backGrace},
	} {
		r := newRig(t)
		r.healthy()
		for _, inst := range []string{"A", "B", "C"} {
			if !c.same {
				r.do(Link{inst, false})
			}
		}
		r.run(12 * time.Second)
		if !c.same {
			r.do(Link{"B", true})
		}
		back := r.now
		if r.report(standby("B", "A", 3, 105, false)); len(grants(r.acts)) != 0 {
			t.Fatalf("%s: at once, grants %+v", name, grants(r.acts))
		}
		if why := r.s.Takeover("B", true, r.now).Why(); !strings.Contains(why, "heard again for a second, or the primary since, too: neither yet") {
			t.Fatalf("%s: why %q", name, why)
		}
		r.now = r.now.Add(2 * time.Millisecond)
		if c.prim != nil {
			if !c.same {
				r.do(Link{"A", true})
			}
			r.report(c.prim(primary("A", 3, 0)))
		}
		r.do(Tick{})
		for len(grants(r.acts)) == 0 && r.now.Sub(back) < 3*time.Second {
			r.now = r.now.Add(2 * time.Millisecond)
			r.report(standby("B", "A", 3, 105, false))
			r.do(Tick{})
		}
		took := r.now.Sub(back)
		if len(grants(r.acts)) == 0 {
			took = 0
		}
		if took != c.taken {
			t.Errorf("%s: takes over after %v, want %v", name, took, c.taken)
		}
	}
}

// TestFlappingLink: a connection to the standby's watcher that never stands for a
// second, but through which it is heard, does not keep the standby from taking over:
// the second is for a monitor that heard nothing.
func TestFlappingLink(t *testing.T) {
	r := newRig(t)
	r.healthy()
	died := r.now
	for i := 0; len(grants(r.acts)) == 0 && r.now.Sub(died) < time.Minute; i++ {
		if i%4 == 3 {
			r.do(Link{"B", false})
			r.run(200 * time.Millisecond)
			r.do(Link{"B", true})
		}
		r.run(200*time.Millisecond, standby("B", "A", 3, 105, false))
	}
	if took := r.now.Sub(died); len(grants(r.acts)) != 1 || took > 11*time.Second {
		t.Errorf("grants %+v after %v", grants(r.acts), took)
	}
	// Why not is told once, not at every tick of the second.
	r = newRig(t)
	r.healthy()
	r.run(12 * time.Second)
	r.acts = nil
	r.run(800*time.Millisecond, standby("B", "A", 3, 105, false))
	told := 0
	for _, a := range r.acts {
		if x, ok := a.(Tell); ok && strings.Contains(x.Text, "no standby takes over now") {
			told++
		}
	}
	if told != 1 {
		t.Errorf("told %d times why not", told)
	}
}

// TestTakeoverCameToNothing: the primary of a reign whose takeover was granted
// may go on without another standby when the candidate's own report shows that it
// did not open and cannot any more; never while that is unknown (G3), and not when
// the candidate has redo that the primary is without.
func TestTakeoverCameToNothing(t *testing.T) {
	still := standby("B", "A", 3, 105, false)
	still.Inst.Apply = base.Position{Seq: 100, LSN: 100}
	still.Inst.ValidClaim = false // it was restarted
	changed := func(f func(*proto.WatcherStatus)) proto.WatcherStatus {
		s := still
		f(&s)
		return s
	}
	for name, c := range map[string]struct {
		b       proto.WatcherStatus
		wait    time.Duration
		restart bool // of the monitor
		why     string
	}{
		"it stands where it stood":         {b: still, wait: 11 * time.Second},
		"the grant may be on its way":      {b: still, wait: 3 * time.Second, why: "less than DW_ERROR_TIME old"},
		"another watcher is there":         {b: changed(func(s *proto.WatcherStatus) { s.Incarnation = "new" }), wait: 3 * time.Second},
		"it is taking over":                {b: changed(func(s *proto.WatcherStatus) { s.State = proto.DWTakeover }), wait: 60 * time.Second, why: "takeover"},
		"it is primary":                    {b: changed(func(s *proto.WatcherStatus) { s.Inst.Mode, s.Inst.Status = base.ModePrimary, base.StatusMount }), wait: 60 * time.Second, why: "Primary"},
		"it is dead":                       {b: changed(func(s *proto.WatcherStatus) { s.InstOK = false }), wait: 60 * time.Second, why: "unknown"},
		"it has more":                      {b: changed(func(s *proto.WatcherStatus) { s.Inst.Apply.Seq, s.Inst.Apply.LSN = 101, 101 }), wait: 60 * time.Second, why: "has redo up to"},
		"the monitor is new, too early":    {b: still, wait: 3 * time.Second, restart: true, why: "less than DW_ERROR_TIME old"},
		"the monitor is new, long enough":  {b: still, wait: 11 * time.Second, restart: true},
		"the monitor is new, it is silent": {b: proto.WatcherStatus{Inst: proto.InstanceStatus{InstName: ""}}, wait: 60 * time.Second, restart: true, why: "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.healthy()
			r.run(time.Second) // in the middle of an era
			r.report(standby("B", "A", 3, 105, false))
			r.report(dead(primary("A", 3, 0)))
			if g := grants(r.acts); len(g) != 1 || g[0].Inst != "B" || g[0].Grant.Era != era(r.now) {
				t.Fatalf("grants %+v", g)
			}
			a := primary("A", 3, 0)
			a.State, a.Inst.Status, a.Inst.File = proto.DWConfirm, base.StatusMount, base.Position{Seq: 100, LSN: 100}
			if c.restart {
				r.s = New(r.s.cfg, r.disk, r.now)
				r.do(Link{"A", true})
				r.do(Link{"B", true})
			}
			if sts := []proto.WatcherStatus{a}; c.b.Inst.InstName != "" {
				r.run(c.wait, append(sts, c.b)...)
			} else {
				r.run(c.wait, a)
			}
			got, ok := answer(r.do(Ask{7, proto.ConfirmRequest{Status: a, Failed: []string{"C"}}}))
			if !ok || got.Reply.Granted != (c.why == "") || !strings.Contains(strings.ToLower(got.Reply.Why), strings.ToLower(c.why)) {
				t.Fatalf("granted %v: %s", got.Reply.Granted, got.Reply.Why)
			}
		})
	}
}

// TestWhatWaitedIsNotHeard: a monitor that stood still takes nothing from the
// connections it then drops: a report or request of unknown age neither counts
// as heard nor is answered.
func TestWhatWaitedIsNotHeard(t *testing.T) {
	r := newRig(t)
	r.healthy()
	r.now = r.now.Add(8 * time.Second)
	r.report(standby("B", "A", 3, 999, false))
	i := r.s.byInst("B")
	if r.s.meta[i].fresh || r.s.peers[i].Status.Inst.Keep.LSN == 999 {
		t.Fatal("a report that waited counts as heard")
	}
	r.run(time.Second, primary("A", 3, 0), standby("B", "A", 3, 100, true), standby("C", "A", 3, 100, true))
	if !r.s.meta[i].fresh {
		t.Fatal("B has reported since")
	}
	r.now = r.now.Add(8 * time.Second)
	a := primary("A", 3, 0)
	a.State, a.Inst.Status = proto.DWConfirm, base.StatusSuspend
	if _, ok := answer(r.do(Ask{1, proto.ConfirmRequest{Status: a, Failed: []string{"C"}}})); ok {
		t.Fatal("a request that waited was answered")
	}
}

// TestTakeoverComes: whatever the reports and connections of a standby do, as long as
// it is never silent for half of DW_ERROR_TIME, it takes over with the first report
// after the primary is silent for all of it.
func TestTakeoverComes(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		r := newRig(t)
		r.healthy()
		died, longest := r.now, time.Duration(1+rnd.IntN(23))*200*time.Millisecond
		for r.now.Sub(died) < 10*time.Second {
			for next := r.now.Add(time.Duration(rnd.Int64N(int64(longest)))); r.now.Before(next); {
				if rnd.IntN(3) == 0 {
					r.do(Link{"B", rnd.IntN(2) == 0})
				}
				r.now = r.now.Add(time.Duration(1+rnd.IntN(200)) * time.Millisecond)
				r.do(Tick{})
			}
			if len(grants(r.acts)) != 0 && r.now.Sub(died) < 10*time.Second {
				t.Fatalf("seed %d: %+v %v after the death", seed, grants(r.acts), r.now.Sub(died))
			}
			r.do(Link{"B", true})
			r.report(standby("B", "A", 3, 105, false))
		}
		if r.do(Tick{}); len(grants(r.acts)) != 1 {
			t.Fatalf("seed %d: no takeover %v after the death: %s", seed, r.now.Sub(died), r.s.Takeover("B", true, r.now).Why())
		}
	}
}
