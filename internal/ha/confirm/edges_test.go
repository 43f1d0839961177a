package confirm

import (
	"fmt"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// TestNotOurs: what does not concern this monitor, or what it waits for no more,
// changes nothing.
func TestNotOurs(t *testing.T) {
	r := newRig(t)
	r.healthy()
	before := fmt.Sprintf("%+v", r.s)
	r.do(Link{"X", true})
	r.do(Report{"X", primary("X", 9, 0)})
	r.do(Persisted{99})
	r.do(PersistFailed{Seq: 99})
	r.do(GrantReply{Term: 99, OK: true})
	if after := fmt.Sprintf("%+v", r.s); after != before {
		t.Fatalf("before %s\nafter  %s", before, after)
	}
	if r.s.byInst("X") != -1 || r.s.Deciding() || r.s.Record().Term != 0 || len(r.s.View(r.now).Peers) != 3 {
		t.Fatal("it knows X")
	}
	if why := r.s.Takeover("X", true, r.now).Why(); !strings.Contains(why, "nothing is known of X") {
		t.Fatal(why)
	}
	if got, ok := reserved(r.do(Reserve{ID: 1, Inst: "X"})); !ok || got.OK || !strings.Contains(got.Why, "nothing is known of X") {
		t.Fatalf("%+v", got)
	}
	defer func() {
		if recover() == nil {
			t.Fatal("an unknown event is taken")
		}
	}()
	r.do(nil)
}

func reserved(acts []Action) (Reserved, bool) {
	for _, a := range acts {
		if g, ok := a.(Reserved); ok {
			return g, true
		}
	}
	return Reserved{}, false
}

// TestNoPrimaryHeard: without a word of a primary nobody takes over.
func TestNoPrimaryHeard(t *testing.T) {
	r := newRig(t)
	r.run(time.Second, standby("B", "A", 3, 100, false))
	if why := r.s.Takeover("B", true, r.now).Why(); !strings.Contains(why, "no message of a primary") {
		t.Fatal(why)
	}
	r.s.cfg.ShutdownWait = time.Minute
	if _, _, ok := r.s.TakeoverWait(r.now); ok {
		t.Fatal("a takeover waits")
	}
}

// TestTakeoverWait: MON_TAKEOVER_SHUTDOWN counts from the normal exit.
func TestTakeoverWait(t *testing.T) {
	r := newRig(t)
	r.healthy()
	if _, _, ok := r.s.TakeoverWait(r.now); ok {
		t.Fatal("waits though MON_TAKEOVER_SHUTDOWN is 0")
	}
	r.s.cfg.ShutdownWait = time.Minute
	if _, _, ok := r.s.TakeoverWait(r.now); ok {
		t.Fatal("waits for a primary that runs")
	}
	a := dead(primary("A", 3, 0))
	a.InstExitNorm = true
	r.report(a)
	r.now = r.now.Add(3 * time.Second)
	if inst, left, ok := r.s.TakeoverWait(r.now); !ok || inst != "A" || left != 57*time.Second {
		t.Fatalf("%s %s %v", inst, left, ok)
	}
}

// TestDiskFails: a decision that cannot be written is none, for each kind, and its
// number is not used again.
func TestDiskFails(t *testing.T) {
	r := newRig(t)
	r.healthy()
	r.hold = true
	failed := func(acts []Action) []Action {
		t.Helper()
		for _, a := range acts {
			if p, ok := a.(Persist); ok {
				if p.Record.Term != r.s.Record().Term+1 {
					t.Fatalf("term %d after %d", p.Record.Term, r.s.Record().Term)
				}
				return r.do(PersistFailed{p.Seq, "disk full"})
			}
		}
		t.Fatalf("nothing is written: %+v", acts)
		return nil
	}
	r.report(standby("B", "A", 3, 105, false))
	r.report(standby("C", "A", 3, 100, false))
	r.acts = nil
	r.report(dead(primary("A", 3, 0)))
	if out := failed(r.acts); len(grants(out)) != 0 || len(out) != 1 {
		t.Fatalf("%+v", out)
	}
	r.do(Busy{true}) // no decision but ours
	acts := r.do(Reserve{ID: 7, Inst: "B"})
	if got, ok := reserved(failed(acts)); !ok || got.OK || !strings.Contains(got.Why, "disk full") {
		t.Fatalf("%+v", got)
	}
	if r.s.Record().Term != 2 || r.s.Record().Taken != nil {
		t.Fatalf("%+v", r.s.Record())
	}
}

// TestCandidateIsGone: the candidate's watcher speaks for another instance by the
// time the decision is on disk: nothing is sent.
func TestCandidateIsGone(t *testing.T) {
	r := newRig(t)
	r.healthy()
	r.hold = true
	r.report(standby("B", "A", 3, 105, false))
	r.report(dead(primary("A", 3, 0)))
	if !r.s.Deciding() {
		t.Fatal("no decision")
	}
	r.do(Report{"B", standby("X", "A", 3, 105, false)})
	if acts := r.do(Persisted{r.s.pend.seq}); len(acts) != 0 || r.s.Record().Taken == nil {
		t.Fatalf("%+v", acts)
	}
}

// TestLiftNeedsTheLastPrimary: of two primaries of one reign neither lifts an
// exclusion; and a request of a reign before the one that was taken over stays
// refused.
func TestLiftNeedsTheLastPrimary(t *testing.T) {
	r := newRig(t)
	r.healthy()
	a := primary("A", 3, 0)
	a.State, a.Inst.Status = proto.DWConfirm, base.StatusSuspend
	if got, ok := answer(r.do(Ask{1, proto.ConfirmRequest{Status: a, Failed: []string{"C"}}})); !ok || !got.Reply.Granted {
		t.Fatalf("%+v", got)
	}
	r.report(primary("B", 3, 0))
	r.report(primary("A", 3, 0))
	if _, ok := r.s.Record().dropped("C"); !ok {
		t.Fatal("lifted while two databases are primary")
	}
	r.s.rec.Taken = &Taken{Reign: 5, Candidate: "B"}
	if got, ok := answer(r.do(Ask{2, proto.ConfirmRequest{Status: a, Failed: []string{"C"}}})); !ok || got.Reply.Granted || !strings.Contains(got.Reply.Why, "reign 5 was granted") {
		t.Fatalf("%+v", got)
	}
}

// TestRecordFile: what cannot be written or is no record is refused (G9).
func TestRecordFile(t *testing.T) {
	if _, err := Encode("G", 1, Record{Taken: &Taken{Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}}); err == nil {
		t.Fatal("a time that JSON does not know was written")
	}
	body := `"no record"`
	b := fmt.Sprintf(`{"version":1,"crc32c":"%08x","body":%s}`, crc32.Checksum([]byte(body), castagnoli), body)
	if _, err := Decode([]byte(b), "G", 1); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Fatal(err)
	}
}

// TestForcedReserve: takeover force is written down as well, and excludes what an
// old primary may still ask for; what its watcher says of it is told on.
func TestForcedReserve(t *testing.T) {
	r := newRig(t)
	r.healthy()
	b := standby("B", "A", 3, 105, false)
	b.Inst.ValidClaim = false
	r.report(b)
	if got, ok := reserved(r.do(Reserve{ID: 7, Inst: "B", Force: true})); !ok || got.OK || !strings.Contains(got.Why, "no active primary") {
		t.Fatalf("%+v", got)
	}
	r.report(dead(primary("A", 3, 0)))
	r.do(Reserve{ID: 8, Inst: "B", Force: true})
	if taken := r.s.Record().Taken; taken == nil || !taken.Manual || taken.Candidate != "B" || r.disk.Taken == nil {
		t.Fatalf("%+v", taken)
	}
	if got, ok := reserved(r.do(Reserve{ID: 9, Inst: "B"})); !ok || got.OK {
		t.Fatalf("%+v", got)
	}
	for _, e := range []GrantReply{{Term: 1, OK: true}, {Term: 1, Msg: "no"}, {Term: 1, Err: true}} {
		if acts := r.do(e); len(acts) != 1 {
			t.Fatalf("%+v: %+v", e, acts)
		}
	}
	a := primary("A", 3, 0)
	a.State, a.Inst.Status = proto.DWConfirm, base.StatusSuspend
	if got, ok := answer(r.do(Ask{10, proto.ConfirmRequest{Status: a, Failed: []string{"B"}}})); !ok || got.Reply.Granted {
		t.Fatalf("%+v", got)
	}
}
