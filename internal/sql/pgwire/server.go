// Package pgwire speaks the PostgreSQL protocol, version 3.0, to SQL clients:
// start-up, TLS, SCRAM-SHA-256 with channel binding, simple and extended queries, cancellation, and
// the conversion of values between PostgreSQL's types and SQLite's.
//
// It keeps the network side of G8: lengths are capped before anything is
// allocated, a message is never believed before it was read, and what cannot
// be understood gets an ErrorResponse and, where the stream is lost, a close.
// It acknowledges nothing by itself: what a client reads was said by the
// sqlapi.Session (G1 and G2 are kept below it). Statements, transactions,
// users and their rights belong to the session layer.
package pgwire

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"datawatch/internal/clock"
	"datawatch/internal/secure"
	"datawatch/internal/sql/sqlapi"
)

// Defaults of Server's fields.
const (
	DefaultAuthTimeout = 60 * time.Second
	DefaultMaxMessage  = 256 << 20
	DefaultMaxSessions = 1000
	// preAuthSlots is how many connections beyond MaxSessions may be open:
	// those still authenticating and those that only carry a CancelRequest.
	preAuthSlots = 64
	// closeGrace is how long a closing connection may take to send its last
	// message to a client that does not read.
	closeGrace = 2 * time.Second
)

// Server serves one listener. The fields are not changed after Serve, but for
// the Backend of a server that was told Starting.
type Server struct {
	Listener net.Listener
	Backend  sqlapi.Backend
	// TLS gives the configuration for one handshake; nil: SSLRequest is
	// answered N. Its NextProtos should be secure.SQLProtocol.
	TLS func() *tls.Config
	// RequireTLS says whether a client at an address must use TLS; nil: none.
	RequireTLS  func(net.Addr) bool
	Log         *slog.Logger  // nil: slog.Default()
	Clock       clock.Clock   // nil: the system's; for deadlines
	MaxSessions int           // MAX_SESSIONS, 0: DefaultMaxSessions; more answer 53300
	MaxMessage  int           // bytes of one message, 0: DefaultMaxMessage
	AuthTimeout time.Duration // from accept to the end of authentication, 0: DefaultAuthTimeout

	mu       sync.Mutex
	conns    map[*conn]struct{}
	byPID    map[uint32]*conn
	nextPID  uint32
	closing  bool // no new connections
	draining atomic.Bool
	wg       sync.WaitGroup
	sessions atomic.Int32
	initOnce sync.Once
	starting atomic.Bool
	gate     *secure.Gate
}

// Starting makes the server, before Serve, refuse every login with 57P03
// until Ready: a client with several hosts then tries the next one at once
// instead of waiting for this one's recovery.
func (s *Server) Starting() { s.starting.Store(true) }

// Ready ends Starting; Backend is set before.
func (s *Server) Ready() { s.starting.Store(false) }

// ErrServerClosed is what Serve returns after Close or Shutdown.
var ErrServerClosed = errors.New("pgwire: server closed")

func (s *Server) init() {
	s.initOnce.Do(func() {
		if s.Log == nil {
			s.Log = slog.Default()
		}
		if s.Clock == nil {
			s.Clock = clock.Real{}
		}
		if s.MaxSessions <= 0 {
			s.MaxSessions = DefaultMaxSessions
		}
		if s.MaxMessage <= 0 {
			s.MaxMessage = DefaultMaxMessage
		}
		if s.AuthTimeout <= 0 {
			s.AuthTimeout = DefaultAuthTimeout
		}
		s.gate = secure.NewGate(s.Clock)
		s.conns = make(map[*conn]struct{})
		s.byPID = make(map[uint32]*conn)
	})
}

// Serve accepts connections until ctx ends or Close or Shutdown is called. It
// returns nil after the end of ctx, ErrServerClosed after Close or Shutdown,
// and the listener's error otherwise; every connection has ended then.
func (s *Server) Serve(ctx context.Context) error {
	s.init()
	stop := context.AfterFunc(ctx, s.Close)
	defer stop()
	var err error
	for delay := time.Duration(0); ; {
		var nc net.Conn
		nc, err = s.Listener.Accept()
		if err != nil {
			var t interface{ Temporary() bool }
			if errors.As(err, &t) && t.Temporary() && !s.isClosing() {
				// Out of descriptors, or a client gone before it was
				// accepted: neither is a reason to stop serving.
				delay = min(max(2*delay, 5*time.Millisecond), time.Second)
				s.Log.Warn("accept SQL connection", "err", err, "retry_in", delay)
				if s.Clock.Sleep(ctx, delay) == nil {
					continue
				}
			}
			break
		}
		delay = 0
		s.start(ctx, nc)
	}
	if ctx.Err() == nil && s.isClosing() {
		s.wg.Wait() // Shutdown may be letting transactions end
		return ErrServerClosed
	}
	s.Close()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("accept SQL connections: %w", err)
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// start takes a connection over; it does not block.
func (s *Server) start(ctx context.Context, nc net.Conn) {
	if tc, ok := nc.(*net.TCPConn); ok {
		tc.SetNoDelay(true)
		// A client whose host is gone must not hold its session, and perhaps
		// the write lock, for the hours of the system's default.
		tc.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 6})
	}
	c := &conn{srv: s, nc: nc}
	s.mu.Lock()
	full := len(s.conns) >= s.MaxSessions+preAuthSlots
	if full || s.closing {
		s.mu.Unlock()
		e := errTooMany
		if !full {
			e = errShutdown
		}
		// Best effort: a few bytes into an empty socket buffer do not block.
		nc.SetDeadline(s.Clock.Now().Add(time.Second))
		nc.Write(appendError(nil, 'E', &e))
		nc.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.wg.Done()
		defer func() {
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		}()
		c.serve(ctx)
	}()
}

// register gives a connection the pid and secret of BackendKeyData. The pid is
// the session's number where it has one: what pg_stat_activity shows and
// pg_cancel_backend takes.
func (s *Server) register(c *conn) {
	var b [4]byte
	rand.Read(b[:])
	c.secret = binary.BigEndian.Uint32(b[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, ok := c.sess.(interface{ ID() uint32 }); ok && s.byPID[n.ID()] == nil {
		c.pid = n.ID()
		s.byPID[c.pid] = c
		return
	}
	for {
		s.nextPID = (s.nextPID + 1) & 0x7fffffff
		if _, used := s.byPID[s.nextPID]; !used && s.nextPID != 0 {
			break
		}
	}
	c.pid = s.nextPID
	s.byPID[c.pid] = c
}

func (s *Server) unregister(c *conn) {
	s.mu.Lock()
	delete(s.byPID, c.pid)
	s.mu.Unlock()
}

// cancel is a CancelRequest: it interrupts what that connection runs, if the
// secret is right. Nothing is answered either way.
func (s *Server) cancel(pid, secret uint32) {
	s.mu.Lock()
	c := s.byPID[pid]
	s.mu.Unlock()
	if c == nil || c.secret != secret {
		s.Log.Warn("cancel request with a wrong key", "pid", pid)
		return
	}
	if c.running.Load() {
		c.sess.Cancel()
	}
}

// Sessions returns how many authenticated sessions there are.
func (s *Server) Sessions() int { return int(s.sessions.Load()) }

// Shutdown stops accepting, ends each connection with 57P01 as soon as it is
// outside a transaction, and returns when all have ended. When ctx ends
// before, the rest are ended as by Close and ctx's error is returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.init()
	s.draining.Store(true)
	s.stopAccepting()
	for _, c := range s.snapshot() {
		c.poke()
	}
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.Close()
		<-done
		return ctx.Err()
	}
}

// Close stops accepting and ends every session at once with 57P01; open
// transactions are rolled back. It returns when all connections have ended.
func (s *Server) Close() {
	s.init()
	s.draining.Store(true)
	s.stopAccepting()
	for _, c := range s.snapshot() {
		c.terminate(&errShutdown)
	}
	s.wg.Wait()
}

func (s *Server) stopAccepting() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.Listener.Close()
}

func (s *Server) snapshot() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	cs := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		cs = append(cs, c)
	}
	return cs
}
