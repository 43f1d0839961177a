package fsm_test

import (
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/fsm"
	"datawatch/internal/ha/proto"
)

// TestLateGrant: leave to go on without a standby that is as old as
// DW_ERROR_TIME is not used, because the standby may have been made primary by
// force since; the monitor is asked again (G3).
func TestLateGrant(t *testing.T) {
	for _, c := range []struct {
		name  string
		after time.Duration
		goes  bool
	}{{"in time", 100 * time.Millisecond, true}, {"late", 6 * time.Second, false}} {
		t.Run(c.name, func(t *testing.T) {
			now := time.Unix(1000, 0)
			s := fsm.New(fsm.Config{Group: "G", Name: "A", Remotes: []string{"B"}, Global: true, Auto: true,
				ErrorTime: 5 * time.Second, InstErrorTime: 20 * time.Second}, false, "", now)
			lin := base.Lineage{{ID: 1, TGUID: "one", CurInst: "A", Apply: []base.Position{{}}}}
			inst := proto.InstanceStatus{Incarnation: "a", PID: 1, InstName: "A", Mode: base.ModePrimary, Status: base.StatusSuspend, Lineage: lin,
				Archives: []proto.ArchStatus{{Inst: "B", Type: base.ArchRealtime, State: base.ArchValid, SendFailed: true}}}
			asks, drops, req := 0, 0, uint64(0)
			step := func(ev fsm.Event) {
				var acts []fsm.Action
				s, acts = fsm.Step(s, ev, now)
				for _, a := range acts {
					switch e := a.(type) {
					case fsm.AskConfirm:
						asks, req = asks+1, e.Req
					case fsm.SendInst:
						if e.Cmd.Cmd == proto.CmdSetArch && e.Cmd.State == base.ArchInvalid {
							drops++
						}
					}
				}
			}
			step(fsm.MonUp{ID: "m", Confirm: true})
			step(fsm.InstUp{PID: 1})
			step(fsm.InstStatus{Status: inst})
			for range 30 {
				now = now.Add(100 * time.Millisecond)
				step(fsm.MonStatus{ID: "m"})
				step(fsm.InstStatus{Status: inst})
			}
			if asks != 1 || drops != 0 {
				t.Fatalf("asked %d times, dropped %d (%s: %v)", asks, drops, s.W, s.Why)
			}
			now = now.Add(c.after) // asked at most 3 s ago, so in time is within 5 s
			step(fsm.ConfirmReply{Req: req, Reply: proto.ConfirmReply{Granted: true, Term: 1}})
			if (drops == 1) != c.goes {
				t.Fatalf("dropped %d times, want %v (%s: %v)", drops, c.goes, s.W, s.Why)
			}
			for range 20 {
				now = now.Add(100 * time.Millisecond)
				step(fsm.MonStatus{ID: "m"})
				step(fsm.InstStatus{Status: inst})
			}
			if !c.goes && asks != 2 {
				t.Fatalf("asked %d times, want again (%s: %v)", asks, s.W, s.Why)
			}
		})
	}
}
