package mal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/wire"
)

// conn is one TCP connection. Goroutines after its hello: one reads (run), one
// keeps watch over silence (watch), one writes checks and their answers (beat),
// because a write to a peer that does not read blocks.
type conn struct {
	n  *Node
	p  *peer
	nc net.Conn
	// sender is the incarnation at the other end of an inbound connection.
	sender string
	w      *wire.Writer
	r      *wire.Reader
	ctx    context.Context
	stop   context.CancelCauseFunc

	heard   atomic.Int64 // clock time of the last byte read, ns
	reads   atomic.Uint64
	serving atomic.Int32 // requests of the other side that have no answer yet
	pongDue atomic.Bool
	pingDue atomic.Bool
	wake    chan struct{}
	unhook  func() bool
	telling sync.Mutex

	mu      sync.Mutex
	nextID  uint64
	pending map[uint64]*Call
	dead    error
}

func (n *Node) newConn(nc net.Conn) *conn {
	c := &conn{n: n, nc: nc, w: wire.NewWriter(nc), wake: make(chan struct{}, 1), pending: map[uint64]*Call{}}
	c.ctx, c.stop = context.WithCancelCause(n.ctx)
	c.r = wire.NewReader(bufio.NewReaderSize(heardReader{c}, 64<<10), wire.MaxPreAuth)
	c.heard.Store(n.cfg.Clock.Now().UnixNano())
	c.mu.Lock() // close, perhaps at once, must find unhook
	c.unhook = context.AfterFunc(n.ctx, func() { c.close(context.Cause(n.ctx)) })
	c.mu.Unlock()
	return c
}

// start launches the goroutines beside the reader.
func (c *conn) start() {
	c.n.wg.Go(c.watch)
	c.n.wg.Go(c.beat)
}

// heardReader notes when bytes arrive, so that a large frame on a slow network
// is not taken for silence.
type heardReader struct{ c *conn }

func (h heardReader) Read(b []byte) (int, error) {
	n, err := h.c.nc.Read(b)
	if n > 0 {
		h.c.heard.Store(h.c.n.cfg.Clock.Now().UnixNano())
		h.c.reads.Add(1)
	}
	return n, err
}

func (c *conn) lastHeard() time.Time { return time.Unix(0, c.heard.Load()) }

// close ends the connection and fails what waits for it. The first reason wins.
func (c *conn) close(err error) {
	c.mu.Lock()
	if c.dead != nil {
		c.mu.Unlock()
		return
	}
	c.dead = err
	calls := c.pending
	c.pending = nil
	c.mu.Unlock()
	c.unhook()
	c.stop(err)
	c.nc.Close()
	for _, call := range calls {
		call.finish(nil, err)
	}
}

func (c *conn) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead
}

// Call is a request under way.
type Call struct {
	c     *conn
	id    uint64
	done  chan struct{}
	reply []byte
	err   error
}

// Done is closed when the answer is there or the link is lost.
func (c *Call) Done() <-chan struct{} { return c.done }

// Result may be asked after Done.
func (c *Call) Result() ([]byte, error) { return c.reply, c.err }

// Wait waits for the answer. When ctx ends first the answer is dropped if it
// comes later; the other side has got, or will get, the request all the same.
func (c *Call) Wait(ctx context.Context) ([]byte, error) {
	select {
	case <-c.done:
		return c.reply, c.err
	case <-ctx.Done():
		c.Forget()
		return nil, context.Cause(ctx)
	}
}

// Forget drops the answer when it comes.
func (c *Call) Forget() {
	c.c.mu.Lock()
	delete(c.c.pending, c.id)
	c.c.mu.Unlock()
}

func (c *Call) finish(reply []byte, err error) {
	c.reply, c.err = reply, err
	close(c.done)
}

// call sends a request.
func (c *conn) call(typ uint16, parts ...[]byte) (*Call, error) {
	call := &Call{c: c, done: make(chan struct{})}
	c.mu.Lock()
	if c.dead != nil {
		err := c.dead
		c.mu.Unlock()
		return nil, err
	}
	c.nextID++
	c.n.requests.Add(1)
	call.id = c.nextID
	c.pending[call.id] = call
	c.mu.Unlock()
	if err := c.write(typ, call.id, parts...); err != nil {
		call.Forget()
		return nil, err
	}
	return call, nil
}

func (c *conn) write(typ uint16, id uint64, parts ...[]byte) error {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	if limit := limitOf(typ); size > limit {
		return base.Errorf(CodeTooLong, "message of %d bytes, at most %d can be sent", size, limit)
	}
	if err := c.w.Write(typ, id, parts...); err != nil {
		err = c.lost(err)
		c.close(err)
		return err
	}
	if counted(typ) {
		c.p.sent.Add(1)
	}
	return nil
}

// counted tells messages from the checks of a link.
func counted(typ uint16) bool { return typ != TypePing && typ != TypePong }

func limitOf(typ uint16) int {
	if typ == TypeRedo {
		return wire.MaxRedo
	}
	return wire.MaxControl
}

func (c *conn) lost(err error) error {
	if d := c.err(); d != nil {
		return d
	}
	return fmt.Errorf("link to %s: %w", c.p.entry.Inst, base.Errorf(CodeLost, "MAL connection lost: %v", err))
}

// run reads until the connection ends. serve gets the requests (listening
// side); the dialling side gets answers only.
func (c *conn) run(serve func(*Request)) error {
	c.r.SetMax(wire.MaxControl)
	c.r.SetMaxFor(TypeRedo, wire.MaxRedo)
	for {
		f, err := c.r.Read()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("closed by the other side")
			}
			err = c.lost(err)
			c.close(err)
			return err
		}
		if err := c.frame(f, serve); err != nil {
			err = fmt.Errorf("link to %s: %w", c.p.entry.Inst, err)
			c.close(err)
			return err
		}
		if counted(f.Type) {
			c.p.handled.Add(1)
		}
	}
}

func (c *conn) frame(f wire.Frame, serve func(*Request)) error {
	switch {
	case f.Type == TypePing:
		c.due(&c.pongDue)
	case f.Type == TypePong:
	case f.Type == TypeReply || f.Type == TypeError:
		c.mu.Lock()
		call := c.pending[f.ID]
		delete(c.pending, f.ID)
		c.mu.Unlock()
		if call == nil {
			break // nobody waits any more
		}
		if f.Type == TypeError {
			call.finish(nil, decodeError(f.Payload))
		} else {
			call.finish(f.Payload, nil)
		}
	case f.Type == TypeIdentity:
		h, err := decodeHello(f.Payload)
		if err != nil {
			return err
		}
		return c.n.identityChanged(c, h)
	case f.Type >= TypeApp && serve != nil:
		if f.ID != 0 {
			c.serving.Add(1)
		}
		serve(&Request{From: c.p.entry.Inst, Type: f.Type, Payload: f.Payload, Sender: c.sender, id: f.ID, c: c})
	default:
		return base.Errorf(CodeMessage, "message of type %d not expected here", f.Type)
	}
	return nil
}

// watch sends checks and breaks the link after silence. A link that has a
// request under way is checked after a second of silence already, so that a
// commit does not wait for the next regular check; every other after half of
// MAL_CONN_FAIL_INTERVAL, so that a standby, which only answers, knows of the
// loss of its primary about when the watchers do, whatever MAL_CHECK_INTERVAL
// is: no takeover begins before.
func (c *conn) watch() {
	check, fail := c.n.cfg.CheckInterval, c.n.cfg.ConnFailInterval
	idle := max(time.Second, fail/2)
	var tick <-chan time.Time
	if check > 0 {
		t := c.n.cfg.Clock.NewTicker(min(check, fail, time.Second) / 2)
		defer t.Stop()
		tick = t.C
	}
	last := c.n.cfg.Clock.Now() // of the last check sent
	var asked time.Time         // of a check after which nothing has been read yet; zero: none
	var reads uint64            // then
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-tick:
			now, heard := c.n.cfg.Clock.Now(), c.lastHeard()
			if !asked.IsZero() && c.reads.Load() != reads {
				asked = time.Time{}
			}
			if !asked.IsZero() {
				if now.Sub(asked) >= fail {
					c.close(fmt.Errorf("link to %s: %w", c.p.entry.Inst,
						base.Errorf(CodeBroken, "MAL link broken: nothing heard since %s, %v after a check", heard.Format(time.RFC3339), fail)))
					return
				}
				continue
			}
			c.mu.Lock()
			busy := len(c.pending) > 0
			c.mu.Unlock()
			silent := now.Sub(heard)
			if now.Sub(last) >= check || silent >= idle || busy && silent >= time.Second {
				last, asked, reads = now, now, c.reads.Load()
				c.due(&c.pingDue)
			}
		}
	}
}

func (c *conn) due(flag *atomic.Bool) {
	flag.Store(true)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// beat writes pings and pongs.
func (c *conn) beat() {
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.wake:
		}
		if c.pongDue.Swap(false) && c.write(TypePong, 0) != nil ||
			c.pingDue.Swap(false) && c.write(TypePing, 0) != nil {
			return
		}
	}
}

// Request is a request (or a one-way message) of a peer.
type Request struct {
	From    string
	Sender  string // incarnation of the process it came from
	Type    uint16
	Payload []byte // the Request's own
	id      uint64
	c       *conn
	// answered guards against two answers; set by the first.
	answered atomic.Bool
}

// NewRequest makes a request that did not come over a link, for tests of
// handlers and for calls inside one process. answer gets the reply or error.
func NewRequest(from string, typ uint16, payload []byte, answer func([]byte, error)) *Request {
	r := &Request{From: from, Type: typ, Payload: payload, id: 1}
	r.c = &conn{p: &peer{entry: Entry{Inst: from}}, ctx: context.Background(), w: nil}
	r.c.w = wire.NewWriter(answerWriter(answer))
	return r
}

// Context ends when the connection the request came by ends; an answer then
// reaches nobody.
func (r *Request) Context() context.Context { return r.c.ctx }

// OneWay tells that no answer is expected.
func (r *Request) OneWay() bool { return r.id == 0 }

// Reply answers. Errors need no handling: the link is gone then.
func (r *Request) Reply(parts ...[]byte) {
	if r.id == 0 || r.answered.Swap(true) {
		return
	}
	defer r.c.serving.Add(-1)
	_ = r.c.write(TypeReply, r.id, parts...)
}

// Fail refuses with the code the error carries, or CodeMessage.
func (r *Request) Fail(err error) {
	if r.id == 0 || r.answered.Swap(true) {
		return
	}
	defer r.c.serving.Add(-1)
	var e *base.Error
	msg := err.Error()
	if errors.As(err, &e) && msg == e.Error() {
		msg = e.Msg
	}
	_ = r.c.write(TypeError, r.id, appendError(nil, base.CodeOf(err, CodeMessage), msg))
}

// answerWriter turns the frame a Request writes back into its parts.
type answerWriter func([]byte, error)

func (a answerWriter) Write(b []byte) (int, error) {
	typ := uint16(b[8]) | uint16(b[9])<<8
	payload := append([]byte(nil), b[wire.HeaderSize:]...)
	if typ == TypeError {
		a(nil, decodeError(payload))
	} else {
		a(payload, nil)
	}
	return len(b), nil
}
