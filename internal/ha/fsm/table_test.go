package fsm

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"datawatch/internal/ha/proto"
)

var write = flag.Bool("write", false, "rewrite docs/watcher-states.md")

// every returns one event of each kind.
func every() map[EventKind]Event {
	out := map[EventKind]Event{EvTick: Tick{}, EvInstUp: InstUp{}, EvInstDown: InstDown{}, EvInstStatus: InstStatus{}, EvInstReply: InstReply{},
		EvInstGone: InstGone{}, EvStarted: Started{}, EvRemoteUp: RemoteUp{"B"}, EvRemoteDown: RemoteDown{"B"}, EvRemoteStatus: RemoteStatus{Inst: "B"},
		EvRemoteReply: RemoteReply{}, EvMonUp: MonUp{ID: "m"}, EvMonDown: MonDown{"m"}, EvMonStatus: MonStatus{"m"}, EvConfirmReply: ConfirmReply{},
		EvCtlSaved: CtlSaved{}, EvService: Service{"down"}, EvUnknownCmd: Command{To: Reply{1, 1}, Cmd: proto.WatcherCommand{Cmd: "?"}}}
	for c, k := range cmdEvents {
		out[k] = Command{To: Reply{1, 1}, Cmd: proto.WatcherCommand{Cmd: c, ID: "1"}}
	}
	return out
}

// TestEveryPair: each state handles or refuses each event, commands are always
// answered, nothing panics, only declared transitions happen, and the given
// state is left alone.
func TestEveryPair(t *testing.T) {
	evs := every()
	now := time.Unix(1e9, 0)
	for w := range numStates {
		for k := range numEvents {
			ev, ok := evs[k]
			if !ok || absorb[k] == nil || deciders[w] == nil {
				t.Fatalf("event %s in %s is not handled", k, w)
			}
			if c := table[w][k]; c.takes == (c.refuse != "") {
				t.Errorf("the cell of %s in %s: takes %v, refuses %q", k, w, c.takes, c.refuse)
			}
			if table[w][k].refuse != "" && k < EvBegin {
				t.Errorf("%s refuses %s, which has happened", w, k)
			}
			s := New(Config{Name: "A", Remotes: []string{"B"}, Global: true, ErrorTime: 5 * time.Second, InstErrorTime: 5 * time.Second}, false, "", now)
			s.W = w
			if isIn(w, []WState{Switchover, OpenForce, ChangeArch, ClearSend, ClearRapply}) {
				s.Held = &Held{ID: "9", Last: now}
			}
			before := fmt.Sprintf("%+v", s)
			n, acts := Step(s, ev, now)
			if fmt.Sprintf("%+v", s) != before {
				t.Errorf("%s on %s changed its argument", w, k)
			}
			if n.Fault() != "" {
				t.Errorf("%s on %s: %s", w, k, n.Fault())
			}
			if table[w][k].refuse != "" && n.W != w {
				t.Errorf("%s refuses %s and goes to %s", w, k, n.W)
			}
			if k < EvBegin {
				continue
			}
			answers := 0
			for _, a := range acts {
				if r, ok := a.(Answer); ok {
					answers++
					if r.Reply.Code == 0 != (r.Reply.Msg == "" || table[w][k].refuse == "") && table[w][k].refuse != "" {
						t.Errorf("%s refuses %s with code 0", w, k)
					}
				}
			}
			if answers != 1 {
				t.Errorf("%s answers %s %d times", w, k, answers)
			}
		}
	}
}

func TestNamesOfStates(t *testing.T) {
	for w := range numStates {
		if v, ok := stateOf(w.String()); !ok || v != w {
			t.Errorf("state %d: %q", w, w)
		}
	}
	for _, k := range []string{proto.KindSwitchover, proto.KindTakeover, proto.KindOpenForce, proto.KindChangeArch, proto.KindClearSend, proto.KindClearApply} {
		if _, ok := stateOf(proto.StateOf(k)); !ok {
			t.Errorf("command kind %q has no state", k)
		}
	}
}

const docPath = "../../../docs/watcher-states.md"

func TestDocs(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Watcher states\n\nGenerated from internal/ha/fsm/table.go by `go test ./internal/ha/fsm -run TestDocs -write`.\n\n" +
		"## Changes of state\n\n| from | to | when |\n|---|---|---|\n")
	for f := range numStates {
		for to := range numStates {
			if why, ok := edges[edge{f, to}]; ok {
				fmt.Fprintf(&b, "| %s | %s | %s |\n", f, to, why)
			}
		}
	}
	b.WriteString("\n```mermaid\nstateDiagram-v2\n    [*] --> Startup\n")
	id := func(w WState) string {
		return strings.ReplaceAll(strings.ToUpper(w.String()[:1])+strings.ToLower(w.String()[1:]), " ", "_")
	}
	for f := range numStates {
		for to := range numStates {
			if why, ok := edges[edge{f, to}]; ok && !isIn(f, unused) {
				fmt.Fprintf(&b, "    %s --> %s: %s\n", id(f), id(to), why)
			}
		}
	}
	b.WriteString("```\n\n## Events\n\nEvery state takes in what has happened:")
	for k := range EvBegin {
		fmt.Fprintf(&b, "%s %s", map[bool]string{true: "", false: ","}[k == 0], k)
	}
	b.WriteString(". Commands can be refused (-):\n\n| command |")
	var used []WState
	for w := range numStates {
		if !isIn(w, unused) {
			used = append(used, w)
			fmt.Fprintf(&b, " %s |", w)
		}
	}
	b.WriteString(" why not |\n|---|" + strings.Repeat("---|", len(used)) + "---|\n")
	for k := EvBegin; k < numEvents; k++ {
		fmt.Fprintf(&b, "| %s |", k)
		refuse := ""
		for _, w := range used {
			if table[w][k].takes {
				b.WriteString(" takes |")
			} else {
				refuse = table[w][k].refuse
				b.WriteString(" - |")
			}
		}
		fmt.Fprintf(&b, " %s |\n", refuse)
	}
	var un []string
	for _, w := range unused {
		un = append(un, w.String())
	}
	fmt.Fprintf(&b, "\nKnown by name and never entered by a watcher itself: %s.\n", strings.Join(un, ", "))
	if *write {
		if err := os.WriteFile(docPath, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(docPath)
	if err != nil || string(have) != b.String() {
		t.Fatalf("%s is not current (%v): run go test ./internal/ha/fsm -run TestDocs -write", docPath, err)
	}
}

// TestEdges: what no event can bring about is still told apart.
func TestEdges(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := New(Config{Name: "A", Remotes: []string{"B"}}, true, "forked", now)
	if s.Ctl != proto.CtlSplit || s.CtlDesc != "forked" {
		t.Errorf("control file %s %q", s.Ctl, s.CtlDesc)
	}
	if WState(99).String() != "UNKNOWN" {
		t.Error(WState(99))
	}
	if _, ok := stateOf("nonsense"); ok {
		t.Error("nonsense is a state")
	}
	x := &m{State: &s, now: now}
	if x.to(UnifyEP, "", "test"); s.Fault() == "" {
		t.Error("an undeclared change of state is not noticed")
	}
	if x.kill("nothing was ever heard of it"); len(x.acts) != 1 {
		t.Errorf("%+v", x.acts)
	}
	if _, acts := Step(s, Command{Cmd: proto.WatcherCommand{Cmd: proto.DWCmdNoop}}, now); hasAnswer(acts) {
		t.Error("an answer nobody waits for")
	}
	for v := RemoteJoins; v <= Unknown+1; v++ {
		if v.String() == "" {
			t.Errorf("verdict %d", v)
		}
	}
}

func hasAnswer(acts []Action) bool {
	for _, a := range acts {
		if _, ok := a.(Answer); ok {
			return true
		}
	}
	return false
}

// TestGroupParas: what a monitor lets through, a watcher takes, and the other way
// round.
func TestGroupParas(t *testing.T) {
	for _, n := range proto.GroupParas {
		if _, ok := paras[n]; !ok {
			t.Errorf("%s cannot be set at a watcher", n)
		}
	}
	if len(paras) != len(proto.GroupParas) {
		t.Errorf("watchers take %d parameters, monitors offer %d", len(paras), len(proto.GroupParas))
	}
}
