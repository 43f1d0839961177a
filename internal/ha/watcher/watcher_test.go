package watcher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"datawatch/internal/base"
	"datawatch/internal/ha/fsm"
	"datawatch/internal/ha/proto"
	"datawatch/internal/vfs"
	"datawatch/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network is a set of listeners by address, over in-memory pipes.
type network struct {
	mu  sync.Mutex
	all map[string]*listener
}

type listener struct {
	n    *network
	addr string
	ch   chan net.Conn
	done chan struct{}
	once sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ch:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *listener) Close() error {
	l.once.Do(func() {
		l.n.mu.Lock()
		delete(l.n.all, l.addr)
		l.n.mu.Unlock()
		close(l.done)
	})
	return nil
}
func (l *listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func (n *network) listen(addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all[addr] != nil {
		return nil, errors.New("address in use")
	}
	l := &listener{n: n, addr: addr, ch: make(chan net.Conn), done: make(chan struct{})}
	n.all[addr] = l
	return l, nil
}

func (n *network) dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.all[addr]
	n.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	a, b := net.Pipe()
	select {
	case l.ch <- b:
		return a, nil
	case <-l.done:
	case <-ctx.Done():
	}
	a.Close()
	b.Close()
	return nil, errors.New("connection refused")
}

// fakeInst is an instance that obeys orders without a database.
type fakeInst struct {
	t    *testing.T
	name string
	ln   net.Listener
	mu   sync.Mutex
	st   proto.InstanceStatus
	got  []string
	info []proto.WatcherInfo // what the watcher has said of itself
	old  bool                // it does not know that
	wg   sync.WaitGroup
	open map[net.Conn]bool
	end  chan struct{}
}

func startInst(t *testing.T, n *network, name string, pid int, mode base.Mode) *fakeInst {
	ln, err := n.listen("inst-" + name)
	if err != nil {
		t.Fatal(err)
	}
	other := map[string]string{"A": "B", "B": "A"}[name]
	f := &fakeInst{t: t, name: name, ln: ln, open: map[net.Conn]bool{}, end: make(chan struct{}), st: proto.InstanceStatus{
		PID: pid, Incarnation: fmt.Sprint(name, pid), InstName: name, Mode: mode, Status: base.StatusMount, OGUID: 9,
		File: base.Position{Seq: 3, LSN: 3}, Apply: base.Position{Seq: 3, LSN: 3}, Keep: base.Position{Seq: 3, LSN: 3},
		Lineage:  base.Lineage{{ID: 1, TGUID: "x", CurInst: "A", Apply: []base.Position{{}}}},
		Archives: []proto.ArchStatus{{Inst: other, Type: base.ArchRealtime, State: base.ArchValid}},
		Links:    []proto.MALLink{{Inst: other, Connected: true}}}}
	f.wg.Add(1)
	go func() {
		defer f.wg.Done()
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.open[c] = true
			f.mu.Unlock()
			f.wg.Add(1)
			go func() {
				defer f.wg.Done()
				f.serve(c)
			}()
		}
	}()
	return f
}

func put(w *wire.Writer, typ uint16, id uint64, v any) error {
	b, _ := json.Marshal(v)
	return w.Write(typ, id, b)
}

func (f *fakeInst) serve(c net.Conn) {
	defer c.Close()
	r, w := wire.NewReader(c, wire.MaxControl), wire.NewWriter(c)
	if _, err := r.Read(); err != nil {
		return
	}
	if put(w, proto.TypeHelloReply, 0, proto.HelloReply{GuardVersion: proto.GuardVersion, Name: f.name, OGUID: 9}) != nil {
		return
	}
	stop := make(chan struct{})
	defer close(stop)
	f.wg.Add(1)
	go func() {
		defer f.wg.Done()
		for {
			f.mu.Lock()
			st := f.st
			f.mu.Unlock()
			if put(w, proto.TypeInstStatus, 0, st) != nil {
				return
			}
			select {
			case <-time.After(200 * time.Millisecond):
			case <-stop:
				return
			case <-f.end:
				return
			}
		}
	}()
	for {
		fr, err := r.Read()
		if err != nil {
			return
		}
		var cmd proto.InstanceCommand
		if json.Unmarshal(fr.Payload, &cmd) != nil {
			return
		}
		if cmd.Cmd == proto.CmdWatcher {
			f.mu.Lock()
			f.info = append(f.info, *cmd.Watcher)
			f.mu.Unlock()
			if f.old && put(w, proto.TypeInstReply, fr.ID, proto.InstanceReply{Code: -1, Status: f.status()}) != nil {
				return
			}
			continue
		}
		f.mu.Lock()
		f.got = append(f.got, cmd.Cmd)
		switch cmd.Cmd {
		case proto.CmdOpen:
			f.st.Status = base.StatusOpen
		case proto.CmdMount:
			f.st.Status = base.StatusMount
		case proto.CmdSetMode:
			f.st.Mode = cmd.Mode
		case proto.CmdSetArch:
			f.st.Archives = []proto.ArchStatus{{Inst: f.st.Archives[0].Inst, Type: base.ArchRealtime, State: cmd.State}}
		}
		rep := proto.InstanceReply{Status: f.st}
		f.mu.Unlock()
		if put(w, proto.TypeInstReply, fr.ID, rep) != nil {
			return
		}
	}
}

func (f *fakeInst) stop() {
	f.ln.Close()
	close(f.end)
	f.mu.Lock()
	for c := range f.open {
		c.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
}

// told is what the watcher has said of itself last, and how often.
func (f *fakeInst) told() (last proto.WatcherInfo, times int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if times = len(f.info); times > 0 {
		last = f.info[times-1]
	}
	return last, times
}

func (f *fakeInst) status() proto.InstanceStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.st
}

// procs is a process table in memory.
type procs struct {
	mu      sync.Mutex
	alive   map[int]bool
	killed  []int
	onStart func() int
	starts  int
}

func (p *procs) Start(StartCommand) (Process, error) {
	p.mu.Lock()
	p.starts++
	f := p.onStart
	p.mu.Unlock()
	if f == nil {
		return Process{}, errors.New("no program")
	}
	return Process{PID: f(), Done: make(chan struct{})}, nil
}
func (p *procs) Identity(pid int) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.alive[pid] {
		return "", fmt.Errorf("process %d: %w", pid, fs.ErrNotExist)
	}
	return fmt.Sprint(pid), nil
}
func (p *procs) Alive(pid int, _ string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.alive[pid]
}
func (p *procs) Kill(pid int, _ string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed = append(p.killed, pid)
	delete(p.alive, pid)
	return nil
}
func (p *procs) set(pid int, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.alive[pid] = on
}

type guarded struct {
	g      *Guard
	cancel context.CancelFunc
	done   chan error
}

func startGuard(t *testing.T, n *network, ps *procs, name string, edit func(*Config)) *guarded {
	other := map[string]string{"A": "B", "B": "A"}[name]
	cfg := Config{FSM: fsm.Config{Group: "G", Name: name, Remotes: []string{other}, Global: true, Auto: true, OGUID: 9,
		ErrorTime: 5 * time.Second, InstErrorTime: 5 * time.Second, RecoverTime: 3, AutoRestart: true, Reconnect: true, StartupCmd: "/x", Port: 1},
		InstAddr: "inst-" + name, Listen: "dw-" + name, Peers: []Peer{{other, "dw-" + other}}, CtlPath: filepath.Join(t.TempDir(), "dmwatcher.ctl")}
	if edit != nil {
		edit(&cfg)
	}
	g, err := New(cfg, Deps{Dial: n.dial, Listen: n.listen, Procs: ps, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	x := &guarded{g, cancel, make(chan error, 1)}
	go func() { x.done <- g.Run(ctx) }()
	return x
}

func (x *guarded) stop(t *testing.T) {
	x.cancel()
	if err := <-x.done; err != nil {
		t.Error(err)
	}
}

func (x *guarded) snap(t *testing.T) Snapshot {
	s, err := x.g.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// until polls in the bubble's time.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 600 {
		if f() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func TestGroupOpensAndRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{all: map[string]*listener{}}
		ps := &procs{alive: map[int]bool{11: true, 12: true, 21: true}}
		a, b := startInst(t, n, "A", 11, base.ModePrimary), startInst(t, n, "B", 12, base.ModeStandby)
		ga, gb := startGuard(t, n, ps, "A", nil), startGuard(t, n, ps, "B", nil)
		until(t, "both open", func() bool {
			return a.status().Status == base.StatusOpen && b.status().Status == base.StatusOpen && ga.snap(t).Status.State == proto.DWOpen
		})
		if s := ga.snap(t); len(s.Links) != 2 || s.Status.Inst.Archives[0].State != base.ArchValid {
			t.Errorf("links %v, archives %v", s.Links, s.Status.Inst.Archives)
		}
		// The instance dies: noticed by its process, restarted once, opened again.
		var a2 atomic.Pointer[fakeInst]
		ps.mu.Lock()
		ps.onStart = func() int { a2.Store(startInst(t, n, "A", 21, base.ModePrimary)); return 21 }
		ps.mu.Unlock()
		ps.set(11, false)
		a.stop()
		began := time.Now()
		until(t, "restarted and open", func() bool { x := a2.Load(); return x != nil && x.status().Status == base.StatusOpen })
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("took %s", d)
		}
		if ps.starts != 1 {
			t.Errorf("%d starts", ps.starts)
		}
		ga.stop(t)
		gb.stop(t)
		a2.Load().stop()
		b.stop()
	})
}

// TestDeadBeforeItWasLookedAt: an instance whose process ends between its first
// words and the look at the process table is gone, and is started again.
func TestDeadBeforeItWasLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{all: map[string]*listener{}}
		ps := &procs{alive: map[int]bool{}} // 11 has ended; what it said is on its way
		a := startInst(t, n, "A", 11, base.ModeStandby)
		var a2 atomic.Pointer[fakeInst]
		ps.onStart = func() int { ps.set(21, true); a2.Store(startInst(t, n, "A", 21, base.ModeStandby)); return 21 }
		g := startGuard(t, n, ps, "A", nil)
		until(t, "heard", func() bool { return g.snap(t).Status.Inst.PID == 11 })
		a.stop()
		until(t, "started again", func() bool { s := g.snap(t).Status; return s.InstOK && s.Inst.PID == 21 })
		g.stop(t)
		a2.Load().stop()
	})
}

func TestBrokenLinkWithoutReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{all: map[string]*listener{}}
		ps := &procs{alive: map[int]bool{11: true}}
		a := startInst(t, n, "A", 11, base.ModePrimary)
		g := startGuard(t, n, ps, "A", func(c *Config) { c.FSM.Reconnect = false })
		until(t, "instance OK", func() bool { return g.snap(t).Status.InstOK })
		a.stop() // the connection breaks, the process lives
		until(t, "killed", func() bool { ps.mu.Lock(); defer ps.mu.Unlock(); return len(ps.killed) == 1 })
		if g.snap(t).Status.InstOK {
			t.Error("still OK")
		}
		g.stop(t)
	})
}

// dialMon says hello as a monitor.
func dialMon(t *testing.T, n *network, id string, confirm bool) (net.Conn, *wire.Reader, *wire.Writer, proto.HelloReply) {
	c, err := n.dial(t.Context(), "dw-A")
	if err != nil {
		t.Fatal(err)
	}
	r, w := wire.NewReader(c, wire.MaxControl), wire.NewWriter(c)
	if err := put(w, proto.TypeHello, 0, proto.Hello{Role: proto.RoleMonitor, GuardVersion: proto.GuardVersion, OGUID: 9, MonID: id, MonConfirm: confirm}); err != nil {
		t.Fatal(err)
	}
	f, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	var h proto.HelloReply
	if err := json.Unmarshal(f.Payload, &h); err != nil {
		t.Fatal(err)
	}
	return c, r, w, h
}

func TestMonitorCommandsAndGarbage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{all: map[string]*listener{}}
		ps := &procs{alive: map[int]bool{}}
		g := startGuard(t, n, ps, "A", nil)
		c, r, w, h := dialMon(t, n, "m1", true)
		if h.Code != 0 || h.Name != "A" {
			t.Fatalf("hello: %+v", h)
		}
		if c2, _, _, h2 := dialMon(t, n, "m2", true); h2.Code != -14 {
			t.Errorf("second confirm monitor: %+v", h2)
		} else {
			c2.Close()
		}
		if err := put(w, proto.TypeDWCmd, 7, proto.WatcherCommand{Cmd: proto.DWCmdStopDW, Mon: "m1"}); err != nil {
			t.Fatal(err)
		}
		statuses := 0
		for {
			f, err := r.Read()
			if err != nil {
				t.Fatal(err)
			}
			if f.Type == proto.TypeDWStatus {
				statuses++
				continue
			}
			var rep proto.WatcherReply
			if json.Unmarshal(f.Payload, &rep) != nil || f.ID != 7 || rep.Code != 0 || rep.Status.State != proto.DWShutdown {
				t.Fatalf("reply %d %+v", f.ID, rep)
			}
			break
		}
		c.Close()
		for name, b := range map[string][]byte{
			"noise": bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 20), "huge": append([]byte("DWF1\xff\xff\xff\x7f"), make([]byte, 64)...),
		} {
			c, err := n.dial(t.Context(), "dw-A")
			if err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = c.Write(b) }()
			if _, err := io.ReadAll(c); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("%s: %v", name, err)
			}
			c.Close()
		}
		// After a good hello, a message no monitor sends ends the connection.
		c, r, w, _ = dialMon(t, n, "m3", false)
		if err := put(w, proto.TypeInstReply, 1, "x"); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := r.Read(); err != nil {
				break
			}
		}
		c.Close()
		until(t, "monitors gone", func() bool { s := g.snap(t); return len(s.Links) == 0 && s.Status.State == proto.DWShutdown })
		g.stop(t)
	})
}

func TestControlFile(t *testing.T) {
	p := filepath.Join(t.TempDir(), "dmwatcher.ctl")
	if split, _, err := readCtl(vfs.OS{}, p); split || err != nil {
		t.Fatal(split, err)
	}
	if err := writeCtl(vfs.OS{}, p, "because\nof this"); err != nil {
		t.Fatal(err)
	}
	if split, d, err := readCtl(vfs.OS{}, p); !split || d != "because of this" || err != nil {
		t.Fatalf("%v %q %v", split, d, err)
	}
	full, _ := os.ReadFile(p)
	for cut := range len(full) - 1 {
		if err := os.WriteFile(p, full[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if split, _, err := readCtl(vfs.OS{}, p); !split || err != nil {
			t.Fatalf("cut at %d: %v %v", cut, split, err)
		}
	}
}

func TestStartCommand(t *testing.T) {
	for _, tc := range []struct {
		line, want string
		bad        bool
	}{
		{"/opt/dm/bin/dmserver", "[/opt/dm/bin/dmserver /d/dm.ini mount]", false},
		{"service dmserverd restart", "[service dmserverd restart]", false},
		{"/opt/my dir/dmserver", "", true},
		{"", "", true},
	} {
		got, err := StartCommand{Line: tc.line, Ini: "/d/dm.ini"}.Args()
		if (err != nil) != tc.bad || !tc.bad && fmt.Sprint(got) != tc.want {
			t.Errorf("%q: %v, %v", tc.line, got, err)
		}
	}
}

func TestOSProcesses(t *testing.T) {
	var p OSProcesses
	dir := t.TempDir()
	prog := filepath.Join(dir, "prog")
	if err := os.WriteFile(prog, []byte("#!/bin/sh\necho started $1 $2\nexec sleep 60\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	x, err := p.Start(StartCommand{Line: prog, Ini: "dm.ini", Output: filepath.Join(dir, "log", "out.log")})
	if err != nil {
		t.Fatal(err)
	}
	id, err := p.Identity(x.PID)
	if err != nil || !p.Alive(x.PID, id) || p.Alive(x.PID, "0") {
		t.Fatalf("identity %q %v", id, err)
	}
	if err := p.Kill(x.PID, "0"); err != nil || !p.Alive(x.PID, id) {
		t.Fatal("killed a process of another identity")
	}
	if err := p.Kill(x.PID, id); err != nil {
		t.Fatal(err)
	}
	<-x.Done
	if p.Alive(x.PID, id) {
		t.Fatal("alive after kill")
	}
}

// A killed process holds its ports until its last thread is gone.
func TestEnded(t *testing.T) {
	for _, c := range []struct {
		state, threads string
		want           bool
	}{{"S", "9", false}, {"R", "1", false}, {"T", "9", false}, {"Z", "9", false}, {"Z", "1", true}, {"Z", "0", true}, {"X", "1", true}} {
		f := make([]string, 20)
		f[0], f[17] = c.state, c.threads
		if got := ended(f); got != c.want {
			t.Errorf("state %s with %s threads: ended %v", c.state, c.threads, got)
		}
	}
}
