package server

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"strconv"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
	"datawatch/internal/wire"
)

// TestOrdersOfTheWatcher: V$UTSK_INFO has the newest orders with their outcome,
// V$UTSK_SYS2 what the instance knows of its watcher (manual 10.1 #1, #2).
func TestOrdersOfTheWatcher(t *testing.T) {
	p := newPair(t)
	p.open()
	v := source{p.a}
	if s := v.UtskSys()[0]; s.Running || s.Break || s.AutoSwitch != "" || !s.LastMsg.IsZero() || s.Version != proto.GuardVersion {
		t.Errorf("before a watcher has connected: %+v", s)
	}
	if l := v.UtskInfo(); len(l) != 1 || l[0].Cmd != proto.CmdOpen || l[0].Code != 0 || l[0].DSeq2 != 1 {
		t.Errorf("after open: %+v", l)
	}
	nc, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p.ports["A"][2])))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	b, _ := json.Marshal(proto.Hello{Role: proto.RoleWatcher, GuardVersion: proto.GuardVersion, Name: "A", OGUID: p.a.eng.Control().OGUID, Auto: true})
	if err := wire.NewWriter(nc).Write(proto.TypeHello, 0, b); err != nil {
		t.Fatal(err)
	}
	if f, err := wire.NewReader(bufio.NewReader(nc), wire.MaxControl).Read(); err != nil || f.Type != proto.TypeHelloReply {
		t.Fatal(f.Type, err)
	}
	p.until("the watcher is known", func() bool { s := v.UtskSys()[0]; return s.AutoSwitch == "TRUE" && !s.LastMsg.IsZero() })

	last := func() (r struct {
		cmd, inst string
		code      int64
		brk, run  bool
	}) {
		l, s := v.UtskInfo(), v.UtskSys()[0]
		x := l[len(l)-1]
		r.cmd, r.inst, r.code, r.brk, r.run = x.Cmd, x.Inst, x.Code, s.Break, s.Running
		return r
	}
	if err := p.a.execute(t.Context(), proto.InstanceCommand{Cmd: proto.CmdSetMode, Mode: base.ModeStandby}); err == nil {
		t.Fatal("the mode of an Open database was changed")
	}
	if r := last(); r.cmd != proto.CmdSetMode || r.code >= 0 || r.brk || r.run {
		t.Errorf("refused: %+v", r)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_ = p.a.execute(gone, proto.InstanceCommand{Cmd: proto.CmdMount})
	if r := last(); r.cmd != proto.CmdMount || r.code != int64(codeInterupted) || !r.brk {
		t.Errorf("its watcher has gone: %+v", r)
	}
	end := p.a.orders.begin(proto.InstanceCommand{Cmd: proto.CmdArchSend, Inst: "B"})
	if r := last(); r.inst != "B" || r.code != 100 || !r.run {
		t.Errorf("under way: %+v", r)
	}
	end(nil)
	if r := last(); r.code != 0 || r.brk || r.run {
		t.Errorf("done: %+v", r)
	}
	for range 2 * maxOrders {
		p.a.orders.begin(proto.InstanceCommand{Cmd: proto.CmdNoop})(nil)
	}
	if l := v.UtskInfo(); len(l) != maxOrders || l[0].Nth != 0 || l[maxOrders-1].Nth != maxOrders-1 || l[0].DSeq2 <= 1 {
		t.Errorf("%d orders are kept, the oldest %+v", len(l), l[0])
	}
}
