package fsm_test

import (
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/fsm"
	"datawatch/internal/ha/proto"
)

// hand drives one watcher, of database A, whose only other database is B.
type hand struct {
	t    *testing.T
	st   fsm.State
	now  time.Time
	a, b proto.InstanceStatus
	acts []fsm.Action // since the last call of took
	n    int
	// leave: the watcher of B says that B may rejoin.
	leave bool
}

func opened(id uint64, by string, seq base.Seq) base.OpenRecord {
	return base.OpenRecord{ID: id, TGUID: by, CurInst: by[:1], Apply: []base.Position{{Seq: seq, LSN: base.LSN(seq)}}}
}

func at(seq base.Seq) base.Position { return base.Position{Seq: seq, LSN: base.LSN(seq)} }

// newHand: A was the primary, up to package 20; B opened after package 10 and is at 30.
func newHand(t *testing.T, rejoin, marked bool) *hand {
	cfg := auto()
	cfg.Name, cfg.Remotes, cfg.Rejoin = "A", []string{"B"}, rejoin
	h := &hand{t: t, now: time.Unix(1e9, 0)}
	h.st = fsm.New(cfg, marked, "marked before", h.now)
	first := opened(1, "A1", 0)
	h.a = proto.InstanceStatus{Incarnation: "a", InstName: "A", PID: 7, PmntMagic: 1, Mode: base.ModePrimary, Status: base.StatusMount,
		Lineage: base.Lineage{first}, File: at(20), Apply: at(20), Links: []proto.MALLink{{Inst: "B", Connected: true}}}
	h.b = proto.InstanceStatus{Incarnation: "b", InstName: "B", PID: 8, PmntMagic: 1, Mode: base.ModePrimary, Status: base.StatusOpen,
		Lineage: base.Lineage{first, opened(2, "B2", 10)}, File: at(30), Apply: at(30)}
	return h
}

func (h *hand) step(e fsm.Event) {
	h.t.Helper()
	var acts []fsm.Action
	h.st, acts = fsm.Step(h.st, e, h.now)
	if f := h.st.Fault(); f != "" {
		h.t.Fatal(f)
	}
	h.acts = append(h.acts, acts...)
}

// live lets time pass with both databases reporting.
func (h *hand) live(d time.Duration) {
	h.t.Helper()
	h.step(fsm.InstUp{PID: h.a.PID})
	h.step(fsm.RemoteUp{Inst: "B"})
	for end := h.now.Add(d); h.now.Before(end); h.now = h.now.Add(200 * time.Millisecond) {
		h.n++
		h.a.Seq++
		h.step(fsm.InstStatus{Status: h.a})
		h.step(fsm.RemoteStatus{Inst: "B", Status: proto.WatcherStatus{State: proto.DWOpen, CtlStatus: proto.CtlValid, InstOK: true, Inst: h.b, Config: proto.GroupConfig{Rejoin: h.leave}}})
		h.step(fsm.Tick{})
	}
}

// took returns what was done since the last call: orders and marks.
func (h *hand) took() (what []string, req uint64) {
	for _, a := range h.acts {
		switch e := a.(type) {
		case fsm.SendInst:
			what, req = append(what, strings.TrimSpace(e.Cmd.Cmd+" "+e.Cmd.Inst+e.Cmd.How)), e.Req
		case fsm.WriteCtl:
			what = append(what, "split")
		case fsm.DropCtl:
			what = append(what, "no split")
		case fsm.StartInst:
			what = append(what, "start")
		}
	}
	h.acts = nil
	return what, req
}

func (h *hand) want(want string) (req uint64) {
	h.t.Helper()
	what, req := h.took()
	if got := strings.Join(what, ", "); got != want {
		h.t.Fatalf("it did %q, want %q; why: %q", got, want, h.st.Report(0, h.now).Why)
	}
	return req
}

func (h *hand) reply(req uint64, code base.Code, msg string) {
	h.step(fsm.InstReply{Req: req, Reply: proto.InstanceReply{Code: code, Msg: msg, Status: h.a}})
}

// restarted: the instance comes back as what the rejoin has made of it.
func (h *hand) restarted(rejoined bool) {
	h.step(fsm.InstDown{})
	h.a.Incarnation += "+"
	h.a.Seq = 0
	h.a.Status = base.StatusMount
	if rejoined {
		h.a.Mode, h.a.File, h.a.Apply = base.ModeStandby, at(10), at(10)
		h.a.Rejoin = &proto.Rejoin{Primary: "B", Fork: at(10), Whole: at(25), Lineage: h.b.Lineage}
	}
}

// TestRejoinOff: without leave a split database is marked and shut down, as the
// manual says.
func TestRejoinOff(t *testing.T) {
	h := newHand(t, false, false)
	h.live(time.Second)
	h.reply(h.want("split, shutdown abort"), 0, "")
	h.live(2 * time.Second)
	h.want("")
	if r := h.st.Report(0, h.now); r.CtlStatus != proto.CtlSplit || !strings.Contains(strings.Join(r.Why, "\n"), "rejoin database") {
		t.Fatalf("%s, %q", r.CtlStatus, r.Why)
	}
}

// TestRejoinOn: with DW_REJOIN it is told to rejoin, comes back as a standby and
// is opened; nothing is marked.
func TestRejoinOn(t *testing.T) {
	h := newHand(t, true, false)
	h.live(time.Second)
	req := h.want("rejoin B")
	h.live(time.Minute) // however long it takes
	h.want("")
	h.reply(req, 0, "")
	h.restarted(true)
	h.live(2 * time.Second)
	h.want("open")
}

// TestRejoinAnswerLost: the instance ends with the answer on its way; what it
// says of itself afterwards is enough.
func TestRejoinAnswerLost(t *testing.T) {
	h := newHand(t, true, false)
	h.live(time.Second)
	h.want("rejoin B")
	h.restarted(true)
	h.live(8 * time.Second)
	h.want("open")
}

// TestRejoinFromSuspend: an old primary that still runs is stopped first; it is
// not marked.
func TestRejoinFromSuspend(t *testing.T) {
	h := newHand(t, true, false)
	h.a.Status = base.StatusSuspend
	h.live(time.Second)
	h.want("shutdown abort")
	h.restarted(false)
	h.live(5 * time.Second)
	h.want("rejoin B")
}

// TestRejoinRefused: the instance found that the histories part elsewhere. Then
// it is Split, and stays so (G5).
func TestRejoinRefused(t *testing.T) {
	h := newHand(t, true, false)
	h.live(time.Second)
	h.reply(h.want("rejoin B"), -6036, "package 9 is another")
	h.want("split, shutdown abort")
	if r := h.st.Report(0, h.now); !strings.Contains(r.CtlDesc, "package 9 is another") || r.RejoinBad == "" {
		t.Fatalf("%q, %q", r.CtlDesc, r.RejoinBad)
	}
	h.restarted(false)
	h.live(time.Minute)
	h.want("")
}

// TestRejoinAgain: a link that broke is no reason to give up.
func TestRejoinAgain(t *testing.T) {
	h := newHand(t, true, false)
	h.live(time.Second)
	h.reply(h.want("rejoin B"), -6010, "link lost")
	h.live(3 * time.Second)
	h.want("")
	h.live(4 * time.Second)
	h.want("rejoin B")
}

// TestRejoinMarked: a database that is marked Split rejoins when that is allowed
// later, by parameter or by command, and the mark goes when it has.
func TestRejoinMarked(t *testing.T) {
	for _, how := range []string{"parameter at start", "parameter set", "command"} {
		h := newHand(t, how == "parameter at start", true)
		if how != "parameter at start" {
			h.live(time.Second)
			h.want("")
			c := proto.WatcherCommand{Cmd: proto.DWCmdRejoin, Mon: "m"}
			if how == "parameter set" {
				c = proto.WatcherCommand{Cmd: proto.DWCmdSetPara, Name: "DW_REJOIN", Value: "1"}
			}
			h.step(fsm.Command{To: fsm.Reply{Conn: 1, Req: 1}, Cmd: c})
		}
		h.live(time.Second)
		h.reply(h.want("rejoin B"), 0, "")
		h.want("no split")
		h.restarted(true)
		h.live(2 * time.Second)
		h.want("open")
	}
}

// TestRejoinMarkedAndDone: the watcher was restarted between the rejoin and the
// moment that it would have taken the mark away.
func TestRejoinMarkedAndDone(t *testing.T) {
	h := newHand(t, true, true)
	h.restarted(true)
	h.live(2 * time.Second)
	h.want("no split, open")
}

// TestRejoinCommand: it is refused where there is nothing to give up, and starts
// an instance that does not run.
func TestRejoinCommand(t *testing.T) {
	answer := func(h *hand) proto.WatcherReply {
		h.acts = nil
		h.step(fsm.Command{To: fsm.Reply{Conn: 1, Req: 1}, Cmd: proto.WatcherCommand{Cmd: proto.DWCmdRejoin, Mon: "m"}})
		for _, a := range h.acts {
			if r, ok := a.(fsm.Answer); ok {
				return r.Reply
			}
		}
		t.Fatal("no answer")
		return proto.WatcherReply{}
	}
	h := newHand(t, false, false)
	h.a.File, h.a.Apply = at(10), at(10) // it can join
	h.b.Status = base.StatusMount
	h.live(time.Second)
	if r := answer(h); r.Code == 0 {
		t.Fatalf("a database that is not split: %+v", r)
	}
	h = newHand(t, false, true)
	if r := answer(h); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	if what, _ := h.took(); strings.Join(what, ",") != "start" {
		t.Fatalf("it did %q, want a start", what)
	}
}

// TestRejoinNotWhole: a database that is not whole follows the history of its
// pages only, rejoins no other and does not lead (G5).
func TestRejoinNotWhole(t *testing.T) {
	h := newHand(t, true, false)
	h.restarted(true)
	other := h.b
	other.InstName, other.Incarnation = "C", "c"
	other.Lineage = base.Lineage{h.b.Lineage[0], h.b.Lineage[1], opened(3, "C3", 15)}
	if v, text := fsm.Judge(h.a, other, true, true); v != fsm.Split {
		t.Errorf("pages as of 25, the other went on at 15: %v, %s", v, text)
	}
	other.Lineage[2] = opened(3, "C3", 25)
	if v, text := fsm.Judge(h.a, other, true, true); v != fsm.LocalJoins {
		t.Errorf("pages as of 25, the other went on there: %v, %s", v, text)
	}
	if v, text := fsm.Judge(h.b, h.a, true, true); v != fsm.RemoteJoins {
		t.Errorf("seen from the primary: %v, %s", v, text)
	}
	h.b.Lineage = base.Lineage{h.b.Lineage[0], opened(2, "C2", 8)}
	h.live(2 * time.Second)
	h.want("split, shutdown abort")
	if r := h.st.Report(0, h.now); !strings.Contains(strings.Join(r.Why, "\n")+r.CtlDesc, "forked") {
		t.Errorf("%q", r.Why)
	}
	// Nobody is primary: it does not lead, however far its log reaches.
	h = newHand(t, true, false)
	h.restarted(true)
	h.b.Mode, h.b.File, h.b.Apply = base.ModeStandby, at(9), at(9)
	h.b.Lineage = h.a.Lineage
	h.live(time.Minute)
	if what, _ := h.took(); strings.Contains(strings.Join(what, ","), "set_mode") {
		t.Errorf("it led: %q", what)
	}
}

// TestRejoinTwoPrimaries: both run, split. The older one, with leave to rejoin or
// with nothing acknowledged that the newer is without, makes way for the one that was
// opened after it, which stays open; otherwise both are shut down, as the manual says:
// in MANUAL mode too, where the older may go on alone the moment after it said that
// its archive is Valid.
func TestRejoinTwoPrimaries(t *testing.T) {
	for _, c := range []struct {
		leave   bool
		archive base.ArchState // of the older to the newer
		auto    bool
		stays   bool
	}{{true, base.ArchInvalid, true, true}, {false, base.ArchValid, true, true}, {false, base.ArchInvalid, true, false},
		{false, base.ArchValid, false, false}, {true, base.ArchValid, false, true}} {
		older := newHand(t, c.leave, false)
		older.a.Status = base.StatusOpen
		older.a.Archives = []proto.ArchStatus{{Inst: "B", Type: base.ArchTimely, State: c.archive}}
		older.st.Cfg.Auto = c.auto
		older.live(time.Second)
		older.want("shutdown abort")
		newer := newHand(t, false, false)
		newer.st.Cfg.Auto = c.auto
		newer.a.Lineage, newer.b.Lineage = newer.b.Lineage, newer.a.Lineage
		newer.a.File, newer.b.File = newer.b.File, newer.a.File
		newer.b.Archives = []proto.ArchStatus{{Inst: "C", State: base.ArchValid}, {Inst: "A", Type: base.ArchTimely, State: c.archive}}
		newer.a.Status, newer.leave = base.StatusOpen, c.leave
		newer.live(3 * time.Second)
		if !c.stays {
			newer.want("shutdown abort")
			continue
		}
		newer.want("")
		if s := newer.st.Report(0, newer.now).State; s != proto.DWOpen {
			t.Errorf("%+v: the newer primary's watcher is %s", c, s)
		}
	}
}

// why is what it says it waits for.
func (h *hand) why(want string) {
	h.t.Helper()
	if w := strings.Join(h.st.Report(0, h.now).Why, "\n"); !strings.Contains(w, want) {
		h.t.Fatalf("it says %q, want %q", w, want)
	}
}

// TestRejoinLink: it is not told to rejoin one that it cannot fetch pages from.
func TestRejoinLink(t *testing.T) {
	h := newHand(t, true, false)
	h.a.Links = []proto.MALLink{{Inst: "B"}}
	h.live(10 * time.Second)
	h.want("")
	h.why("it rejoins B when the MAL link to it is up")
	h.a.Links = []proto.MALLink{{Inst: "B", Connected: true}}
	h.live(time.Second)
	h.want("rejoin B")
}

// TestRejoinMarkedAhead: the database was opened after the primary that it was
// split from, so it is not the one that gives redo up, leave or not (G5); it
// does so when that primary has gone on.
func TestRejoinMarkedAhead(t *testing.T) {
	h := newHand(t, true, true)
	newer := h.b.Lineage
	h.a.Lineage = base.Lineage{newer[0], opened(2, "A2", 10)}
	h.b.Lineage, h.b.File, h.b.Apply = newer[:1], at(10), at(10)
	h.live(10 * time.Second)
	h.want("")
	h.why("B is no longer ahead of it: remote open records are contained")
	h.b.Lineage, h.b.File, h.b.Apply = newer, at(30), at(30)
	h.live(time.Second)
	h.want("rejoin B")
}
