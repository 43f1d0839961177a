// Package watcher drives package fsm: it owns the sockets, timers, processes
// and the one file of a watcher, feeds what it sees to fsm.Step and performs
// what that returns. It decides nothing itself.
//
// One Guard guards one instance of one group. Its connections (manual 3.1):
// it dials its instance (MAL_HOST:MAL_INST_DW_PORT) again and again, listens on
// MAL_DW_PORT for monitors and watchers, and has one connection with every
// other watcher of the group, dialled by the one whose instance name is
// smaller, so that what a pair of watchers say to each other stays in order
// (fsm relies on that). Frames are capped and checked; a peer that sends
// anything else is disconnected and nothing changes (G8).
//
// Goroutines: one loop owns all state and is the only caller of fsm.Step;
// every connection has a reader, which posts events, and a writer, which
// drains a bounded queue. Closing: the context ends the loop, the loop closes
// listener and connections, Run waits for every goroutine.
package watcher

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"datawatch/internal/clock"
	"datawatch/internal/ha/fsm"
	"datawatch/internal/ha/proto"
	"datawatch/internal/secure"
	"datawatch/internal/vfs"
)

const (
	statusEvery = 200 * time.Millisecond // manual 3.1.2: regularly
	tickEvery   = 100 * time.Millisecond
	redialEvery = 200 * time.Millisecond
	helloWait   = 5 * time.Second
	maxMonitors = 10 // manual 4.1
)

// Peer is another watcher of the group.
type Peer struct {
	Inst string // instance it guards
	Addr string // MAL_HOST:MAL_DW_PORT
}

// Config of one guard.
type Config struct {
	FSM      fsm.Config
	InstAddr string // MAL_HOST:MAL_INST_DW_PORT of the own instance
	Listen   string // MAL_HOST:MAL_DW_PORT
	Peers    []Peer
	// ServiceHost is the address by which clients reach the instance
	// (MAL_INST_HOST); "" is not watched.
	ServiceHost string
	CtlPath     string // dmwatcher.ctl in SYSTEM_PATH
	InstLog     string // file that takes the output of a started instance
	Version     string // build, display only
	// Groups is the number of groups that the program guards; 0 means 1. Switches
	// counts the changes of primary in all of them; nil: only this group's.
	Groups   int
	Switches *atomic.Int64
}

// Deps are the things of the world a guard uses; nil fields take the real one.
type Deps struct {
	Clock  clock.Clock
	Dial   func(ctx context.Context, addr string) (net.Conn, error)
	Listen func(addr string) (net.Listener, error)
	Secure *secure.Endpoint // links that only programs of the group can open; nil: plain
	Procs  Processes
	PID    int    // what the watcher says its process is; 0: this process
	FS     vfs.FS // of dmwatcher.ctl; nil: the operating system's
	// Unserved tells why clients cannot reach an address of this machine, ""
	// when they can or that is not known.
	Unserved func(ctx context.Context, host string) string
	SavePara func(group, name, value string) error // dmwatcher.ini
	Log      *slog.Logger
}

// Guard guards one instance.
type Guard struct {
	cfg   Config
	deps  Deps
	inc   string
	ln    net.Listener
	ctx   context.Context
	in    chan any
	wg    sync.WaitGroup
	state fsm.State
	seq   uint64
	// stepped is when the decision was made whose actions are being performed.
	stepped time.Time

	nextConn uint64
	conns    map[uint64]*conn
	inst     *conn
	remotes  map[string]*conn
	mons     map[string]*conn
	watchPID int
	watchID  string
	gonePID  int
	looked   time.Time // when leaveSilent last ran
	gate     *secure.Gate
	info     info
}

// Snapshot is what the console shows.
type Snapshot struct {
	Status proto.WatcherStatus
	Links  []Link
}

// Link is a row of `show link` (manual 3.7 #8).
type Link struct {
	From, Inst, Handle, MonID, Addr string
	Confirm                         bool
	Since                           time.Time
}

// How long and how often a port that is taken is tried again: the process before
// this one may have been killed a moment ago.
const (
	listenPatience = 5 * time.Second
	listenPause    = 100 * time.Millisecond
)

func listen(addr string, deps Deps) (net.Listener, error) {
	for begun, said := deps.Clock.Now(), false; ; said = true {
		ln, err := deps.Listen(addr)
		if !errors.Is(err, syscall.EADDRINUSE) || deps.Clock.Now().Sub(begun) >= listenPatience {
			return ln, err
		}
		if !said {
			deps.Log.Warn("MAL_DW_PORT is taken, trying again", "addr", addr, "for", listenPatience.String(), "err", err)
		}
		if err := deps.Clock.Sleep(context.Background(), listenPause); err != nil {
			return nil, err
		}
	}
}

// New prepares a guard and takes its listening port, so that a port in use is
// an error at start.
func New(cfg Config, deps Deps) (*Guard, error) {
	if deps.Clock == nil {
		deps.Clock = clock.Real{}
	}
	if deps.PID == 0 {
		deps.PID = os.Getpid()
	}
	if deps.Dial == nil {
		deps.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			d := net.Dialer{Timeout: 3 * time.Second}
			return d.DialContext(ctx, "tcp", addr)
		}
	}
	if deps.Listen == nil {
		deps.Listen = func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
	}
	if deps.Unserved == nil {
		deps.Unserved = unserved
	}
	if deps.FS == nil {
		deps.FS = vfs.OS{}
	}
	if deps.Procs == nil {
		deps.Procs = OSProcesses{}
	}
	if deps.Log == nil {
		deps.Log = slog.Default()
	}
	cfg.Groups = max(cfg.Groups, 1)
	if cfg.Switches == nil {
		cfg.Switches = new(atomic.Int64)
	}
	deps.Log = deps.Log.With("group", cfg.FSM.Group, "inst", cfg.FSM.Name)
	split, desc, err := readCtl(deps.FS, cfg.CtlPath)
	if err != nil {
		return nil, err
	}
	if split {
		deps.Log.Warn("[!!! dmwatcher.ctl says Split: " + desc + " !!!]")
	}
	ln, err := listen(cfg.Listen, deps)
	if err != nil {
		return nil, fmt.Errorf("listen for watchers and monitors on %s (MAL_DW_PORT): %w", cfg.Listen, err)
	}
	ln = deps.Secure.Listen(ln, secure.Port{Name: "MAL_DW_PORT", Refusal: refusal, Allow: allow})
	var id [8]byte
	_, _ = rand.Read(id[:])
	return &Guard{cfg: cfg, deps: deps, ln: ln, inc: hex.EncodeToString(id[:]), in: make(chan any, 256),
		state: fsm.New(cfg.FSM, split, desc, deps.Clock.Now()), gate: secure.NewGate(deps.Clock),
		conns: map[uint64]*conn{}, remotes: map[string]*conn{}, mons: map[string]*conn{},
		info: info{ctls: map[string]bool{}, insts: map[string]bool{}}}, nil
}

// Addr is the address the guard listens on.
func (g *Guard) Addr() net.Addr { return g.ln.Addr() }

// posted events that are not fsm events.
type (
	acceptedMsg struct {
		c     *conn
		hello proto.Hello
		reply chan proto.HelloReply
	}
	dialledMsg struct {
		c    *conn
		peer string // "" the own instance
		pid  int
		ok   chan bool
	}
	closedMsg struct{ c *conn }
	frameMsg  struct {
		c *conn
		f any
	}
	snapshotMsg struct{ to chan Snapshot }
)

// post hands an event to the loop; false when the guard is ending.
func (g *Guard) post(ev any) bool {
	select {
	case g.in <- ev:
		return true
	case <-g.ctx.Done():
		return false
	}
}

// Run guards until ctx ends.
func (g *Guard) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	g.ctx = ctx
	defer func() {
		cancel()
		_ = g.ln.Close()
		for _, c := range g.conns {
			c.close()
		}
		g.wg.Wait()
	}()
	g.spawn(g.acceptLoop)
	g.spawn(func() { g.dialLoop("", g.cfg.InstAddr) })
	for _, p := range g.cfg.Peers {
		if g.dials(p.Inst) {
			g.spawn(func() { g.dialLoop(p.Inst, p.Addr) })
		}
	}
	if g.cfg.ServiceHost != "" {
		g.spawn(g.watchService)
	}
	g.deps.Log.Info("watcher runs", "listen", g.ln.Addr().String(), "instance", g.cfg.InstAddr, "pid", g.deps.PID)
	tick := g.deps.Clock.NewTicker(tickEvery)
	defer tick.Stop()
	nextStatus := g.deps.Clock.Now()
	for {
		select {
		case <-ctx.Done():
			g.deps.Log.Info("watcher ends")
			return nil
		case ev := <-g.in:
			g.handle(ev)
		case <-tick.C:
			g.watchProcess()
			g.step(fsm.Tick{})
			g.leaveSilent()
			if now := g.deps.Clock.Now(); !now.Before(nextStatus) {
				nextStatus = now.Add(statusEvery)
				g.broadcast()
			}
		}
	}
}

func (g *Guard) spawn(f func()) {
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		f()
	}()
}

// Snapshot returns the present status and connections, of a running guard.
func (g *Guard) Snapshot(ctx context.Context) (Snapshot, error) {
	m := snapshotMsg{make(chan Snapshot, 1)}
	select {
	case g.in <- m:
	case <-ctx.Done():
		return Snapshot{}, ctx.Err()
	}
	select {
	case s := <-m.to:
		return s, nil
	case <-ctx.Done():
		return Snapshot{}, ctx.Err()
	}
}

// step applies an event and performs what follows.
func (g *Guard) step(ev fsm.Event) {
	var acts []fsm.Action
	g.stepped = g.deps.Clock.Now()
	g.state, acts = fsm.Step(g.state, ev, g.stepped)
	for _, a := range acts {
		g.perform(a)
	}
}

func (g *Guard) handle(ev any) {
	switch e := ev.(type) {
	case fsm.Event:
		g.step(e)
	case acceptedMsg:
		g.accepted(e)
	case dialledMsg:
		g.dialled(e)
	case closedMsg:
		g.closed(e.c)
	case frameMsg:
		g.frame(e.c, e.f)
	case snapshotMsg:
		e.to <- Snapshot{Status: g.status(), Links: g.links()}
	}
}

func (g *Guard) status() proto.WatcherStatus {
	now := g.deps.Clock.Now()
	st := g.state.Report(g.seq, now)
	return g.fill(st, now)
}

func (g *Guard) fill(st proto.WatcherStatus, now time.Time) proto.WatcherStatus {
	st.Seq, st.Time, st.PID, st.Incarnation, st.Version = g.seq, now, g.deps.PID, g.inc, g.cfg.Version
	st.Cert = (*proto.Ending)(g.deps.Secure.Ending())
	return st
}

// broadcast sends the status to every watcher and monitor, and what concerns it
// to the instance.
func (g *Guard) broadcast() {
	g.seq++
	st := g.status()
	g.tellInst(st)
	b, err := json.Marshal(st)
	if err != nil {
		g.deps.Log.Error("status", "error", err)
		return
	}
	for _, c := range g.remotes {
		c.sendRaw(proto.TypeDWStatus, 0, b, true)
	}
	for _, c := range g.mons {
		c.sendRaw(proto.TypeDWStatus, 0, b, true)
	}
}

// Release gives back the port of a guard that is not run; after Run it does
// nothing.
func (g *Guard) Release() { _ = g.ln.Close() }
