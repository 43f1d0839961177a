package server

import (
	"bufio"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync/atomic"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/ha/proto"
	"datawatch/internal/secure"
	"datawatch/internal/wire"
)

// counting is an instance whose every state differs from the one before.
type counting struct{ n atomic.Uint64 }

func (c *counting) status() proto.InstanceStatus {
	return proto.InstanceStatus{InstName: "A", OGUID: 1, Cur: base.Position{LSN: base.LSN(c.n.Add(1))}}
}

func (c *counting) execute(context.Context, proto.InstanceCommand) error { return nil }

// TestStatusNumbers: messages and replies are numbered in the order of the
// states they tell, so that a watcher can drop one that was overtaken.
func TestStatusNumbers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	inst := &counting{}
	p := newDWPort(inst, clock.Real{}, slog.New(slog.DiscardHandler))
	go p.serve(t.Context(), l)
	defer func() { l.Close(); p.close() }()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	w, r := wire.NewWriter(nc), wire.NewReader(bufio.NewReader(nc), wire.MaxControl)
	send := func(typ uint16, id uint64, v any) {
		b, err := json.Marshal(v)
		if err == nil {
			err = w.Write(typ, id, b)
		}
		if err != nil {
			t.Error(err)
		}
	}
	send(proto.TypeHello, 0, proto.Hello{Role: proto.RoleWatcher, GuardVersion: proto.GuardVersion, OGUID: 1})
	const commands = 100
	go func() {
		for i := range uint64(commands) {
			send(proto.TypeInstCmd, i+1, proto.InstanceCommand{Cmd: proto.CmdNoop})
			p.changed()
		}
	}()
	states := map[uint64]base.LSN{}
	for replies := 0; replies < commands; {
		f, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		var st proto.InstanceStatus
		switch f.Type {
		case proto.TypeInstStatus:
			err = json.Unmarshal(f.Payload, &st)
		case proto.TypeInstReply:
			var rep proto.InstanceReply
			err = json.Unmarshal(f.Payload, &rep)
			st = rep.Status
			replies++
		default:
			continue
		}
		if _, twice := states[st.Seq]; err != nil || st.Seq == 0 || twice {
			t.Fatalf("number %d, twice %v, %v", st.Seq, twice, err)
		}
		states[st.Seq] = st.Cur.LSN
	}
	last := base.LSN(0)
	for _, seq := range slices.Sorted(maps.Keys(states)) {
		if states[seq] <= last {
			t.Fatalf("status %d tells state %d after state %d", seq, states[seq], last)
		}
		last = states[seq]
	}
}

// The port is for the watcher of this instance, and tells others so.
func TestDWPortIsForItsWatcher(t *testing.T) {
	p := newDWPort(nil, nil, nil).port("A")
	for _, c := range []struct {
		peer secure.Peer
		ok   bool
	}{
		{secure.Peer{Role: secure.Watcher, Name: "a"}, true},
		{secure.Peer{Role: secure.Watcher, Name: "B"}, false},
		{secure.Peer{Role: secure.Instance, Name: "A"}, false},
		{secure.Peer{Role: secure.Monitor, Name: "A"}, false},
	} {
		if err := p.Allow(c.peer); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.peer, err)
		}
	}
	typ, b := p.Refusal("no")
	var r proto.HelloReply
	if err := json.Unmarshal(b, &r); err != nil || typ != proto.TypeHelloReply || r.Code == 0 || r.Msg != "no" {
		t.Errorf("refusal: type %d, %s", typ, b)
	}
}
