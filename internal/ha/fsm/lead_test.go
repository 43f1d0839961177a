package fsm

import (
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// TestNobodyIsPrimary: what the watcher of A orders when no database is open as
// primary. It makes A primary only when every other log is a part of A's, and a
// standby only when another can lead.
func TestNobodyIsPrimary(t *testing.T) {
	now := time.Unix(1e9, 0)
	db := func(name string, mode base.Mode, status base.Status, at int, lin base.Lineage) proto.InstanceStatus {
		p := base.Position{Seq: base.Seq(at), LSN: base.LSN(at)}
		return proto.InstanceStatus{InstName: name, Incarnation: name, PID: 1, Mode: mode, Status: status, PmntMagic: 7,
			File: p, Apply: p, Stand: p, Keep: p, Lineage: lin}
	}
	rec := func(id uint64, by string, at int) base.OpenRecord {
		return base.OpenRecord{ID: id, TGUID: by + string(rune('0'+id)), CurInst: by, Apply: []base.Position{{Seq: base.Seq(at), LSN: base.LSN(at)}}}
	}
	byA, byC, byD := base.Lineage{rec(1, "A", 0)}, base.Lineage{rec(1, "C", 0)}, base.Lineage{rec(1, "D", 0)}
	next := func(at int) base.Lineage { return base.Lineage{rec(1, "A", 0), rec(2, "A", at)} }
	const prim, stby, mount, open = base.ModePrimary, base.ModeStandby, base.StatusMount, base.StatusOpen
	for name, c := range map[string]struct {
		a, b, c proto.InstanceStatus
		change  func(b, c *proto.WatcherStatus)
		want    string // "" nothing of the kind
	}{
		"yields to one with more":          {a: db("A", prim, mount, 10, byA), b: db("B", stby, mount, 11, byA), c: db("C", stby, open, 10, byA), want: "Standby"},
		"yields to a further opening":      {a: db("A", prim, mount, 10, byA), b: db("B", stby, mount, 12, next(10)), c: db("C", stby, open, 10, byA), want: "Standby"},
		"could not follow that opening":    {a: db("A", prim, mount, 11, byA), b: db("B", stby, mount, 12, next(10)), c: db("C", stby, open, 10, byA)},
		"the third could not follow":       {a: db("A", prim, mount, 10, byA), b: db("B", stby, mount, 11, byA), c: db("C", stby, open, 10, byD)},
		"opens when nobody has more":       {a: db("A", prim, mount, 11, byA), b: db("B", stby, mount, 11, byA), c: db("C", stby, open, 10, byA)},
		"the one with more is in Error":    {a: db("A", prim, mount, 10, byA), b: db("B", stby, mount, 11, byA), c: db("C", stby, open, 10, byA), change: func(b, _ *proto.WatcherStatus) { b.InstOK = false }},
		"the third is in Error":            {a: db("A", prim, mount, 10, byA), b: db("B", stby, mount, 11, byA), c: db("C", stby, open, 10, byA), change: func(_, c *proto.WatcherStatus) { c.InstOK = false }},
		"a command is held":                {a: db("A", prim, mount, 10, byA), b: db("B", stby, mount, 11, byA), c: db("C", stby, open, 10, byA), change: func(b, _ *proto.WatcherStatus) { b.Cmd = &proto.HeldCommand{Kind: "takeover"} }},
		"a takeover runs":                  {a: db("A", prim, mount, 10, byA), b: db("B", stby, mount, 11, byA), c: db("C", stby, open, 10, byA), change: func(b, _ *proto.WatcherStatus) { b.State = proto.DWTakeover }},
		"leads with more":                  {a: db("A", stby, mount, 11, byC), b: db("B", stby, mount, 10, byC), c: db("C", stby, open, 10, byC), want: "Primary"},
		"leads with a further opening":     {a: db("A", stby, mount, 12, next(10)), b: db("B", stby, mount, 10, byA), c: db("C", stby, open, 9, byA), want: "Primary"},
		"one is beyond that opening":       {a: db("A", stby, mount, 12, next(10)), b: db("B", stby, open, 11, byA), c: db("C", stby, open, 9, byA)},
		"leaves it to one with more":       {a: db("A", stby, mount, 10, byA), b: db("B", stby, mount, 11, byA), c: db("C", stby, open, 10, byA)},
		"leads among equals as the last":   {a: db("A", stby, mount, 10, byA), b: db("B", stby, mount, 10, byA), c: db("C", stby, open, 10, byA), want: "Primary"},
		"leaves it to the last among them": {a: db("A", stby, mount, 10, byC), b: db("B", stby, mount, 10, byC), c: db("C", stby, open, 10, byC)},
		"leads among equals by name":       {a: db("A", stby, mount, 10, byD), b: db("B", stby, mount, 10, byD), c: db("C", stby, open, 10, byD), want: "Primary"},
		"one is not heard, primary":        {a: db("A", prim, mount, 10, byA), b: db("B", stby, mount, 11, byA)},
		"one is not heard, standby":        {a: db("A", stby, mount, 11, byA), b: db("B", stby, mount, 10, byA)},
		"one is primary":                   {a: db("A", stby, mount, 10, byA), b: db("B", prim, mount, 10, byA), c: db("C", stby, open, 10, byA)},
		"one is in Error":                  {a: db("A", stby, mount, 10, byA), b: db("B", stby, mount, 10, byA), c: db("C", stby, open, 10, byA), change: func(b, _ *proto.WatcherStatus) { b.InstOK = false }},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(Config{Group: "G", Name: "A", Remotes: []string{"B", "C"}, Global: true, Auto: true,
				ErrorTime: 5 * time.Second, InstErrorTime: 5 * time.Second}, false, "", now)
			var got []string
			step := func(ev Event) {
				var acts []Action
				s, acts = Step(s, ev, now)
				for _, a := range acts {
					if o, ok := a.(SendInst); ok && o.Cmd.Cmd == proto.CmdSetMode {
						got = append(got, o.Cmd.Mode.String())
					}
				}
			}
			b, cc := proto.WatcherStatus{InstOK: true, State: proto.DWOpen, Inst: c.b}, proto.WatcherStatus{InstOK: true, State: proto.DWOpen, Inst: c.c}
			if c.change != nil {
				c.change(&b, &cc)
			}
			step(RemoteUp{"B"})
			step(RemoteUp{"C"})
			step(RemoteStatus{"B", b})
			if c.c.Incarnation != "" {
				step(RemoteStatus{"C", cc})
			}
			step(InstUp{1})
			step(InstStatus{c.a})
			if w := strings.ToUpper(c.want); strings.ToUpper(strings.Join(got, " ")) != w {
				t.Fatalf("ordered mode %v, want %q; it waits for: %v", got, c.want, s.Why)
			}
		})
	}
}
