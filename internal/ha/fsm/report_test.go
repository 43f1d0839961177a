package fsm_test

import (
	"slices"
	"testing"
	"time"

	"datawatch/internal/ha/fsm"
	"datawatch/internal/ha/proto"
)

// TestSetIsTold: who has set something hears it before the answer, and no monitor
// shows the old value after it.
func TestSetIsTold(t *testing.T) {
	for _, c := range []struct {
		cmd proto.WatcherCommand
		set func(proto.WatcherStatus) bool
	}{
		{proto.WatcherCommand{Cmd: proto.DWCmdSetPara, Name: "DW_REJOIN", Value: "1"}, func(s proto.WatcherStatus) bool { return s.Config.Rejoin }},
		{proto.WatcherCommand{Cmd: proto.DWCmdRecoverT, Value: "77"}, func(s proto.WatcherStatus) bool { return s.RecoverTime["B"] == 77 }},
	} {
		h := newHand(t, false, false)
		h.live(time.Second)
		h.acts = nil
		h.step(fsm.Command{To: fsm.Reply{Conn: 1, Req: 1}, Cmd: c.cmd})
		told := slices.IndexFunc(h.acts, func(a fsm.Action) bool { _, ok := a.(fsm.Broadcast); return ok })
		answered := slices.IndexFunc(h.acts, func(a fsm.Action) bool { r, ok := a.(fsm.Answer); return ok && r.Reply.Code == 0 })
		if !c.set(h.st.Report(1, h.now)) || told < 0 || told > answered {
			t.Errorf("%s: told %d, answered %d of %d", c.cmd.Cmd, told, answered, len(h.acts))
		}
	}
}
