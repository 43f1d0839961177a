package cond

import (
	"strings"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

func pos(seq base.Seq) base.Position { return base.Position{Seq: seq, LSN: base.LSN(seq)} }

func opening(id uint64, by string, seq base.Seq) base.OpenRecord {
	return base.OpenRecord{ID: id, TGUID: by, Apply: []base.Position{pos(seq)}}
}

// pagesOfA is what a standby says that has rejoined and has not replayed up to
// where its pages are from.
var pagesOfA = &proto.Rejoin{Primary: "A", Fork: pos(10), Whole: pos(25),
	Lineage: base.Lineage{opening(1, "old", 0), opening(2, "new", 10)}}

// TestNotWholeDoesNotTakeOver (G6): its log ends before its pages, so it can
// serve nobody.
func TestNotWholeDoesNotTakeOver(t *testing.T) {
	for _, auto := range []bool{false, true} {
		v := group()
		v.Peers[0].Status.InstOK, v.Peers[0].Status.StateAtLoss = false, proto.DWOpen
		for i := range v.Peers {
			v.Peers[i].Status.Config.Mode = "AUTO"
		}
		b := &v.Peers[1].Status.Inst
		b.ValidClaim, b.ValidClaimFrom, b.ValidClaimID = true, "A", 1
		b.Links = []proto.MALLink{{Inst: "A"}}
		if l := Takeover(v, v.Peers[1], TakeoverOptions{Auto: auto}); !l.OK() {
			t.Fatalf("whole: %s", l.Why())
		}
		b.Rejoin = pagesOfA
		l := Takeover(v, v.Peers[1], TakeoverOptions{Auto: auto})
		if l.OK() || !strings.Contains(l.Why(), "has not replayed up to "+pos(25).String()) {
			t.Errorf("not whole, by the confirm monitor %v: %s", auto, l.Why())
		}
	}
}

// TestSurplus: whether a database has redo that the primary is without, and where
// they part.
func TestSurplus(t *testing.T) {
	first := opening(1, "old", 0)
	primary := proto.InstanceStatus{Mode: base.ModePrimary, Lineage: base.Lineage{first, opening(2, "new", 10)}, File: pos(30), Apply: pos(1)}
	for name, c := range map[string]struct {
		in        proto.InstanceStatus
		fork, end base.Position
		ok        bool
	}{
		"goes beyond":               {proto.InstanceStatus{Mode: base.ModePrimary, Lineage: base.Lineage{first}, File: pos(20), Apply: pos(1)}, pos(10), pos(20), true},
		"a standby goes beyond":     {proto.InstanceStatus{Mode: base.ModeStandby, Lineage: base.Lineage{first}, File: pos(1), Apply: pos(20)}, pos(10), pos(20), true},
		"ends there":                {proto.InstanceStatus{Mode: base.ModePrimary, Lineage: base.Lineage{first}, File: pos(10)}, pos(10), pos(10), false},
		"follows it":                {proto.InstanceStatus{Mode: base.ModeStandby, Lineage: primary.Lineage, Apply: pos(25)}, pos(25), pos(25), false},
		"has rejoined":              {proto.InstanceStatus{Mode: base.ModeStandby, Lineage: base.Lineage{first}, Apply: pos(10), Rejoin: pagesOfA}, pos(25), pos(25), false},
		"nothing in common with it": {proto.InstanceStatus{Mode: base.ModePrimary, Lineage: base.Lineage{opening(1, "other", 0)}, File: pos(20)}, base.Position{}, pos(20), false},
	} {
		t.Run(name, func(t *testing.T) {
			fork, end, ok := Surplus(c.in, primary)
			if ok != c.ok || fork != c.fork || end != c.end {
				t.Fatalf("parts at %s, ends at %s, surplus %v; want %s, %s, %v", fork, end, ok, c.fork, c.end, c.ok)
			}
		})
	}
}
