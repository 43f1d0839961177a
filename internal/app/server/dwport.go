package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/ha/proto"
	"datawatch/internal/secure"
	"datawatch/internal/wire"
)

// Codes of the watcher port.
const (
	codeFailed   base.Code = -1
	codeVersion  base.Code = -2
	codeOGUID    base.Code = -3
	codeRole     base.Code = -4
	codeBadFrame base.Code = -5
)

const (
	helloTimeout   = 5 * time.Second
	statusInterval = 200 * time.Millisecond
	writeTimeout   = 5 * time.Second
)

// instance is what the watcher port needs of the server.
type instance interface {
	status() proto.InstanceStatus
	// execute performs a command; it may take long and obeys ctx.
	execute(ctx context.Context, c proto.InstanceCommand) error
}

// dwPort serves the watchers of this instance (MAL_INST_DW_PORT): it tells
// them the instance's status regularly and at every change, and performs their
// commands. Several connections may exist for a moment while a watcher
// reconnects; commands are the instance's to serialise.
type dwPort struct {
	inst  instance
	clock clock.Clock
	log   *slog.Logger

	mu        sync.Mutex
	conns     map[*dwConn]struct{}
	lastHeard time.Time // of any watcher, any frame
	info      *proto.WatcherInfo
	auto      string // DW_MODE of the newest watcher: TRUE for AUTO, FALSE for MANUAL
	closed    bool
	wg        sync.WaitGroup

	sampling sync.Mutex
	seq      uint64
}

type dwConn struct {
	c      net.Conn
	w      *wire.Writer
	notify chan struct{} // capacity 1
	done   chan struct{}
}

// port is how connections to it are judged: it is for the watcher of this
// instance alone.
func (p *dwPort) port(inst string) secure.Port {
	return secure.Port{Name: "MAL_INST_DW_PORT", Allow: func(w secure.Peer) error {
		if w.Role != secure.Watcher || !strings.EqualFold(w.Name, inst) {
			return fmt.Errorf("MAL_INST_DW_PORT of %s is for its own watcher, not for %s", inst, w)
		}
		return nil
	}, Refusal: func(msg string) (uint16, []byte) {
		b, _ := json.Marshal(proto.HelloReply{Code: codeFailed, Msg: msg, GuardVersion: proto.GuardVersion, Name: inst})
		return proto.TypeHelloReply, b
	}}
}

func newDWPort(inst instance, clk clock.Clock, log *slog.Logger) *dwPort {
	return &dwPort{inst: inst, clock: clk, log: log, conns: map[*dwConn]struct{}{}}
}

// serve accepts watchers until the listener is closed.
func (p *dwPort) serve(ctx context.Context, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return
			}
			p.log.Warn("watcher port: accept failed", "err", err)
			if p.clock.Sleep(ctx, 100*time.Millisecond) != nil {
				return
			}
			continue
		}
		p.mu.Lock()
		if p.closed || len(p.conns) >= 64 {
			p.mu.Unlock()
			c.Close()
			continue
		}
		p.wg.Add(1)
		p.mu.Unlock()
		go func() {
			defer p.wg.Done()
			if err := p.handle(ctx, c); err != nil && !errors.Is(err, io.EOF) {
				p.log.Info("watcher connection ended", "peer", c.RemoteAddr().String(), "err", err)
			}
		}()
	}
}

// watcherActive reports whether a watcher guards this instance: one is
// connected, or the last was heard less than within ago (DW_INACTIVE_INTERVAL,
// manual 5.1).
func (p *dwPort) watcherActive(within time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.conns) > 0 {
		return true
	}
	return !p.lastHeard.IsZero() && p.clock.Now().Sub(p.lastHeard) < within
}

// guarded tells the DW_MODE of the watcher, "" before one has connected, and
// when it was last heard.
func (p *dwPort) guarded() (auto string, heard time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.auto, p.lastHeard
}

// told takes what a watcher says of itself.
func (p *dwPort) told(i *proto.WatcherInfo) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.info = i
}

// watcher is what the newest watcher has said of itself, nil before one has, when
// it was last heard, and whether it is there: connected, and not silent for
// DW_ERROR_TIME.
func (p *dwPort) watcher() (i *proto.WatcherInfo, heard time.Time, there bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.info != nil {
		there = len(p.conns) > 0 && p.clock.Now().Sub(p.lastHeard) < time.Duration(p.info.ErrorTime)*time.Second
	}
	return p.info, p.lastHeard, there
}

// changed makes every connection send a status message soon.
func (p *dwPort) changed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		select {
		case c.notify <- struct{}{}:
		default:
		}
	}
}

// close sends a last status to every watcher and ends the connections.
func (p *dwPort) close() {
	p.mu.Lock()
	p.closed = true
	var all []*dwConn
	for c := range p.conns {
		all = append(all, c)
	}
	p.mu.Unlock()
	for _, c := range all {
		_ = p.sendStatus(c)
		c.c.Close()
	}
	p.wg.Wait()
}

func (p *dwPort) heard() {
	p.mu.Lock()
	p.lastHeard = p.clock.Now()
	p.mu.Unlock()
}

// sample takes a status with a number. Numbers rise with the moments they
// speak of, whichever of messages and replies is written first: a watcher must
// not take an older state for the newest one.
func (p *dwPort) sample() proto.InstanceStatus {
	p.sampling.Lock()
	defer p.sampling.Unlock()
	st := p.inst.status()
	p.seq++
	st.Seq = p.seq
	return st
}

func (p *dwPort) sendStatus(c *dwConn) error {
	st := p.sample()
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	if err := c.c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	return c.w.Write(proto.TypeInstStatus, 0, b)
}

// handle runs one connection to its end.
func (p *dwPort) handle(ctx context.Context, nc net.Conn) error {
	defer nc.Close()
	r := wire.NewReader(bufio.NewReader(nc), wire.MaxPreAuth)
	c := &dwConn{c: nc, w: wire.NewWriter(nc), notify: make(chan struct{}, 1), done: make(chan struct{})}
	if err := nc.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	if err := p.hello(r, c); err != nil {
		return err
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return err
	}
	r.SetMax(wire.MaxControl)
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.conns[c] = struct{}{}
	p.lastHeard = p.clock.Now()
	p.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() {
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
		close(c.done)
		cancel() // a command that can be given up (arch_send) is
		nc.Close()
		wg.Wait()
	}()
	wg.Add(1)
	go func() {
		defer wg.Done()
		p.broadcast(c)
	}()
	return p.commands(ctx, r, c, &wg)
}

func (p *dwPort) hello(r *wire.Reader, c *dwConn) error {
	f, err := r.Read()
	if err != nil {
		return fmt.Errorf("waiting for hello: %w", err)
	}
	var h proto.Hello
	if f.Type != proto.TypeHello {
		err = fmt.Errorf("first message has type %d, want hello", f.Type)
	} else if e := json.Unmarshal(f.Payload, &h); e != nil {
		err = fmt.Errorf("hello is not valid: %w", e)
	}
	if err != nil {
		return p.refuse(c, codeBadFrame, err.Error())
	}
	st := p.inst.status()
	switch {
	case h.GuardVersion != proto.GuardVersion:
		return p.refuse(c, codeVersion, fmt.Sprintf("watcher version %q, this instance has %q", h.GuardVersion, proto.GuardVersion))
	case h.Role != proto.RoleWatcher:
		return p.refuse(c, codeRole, fmt.Sprintf("role %q is not served here", h.Role))
	case h.OGUID != st.OGUID:
		return p.refuse(c, codeOGUID, fmt.Sprintf("OGUID of the watcher is %d, of instance %s it is %d", h.OGUID, st.InstName, st.OGUID))
	}
	p.mu.Lock()
	p.auto = strings.ToUpper(strconv.FormatBool(h.Auto))
	p.mu.Unlock()
	b, err := json.Marshal(proto.HelloReply{GuardVersion: proto.GuardVersion, Name: st.InstName, OGUID: st.OGUID, PID: st.PID})
	if err != nil {
		return err
	}
	return c.w.Write(proto.TypeHelloReply, 0, b)
}

func (p *dwPort) refuse(c *dwConn, code base.Code, msg string) error {
	st := p.inst.status()
	b, err := json.Marshal(proto.HelloReply{Code: code, Msg: msg, GuardVersion: proto.GuardVersion, Name: st.InstName, OGUID: st.OGUID})
	if err != nil {
		return err
	}
	return errors.Join(fmt.Errorf("refused: %s", msg), c.w.Write(proto.TypeHelloReply, 0, b))
}

func (p *dwPort) broadcast(c *dwConn) {
	t := p.clock.NewTicker(statusInterval)
	defer t.Stop()
	for {
		if err := p.sendStatus(c); err != nil {
			c.c.Close() // ends the reader too
			return
		}
		select {
		case <-c.done:
			return
		case <-c.notify:
		case <-t.C:
		}
	}
}

// commands reads and runs commands; each runs in its own goroutine, because an
// archive_send may last long while others must go on.
func (p *dwPort) commands(ctx context.Context, r *wire.Reader, c *dwConn, wg *sync.WaitGroup) error {
	for {
		f, err := r.Read()
		if err != nil {
			return err
		}
		p.heard()
		if f.Type != proto.TypeInstCmd {
			return fmt.Errorf("unexpected message type %d", f.Type)
		}
		var cmd proto.InstanceCommand
		if err := json.Unmarshal(f.Payload, &cmd); err != nil {
			return fmt.Errorf("command is not valid: %w", err)
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			var rep proto.InstanceReply
			if err := p.inst.execute(ctx, cmd); err != nil {
				rep.Code, rep.Msg = base.CodeOf(err, codeFailed), base.TextOf(err)
			}
			if f.ID == 0 {
				return // nobody waits for an answer
			}
			rep.Status = p.sample()
			b, err := json.Marshal(rep)
			if err != nil {
				p.log.Error("watcher port: reply", "err", err)
				return
			}
			if err := c.w.Write(proto.TypeInstReply, f.ID, b); err != nil {
				c.c.Close()
			}
		}()
	}
}
