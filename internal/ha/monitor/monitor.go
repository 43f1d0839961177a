// Package monitor drives one monitor process (manual 4): it keeps a connection
// to every watcher of dmmonitor.ini, collects their reports, runs manual
// commands step by step, and, as a confirm monitor, feeds package confirm and
// performs its actions.
//
// It owns the connections, the record file of a confirm monitor and the log
// file. It keeps the driver's part of G3: a decision is on disk before it is
// answered or sent; after a standstill every connection is dropped, so that no
// report of unknown age is believed. Conditions belong to package cond,
// decisions to package confirm, what an instance does to its watcher.
//
// Concurrency: mu guards all state; a link's goroutine calls in with mu free.
// Disk and network work that may block runs outside mu. Close order: commands
// fail, links end, the writer of records ends, the log file is closed.
package monitor

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/ha/confirm"
	"datawatch/internal/ha/proto"
	"datawatch/internal/secure"
	"datawatch/internal/vfs"
)

// Codes of the manual's table 10.2.8.1.
const (
	CodeError        base.Code = -1
	CodeLogin        base.Code = -5
	CodeConfig       base.Code = -6
	CodeLogDir       base.Code = -7
	CodeBusy         base.Code = -8
	CodeInstFailed   base.Code = -10
	CodeNotNormal    base.Code = -11
	CodeTwoConfirm   base.Code = -14
	CodeNoWatcher    base.Code = -15
	CodeArgument     base.Code = -16
	CodeTooMany      base.Code = -19
	CodeRecoverLater base.Code = -20
	CodeNoRecover    base.Code = -21
	CodeOpenLater    base.Code = -22
	CodeNoOpen       base.Code = -23
	CodeNoOpenDW     base.Code = -24
	CodeTipAbnormal  base.Code = -25
	CodeTipHandling  base.Code = -26
	CodeTipDecide    base.Code = -27
	CodeLoginFailed  base.Code = -8206
	CodeNoActive     base.Code = -8204
	// CodeAlready is a notice: there was nothing to do.
	CodeAlready base.Code = 100
)

// Group is one [GROUP_NAME] section of dmmonitor.ini.
type Group struct {
	Name  string
	OGUID uint32
	Addrs []string // one per database, host:port
}

// Config of a monitor. Zero values take the defaults named.
type Config struct {
	Confirm          bool // MON_DW_CONFIRM
	Groups           []Group
	TakeoverShutdown time.Duration // MON_TAKEOVER_SHUTDOWN, 0 off
	StateDir         string        // directory of the record file of a confirm monitor
	Log              LogConfig
	ErrorTime        time.Duration // until a watcher reports DW_ERROR_TIME; 10 s
	Heartbeat        time.Duration // 200 ms
	StepTime         time.Duration // longest wait for one step of a command; 2 min
	// ConfirmGrace is how long a second confirm monitor keeps trying before it
	// gives up: the first may have died just now. Default 6 s.
	ConfirmGrace time.Duration
	TLS          TLS    // how monitor and watchers know each other
	MonID        string // random by default
	PID          int    // what the monitor says its process is; 0: this process
	FS           vfs.FS // vfs.OS
	Clock        clock.Clock
	Dial         func(ctx context.Context, addr string) (net.Conn, error)
	Logger       *slog.Logger
}

// TLS is how a monitor and the watchers know each other. The zero value is
// plain text while every watcher is on loopback, and an error otherwise.
type TLS struct {
	Mode string // MON_SSL_MODE: AUTO (also ""), OFF, CERT or KEY
	Dir  string // MON_SSL_PATH
	Name string // MON_SSL_NAME: in the certificate, and of its files
	File string // configuration file, for messages; "" the program's own settings
}

// endpoint makes what protects the links.
func (c *Config) endpoint() (*secure.Endpoint, error) {
	file, t := cmp.Or(c.TLS.File, "the monitor's configuration"), c.TLS
	choice := secure.Choice{Value: t.Mode, Dir: t.Dir, Name: t.Name, ModeParam: "MON_SSL_MODE", DirParam: "MON_SSL_PATH", AddrParam: "MON_DW_IP", File: file}
	for _, g := range c.Groups {
		choice.Addrs = append(choice.Addrs, g.Addrs...)
	}
	mode, err := choice.Decide()
	if err != nil {
		return nil, base.Errorf(CodeConfig, "%v", err)
	}
	e, err := secure.New(secure.Config{Mode: mode, Role: secure.Monitor, Name: t.Name, Dir: t.Dir, Param: "MON_SSL_MODE of " + file, Clock: c.Clock, Log: c.Logger})
	if err != nil {
		return nil, base.Errorf(CodeConfig, "%v", err)
	}
	return e, nil
}

// Message is a line for people: what happened, when.
type Message struct {
	Time time.Time `json:"time"`
	From string    `json:"from"` // "monitor" or an instance name
	Text string    `json:"text"`
}

type group struct {
	Group
	links []*link
	st    confirm.State // used by every monitor for its view; decides only with Confirm
}

// Monitor is a running monitor. Its methods are safe for concurrent use.
type Monitor struct {
	cfg   Config
	clk   clock.Clock
	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup
	store *store
	logf  *logFile
	sec   *secure.Endpoint

	mu      sync.Mutex
	groups  []*group
	changed chan struct{} // closed and replaced at every report
	subs    map[chan Message]struct{}
	login   string
	running string // manual command in progress
	failure error  // why the monitor ended by itself
	reqID   uint64
	waits   map[uint64]chan confirm.Reserved
	asks    map[uint64]askFrom
	wall    time.Time
	closed  bool
}

type askFrom struct {
	conn *conn
	id   uint64
}

// Open starts a monitor. It does not wait for watchers; see WaitReady.
func Open(ctx context.Context, cfg Config) (*Monitor, error) {
	if len(cfg.Groups) == 0 {
		return nil, base.Errorf(CodeConfig, "no group is configured")
	}
	defaults(&cfg)
	sec, err := cfg.endpoint()
	if err != nil {
		return nil, err
	}
	m := &Monitor{cfg: cfg, sec: sec, clk: cfg.Clock, changed: make(chan struct{}), subs: map[chan Message]struct{}{},
		waits: map[uint64]chan confirm.Reserved{}, asks: map[uint64]askFrom{}}
	m.ctx, m.stop = context.WithCancel(context.WithoutCancel(ctx))
	now := m.clk.Now()
	m.wall = now.Round(0)
	if cfg.Confirm {
		st, err := openStore(cfg.FS, cfg.StateDir)
		if err != nil {
			m.stop()
			return nil, err
		}
		m.store = st
	}
	if cfg.Log.Interval > 0 {
		lf, err := openLog(cfg.FS, cfg.Log, now)
		if err != nil {
			m.closeStore()
			m.stop()
			return nil, err
		}
		m.logf = lf
	}
	for _, g := range cfg.Groups {
		var rec confirm.Record
		if m.store != nil {
			var err error
			if rec, err = m.store.load(g.Name, g.OGUID); err != nil {
				m.logf.Close()
				m.closeStore()
				m.stop()
				return nil, err
			}
		}
		gr := &group{Group: g, st: confirm.New(confirm.Config{Group: g.Name, ViewOnly: !cfg.Confirm, ErrorTime: cfg.ErrorTime,
			ShutdownWait: cfg.TakeoverShutdown, Addrs: g.Addrs}, rec, now)}
		for _, a := range g.Addrs {
			gr.links = append(gr.links, &link{m: m, g: gr, addr: a})
		}
		m.groups = append(m.groups, gr)
	}
	for _, g := range m.groups {
		for _, l := range g.links {
			m.wg.Go(l.run)
		}
	}
	m.wg.Go(m.ticker)
	m.tell("monitor", "DMMONITOR[%s] %s started, confirm %v", proto.GuardVersion, proto.GlobalVersion, cfg.Confirm)
	return m, nil
}

func defaults(c *Config) {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.ErrorTime, 10*time.Second)
	def(&c.Heartbeat, 200*time.Millisecond)
	def(&c.StepTime, 2*time.Minute)
	def(&c.ConfirmGrace, 6*time.Second)
	if c.FS == nil {
		c.FS = vfs.OS{}
	}
	if c.Clock == nil {
		c.Clock = clock.Real{}
	}
	if c.Dial == nil {
		d := &net.Dialer{Timeout: 5 * time.Second}
		c.Dial = func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if c.PID == 0 {
		c.PID = os.Getpid()
	}
	if c.MonID == "" {
		var b [8]byte
		rand.Read(b[:])
		c.MonID = hex.EncodeToString(b[:])
	}
}

// Close ends the monitor and waits for its goroutines.
func (m *Monitor) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stop()
	m.wg.Wait()
	m.mu.Lock()
	for ch := range m.subs {
		delete(m.subs, ch)
		close(ch)
	}
	m.mu.Unlock()
	m.closeStore()
	return m.logf.Close()
}

func (m *Monitor) closeStore() {
	if m.store != nil {
		m.store.close()
	}
}

// Done is closed when the monitor ends; Err tells why it ended by itself.
func (m *Monitor) Done() <-chan struct{} { return m.ctx.Done() }

// Err returns why the monitor ended by itself, such as code -14.
func (m *Monitor) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failure
}

// Confirm reports whether this is a confirm monitor; ID is its random id.
func (m *Monitor) Confirm() bool { return m.cfg.Confirm }
func (m *Monitor) ID() string    { return m.cfg.MonID }

func (m *Monitor) fail(err error) {
	m.mu.Lock()
	if m.failure == nil {
		m.failure = err
	}
	m.mu.Unlock()
	m.tell("monitor", "%v", err)
	m.stop()
}

// Subscribe returns messages until cancel is called or the monitor ends. A
// reader that falls 256 messages behind loses the newest ones.
func (m *Monitor) Subscribe() (<-chan Message, func()) {
	ch := make(chan Message, 256)
	m.mu.Lock()
	m.subs[ch] = struct{}{}
	m.mu.Unlock()
	return ch, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if _, ok := m.subs[ch]; ok {
			delete(m.subs, ch)
			close(ch)
		}
	}
}

func (m *Monitor) tell(from, format string, a ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tellLocked(from, format, a...)
}

func (m *Monitor) tellLocked(from, format string, a ...any) {
	msg := Message{m.clk.Now(), from, fmt.Sprintf(format, a...)}
	m.cfg.Logger.Info(msg.Text, "from", from)
	m.logf.line(msg)
	for ch := range m.subs {
		select {
		case ch <- msg:
		default:
		}
	}
}

// wake tells waiters that something was heard. mu is held.
func (m *Monitor) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// waitFor waits until ok, called with mu held, returns true.
func (m *Monitor) waitFor(ctx context.Context, ok func() bool) error {
	for {
		m.mu.Lock()
		done, ch := ok(), m.changed
		m.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		case <-m.ctx.Done():
			return m.ended()
		}
	}
}

func (m *Monitor) ended() error {
	if err := m.Err(); err != nil {
		return err
	}
	return errors.New("the monitor is closed")
}

// refusedTime is how long WaitReady waits for watchers that certainly do not run:
// longer than one that is being started anew is away.
const refusedTime = 800 * time.Millisecond

// refused reports whether nothing listens where a watcher was not heard. Under mu.
func (m *Monitor) refused() bool {
	for _, g := range m.groups {
		for _, p := range g.st.View(m.clk.Now()).Peers {
			for _, l := range g.links {
				if l.addr == p.Addr && !p.Known && !strings.Contains(l.lastErr, "connection refused") {
					return false
				}
			}
		}
	}
	return true
}

// WaitReady waits until every watcher has been heard, or nothing listens where the
// others should be, or ctx ends; it is an error with code -15 only when not a single one has.
func (m *Monitor) WaitReady(ctx context.Context) error {
	heard := func() (n, all int) {
		for _, g := range m.groups {
			for _, p := range g.st.View(m.clk.Now()).Peers {
				all++
				if p.Known {
					n++
				}
			}
		}
		return n, all
	}
	begun := m.clk.Now()
	err := m.waitFor(ctx, func() bool {
		n, all := heard()
		return n == all || m.clk.Now().Sub(begun) >= refusedTime && m.refused()
	})
	if m.Err() != nil {
		return err
	}
	m.mu.Lock()
	n, all := heard()
	m.mu.Unlock()
	if n == 0 && all > 0 {
		return base.Errorf(CodeNoWatcher, "no watcher could be reached; perhaps none is running%s", m.linkErrors())
	}
	return nil
}

// linkErrors says why each watcher could not be reached.
func (m *Monitor) linkErrors() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for _, g := range m.groups {
		for _, l := range g.links {
			if l.lastErr != "" {
				fmt.Fprintf(&b, "\n  %s: %s", l.addr, l.lastErr)
			}
		}
	}
	return b.String()
}

// linkError is why the link to a watcher is not there, in parentheses behind a
// blank; "" when it is, or nobody knows.
func (m *Monitor) linkError(g *group, addr string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range g.links {
		if l.addr == addr && l.lastErr != "" {
			return " (" + l.lastErr + ")"
		}
	}
	return ""
}

// ticker passes time to the decisions and to the periodic log.
func (m *Monitor) ticker() {
	t := m.clk.NewTicker(min(m.cfg.Heartbeat, m.cfg.ErrorTime/20))
	defer t.Stop()
	lastLog := m.clk.Now()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-t.C:
		}
		m.mu.Lock()
		now := m.clk.Now()
		m.noteWall(now)
		for _, g := range m.groups {
			m.step(g, confirm.Tick{})
		}
		m.wake() // silence changes what a view says
		m.mu.Unlock()
		if iv := time.Duration(m.cfg.Log.Interval) * time.Second; iv >= 5*time.Second && now.Sub(lastLog) >= iv {
			lastLog = now
			for _, g := range m.Snapshot().Groups {
				for _, d := range g.Databases {
					m.tell(d.Name, "%s/%s %s, watcher %s, FLSN %d CLSN %d", d.Mode, d.Status, d.InstOK, d.WStatus, d.File.LSN, d.Cur.LSN)
				}
			}
		}
	}
}

// noteWall finds sleeps of the whole machine, which the monotonic clock does
// not count: the wall clock then runs ahead of it. mu is held.
func (m *Monitor) noteWall(now time.Time) {
	wall := now.Round(0)
	if d := wall.Sub(m.wall); d < 0 || d > m.cfg.ErrorTime/2 {
		for _, g := range m.groups {
			m.step(g, confirm.Stalled{})
		}
	}
	m.wall = wall
}
