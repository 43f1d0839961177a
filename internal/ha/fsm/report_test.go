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

// TestSilenceIsTold: before INST_ERROR_TIME has passed an instance counts as OK,
// but nobody shall take what it last said for what it is.
func TestSilenceIsTold(t *testing.T) {
	h := newHand(t, false, false)
	h.live(time.Second)
	for after, want := range map[time.Duration]int{0: 0, 1500 * time.Millisecond: 0, 2 * time.Second: 2, 2900 * time.Millisecond: 2} {
		if r := h.st.Report(1, h.st.In.Heard.Add(after)); !r.InstOK || r.InstSilent != want {
			t.Errorf("after %v: OK %v, silent for %d, want %d", after, r.InstOK, r.InstSilent, want)
		}
	}
	h.st.In.OK = false
	if r := h.st.Report(1, h.st.In.Heard.Add(time.Minute)); r.InstSilent != 0 {
		t.Errorf("of one that has failed it is told: %d", r.InstSilent)
	}
}
