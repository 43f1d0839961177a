package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	appwatch "datawatch/internal/app/watcher"

	"datawatch/internal/app/server"
	"datawatch/internal/base"
	"datawatch/internal/config"
	"datawatch/internal/ha/monitor"
	"datawatch/internal/ha/watcher"
	"datawatch/internal/storage/engine"
	"datawatch/internal/vfs"
)

const (
	pageSize = 1024
	pmnt     = base.Magic(77)
	oguid    = 453331
	groupNm  = "GRP1"
	malPort  = 5001
	dwPort   = 5002
	instPort = 5003
	sqlPort  = 5236
)

// host is a machine with a database, or a monitor, and its disk.
type host struct {
	w    *world
	name string // of the instance
	addr string
	on   atomic.Bool // powered
	rng  *rand.Rand

	mu    sync.Mutex
	disk  *vfs.Mem // of the database
	etc   *vfs.Mem // of the watcher
	inst  *instance
	watch *guarding
	pid   int
	procs map[int]*instance

	wall atomic.Int64 // how far its clock is ahead, s
	slow atomic.Int64 // what a write or sync takes at most, ns
	full atomic.Bool
	mend func() // ends the errors of the disk
}

// instance is a process dmserver.
type instance struct {
	h    *host
	pid  int
	node *node
	disk *vfs.Mem
	dead atomic.Bool // killed: what it says does not count any more
	srv  atomic.Pointer[server.Server]
	done chan struct{}
	stop context.CancelFunc
	err  error // after done
}

// guarding is a process dmwatcher.
type guarding struct {
	node *node
	g    *watcher.Guard
	stop context.CancelFunc
	done chan struct{}
}

func newHost(w *world, i int) *host {
	h := &host{w: w, name: string(rune('A' + i)), addr: fmt.Sprintf("10.0.0.%d", i+1), pid: 1000 * (i + 1),
		rng: rand.New(rand.NewPCG(w.seed, uint64(100+i))), disk: vfs.NewMem(), etc: vfs.NewMem(), procs: map[int]*instance{}, mend: func() {}}
	h.on.Store(true)
	return h
}

// create makes the files of the database, its configuration and its watcher's.
func (h *host) create(mode base.Mode) error {
	err := engine.Create(engine.CreateConfig{FS: h.disk, Dir: "/db", CtlPath: "/db/dm.ctl", LogPaths: []string{"/db/1.log", "/db/2.log"},
		LogSize: 256 << 10, DBName: "T", PageSize: pageSize, OGUID: oguid, Mode: mode, PmntMagic: pmnt, DBMagic: base.Magic(100 + h.addr[len(h.addr)-1])})
	if err != nil {
		return err
	}
	c := h.w.cfg
	var mal, arch strings.Builder
	if c.waitApply {
		arch.WriteString("ARCH_WAIT_APPLY = 1\n")
	} else {
		arch.WriteString("ARCH_WAIT_APPLY = 0\n")
	}
	fmt.Fprintf(&mal, "MAL_CHECK_INTERVAL = %d\nMAL_CONN_FAIL_INTERVAL = %d\nMAL_LOGIN_TIMEOUT = 3\nMAL_SSL_MODE = OFF\n", c.malCheck, c.malFail)
	others := 0
	for i, o := range h.w.hosts {
		fmt.Fprintf(&mal, "[M%d]\nMAL_INST_NAME = %s\nMAL_HOST = %s\nMAL_PORT = %d\nMAL_INST_HOST = %s\nMAL_INST_PORT = %d\nMAL_DW_PORT = %d\nMAL_INST_DW_PORT = %d\n",
			i+1, o.name, o.addr, malPort, o.addr, sqlPort, dwPort, instPort)
		if o != h {
			others++
			fmt.Fprintf(&arch, "[ARCHIVE_%s%d]\nARCH_TYPE = %s\nARCH_DEST = %s\n", kindOf(c), others, kindOf(c), o.name)
		}
	}
	arch.WriteString("[ARCHIVE_LOCAL1]\nARCH_TYPE = LOCAL\nARCH_DEST = /db/arch\nARCH_FILE_SIZE = 64\nARCH_SPACE_LIMIT = 0\n")
	kind := "GLOBAL"
	if others == 0 {
		kind = "LOCAL"
	}
	yes := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	mode2 := "MANUAL"
	if c.auto {
		mode2 = "AUTO"
	}
	for name, text := range map[string]string{
		"dmmal.ini": mal.String(), "dmarch.ini": arch.String(),
		"dm.ini": fmt.Sprintf("INSTANCE_NAME = %s\nPORT_NUM = %d\nLISTEN_IP = %s\nSSL_REQUIRE = NONE\nMAL_INI = 1\nARCH_INI = 1\nALTER_MODE_STATUS = 1\nBUFFER = 8\nCTL_PATH = /db/dm.ctl\nSYSTEM_PATH = /db\nCONFIG_PATH = /db\nLOG_PATH = 1.log\nLOG_PATH = 2.log\nCKPT_INTERVAL = %d\nSLOW_SQL_TIME = 0\n",
			h.name, sqlPort, h.addr, c.ckpt),
		"dmwatcher.ini": fmt.Sprintf("[%s]\nDW_TYPE = %s\nDW_MODE = %s\nDW_ERROR_TIME = %d\nINST_ERROR_TIME = %d\nINST_RECOVER_TIME = %d\nINST_OGUID = %d\nINST_INI = /db/dm.ini\nINST_AUTO_RESTART = %d\nINST_STARTUP_CMD = /dmserver\nDW_RECONNECT = %d\nDW_FAILOVER_FORCE = %d\nRLOG_SEND_THRESHOLD = %d\nRLOG_APPLY_THRESHOLD = %d\n",
			groupNm, kind, mode2, c.errorTime, c.instErrorTime, c.recoverTime, oguid, yes(c.restart), yes(c.reconnect), yes(c.force), c.sendLimit, c.applyLimit),
	} {
		if err := config.SaveFile(h.disk, "/db/"+name, []byte(text)); err != nil {
			return err
		}
	}
	return h.etc.MkdirAll("/db")
}

// kindOf is the type of the archives between the databases.
func kindOf(c settings) string {
	if c.timely {
		return "TIMELY"
	}
	return "REALTIME"
}

// startInst starts dmserver, as its watcher does.
func (h *host) startInst() *instance {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pid++
	i := &instance{h: h, pid: h.pid, node: h.w.net.node(h.addr, fmt.Sprintf("dmserver-%d", h.pid)), disk: h.disk, done: make(chan struct{})}
	h.inst, h.procs[i.pid] = i, i
	i.disk.SetHook(func(op vfs.Op) error { return h.access(i.node, op) })
	var ctx context.Context
	ctx, i.stop = context.WithCancel(context.Background())
	go func() {
		defer close(i.done)
		i.err = i.run(ctx)
		h.w.log(h.name, "dmserver %d has ended: %v", i.pid, i.err)
		i.dead.Store(true)
		h.w.net.kill(i.node, false)
	}()
	return i
}

func (i *instance) run(ctx context.Context) error {
	cfg, err := config.LoadInstanceFrom(config.ReadFrom(i.disk), "/db/dm.ini")
	if err != nil {
		return err
	}
	return server.Run(ctx, cfg, server.Options{FS: i.disk, Log: i.h.w.logger(i.h.name), Clock: procClock{i.node, &i.h.wall}, Listen: i.node.listen, Dial: i.node.dialTo, PID: i.pid,
		Login:   func(string, string) error { return nil },
		Started: func(s *server.Server) { i.srv.Store(s) }})
}

// engine is the database while the process lives and has recovered it.
func (i *instance) engine() *engine.Engine {
	if s := i.srv.Load(); s != nil && !i.dead.Load() {
		return s.Engine()
	}
	return nil
}

// current is the running instance, nil when there is none.
func (h *host) current() *instance {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.inst == nil || h.inst.dead.Load() {
		return nil
	}
	return h.inst
}

// engine of the running instance, nil when there is none.
func (h *host) engine() *engine.Engine {
	if i := h.current(); i != nil {
		return i.engine()
	}
	return nil
}

// killInst ends dmserver as kill -9 does or, with power, as a power cut does:
// what was not synced is lost, or torn.
func (h *host) killInst(power bool) {
	i := h.current()
	if i == nil {
		if power {
			h.mu.Lock()
			h.disk = h.disk.CrashClone(h.rng)
			h.mu.Unlock()
		}
		return
	}
	i.dead.Store(true)
	i.disk.PowerOff()
	h.mu.Lock()
	if power {
		h.disk = i.disk.CrashClone(h.rng)
	} else {
		h.disk = i.disk.Clone()
	}
	h.mu.Unlock()
	h.w.net.kill(i.node, power)
	i.stop()
	if s := i.srv.Load(); s != nil {
		s.Kill()
	}
}

// access is asked before every operation on the disk of the database.
func (h *host) access(nd *node, op vfs.Op) error {
	if op.After {
		if op.Kind == vfs.OpSync {
			h.w.stir()
		}
		return nil
	}
	nd.still()
	if d := h.slow.Load(); d > 0 && (op.Kind == vfs.OpSync || op.Kind == vfs.OpWrite) {
		time.Sleep(time.Duration(d))
	}
	// The online log has its space already.
	if h.full.Load() && (op.Kind == vfs.OpWrite || op.Kind == vfs.OpCreate) && !strings.HasSuffix(op.Path, ".log") && !strings.HasSuffix(op.Path, ".lock") {
		return syscall.ENOSPC
	}
	return nil
}

func (h *host) setFull(on bool) { h.full.Store(on) }

// freeze stops both processes of the host, or lets them go on.
func (h *host) freeze(on bool) {
	if i := h.current(); i != nil {
		i.node.freeze(on)
	}
	if h.watch != nil {
		h.watch.node.freeze(on)
	}
}

// Start, Identity, Alive and Kill are the process table of the host.
func (h *host) Start(watcher.StartCommand) (watcher.Process, error) {
	if !h.on.Load() {
		return watcher.Process{}, errors.New("no power")
	}
	if h.current() != nil {
		return watcher.Process{}, errors.New("it runs already")
	}
	i := h.startInst()
	return watcher.Process{PID: i.pid, Done: i.done}, nil
}

func (h *host) Identity(pid int) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := h.procs[pid]; i == nil || i.dead.Load() {
		return "", fmt.Errorf("process %d: %w", pid, fs.ErrNotExist)
	}
	return fmt.Sprint(pid), nil
}

func (h *host) Alive(pid int, _ string) bool {
	_, err := h.Identity(pid)
	return err == nil
}

func (h *host) Kill(pid int, _ string) error {
	if i := h.current(); i != nil && i.pid == pid {
		h.w.log(h.name, "dmserver %d is killed by its watcher", pid)
		h.killInst(false)
	}
	return nil
}

// startWatch starts dmwatcher.
func (h *host) startWatch() error {
	w, insts, err := config.LoadWatcherFrom(config.ReadFrom(h.disk), "/db/dmwatcher.ini")
	if err != nil {
		return err
	}
	cfg, _ := appwatch.Convert("/db/dmwatcher.ini", w.Groups[0], insts[0])
	cfg.ServiceHost = ""
	x := &guarding{node: h.w.net.node(h.addr, "dmwatcher"), done: make(chan struct{})}
	x.g, err = watcher.New(cfg, watcher.Deps{Dial: x.node.dialTo, Procs: h, PID: 500, FS: h.etc, Clock: procClock{x.node, &h.wall}, Log: h.w.logger("w" + h.name),
		Listen: func(addr string) (l net.Listener, err error) { return x.node.listen(context.Background(), addr) }})
	if err != nil {
		return err
	}
	var ctx context.Context
	ctx, x.stop = context.WithCancel(context.Background())
	go func() {
		defer close(x.done)
		_ = x.g.Run(ctx)
	}()
	h.watch = x
	return nil
}

// state of the watcher and what it waits for.
func (h *host) state() (st, why string) {
	if h.watch == nil {
		return "not running", ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s, err := h.watch.g.Snapshot(ctx)
	if err != nil {
		return "silent", err.Error()
	}
	return s.Status.State, strings.Join(s.Status.Why, "; ")
}

func (h *host) killWatch(power bool) {
	if h.watch == nil {
		return
	}
	h.w.net.kill(h.watch.node, power)
	h.watch.stop()
	h.watch = nil
	if power {
		h.etc = h.etc.CrashClone(h.rng)
	}
}

// cut takes the power from the host.
func (h *host) cut() {
	h.on.Store(false)
	h.w.net.power(h.addr, false)
	h.killWatch(true)
	h.killInst(true)
}

// boot gives it back: the watcher starts with the host, and the instance with
// the watcher, or by hand where the watcher does not.
func (h *host) boot() {
	if h.on.Load() {
		return
	}
	h.on.Store(true)
	h.w.net.power(h.addr, true)
	h.watchAnew()
}

// watchAnew starts a watcher that has ended. Where it cannot read its file somebody
// looks after the disk and tries again.
func (h *host) watchAnew() {
	err := h.startWatch()
	if err != nil {
		h.w.log("life", "the watcher of %s does not start: %v", h.name, err)
		h.mend()
		err = h.startWatch()
	}
	if err != nil {
		h.w.chain.fault("the watcher of %s does not start: %v", h.name, err)
	}
}

// monHost is a machine with a monitor.
type monHost struct {
	w       *world
	name    string
	addr    string
	confirm bool
	disk    *vfs.Mem
	m       *monitor.Monitor
	node    *node
	inc     int
	wall    atomic.Int64
}

func (h *monHost) start() {
	if h.m != nil {
		return
	}
	h.inc++
	h.node = h.w.net.node(h.addr, "dmmonitor")
	g := monitor.Group{Name: groupNm, OGUID: oguid}
	for _, x := range h.w.hosts {
		g.Addrs = append(g.Addrs, fmt.Sprintf("%s:%d", x.addr, dwPort))
	}
	m, err := monitor.Open(context.Background(), monitor.Config{Confirm: h.confirm, Groups: []monitor.Group{g}, StateDir: "/mon", FS: h.disk,
		TLS: monitor.TLS{Mode: "OFF"}, Dial: h.node.dialTo, Clock: procClock{h.node, &h.wall}, MonID: fmt.Sprintf("%s-%d", h.name, h.inc), PID: 9000 + h.inc, Logger: h.w.logger(h.name)})
	if err != nil {
		h.w.chain.fault("monitor %s does not start: %v", h.name, err)
		return
	}
	h.m = m
}

// kill ends it as a power cut does.
func (h *monHost) kill() {
	if h.m == nil {
		return
	}
	h.disk.PowerOff()
	h.disk = h.disk.CrashClone(h.w.rng)
	h.w.net.kill(h.node, false)
	_ = h.m.Close()
	h.m = nil
}

func (h *monHost) close() {
	if h.m != nil {
		_ = h.m.Close()
		h.w.net.kill(h.node, false)
		h.m = nil
	}
}

// lines is a slog handler that keeps what is said, for the trace.
type lines struct {
	w    *world
	from string
	with []slog.Attr
}

func (w *world) logger(from string) *slog.Logger { return slog.New(&lines{w: w, from: from}) }

func (l *lines) Enabled(_ context.Context, v slog.Level) bool { return v >= slog.LevelInfo }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	l.w.note(line{l.w.since(), l.from, r.Message, append(l.with[:len(l.with):len(l.with)], attrs(r)...)})
	return nil
}

func attrs(r slog.Record) (out []slog.Attr) {
	r.Attrs(func(a slog.Attr) bool { out = append(out, a); return true })
	return out
}

func (l *lines) WithAttrs(a []slog.Attr) slog.Handler {
	return &lines{l.w, l.from, append(l.with[:len(l.with):len(l.with)], a...)}
}
func (l *lines) WithGroup(string) slog.Handler { return l }
