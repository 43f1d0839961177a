// Package server builds the program dmserver from its parts: a storage engine,
// the sending and receiving sides of replication, SQL sessions behind the
// PostgreSQL protocol, and the port on which its watcher talks to it.
//
// It owns the life of an instance: start (configuration, recovery, then Mount
// or Open, manual 6.2), the rules of who may change mode and status (5.1
// ALTER_MODE_STATUS, DW_INACTIVE_INTERVAL), the disconnection of sessions in
// Suspend, the orderly and the immediate end. Guarantees are kept by the parts;
// what this package adds to them is order: redo is accepted only after
// recovery, clients only after that, and a halt never runs any further.
package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"datawatch/internal/app/links"
	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/config"
	"datawatch/internal/metrics/admin"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/rejoin"
	"datawatch/internal/repl/ship"
	"datawatch/internal/repl/standby"
	"datawatch/internal/secure"
	"datawatch/internal/sql/pgwire"
	"datawatch/internal/sql/session"
	"datawatch/internal/sql/sqlitevfs"
	"datawatch/internal/storage/engine"
	"datawatch/internal/vfs"
)

// how a server ends.
type stopKind int

const (
	stopNormal stopKind = iota
	stopAbort           // drops what is not hardened; the way out of Suspend
	stopHalt            // something is broken: end at once with an error
	stopAgain           // end at once and start anew: the database on disk is another
)

// abortTime bounds how long an immediate end may take.
const abortTime = 5 * time.Second

// drainTime bounds how long an ending standby replays what it has acknowledged.
const drainTime = 15 * time.Second

// errNoMAL answers sends of an instance without MAL system.
var errNoMAL = base.Errorf(mal.CodeNoPeer, "MAL_INI is 0: this instance has no links")

// Server is one instance.
type Server struct {
	cfg         *config.Instance
	name        string
	log         *slog.Logger
	clock       clock.Clock
	fs          vfs.FS
	pid         int
	listen      func(ctx context.Context, addr string) (net.Listener, error)
	dial        mal.Dialer
	loginBy     func(user, password string) error // Options.Login
	incarnation string
	started     time.Time
	para        *params

	eng   *engine.Engine
	node  *mal.Node // nil without MAL
	ship  *ship.Shipper
	recv  *standby.Receiver
	donor *rejoin.Donor
	sess  *session.Backend
	files *sqlitevfs.System // of sess
	pg    *pgwire.Server
	dw    *dwPort
	dwLis net.Listener
	admin *admin.Server    // nil without ADMIN_PORT
	up    atomic.Bool      // the parts above are there
	links *secure.Endpoint // MAL_PORT and MAL_INST_DW_PORT
	cert  *secure.SQL      // for SQL clients; nil without SSL_CERT

	cmdMu   clock.Mutex
	running atomic.Value // string: command in progress
	orders  orders
	exiting atomic.Bool

	sendMu sync.Mutex
	sends  map[int]context.CancelCauseFunc
	sendID int

	stopOnce sync.Once
	stopCh   chan struct{}
	stopHow  stopKind
	stopWhy  string
	patience time.Duration // with an immediate end

	suspendMu    sync.Mutex
	suspendTimer *time.Timer
	alone        atomic.Bool // noteAlone
}

// Options are what a program or a test adds to the configuration.
type Options struct {
	FS    vfs.FS      // nil: the operating system's
	Clock clock.Clock // nil: the system's
	Log   *slog.Logger
	// SlowLog takes statements slower than SLOW_SQL_TIME; nil: they are only counted.
	SlowLog func(session.SlowStatement)
	// Mount: stop in Mount even when the mode is Normal.
	Mount bool
	// Ready is told when connections are accepted.
	Ready func()
	// Started is given the running instance, after Ready.
	Started func(*Server)
	// Listen and Dial open ports and links to other instances; nil: TCP.
	Listen func(ctx context.Context, addr string) (net.Listener, error)
	Dial   mal.Dialer
	// PID is what the instance says its process is; 0: this process.
	PID int
	// Login judges a monitor's login; nil: the users of the database do.
	Login func(user, password string) error
}

// Run starts an instance from dm.ini and serves until ctx ends (a normal
// shutdown), a watcher orders its end, or something breaks. Errors before the
// start is complete leave everything as it was.
func Run(ctx context.Context, cfg *config.Instance, o Options) error {
	for {
		err := run(ctx, cfg, o)
		if !errors.Is(err, errAgain) {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// errAgain ends a run after which the instance starts anew in this process.
var errAgain = errors.New("the instance starts anew")

func run(ctx context.Context, cfg *config.Instance, o Options) error {
	s, err := start(ctx, cfg, o)
	if err != nil {
		return err
	}
	if o.Ready != nil {
		o.Ready()
	}
	if o.Started != nil {
		o.Started(s)
	}
	select {
	case <-ctx.Done():
		s.requestStop(stopNormal, "asked to end")
	case <-s.stopCh:
	}
	return s.end()
}

func start(ctx context.Context, cfg *config.Instance, o Options) (_ *Server, err error) {
	s := &Server{cfg: cfg, name: cfg.DM.InstanceName, log: o.Log, clock: o.Clock, fs: o.FS, pid: o.PID,
		listen: o.Listen, dial: o.Dial, loginBy: o.Login, started: time.Now(), stopCh: make(chan struct{}), patience: abortTime}
	if s.fs == nil {
		s.fs = vfs.OS{}
	}
	if s.clock == nil {
		s.clock = clock.Real{}
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.pid == 0 {
		s.pid = os.Getpid()
	}
	if s.listen == nil {
		s.listen = mal.ListenTCP
	}
	s.running.Store("")
	s.para = newParams(cfg.DM, s.fs)
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	s.incarnation = hex.EncodeToString(id[:])
	for _, w := range cfg.Warnings() {
		s.log.Warn("configuration", "warning", w)
	}
	var undo []func()
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
		}
	}()
	if err = links.CheckSQL(cfg.DM); err != nil {
		return nil, err
	}
	if s.links, err = links.ForInstance(cfg, secure.Instance, s.oguid, s.clock, s.log); err != nil {
		return nil, err
	}
	rules, err := s.addressRules()
	if err != nil {
		return nil, err
	}
	// Ports first: a second start, or a wrong port, must not touch the data.
	pgLis, err := s.listen(ctx, net.JoinHostPort(cfg.DM.ListenIP, strconv.Itoa(cfg.DM.PortNum)))
	if err != nil {
		return nil, fmt.Errorf("PORT_NUM = %d: %w", cfg.DM.PortNum, err)
	}
	undo = append(undo, func() { pgLis.Close() })
	tlsConfig, err := s.tls()
	if err != nil {
		return nil, err
	}
	// Clients are answered from now on, with "starting up": one that knows
	// several hosts goes on to the next instead of waiting for a recovery.
	// Serving does not end with ctx: the end is orderly, by end().
	serve := context.WithoutCancel(ctx)
	s.pg = &pgwire.Server{Listener: pgLis, TLS: tlsConfig, RequireTLS: links.RequireTLS(cfg.DM), Log: s.log, Clock: s.clock,
		MaxSessions: cfg.DM.MaxSessions + cfg.DM.ReservedSessions, AuthTimeout: cfg.DM.LoginTimeout}
	s.pg.Starting()
	go func() {
		if err := s.pg.Serve(serve); err != nil && !errors.Is(err, pgwire.ErrServerClosed) {
			s.halt(fmt.Errorf("SQL port: %w", err))
		}
	}()
	undo = append(undo, s.pg.Close)
	if cfg.DWPort != 0 {
		s.dwLis, err = s.listen(ctx, net.JoinHostPort(links.DWHost(cfg), strconv.Itoa(cfg.DWPort)))
		if err != nil {
			return nil, fmt.Errorf("port for the watcher, %d: %w", cfg.DWPort, err)
		}
		undo = append(undo, func() { s.dwLis.Close() })
	}
	if cfg.DM.AdminPort != 0 {
		l, err := admin.Listen("ADMIN_PORT", cfg.DM.AdminIP, cfg.DM.AdminPort)
		if err != nil {
			return nil, err
		}
		s.admin = &admin.Server{Log: s.log, Registry: admin.Registry(Metrics, s.collect), Health: s.health, Ready: s.ready}
		s.admin.Start(l)
		undo = append(undo, s.admin.Close)
	}
	if s.eng, err = engine.Open(ctx, s.engineConfig()); err != nil {
		return nil, err
	}
	undo = append(undo, func() { s.eng.Abort() })
	if err = s.prepareReplication(); err != nil {
		return nil, err
	}
	undo = append(undo, s.closeReplication)
	files, err := sqlitevfs.New(s.fs, filepath.Join(cfg.DM.SystemPath, "tmp"))
	if err != nil {
		return nil, err
	}
	undo = append(undo, files.Close)
	s.files = files
	s.sess = session.New(session.Config{DB: session.FromEngine(s.eng), Admin: s, Log: s.log, Files: files,
		WriterCache:  shareMemory(cfg.DM.MemoryLimit, cfg.DM.Buffer, cfg.DM.RedosBufSize).writerCache,
		DatabaseName: s.eng.Control().DBName, MaxSessions: cfg.DM.MaxSessions, Reserved: cfg.DM.ReservedSessions, SlowLog: o.SlowLog,
		Concurrent: concurrentTrx(cfg.DM.ConcurrentTrxNum),
		Clock:      s.clock, Login: s.loginPolicy, Rules: rules.Rules})
	undo = append(undo, s.closeSessions)
	s.sess.SetLimits(s.limits())
	s.dw = newDWPort(s, s.clock, s.log)
	s.eng.OnChange(s.changed)
	// Peers come in when everything they may call is there.
	if s.node != nil {
		if err = s.node.Start(context.WithoutCancel(ctx)); err != nil {
			return nil, err
		}
	}
	// A Normal database opens by itself, the others wait in Mount for their
	// watcher (manual 6.2).
	if s.eng.Mode() == base.ModeNormal && !o.Mount {
		if err = s.eng.OpenDatabase(ctx); err != nil {
			return nil, fmt.Errorf("open: %w", err)
		}
	}
	if err = s.writePID(); err != nil {
		return nil, err
	}
	s.up.Store(true)
	s.pg.Backend = s.sess
	s.pg.Ready()
	if s.dwLis != nil {
		s.dwLis = s.links.Listen(s.dwLis, s.dw.port(s.name))
		go s.dw.serve(serve, s.dwLis)
	}
	s.startGuards()
	if cfg.DM.RedosMaxDelay > 0 || s.node != nil {
		s.log.Info("replication is on", "mal", s.node != nil)
	}
	s.log.Info("instance started", "instance", s.name, "mode", s.eng.Mode().String(), "status", s.eng.Status().String(),
		"position", s.eng.Positions().File.String(), "pid", s.pid)
	return s, nil
}

func (s *Server) engineConfig() engine.Config {
	dm := s.cfg.DM
	ec := engine.Config{FS: s.fs, Clock: s.clock, Log: s.log, Dir: dm.SystemPath, CtlPath: dm.CtlPath, LogPaths: dm.LogPath,
		InstName: s.name, Compress: dm.RlogCompress, Replayers: dm.RedosParallelNum,
		CheckpointInterval: dm.CkptInterval, OnHalt: s.halt}
	shareMemory(dm.MemoryLimit, dm.Buffer, dm.RedosBufSize).engine(&ec)
	if s.cfg.Arch != nil {
		if l, ok := s.cfg.Arch.Local(); ok {
			ec.Arch = &engine.ArchConfig{Dir: l.Dest, Name: l.Name, FileSize: l.FileSize << 20, SpaceLimit: l.SpaceLimit << 20,
				FlushBuf: l.FlushBufSize << 20, ReserveTime: s.cfg.Arch.ReserveTime}
		}
	}
	return ec
}

// prepareReplication builds both sides; nothing is sent or received yet.
func (s *Server) prepareReplication() error {
	dm := s.cfg.DM
	s.recv = standby.New(standby.Config{Engine: replEngine{s.eng}, PmntMagic: s.eng.Control().PmntMagic, Incarnation: s.incarnation,
		BufBytes: shareMemory(dm.MemoryLimit, dm.Buffer, dm.RedosBufSize).received, BufNum: dm.RedosBufNum, MaxDelay: dm.RedosMaxDelay, Recent: dm.RlogSendApplyMon,
		Clock: s.clock, Log: s.log, OnHalt: s.halt, OnChange: s.changed})
	var targets []ship.Target
	if s.cfg.Arch != nil {
		for _, t := range []base.ArchType{base.ArchRealtime, base.ArchTimely} {
			for _, e := range s.cfg.Arch.OfType(t) {
				for _, inst := range e.Targets() {
					targets = append(targets, ship.Target{Inst: inst, Type: t, WaitApply: s.cfg.Arch.WaitApply})
				}
			}
		}
	}
	var tr ship.Transport = noTransport{}
	var fail time.Duration
	if m := s.cfg.MAL; m != nil {
		fail = m.ConnFailInterval
		mc := mal.Config{Self: s.name, CheckInterval: m.CheckInterval, ConnFailInterval: m.ConnFailInterval, LoginTimeout: m.LoginTimeout,
			CompressLevel: m.CompressLevel, Dial: s.dial, Listen: s.listen, Secure: s.links, Clock: s.clock, Log: s.log, Identity: s.identity,
			Ended: s.notify}
		for _, e := range m.Entries {
			mc.Entries = append(mc.Entries, mal.Entry{Inst: e.InstName, Host: e.Host, Port: e.Port})
		}
		node, err := mal.New(mc, malHandler{s})
		if err != nil {
			s.recv.Close()
			return err
		}
		s.node, tr = node, node
	}
	s.ship = ship.New(ship.Config{Targets: targets, Engine: replEngine{s.eng}, Transport: tr, SendNum: dm.RlogPkgSendNum,
		Recent: dm.RlogSendApplyMon, FailInterval: fail, Clock: s.clock, Log: s.log, OnChange: s.changed})
	s.eng.SetShipper(s.ship)
	s.donor = rejoin.NewDonor(rejoin.DonorConfig{Engine: s.eng, Clock: s.clock, Log: s.log})
	return nil
}

func (s *Server) closeReplication() {
	if s.node != nil {
		_ = s.node.Close()
	}
	s.donor.Close()
	s.ship.Close()
	s.recv.Close()
}

// changed is called after every change somebody outside waits for. It must
// not block.
func (s *Server) changed() {
	if s.sess != nil {
		s.sess.StatusChanged()
	}
	if s.node != nil {
		s.node.IdentityChanged()
	}
	if s.ship != nil {
		s.ship.EngineChanged()
	}
	if s.dw != nil {
		s.dw.changed()
	}
	s.watchSuspend()
	if s.ship != nil {
		s.noteAlone()
	}
	s.judgeService()
}

// watchSuspend disconnects every session SESS_FREE_IN_SUSPEND after an archive
// failure suspended the database, so that clients look for the new primary
// (manual 5.1), and those that have connected since, whenever that time has
// passed again.
func (s *Server) watchSuspend() {
	after := s.cfg.DM.SessFreeInSuspend
	s.suspendMu.Lock()
	defer s.suspendMu.Unlock()
	suspended := s.eng.Status() == base.StatusSuspend
	if !suspended || after == 0 {
		if s.suspendTimer != nil {
			s.suspendTimer.Stop()
			s.suspendTimer = nil
		}
		return
	}
	if s.suspendTimer == nil {
		s.suspendTimer = time.AfterFunc(after, func() {
			if s.eng.Status() == base.StatusSuspend && s.sess != nil {
				s.log.Warn("disconnecting all sessions: the database has been suspended for SESS_FREE_IN_SUSPEND", "after", after)
				s.sess.DropAll("the database is suspended; a standby may have become the primary")
				s.suspendMu.Lock()
				defer s.suspendMu.Unlock()
				if s.suspendTimer != nil {
					s.suspendTimer.Reset(after)
				}
			}
		})
	}
}

// halt ends the process at once with an error: something is broken and going
// on could break a guarantee.
func (s *Server) halt(err error) {
	select {
	case <-s.stopCh:
		s.log.Info("while ending", "err", err)
		return
	default:
	}
	s.log.Error("HALT", "err", err)
	s.requestStop(stopHalt, err.Error())
}

func (s *Server) requestStop(how stopKind, why string) {
	s.stopOnce.Do(func() {
		s.stopHow, s.stopWhy = how, why
		s.exiting.Store(how == stopNormal)
		close(s.stopCh)
	})
}

// ErrHalted is the error of an instance that ended because something is broken.
var ErrHalted = errors.New("the instance halted")

// end stops in the order: no new clients, sessions away, a standby's queue
// replayed, engine flushed while the links still stand (its last package needs
// the standbys), links, engine closed, watcher told.
func (s *Server) end() error {
	<-s.stopCh
	s.log.Info("instance is ending", "why", s.stopWhy)
	defer s.files.Close()
	defer s.fs.Remove(s.pidPath())
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s.cancelSends()
	// In Suspend nothing can be hardened: only an abort leads out.
	if s.stopHow != stopNormal || s.eng.Status() == base.StatusSuspend {
		s.abort()
		if s.stopHow == stopHalt {
			return fmt.Errorf("%w: %s", ErrHalted, s.stopWhy)
		}
		if s.stopHow == stopAgain {
			return errAgain
		}
		return nil
	}
	shut, stop := context.WithTimeout(ctx, 2*time.Second)
	_ = s.pg.Shutdown(shut)
	stop()
	err := s.sess.Close(ctx, "the server is shutting down")
	if s.eng.Mode() == base.ModeStandby {
		drain, stop := context.WithTimeout(ctx, drainTime)
		if e := s.recv.Finish(drain); e != nil {
			s.log.Warn("not everything received was replayed; the primary will send it again", "err", e)
		}
		stop()
	}
	err = errors.Join(err, s.eng.Close(ctx))
	s.closePorts()
	s.closeReplication()
	if err != nil {
		s.eng.Abort()
		return fmt.Errorf("shutdown: %w", err)
	}
	s.log.Info("instance ended normally")
	return nil
}

// abort ends everything at once. A disk that hangs, perhaps the very reason
// for the halt, must not keep the process alive: it is not waited for longer
// than patience.
func (s *Server) abort() {
	done := make(chan struct{})
	go func() { // outlives this call only when a disk hangs; the process ends then
		defer close(done)
		s.eng.Abort()
		s.pg.Close()
		s.closePorts()
		s.closeReplication()
		s.closeSessions()
	}()
	t := s.clock.NewTimer(s.patience)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		s.log.Error("something does not stop; ending all the same", "after", s.patience)
	}
}

// closeSessions ends what serves SQL when the database is gone already.
func (s *Server) closeSessions() {
	ctx, cancel := context.WithTimeout(context.Background(), s.patience)
	defer cancel()
	_ = s.sess.Close(ctx, "the server is shutting down")
}

func (s *Server) closePorts() {
	s.admin.Close()
	if s.dwLis != nil {
		s.dwLis.Close()
		s.dw.close()
	}
}

// Kill ends the instance at once, as the end of its process would: nothing is
// flushed or told. For whole clusters in one process, whose files and links are
// cut first; Run returns when every part has ended.
func (s *Server) Kill() { s.requestStop(stopAbort, "killed") }

// Engine is the database of the instance.
func (s *Server) Engine() *engine.Engine { return s.eng }

// Standby is what takes the redo of a primary.
func (s *Server) Standby() *standby.Receiver { return s.recv }

// Sessions is what serves SQL.
func (s *Server) Sessions() *session.Backend { return s.sess }

func (s *Server) pidPath() string { return filepath.Join(s.cfg.DM.SystemPath, "dmserver.pid") }

// writePID tells tools which process serves this database. The lock on the
// database is the engine's, not this file.
func (s *Server) writePID() error {
	f, err := s.fs.Create(s.pidPath(), true)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(strconv.Itoa(s.pid)+"\n"), 0)
	return errors.Join(err, f.Close())
}

// tls is what SQL clients are offered, nil without SSL_CERT.
func (s *Server) tls() (func() *tls.Config, error) {
	dm := s.cfg.DM
	if dm.SSLCert == "" {
		return nil, nil
	}
	c, err := secure.NewSQL(dm.SSLCert, dm.SSLKey, s.clock, s.log)
	if err != nil {
		return nil, &links.Error{Err: fmt.Errorf("%s: %w", dm.Path, err)}
	}
	s.cert = c
	return c.Config, nil
}

// oguid is the group's number, 0 while the database is not open or has none.
func (s *Server) oguid() uint32 {
	if s.eng == nil {
		return 0
	}
	return s.eng.Control().OGUID
}

// identity is what this instance says to the others (mal hello).
func (s *Server) identity() mal.Identity {
	c := s.eng.Control()
	pos, lineage := s.eng.HardState()
	id := mal.Identity{PmntMagic: c.PmntMagic, DBMagic: c.DBMagic, OGUID: c.OGUID, Mode: s.eng.Mode(), Status: s.eng.Status(),
		Lineage: lineage, File: pos, Keep: pos, Incarnation: s.incarnation}
	if id.Mode == base.ModeStandby {
		id.Keep = s.recv.Info().Keep
	}
	return id
}
