package cond

import (
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// group is a healthy group: A primary, B and C standbys.
func group() View {
	v := View{Group: "G", Now: now, Default: 10 * time.Second}
	lin := base.Lineage{{ID: 1, TGUID: "g1"}}
	for _, n := range []string{"A", "B", "C"} {
		p := Peer{Addr: n, Known: true, Connected: true, Heard: now.Add(-time.Second), Status: proto.WatcherStatus{State: proto.DWOpen,
			CtlStatus: proto.CtlValid, InstOK: true, Config: proto.GroupConfig{Type: "GLOBAL", Mode: "MANUAL", ErrorTime: 10},
			Inst: proto.InstanceStatus{InstName: n, Mode: base.ModeStandby, Status: base.StatusOpen, Lineage: lin, Keep: base.Position{Seq: 5, LSN: 50}}}}
		if n == "A" {
			p.Status.Inst.Mode = base.ModePrimary
			p.Status.Inst.Archives = []proto.ArchStatus{{Inst: "B", State: base.ArchValid}, {Inst: "C", State: base.ArchValid}}
		}
		v.Peers = append(v.Peers, p)
	}
	return v
}

func checkTable(t *testing.T, conds func(View) List, cases map[string]struct {
	change func(*View)
	why    string
}) {
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			v := group()
			c.change(&v)
			l := conds(v)
			if l.OK() != (c.why == "") || !strings.Contains(l.Why(), c.why) {
				t.Fatalf("OK %v, why %q, want %q", l.OK(), l.Why(), c.why)
			}
		})
	}
}

func TestSwitchover(t *testing.T) {
	a := func(v *View) *proto.WatcherStatus { return &v.Peers[0].Status }
	b := func(v *View) *proto.WatcherStatus { return &v.Peers[1].Status }
	checkTable(t, func(v View) List { return Switchover(v, v.Peers[1]) }, map[string]struct {
		change func(*View)
		why    string
	}{
		"holds":                  {func(*View) {}, ""},
		"no primary":             {func(v *View) { a(v).InstOK = false }, "exactly one active primary"},
		"two primaries":          {func(v *View) { v.Peers[2].Status.Inst.Mode = base.ModePrimary }, "exactly one active primary"},
		"primary silent":         {func(v *View) { v.Peers[0].Heard = now.Add(-10 * time.Second) }, "exactly one active primary"},
		"primary's watcher":      {func(v *View) { a(v).State = proto.DWRecovery }, "the primary's watcher is Open"},
		"standby's watcher":      {func(v *View) { b(v).State = proto.DWStartup }, "the standby's watcher is Open"},
		"standby silent":         {func(v *View) { v.Peers[1].Heard = now.Add(-time.Minute) }, "the standby runs normally"},
		"standby dead":           {func(v *View) { b(v).InstOK = false }, "the standby runs normally"},
		"primary stands still":   {func(v *View) { a(v).InstSilent = 3 }, "the primary runs normally: A has been silent for 3 s"},
		"standby stands still":   {func(v *View) { b(v).InstSilent = 2 }, "the standby runs normally: B has been silent for 2 s"},
		"open records":           {func(v *View) { b(v).Inst.Lineage = nil }, "the open records are equal"},
		"control file":           {func(v *View) { b(v).CtlStatus = proto.CtlSplit }, "both control files"},
		"primary suspended":      {func(v *View) { a(v).Inst.Status = base.StatusSuspend }, "the primary is Open"},
		"standby not whole":      {func(v *View) { b(v).Inst.Rejoin = pagesOfA }, "the standby is whole: B rejoined with pages of A"},
		"standby in Mount":       {func(v *View) { b(v).Inst.Status = base.StatusMount }, "the standby is Standby and Open"},
		"archive Invalid":        {func(v *View) { a(v).Inst.Archives[0].State = base.ArchInvalid }, "the archive to the standby is Valid"},
		"archive not configured": {func(v *View) { a(v).Inst.Archives = nil }, "the archive to the standby is Valid"},
		"command":                {func(v *View) { v.Peers[2].Status.Cmd = &proto.HeldCommand{Kind: "switchover"} }, "no monitor command"},
	})
	v := group()
	if l := Switchover(v, v.Peers[0]); l.OK() || !strings.Contains(l.Why(), "the target is a standby") {
		t.Fatalf("to the primary itself: %s", l.Why())
	}
}

func TestTakeoverForce(t *testing.T) {
	b := func(v *View) *proto.WatcherStatus { return &v.Peers[1].Status }
	down := func(fn func(*View)) func(*View) {
		return func(v *View) {
			v.Peers[0].Status.InstOK = false
			fn(v)
		}
	}
	checkTable(t, func(v View) List { return TakeoverForce(v, v.Peers[1]) }, map[string]struct {
		change func(*View)
		why    string
	}{
		"holds":             {down(func(*View) {}), ""},
		"from Mount":        {down(func(v *View) { b(v).Inst.Status = base.StatusMount }), ""},
		"watcher Startup":   {down(func(v *View) { b(v).State = proto.DWStartup }), ""},
		"never heard of it": {down(func(v *View) { v.Peers[0] = Peer{Addr: "A"} }), ""},
		"never heard of it, but the standby does": {down(func(v *View) {
			v.Peers[0] = Peer{Addr: "A"}
			b(v).Remotes = []proto.RemoteView{{Inst: "A", DWLink: true, InstOK: true}}
		}), "whoever may be the primary is heard: A runs, as the watcher of B hears"},
		"not heard any more, but the standby does": {down(func(v *View) {
			v.Peers[0].Heard = now.Add(-time.Minute)
			b(v).Remotes = []proto.RemoteView{{Inst: "A", DWLink: true, InstOK: true}}
		}), "A runs, as the watcher of B hears"},
		"its watcher alone is left": {down(func(v *View) {
			v.Peers[0] = Peer{Addr: "A"}
			b(v).Remotes = []proto.RemoteView{{Inst: "A", DWLink: true}, {Inst: "C", DWLink: true, InstOK: true}}
		}), ""},
		"active primary":   {func(*View) {}, "no active primary"},
		"watcher Shutdown": {down(func(v *View) { b(v).State = proto.DWShutdown }), "watcher is Open or Startup"},
		"dead":             {down(func(v *View) { b(v).InstOK = false }), "runs normally"},
		"not a standby":    {down(func(v *View) { b(v).Inst.Mode = base.ModeNormal }), "in Standby mode"},
		"not whole":        {down(func(v *View) { b(v).Inst.Rejoin = pagesOfA }), "the standby is whole: B rejoined with pages of A"},
		"suspended":        {down(func(v *View) { b(v).Inst.Status = base.StatusSuspend }), "Open or Mount"},
		"another has more": {down(func(v *View) { v.Peers[2].Status.Inst.Keep.Seq++ }), "KLSN is the largest"},
		"control file":     {down(func(v *View) { b(v).CtlStatus = proto.CtlSplit }), "control file"},
		"command":          {down(func(v *View) { b(v).State = proto.DWSwitchover }), "no monitor command"},
	})
	// What a watcher that is not heard any more has said of others counts for nothing.
	v := group()
	v.Peers[0] = Peer{Addr: "A"}
	b(&v).Remotes = []proto.RemoteView{{Inst: "A", DWLink: true, InstOK: true}}
	v.Peers[1].Heard = now.Add(-time.Minute)
	if l := TakeoverForce(v, v.Peers[1]); !strings.Contains(l.Why(), "the watcher of B is ERROR") || strings.Contains(l.Why(), "hears") {
		t.Errorf("by a standby whose watcher is silent: %s", l.Why())
	}
}

func TestLastPrimary(t *testing.T) {
	v := group()
	if p, err := v.LastPrimary(); err != nil || p.Inst() != "A" {
		t.Fatalf("%s %v", p.Inst(), err)
	}
	v.Peers[1].Status.Inst.Mode = base.ModePrimary
	if _, err := v.LastPrimary(); err == nil {
		t.Fatal("two primaries of one reign are not told apart")
	}
	v.Peers[1].Status.Inst.Lineage = base.Lineage{{ID: 1, TGUID: "g1"}, {ID: 2, TGUID: "g2"}}
	if p, err := v.LastPrimary(); err != nil || p.Inst() != "B" {
		t.Fatalf("the newer reign: %s %v", p.Inst(), err)
	}
	v.Peers[0].Status.Config.Type, v.Peers[1].Status.Config.Type = "LOCAL", "LOCAL"
	if _, err := v.LastPrimary(); err == nil {
		t.Fatal("a LOCAL database counts as the group's primary")
	}
}

func TestConfirmElsewhereRefuses(t *testing.T) {
	v := group()
	v.Peers[0].Status.InstOK, v.Peers[0].Status.StateAtLoss = false, proto.DWOpen
	b := &v.Peers[1].Status.Inst
	b.ValidClaim, b.ValidClaimFrom, b.ValidClaimID = true, "A", 1
	b.Links = []proto.MALLink{{Inst: "A"}}
	if l := Takeover(v, v.Peers[1], TakeoverOptions{}); !l.OK() {
		t.Fatal(l.Why())
	}
	if l := Takeover(v, v.Peers[1], TakeoverOptions{ConfirmElsewhere: true}); l.OK() || !strings.Contains(l.Why(), "this monitor decides") {
		t.Fatal(l.Why())
	}
}

// TestNormalExitIsExplained: when it was is said where it is known, and nothing
// is made up where it is not.
func TestNormalExitIsExplained(t *testing.T) {
	v := group()
	v.Peers[0].Status.InstExitNorm = true
	for want, at := range map[string]time.Time{
		"A exited normally 1m0s ago; MON_TAKEOVER_SHUTDOWN is 2m0s":                                  v.Now.Add(-time.Minute),
		"A exited normally; the confirm monitor acts MON_TAKEOVER_SHUTDOWN after that, with 0 never": {},
	} {
		if w := Takeover(v, v.Peers[1], TakeoverOptions{Auto: true, ExitedAt: at, ShutdownWait: 2 * time.Minute}).Why(); !strings.Contains(w, want) {
			t.Errorf("%q is not in %s", want, w)
		}
	}
}

func TestWhatIsNotThere(t *testing.T) {
	v := group()
	a, b := v.Peers[0], v.Peers[1]
	b.Status.Inst.Links, b.Status.Remotes = nil, nil
	if _, ok := b.Link("A"); ok {
		t.Error("a link nobody reported")
	}
	if _, ok := b.Remote("A"); ok {
		t.Error("a watcher nobody reported")
	}
	if _, ok := v.Find("X"); ok {
		t.Error("X is found")
	}
	v.Peers[0] = Peer{Addr: "A"}
	if l := Takeover(v, v.Peers[1], TakeoverOptions{}); l.OK() || !strings.Contains(l.Why(), "no message of a primary") {
		t.Error(l.Why())
	}
	// An archive that is neither realtime nor timely says nothing of who can join.
	a.Status.State, a.Status.Config.Mode = proto.DWConfirm, "AUTO"
	a.Status.Inst.Status = base.StatusSuspend
	a.Status.Inst.Archives = append(a.Status.Inst.Archives, proto.ArchStatus{Inst: "C", Type: base.ArchLocal, State: base.ArchValid})
	v = group()
	v.Peers[2].Status.Inst.Lineage = base.Lineage{{ID: 1, TGUID: "other"}}
	req := proto.ConfirmRequest{Status: a.Status, Failed: []string{"B"}}
	for i := range req.Status.Inst.Archives[:2] {
		req.Status.Inst.Archives[i].State = base.ArchInvalid
	}
	if l := Failover(v, req); !l.OK() {
		t.Error(l.Why())
	}
}

// TestCodes: a command that is refused says so with the manual's code of the first
// condition that is not met (10.2.8.1).
func TestCodes(t *testing.T) {
	v := group()
	if c := Switchover(v, v.Peers[1]).Code(); c != 0 {
		t.Errorf("all conditions hold: code %d", c)
	}
	v.Peers[0].Status.Inst.Archives[0].State = base.ArchInvalid
	if c := Switchover(v, v.Peers[1]).Code(); c != -8111 {
		t.Errorf("archive Invalid: code %d", c)
	}
	if c := Takeover(v, v.Peers[1], TakeoverOptions{}).Code(); c != -8399 {
		t.Errorf("the primary is active: code %d", c)
	}
	if c := TakeoverForce(v, v.Peers[1]).Code(); c != -8394 {
		t.Errorf("the primary is active, by force: code %d", c)
	}
	v.Peers[0] = Peer{Addr: "A"}
	if c := Takeover(v, v.Peers[1], TakeoverOptions{}).Code(); c != -8395 {
		t.Errorf("no primary known: code %d", c)
	}
}

// TestLoginBeforeTheFailure: a login that the failed instance did not answer, or
// that was under way when its machine was lost, prevents no takeover.
func TestLoginBeforeTheFailure(t *testing.T) {
	for _, lost := range []bool{false, true} {
		v := group()
		a := &v.Peers[0].Status
		if a.State = proto.DWLoginCheck; lost {
			v.Peers[0].Heard = now.Add(-time.Minute)
		} else {
			a.State, a.InstOK, a.StateAtLoss = proto.DWStartup, false, proto.DWLoginCheck
		}
		b := &v.Peers[1].Status.Inst
		b.ValidClaim, b.ValidClaimFrom, b.ValidClaimID = true, "A", 1
		b.Links = []proto.MALLink{{Inst: "A"}}
		if l := Takeover(v, v.Peers[1], TakeoverOptions{}); !l.OK() {
			t.Errorf("machine lost %v: %s", lost, l.Why())
		}
	}
}
