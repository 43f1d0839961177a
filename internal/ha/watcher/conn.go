package watcher

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"datawatch/internal/clock"
	"datawatch/internal/ha/proto"
	"datawatch/internal/wire"
)

// queueLen bounds what waits to be written to one peer; statuses are dropped
// beyond half of it, and a peer that does not take answers is disconnected.
const queueLen = 256

type role uint8

const (
	roleInstance role = iota + 1
	roleWatcher
	roleMonitor
)

func (r role) String() string {
	return [...]string{"", "dmserver", "dmwatcher", "dmmonitor"}[r]
}

type out struct {
	typ   uint16
	id    uint64
	b     []byte
	until time.Time // not to be written from then on; zero: always
}

// conn is one connection after its hello.
type conn struct {
	id      uint64
	role    role
	name    string // instance name, or monitor id
	confirm bool
	nc      net.Conn
	clk     clock.Clock
	r       *wire.Reader
	w       *wire.Writer
	q       chan out
	since   time.Time
	heard   time.Time // when the loop last had something from it
	once    sync.Once
	done    chan struct{}
	up      bool // the loop has taken it
	// late is told the id of an order that was not written in time.
	late func(id uint64)
}

func newConn(nc net.Conn, clk clock.Clock) *conn {
	return &conn{nc: nc, r: wire.NewReader(bufio.NewReaderSize(nc, 32<<10), wire.MaxPreAuth), w: wire.NewWriter(nc),
		q: make(chan out, queueLen), done: make(chan struct{}), clk: clk}
}

func (c *conn) close() {
	c.once.Do(func() {
		close(c.done)
		_ = c.nc.Close()
	})
}

// sendRaw queues a frame. A droppable one (a status, soon followed by the
// next) is dropped when the peer is slow; any other closes the connection.
func (c *conn) sendRaw(typ uint16, id uint64, b []byte, droppable bool) {
	if droppable && len(c.q) > queueLen/2 {
		return
	}
	c.enqueue(out{typ: typ, id: id, b: b})
}

func (c *conn) enqueue(o out) {
	select {
	case c.q <- o:
	default:
		c.close()
	}
}

// order sends an order that must not be written later than until: this process
// may be stopped at any moment, and what was decided before is wrong afterwards.
func (c *conn) order(typ uint16, id uint64, v any, until time.Time) {
	b, err := json.Marshal(v)
	if err != nil {
		c.close()
		return
	}
	c.enqueue(out{typ: typ, id: id, b: b, until: until})
}

func (c *conn) send(typ uint16, id uint64, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		c.close()
		return
	}
	c.sendRaw(typ, id, b, false)
}

// direct writes during the hello, before the writer runs.
func (c *conn) direct(typ uint16, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.w.Write(typ, 0, b)
}

func (c *conn) writeLoop(ctx context.Context) {
	defer c.close()
	for {
		select {
		case o := <-c.q:
			if now := c.clk.Now(); !o.until.IsZero() && (!now.Before(o.until) || !now.Round(0).Before(o.until.Round(0))) {
				c.late(o.id)
				continue
			}
			_ = c.nc.SetWriteDeadline(c.clk.Now().Add(30 * time.Second))
			if c.w.Write(o.typ, o.id, o.b) != nil {
				return
			}
		case <-c.done:
			return
		case <-ctx.Done():
			return
		}
	}
}

// decodeAs parses a payload.
func decodeAs[T any](f wire.Frame) (T, error) {
	var v T
	if err := json.Unmarshal(f.Payload, &v); err != nil {
		return v, fmt.Errorf("message of type %d: %w", f.Type, err)
	}
	return v, nil
}

// reply pairs a message with its request id.
type reply[T any] struct {
	id uint64
	v  T
}

func decodeReply[T any](f wire.Frame) (any, error) {
	v, err := decodeAs[T](f)
	return reply[T]{f.ID, v}, err
}

// decode accepts what a peer of this role may send.
func (c *conn) decode(f wire.Frame) (any, error) {
	switch {
	case c.role == roleInstance && f.Type == proto.TypeInstStatus:
		return decodeAs[proto.InstanceStatus](f)
	case c.role == roleInstance && f.Type == proto.TypeInstReply:
		return decodeReply[proto.InstanceReply](f)
	case c.role == roleWatcher && f.Type == proto.TypeDWStatus:
		return decodeAs[proto.WatcherStatus](f)
	case c.role == roleWatcher && f.Type == proto.TypeDWReply:
		return decodeReply[proto.WatcherReply](f)
	case c.role != roleInstance && f.Type == proto.TypeDWCmd:
		return decodeReply[proto.WatcherCommand](f)
	case c.role == roleMonitor && f.Type == proto.TypeMonStatus:
		return decodeAs[proto.MonitorStatus](f)
	case c.role == roleMonitor && f.Type == proto.TypeConfirmRep:
		return decodeReply[proto.ConfirmReply](f)
	}
	return nil, fmt.Errorf("message type %d is not one a %s sends", f.Type, c.role)
}

// serve runs reader and writer of a connection the loop has taken.
func (g *Guard) serve(c *conn) {
	g.spawn(func() { c.writeLoop(g.ctx) })
	c.r.SetMax(wire.MaxControl)
	var err error
	for err == nil {
		var f wire.Frame
		var v any
		if f, err = c.r.Read(); err == nil {
			if v, err = c.decode(f); err == nil && !g.post(frameMsg{c, v}) {
				err = g.ctx.Err()
			}
		}
	}
	c.close()
	if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && g.ctx.Err() == nil {
		g.deps.Log.Warn("connection closed", "peer", c.role.String(), "name", c.name, "addr", c.nc.RemoteAddr().String(), "error", err)
	}
	g.post(closedMsg{c})
}
