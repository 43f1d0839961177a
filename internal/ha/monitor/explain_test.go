package monitor

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/cond"
	"datawatch/internal/ha/proto"
	"datawatch/internal/vfs"
)

// TestExplain: what explain says is what is decided by, for each kind of trouble.
func TestExplain(t *testing.T) {
	g := newFakes(t, "A", "B", "C")
	for _, n := range []string{"A", "B", "C"} {
		g.change(n, func(s *proto.WatcherStatus) { s.Config.Mode = "MANUAL" }) // nothing happens by itself
	}
	m := g.open(t, func(c *Config) { c.Confirm, c.FS = true, vfs.NewMem() })
	ready(t, m)
	explain := func(db string) map[string]Explanation {
		l, err := m.Explain("", db)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]Explanation{}
		for _, e := range l {
			out[e.Inst+" "+e.What] = e
			if e.OK != e.Conds.OK() || len(e.Conds) == 0 {
				t.Fatalf("%+v", e)
			}
		}
		return out
	}
	until(t, "nothing is to be explained", func() bool { return len(explain("")) == 0 })
	if l := explain("B"); len(l) != 4 || !l["B it can be switched to primary"].OK || l["B it takes over by itself"].OK {
		t.Fatalf("%+v", l)
	}

	g.change("A", func(s *proto.WatcherStatus) {
		s.State, s.Inst.Status, s.Inst.Archives[0].SendFailed, s.Why = proto.DWConfirm, base.StatusSuspend, true, []string{"it waits for leave"}
	})
	const on = "A it goes on without the standbys that failed"
	until(t, "the suspension shows", func() bool { _, ok := explain("")[on]; return ok })
	e := explain("A")[on]
	i := slices.IndexFunc(e.Conds, func(c cond.Cond) bool { return strings.Contains(c.Text, "AUTO mode") })
	if e.OK || i < 0 || e.Conds[i].OK || !slices.Contains(e.Lines, "it waits for leave") {
		t.Fatalf("%+v", e)
	}

	g.change("A", func(s *proto.WatcherStatus) {
		s.State, s.Inst.Status, s.Inst.Archives[0].SendFailed = proto.DWOpen, base.StatusOpen, false
		s.Inst.Archives[1].State, s.Why = base.ArchInvalid, []string{"C is not recovered: it is too late"}
	})
	const rec = "C it is recovered, so that its archive becomes Valid"
	until(t, "the Invalid archive shows", func() bool { l := explain(""); return len(l) == 1 && !l[rec].OK && len(l[rec].Conds) > 0 })
	if why := explain("")[rec].Conds.Why(); !strings.Contains(why, "too late") {
		t.Fatalf("why %q", why)
	}

	fail(g)
	until(t, "the failure shows", func() bool { _, ok := explain("")["B it takes over by itself"]; return ok })
	m.mu.Lock()
	want := m.groups[0].st.Takeover("B", true, m.clk.Now())
	m.mu.Unlock()
	if got := explain("")["B it takes over by itself"]; got.OK || got.Conds.Why() != want.Why() || !strings.Contains(want.Why(), "AUTO") {
		t.Fatalf("explained %s, decided by %s", got.Conds.Why(), want.Why())
	}
	login(t, m)
	until(t, "the conditions hold", func() bool { l, _ := m.ChooseTakeover("", false); return len(l) > 0 && l[0].OK })
	if err := m.Takeover(t.Context(), "", "B", false); err != nil {
		t.Fatal(err)
	}
	if got := explain("B")["B it opens by itself"].Lines; !strings.Contains(strings.Join(got, "|"), "decision 1, by command: B was to take over reign 2 from A") {
		t.Fatalf("lines %q", got)
	}
	if _, err := m.Explain("", "NO"); base.CodeOf(err, 0) != CodeArgument {
		t.Fatalf("error %v", err)
	}
}

// TestExplainUnheard: of a watcher that was never heard explain says how the
// connection to that one fails, not to the others.
func TestExplainUnheard(t *testing.T) {
	g := newFakes(t, "A")
	m := g.open(t, func(c *Config) { c.Groups[0].Addrs = append(c.Groups[0].Addrs, "127.0.0.1:1", "127.0.0.1:2") })
	var whys []string
	until(t, "both connections have failed", func() bool {
		l, err := m.Explain("", "")
		if err != nil {
			t.Fatal(err)
		}
		whys = nil
		for _, e := range l {
			if strings.HasPrefix(e.Inst, "127.") {
				whys = append(whys, e.Conds.Why())
			}
		}
		return strings.Count(strings.Join(whys, ""), "refused") >= 2
	})
	if len(whys) != 2 || strings.Contains(whys[0], "127.0.0.1:2") || strings.Contains(whys[1], "127.0.0.1:1:") || strings.Contains(whys[0]+whys[1], "\n") {
		t.Fatalf("%q", whys)
	}
	err := m.Heard("", "NO")
	if base.CodeOf(err, 0) != CodeInstFailed || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Fatalf("error %v", err)
	}
	if err := m.Heard("", "A"); err != nil {
		t.Fatal(err)
	}
}

// TestSilentWatcherIsTold: before DW_ERROR_TIME a watcher that stands still counts
// as alive, and tip does not call the group normal all the same.
func TestSilentWatcherIsTold(t *testing.T) {
	g := newFakes(t, "A", "B")
	m := g.open(t, nil)
	ready(t, m)
	for after, want := range map[time.Duration]bool{time.Second: false, 2500 * time.Millisecond: true, 9 * time.Second: false} {
		v := m.view(m.groups[0])
		v.Now = v.Peers[1].Heard.Add(after)
		var said []string
		m.tipPeer(v, v.Peers[1], nil, func(f string, a ...any) { said = append(said, fmt.Sprintf(f, a...)) })
		if s := strings.Join(said, "; "); strings.Contains(s, "B: its watcher has been silent for 2 s; at DW_ERROR_TIME (4 s) it counts as failed") != want {
			t.Errorf("after %v: %s", after, s)
		}
	}
}

// TestTipOnUnequalParameters: a watcher that did not run when a parameter of the
// group was changed is told of (manual 4.4 #34).
func TestTipOnUnequalParameters(t *testing.T) {
	g := newFakes(t, "A", "B")
	m := g.open(t, nil)
	ready(t, m)
	told := func(s string) bool { return strings.Contains(strings.Join(m.Tip().Lines, "\n"), s) }
	if told("not the same") {
		t.Fatalf("%q", m.Tip().Lines)
	}
	g.change("B", func(s *proto.WatcherStatus) { s.Config.ErrorTime = 7 })
	until(t, "tip says so", func() bool { return told("DW_ERROR_TIME is not the same everywhere: 4 at A, 7 at B") })
	if r := m.Tip(); r.OK {
		t.Error("tip is satisfied")
	}
	g.change("B", func(s *proto.WatcherStatus) { s.Config.ErrorTime, s.Config.Type = 7, "LOCAL" })
	until(t, "a LOCAL guard is no matter", func() bool { return !told("not the same") })
}
