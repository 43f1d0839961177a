package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
	"datawatch/internal/vfs"
	"datawatch/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakes is a group of fake watchers that share one lock and one journal.
type fakes struct {
	t   *testing.T
	mu  sync.Mutex
	all map[string]*fake
	log []string
	// fail makes "A step mount" and the like answer with an error; cutAt closes
	// the connection instead of answering.
	fail, cutAt string
	onCmd       func(line string) // with mu held
}

type fake struct {
	g     *fakes
	ln    net.Listener
	name  string
	hello base.Code
	st    proto.WatcherStatus
	conns map[net.Conn]*wire.Writer
	reps  chan proto.ConfirmReply
	wg    sync.WaitGroup
	done  chan struct{}
}

func newFakes(t *testing.T, names ...string) *fakes {
	g := &fakes{t: t, all: map[string]*fake{}}
	lin := base.Lineage{{ID: 1, TGUID: "g1"}, {ID: 2, TGUID: "g2"}}
	for i, n := range names {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f := &fake{g: g, ln: ln, name: n, conns: map[net.Conn]*wire.Writer{}, reps: make(chan proto.ConfirmReply, 4), done: make(chan struct{})}
		f.st = proto.WatcherStatus{Incarnation: "w" + n, Group: "GRP1", OGUID: 7, State: proto.DWOpen, CtlStatus: proto.CtlValid, InstOK: true,
			Config: proto.GroupConfig{Type: "GLOBAL", Mode: "AUTO", ErrorTime: 4},
			Inst: proto.InstanceStatus{InstName: n, Incarnation: "i" + n, Mode: base.ModeStandby, Status: base.StatusOpen, Lineage: lin,
				Keep: base.Position{Seq: 9, LSN: 90}, File: base.Position{Seq: 9, LSN: 90}, Apply: base.Position{Seq: 9, LSN: 90},
				ValidClaim: true, ValidClaimFrom: names[0], ValidClaimID: 2}}
		for _, o := range names {
			if o != n {
				f.st.Inst.Links = append(f.st.Inst.Links, proto.MALLink{Inst: o, Connected: true})
				f.st.Inst.Archives = append(f.st.Inst.Archives, proto.ArchStatus{Inst: o, Type: base.ArchRealtime, State: base.ArchInvalid})
				f.st.Remotes = append(f.st.Remotes, proto.RemoteView{Inst: o, DWLink: true, MALLink: true})
			}
		}
		if i == 0 {
			f.st.Inst.Mode, f.st.Inst.ValidClaim = base.ModePrimary, false
			for k := range f.st.Inst.Archives {
				f.st.Inst.Archives[k].State = base.ArchValid
			}
		}
		g.all[n] = f
		f.wg.Go(f.accept)
		f.wg.Go(f.broadcast)
	}
	t.Cleanup(func() {
		for _, f := range g.all {
			f.close()
		}
	})
	return g
}

func (f *fake) close() {
	select {
	case <-f.done:
		return
	default:
	}
	close(f.done)
	f.ln.Close()
	f.g.mu.Lock()
	for c := range f.conns {
		c.Close()
	}
	f.g.mu.Unlock()
	f.wg.Wait()
}

func (f *fake) broadcast() {
	for {
		f.g.mu.Lock()
		f.sendAll()
		f.g.mu.Unlock()
		select {
		case <-f.done:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (f *fake) sendAll() {
	f.st.Seq++
	b, _ := json.Marshal(f.st)
	for _, w := range f.conns {
		w.Write(proto.TypeDWStatus, 0, b)
	}
}

func (f *fake) accept() {
	for {
		c, err := f.ln.Accept()
		if err != nil {
			return
		}
		f.wg.Go(func() { f.serve(c) })
	}
}

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	w, r := wire.NewWriter(c), wire.NewReader(c, wire.MaxControl)
	fr, err := r.Read()
	if err != nil || fr.Type != proto.TypeHello {
		return
	}
	var h proto.Hello
	json.Unmarshal(fr.Payload, &h)
	f.g.mu.Lock()
	b, _ := json.Marshal(proto.HelloReply{Code: f.hello, GuardVersion: proto.GuardVersion, Name: f.name, OGUID: 7})
	w.Write(proto.TypeHelloReply, 0, b)
	if f.hello != 0 {
		f.g.mu.Unlock()
		return
	}
	f.st.Monitors = []proto.MonitorInfo{{ID: h.MonID, Confirm: h.MonConfirm}}
	f.conns[c] = w
	f.sendAll()
	f.g.mu.Unlock()
	defer func() {
		f.g.mu.Lock()
		delete(f.conns, c)
		f.g.mu.Unlock()
	}()
	for {
		fr, err := r.Read()
		if err != nil {
			return
		}
		switch fr.Type {
		case proto.TypeDWCmd:
			var cmd proto.WatcherCommand
			json.Unmarshal(fr.Payload, &cmd)
			if !f.g.command(f, w, fr.ID, cmd) {
				return
			}
		case proto.TypeConfirmRep:
			var rep proto.ConfirmReply
			json.Unmarshal(fr.Payload, &rep)
			f.reps <- rep
		}
	}
}

// command plays the watcher: it notes the command, changes its status as the
// instance would, and answers; false cuts the connection.
func (g *fakes) command(f *fake, w *wire.Writer, id uint64, cmd proto.WatcherCommand) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	line := f.name + " " + cmd.Cmd
	switch {
	case cmd.Order != nil:
		line += " " + cmd.Order.Cmd
		if cmd.Order.Cmd == proto.CmdSetMode {
			line += " " + cmd.Order.Mode.String()
		}
	case cmd.Cmd == proto.DWCmdBegin:
		line += " " + cmd.Kind
	case cmd.Cmd == proto.DWCmdEnd:
		line += fmt.Sprintf(" failed=%v", cmd.Failed)
	}
	g.log = append(g.log, line)
	if g.onCmd != nil {
		g.onCmd(line)
	}
	if g.cutAt != "" && strings.HasPrefix(line, g.cutAt) {
		g.cutAt = ""
		return false
	}
	rep := proto.WatcherReply{}
	if g.fail != "" && strings.HasPrefix(line, g.fail) {
		rep.Code, rep.Msg = -8125, "made to fail"
	} else {
		g.apply(f, cmd)
	}
	f.sendAll()
	rep.Status = f.st
	b, _ := json.Marshal(rep)
	return w.Write(proto.TypeDWReply, id, b) == nil
}

func (g *fakes) apply(f *fake, cmd proto.WatcherCommand) {
	st := &f.st
	switch cmd.Cmd {
	case proto.DWCmdBegin:
		st.State, st.Cmd = proto.StateOf(cmd.Kind), &proto.HeldCommand{ID: cmd.ID, Mon: cmd.Mon, Kind: cmd.Kind}
	case proto.DWCmdEnd:
		st.State, st.Cmd = proto.DWOpen, nil
		if cmd.Failed {
			st.State = proto.DWStartup
		}
	case proto.DWCmdStopDW:
		st.State = proto.DWShutdown
	case proto.DWCmdStartDW:
		st.State = proto.DWStartup
	case proto.DWCmdStopInst, proto.DWCmdKillInst:
		st.State, st.InstOK = proto.DWShutdown, false
	case proto.DWCmdStartInst:
		st.InstOK, st.Inst.Status = true, base.StatusMount
	case proto.DWCmdRecoverT:
		st.RecoverTime = map[string]int{cmd.Inst: 0}
	case proto.DWCmdStep:
		switch o := cmd.Order; o.Cmd {
		case proto.CmdMount:
			st.Inst.Status = base.StatusMount
		case proto.CmdOpen:
			st.Inst.Status = base.StatusOpen
		case proto.CmdSetMode:
			st.Inst.Mode = o.Mode
		case proto.CmdSetArch:
			for i := range st.Inst.Archives {
				if o.Inst == "" || o.Inst == st.Inst.Archives[i].Inst {
					st.Inst.Archives[i].State = o.State
				}
			}
		}
	}
}

func (g *fakes) change(name string, fn func(*proto.WatcherStatus)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	fn(&g.all[name].st)
	g.all[name].sendAll()
}

func (g *fakes) journal() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.log...)
}

func (g *fakes) open(t *testing.T, set func(*Config)) *Monitor {
	t.Helper()
	cfg := Config{Groups: []Group{{Name: "GRP1", OGUID: 7}}, StateDir: "/mon", FS: vfs.NewMem(), ErrorTime: 4 * time.Second,
		Heartbeat: 10 * time.Millisecond, StepTime: 10 * time.Second, ConfirmGrace: 50 * time.Millisecond}
	for _, n := range []string{"A", "B", "C"} {
		if f := g.all[n]; f != nil {
			cfg.Groups[0].Addrs = append(cfg.Groups[0].Addrs, f.ln.Addr().String())
		}
	}
	if set != nil {
		set(&cfg)
	}
	m, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func ready(t *testing.T, m *Monitor) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := m.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

func login(t *testing.T, m *Monitor) {
	t.Helper()
	ready(t, m)
	if err := m.Login(t.Context(), "SYSDBA", "x"); err != nil {
		t.Fatal(err)
	}
}

// until polls with a deadline; the fakes are real connections.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long: %s", what)
		}
	}
}
