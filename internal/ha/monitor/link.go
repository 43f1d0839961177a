package monitor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/confirm"
	"datawatch/internal/ha/proto"
	"datawatch/internal/secure"
	"datawatch/internal/wire"
)

// link keeps one connection to one watcher alive.
type link struct {
	m    *Monitor
	g    *group
	addr string

	// Guarded by Monitor.mu.
	conn    *conn // nil while down
	lastErr string
	refused time.Time // first refusal as a second confirm monitor
	second  time.Time // another was listed first since
}

// conn is one connection after its hello.
type conn struct {
	l  *link
	nc net.Conn
	w  *wire.Writer

	mu      sync.Mutex
	nextID  uint64
	calls   map[uint64]chan proto.WatcherReply
	done    chan struct{}
	closing bool
}

var errLink = errors.New("the connection to the watcher was lost")

// run dials again and again until the monitor ends.
func (l *link) run() {
	for {
		err := l.serve()
		if l.m.ctx.Err() != nil {
			return
		}
		l.m.mu.Lock()
		if s := fmt.Sprint(err); s != l.lastErr {
			l.lastErr = s
			l.m.tellLocked("monitor", "watcher %s of group %s: %s", l.addr, l.g.Name, s)
		}
		l.m.mu.Unlock()
		if l.m.clk.Sleep(l.m.ctx, l.m.cfg.Heartbeat) != nil {
			return
		}
	}
}

func (l *link) serve() error {
	m := l.m
	ctx, cancel := context.WithTimeout(m.ctx, 5*time.Second)
	nc, err := m.cfg.Dial(ctx, l.addr)
	cancel()
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	if nc, err = m.sec.Client(m.ctx, nc, secure.Want{Role: secure.Watcher, OGUID: l.g.OGUID}); err != nil {
		return err
	}
	stop := context.AfterFunc(m.ctx, func() { nc.Close() })
	defer stop()
	defer nc.Close()
	nc.SetDeadline(m.clk.Now().Add(5 * time.Second))
	c := &conn{l: l, nc: nc, w: wire.NewWriter(nc), calls: map[uint64]chan proto.WatcherReply{}, done: make(chan struct{})}
	rd := wire.NewReader(bufio.NewReader(nc), wire.MaxPreAuth)
	if err := l.hello(c, rd); err != nil {
		return err
	}
	nc.SetDeadline(time.Time{})
	rd.SetMax(wire.MaxControl)

	m.mu.Lock()
	l.conn, l.lastErr, l.refused = c, "", time.Time{}
	m.tellLocked("monitor", "connected to watcher %s of group %s", l.addr, l.g.Name)
	m.step(l.g, confirm.Link{Addr: l.addr, Up: true})
	m.wake()
	m.mu.Unlock()

	var wg sync.WaitGroup
	wg.Go(c.heartbeat)
	err = c.read(rd)
	m.mu.Lock()
	l.drop(c)
	m.mu.Unlock()
	c.close()
	wg.Wait()
	return err
}

// drop forgets a connection; later reports of it are ignored. m.mu is held.
func (l *link) drop(c *conn) {
	if l.conn != c {
		return
	}
	l.conn = nil
	for id, a := range l.m.asks {
		if a.conn == c {
			delete(l.m.asks, id)
		}
	}
	l.m.step(l.g, confirm.Link{Addr: l.addr, Up: false})
	l.m.wake()
}

func (l *link) hello(c *conn, rd *wire.Reader) error {
	m := l.m
	host, _, _ := net.SplitHostPort(c.nc.LocalAddr().String())
	if err := c.send(proto.TypeHello, 0, proto.Hello{Role: proto.RoleMonitor, GuardVersion: proto.GuardVersion, Name: host,
		OGUID: l.g.OGUID, Group: l.g.Name, MonConfirm: m.cfg.Confirm, MonID: m.cfg.MonID, PID: m.cfg.PID}); err != nil {
		return fmt.Errorf("sending the hello: %w", err)
	}
	f, err := rd.Read()
	if err != nil {
		return fmt.Errorf("waiting for the watcher's hello: %w", err)
	}
	var r proto.HelloReply
	if f.Type != proto.TypeHelloReply || json.Unmarshal(f.Payload, &r) != nil {
		return errors.New("the watcher did not answer with a hello")
	}
	if r.Code == CodeTwoConfirm && m.cfg.Confirm {
		err := base.Errorf(CodeTwoConfirm, "group %s already has a confirm monitor (watcher %s: %s)", l.g.Name, l.addr, r.Msg)
		m.mu.Lock()
		now := m.clk.Now()
		if l.refused.IsZero() {
			l.refused = now
		}
		long := now.Sub(l.refused) >= m.cfg.ConfirmGrace
		m.mu.Unlock()
		if long {
			m.fail(err)
		}
		return err
	}
	if r.Code != 0 {
		return base.Errorf(r.Code, "refused by the watcher: %s", r.Msg)
	}
	if r.GuardVersion != proto.GuardVersion {
		return fmt.Errorf("version mismatch: the watcher has [%s], this monitor [%s]", r.GuardVersion, proto.GuardVersion)
	}
	if err := secure.Check(c.nc, secure.Watcher, r.Name); err != nil {
		return err
	}
	if r.OGUID != 0 && r.OGUID != l.g.OGUID {
		return fmt.Errorf("OGUID mismatch: the watcher has %d, dmmonitor.ini has %d", r.OGUID, l.g.OGUID)
	}
	return nil
}

func (c *conn) send(typ uint16, id uint64, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding a message: %w", err)
	}
	c.nc.SetWriteDeadline(c.l.m.clk.Now().Add(5 * time.Second))
	if err := c.w.Write(typ, id, b); err != nil {
		c.nc.Close() // a frame may be cut: nothing may follow it
		return fmt.Errorf("%w: %w", errLink, err)
	}
	return nil
}

func (c *conn) heartbeat() {
	t := c.l.m.clk.NewTicker(c.l.m.cfg.Heartbeat)
	defer t.Stop()
	for {
		if c.send(proto.TypeMonStatus, 0, proto.MonitorStatus{MonID: c.l.m.cfg.MonID, Confirm: c.l.m.cfg.Confirm}) != nil {
			return
		}
		select {
		case <-t.C:
		case <-c.done:
			return
		}
	}
}

func (c *conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing {
		c.closing = true
		close(c.done)
		c.nc.Close()
	}
}

// read handles frames until the connection ends. A watcher that stays silent
// for DW_ERROR_TIME is dialled anew.
func (c *conn) read(rd *wire.Reader) error {
	m := c.l.m
	for {
		m.mu.Lock()
		quiet := c.l.g.st.View(m.clk.Now()).ErrorTime()
		m.mu.Unlock()
		c.nc.SetReadDeadline(m.clk.Now().Add(quiet))
		f, err := rd.Read()
		if err != nil {
			return fmt.Errorf("%w: %w", errLink, err)
		}
		switch f.Type {
		case proto.TypeDWStatus:
			var s proto.WatcherStatus
			if err := json.Unmarshal(f.Payload, &s); err != nil {
				return fmt.Errorf("reading a status message: %w", err)
			}
			if s.Group != "" && s.Group != c.l.g.Name {
				continue // a watcher that guards several groups
			}
			m.report(c, s)
		case proto.TypeDWReply:
			var r proto.WatcherReply
			if err := json.Unmarshal(f.Payload, &r); err != nil {
				return fmt.Errorf("reading a reply: %w", err)
			}
			c.mu.Lock()
			ch := c.calls[f.ID]
			delete(c.calls, f.ID)
			c.mu.Unlock()
			if ch != nil {
				ch <- r
			}
		case proto.TypeConfirmReq:
			var r proto.ConfirmRequest
			if err := json.Unmarshal(f.Payload, &r); err != nil {
				return fmt.Errorf("reading a confirm request: %w", err)
			}
			m.ask(c, f.ID, r)
		default:
			return fmt.Errorf("unexpected frame type %d", f.Type)
		}
	}
}

// call sends a command and waits for its reply. An error of errLink means that
// the outcome is unknown; a reply with a code is returned as an error too.
func (c *conn) call(ctx context.Context, cmd proto.WatcherCommand) (proto.WatcherReply, error) {
	ch := make(chan proto.WatcherReply, 1)
	c.mu.Lock()
	c.nextID++
	id := c.nextID
	c.calls[id] = ch
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.calls, id)
		c.mu.Unlock()
	}()
	if err := c.send(proto.TypeDWCmd, id, cmd); err != nil {
		return proto.WatcherReply{}, err
	}
	select {
	case r := <-ch:
		if r.Code < 0 {
			return r, base.Errorf(r.Code, "%s", r.Msg)
		}
		return r, nil
	case <-c.done:
		return proto.WatcherReply{}, errLink
	case <-ctx.Done():
		return proto.WatcherReply{}, fmt.Errorf("waiting for the watcher's reply: %w", ctx.Err())
	}
}
