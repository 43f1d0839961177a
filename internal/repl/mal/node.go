package mal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
	"datawatch/internal/secure"
)

const (
	backoffMin = 100 * time.Millisecond
	backoffMax = time.Second
	maxPreAuth = 64 // inbound connections before their hello
)

// Node is one instance's end of the MAL system. Order of closing: the listener
// and all connections first, then the goroutines are awaited.
type Node struct {
	cfg    Config
	h      Handler
	self   Entry
	peers  map[string]*peer // fixed after New
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	ln     net.Listener
	pre    chan struct{}

	refused  refusedLog
	state    atomic.Int32  // SystemOpen ...
	requests atomic.Uint64 // made so far

	idMu sync.Mutex
	said Identity // last identity told
}

// peer is another instance. out is the link we dialled, in the one it dialled.
type peer struct {
	entry Entry

	sent, handled atomic.Uint64 // messages, without checks of the link

	mu     sync.Mutex
	out    *conn
	in     *conn
	served chan struct{} // closed when the last inbound connection is done with
	since  time.Time     // of the present state
	heard  time.Time     // of connections that are gone
	ident  *Identity     // as last told
	reason string        // why the last attempt failed, to log each reason once
}

// New makes a Node; Start opens the port and begins to dial.
func New(cfg Config, h Handler) (*Node, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, h: h, peers: map[string]*peer{}, pre: make(chan struct{}, maxPreAuth)}
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	n.state.Store(SystemShutdown)
	for _, e := range cfg.Entries {
		if e.Inst == cfg.Self {
			n.self = e
			continue
		}
		served := make(chan struct{})
		close(served)
		n.peers[e.Inst] = &peer{entry: e, served: served, since: cfg.Clock.Now()}
	}
	return n, nil
}

// Start listens and dials. The error names the address.
func (n *Node) Start(ctx context.Context) error {
	ln, err := n.cfg.Listen(ctx, n.self.Addr())
	if err != nil {
		return fmt.Errorf("mal: listen on MAL_HOST:MAL_PORT %s: %w", n.self.Addr(), err)
	}
	n.ln = n.cfg.Secure.Listen(ln, secure.Port{Name: "MAL_PORT", Refusal: refusal, Allow: func(p secure.Peer) error {
		if p.Role != secure.Instance {
			return fmt.Errorf("MAL_PORT is for instances, not for %s", p)
		}
		return nil
	}})
	n.said = n.cfg.Identity()
	n.state.Store(SystemOpen)
	n.wg.Go(n.accept)
	for _, p := range n.peers {
		n.wg.Go(func() { n.dial(p) })
	}
	return nil
}

// ListenAddr is where the Node listens, after Start.
func (n *Node) ListenAddr() net.Addr { return n.ln.Addr() }

// Close ends every link and waits for the goroutines.
func (n *Node) Close() error {
	err := base.Errorf(CodeLost, "MAL system of %s shut down", n.cfg.Self)
	n.state.Store(SystemPreShutdown)
	n.cancel(err)
	if n.ln != nil {
		n.ln.Close()
	}
	n.wg.Wait()
	n.state.Store(SystemShutdown)
	return nil
}

// Go sends a request; the answer comes by the Call. Writing may wait for a
// peer that does not read, until the link is found broken.
func (n *Node) Go(inst string, typ uint16, parts ...[]byte) (*Call, error) {
	c, err := n.outbound(inst)
	if err != nil {
		return nil, err
	}
	return c.call(typ, parts...)
}

// Call sends a request and waits for the answer.
func (n *Node) Call(ctx context.Context, inst string, typ uint16, parts ...[]byte) ([]byte, error) {
	call, err := n.Go(inst, typ, parts...)
	if err != nil {
		return nil, err
	}
	return call.Wait(ctx)
}

// Notify sends a one-way message.
func (n *Node) Notify(inst string, typ uint16, parts ...[]byte) error {
	c, err := n.outbound(inst)
	if err != nil {
		return err
	}
	return c.write(typ, 0, parts...)
}

func (n *Node) outbound(inst string) (*conn, error) {
	p := n.peers[inst]
	if p == nil {
		return nil, base.Errorf(CodeNoPeer, "instance %s is not in dmmal.ini", inst)
	}
	p.mu.Lock()
	c := p.out
	p.mu.Unlock()
	if c == nil {
		return nil, base.Errorf(CodeLost, "no MAL connection to %s", inst)
	}
	return c, nil
}

// Links reports every other instance, in the order of dmmal.ini. A link counts
// as connected while either side's connection stands: what a takeover needs to
// know is whether anything at all is heard of the other.
func (n *Node) Links() []proto.MALLink {
	var out []proto.MALLink
	for _, e := range n.cfg.Entries {
		p := n.peers[e.Inst]
		if p == nil {
			continue
		}
		p.mu.Lock()
		l := proto.MALLink{Inst: e.Inst, Connected: p.out != nil || p.in != nil, Since: p.since, LastHeard: p.heard}
		for _, c := range []*conn{p.out, p.in} {
			if c != nil && c.lastHeard().After(l.LastHeard) {
				l.LastHeard = c.lastHeard()
			}
		}
		p.mu.Unlock()
		out = append(out, l)
	}
	return out
}

// LinkState is a row of V$MAL_LINK_STATUS.
type LinkState struct {
	Inst string
	Ctl  bool // the link the peer dialled
	Data bool // the link we dialled, by which redo goes out
}

// LinkStates reports both directions of every link.
func (n *Node) LinkStates() []LinkState {
	var out []LinkState
	for _, e := range n.cfg.Entries {
		if p := n.peers[e.Inst]; p != nil {
			p.mu.Lock()
			out = append(out, LinkState{Inst: e.Inst, Ctl: p.in != nil, Data: p.out != nil})
			p.mu.Unlock()
		}
	}
	return out
}

// IdentityChanged tells the peers that Config.Identity answers something new;
// unchanged (but for positions) it does nothing.
func (n *Node) IdentityChanged() {
	id := n.cfg.Identity()
	n.idMu.Lock()
	if n.said.same(id) {
		n.idMu.Unlock()
		return
	}
	n.said = id
	n.idMu.Unlock()
	for _, p := range n.peers {
		p.judge(id)
		p.mu.Lock()
		if c := p.out; c != nil {
			n.wg.Go(func() { n.tell(c) }) // under p.mu: the dialling goroutine still counts in wg
		}
		p.mu.Unlock()
	}
}

// tell sends the present identity. One at a time, so that an older one cannot
// be written after a newer.
func (n *Node) tell(c *conn) {
	c.telling.Lock()
	defer c.telling.Unlock()
	b, err := appendHello(nil, n.hello(c.p.entry.Inst))
	if err == nil {
		err = c.write(TypeIdentity, 0, b)
	}
	if err != nil {
		n.cfg.Log.Debug("identity not told", "peer", c.p.entry.Inst, "err", err)
	}
}

func (n *Node) identityChanged(c *conn, h *hello) error {
	if err := n.judge(h, c.p.entry.Inst); err != nil {
		c.p.closeAll(err)
		return err
	}
	c.p.mu.Lock()
	c.p.ident = &h.Identity
	c.p.mu.Unlock()
	n.h.PeerIdentity(c.p.entry.Inst, h.Identity)
	return nil
}

// dial keeps the link to one peer up.
func (n *Node) dial(p *peer) {
	wait := backoffMin
	for n.ctx.Err() == nil {
		c, h, err := n.connect(p)
		if err == nil {
			wait = backoffMin
			n.linkUp(c, h)
			err = c.run(nil)
			n.linkDown(c, err)
		}
		p.mu.Lock()
		news := p.reason != err.Error()
		p.reason = err.Error()
		p.mu.Unlock()
		if news && n.ctx.Err() == nil {
			n.cfg.Log.Info("MAL link down", "peer", p.entry.Inst, "addr", p.entry.Addr(), "err", err)
		}
		if n.cfg.Clock.Sleep(n.ctx, wait) != nil {
			return
		}
		wait = min(2*wait, backoffMax)
	}
}

func (n *Node) linkUp(c *conn, h *hello) {
	inst := c.p.entry.Inst
	n.h.PeerIdentity(inst, h.Identity)
	c.p.mu.Lock()
	if c.p.out == nil && c.p.in == nil {
		c.p.since = n.cfg.Clock.Now()
	}
	c.p.out = c
	c.p.ident = &h.Identity
	c.p.reason = ""
	c.p.mu.Unlock()
	n.cfg.Log.Info("MAL link up", "peer", inst, "mode", h.Identity.Mode, "status", h.Identity.Status)
	c.start()
	// The identity in our hello may be older than the last change told.
	n.wg.Go(func() { n.tell(c) })
	n.h.LinkUp(inst, h.Identity)
}

func (n *Node) linkDown(c *conn, err error) {
	c.p.gone(n, c)
	n.h.LinkDown(c.p.entry.Inst, err)
}

// judge ends the links to a peer that our own changed identity does not allow.
func (p *peer) judge(self Identity) {
	p.mu.Lock()
	id := p.ident
	p.mu.Unlock()
	if id != nil {
		if err := check(self, *id, p.entry.Inst); err != nil {
			p.closeAll(err)
		}
	}
}

func (p *peer) closeAll(err error) {
	p.mu.Lock()
	cs := []*conn{p.out, p.in}
	p.mu.Unlock()
	for _, c := range cs {
		if c != nil {
			c.close(err)
		}
	}
}

// gone forgets a connection.
func (p *peer) gone(n *Node, c *conn) {
	p.mu.Lock()
	if p.out == c {
		p.out = nil
	}
	if p.in == c {
		p.in = nil
	}
	if t := c.lastHeard(); t.After(p.heard) {
		p.heard = t
	}
	if p.out == nil && p.in == nil {
		p.since = n.cfg.Clock.Now()
	}
	p.mu.Unlock()
	if n.cfg.Ended != nil {
		n.cfg.Ended()
	}
}

// connect dials and exchanges hellos within LoginTimeout.
func (n *Node) connect(p *peer) (*conn, *hello, error) {
	ctx, cancel := context.WithTimeout(n.ctx, n.cfg.LoginTimeout)
	defer cancel()
	nc, err := n.cfg.Dial(ctx, p.entry.Addr())
	if err != nil {
		return nil, nil, fmt.Errorf("dial %s: %w", p.entry.Addr(), err)
	}
	if nc, err = n.cfg.Secure.Client(ctx, nc, secure.Want{Role: secure.Instance, Name: p.entry.Inst}); err != nil {
		return nil, nil, fmt.Errorf("link to %s at %s: %w", p.entry.Inst, p.entry.Addr(), err)
	}
	c := n.newConn(nc)
	c.p = p
	// A peer that never answers must not hold us: closing is the one
	// interruption that every net.Conn understands.
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	h, err := n.greet(c)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.close(err)
		return nil, nil, fmt.Errorf("hello with %s at %s: %w", p.entry.Inst, p.entry.Addr(), err)
	}
	return c, h, nil
}

func (n *Node) greet(c *conn) (*hello, error) {
	b, err := appendHello(nil, n.hello(c.p.entry.Inst))
	if err != nil {
		return nil, err
	}
	if err := c.w.Write(TypeHello, 0, b); err != nil {
		return nil, err
	}
	f, err := c.r.Read()
	if err != nil {
		return nil, err
	}
	switch f.Type {
	case TypeError:
		return nil, fmt.Errorf("refused by the other side: %w", decodeError(f.Payload))
	case TypeHelloReply:
	default:
		return nil, base.Errorf(CodeMessage, "message of type %d instead of a hello", f.Type)
	}
	h, err := decodeHello(f.Payload)
	if err != nil {
		return nil, err
	}
	return h, n.judge(h, c.p.entry.Inst)
}

// accept takes inbound connections.
func (n *Node) accept() {
	for {
		nc, err := n.ln.Accept()
		if err != nil {
			if n.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			n.cfg.Log.Warn("MAL port cannot accept", "err", err)
			if n.cfg.Clock.Sleep(n.ctx, backoffMin) != nil {
				return
			}
			continue
		}
		select {
		case n.pre <- struct{}{}:
			n.wg.Go(func() { n.inbound(nc) })
		default: // a flood of connections that say nothing
			nc.Close()
		}
	}
}

func (n *Node) inbound(nc net.Conn) {
	c := n.newConn(nc)
	err := n.welcome(c)
	<-n.pre
	if err != nil {
		c.close(err)
		if n.ctx.Err() == nil {
			if log, more := n.refused.note(host(nc), err.Error(), n.cfg.Clock.Now()); log {
				n.cfg.Log.Warn("MAL connection refused", "from", remote(nc), "err", err, "more_since_last_line", more)
			}
		}
		return
	}
	p := c.p
	// The newest connection of a peer wins; it is served when the old one's
	// last handler call has returned.
	mine := make(chan struct{})
	defer close(mine)
	p.mu.Lock()
	old, served := p.in, p.served
	p.served = mine
	if p.out == nil && p.in == nil {
		p.since = n.cfg.Clock.Now()
	}
	p.in = c
	p.mu.Unlock()
	if old != nil {
		old.close(base.Errorf(CodeLost, "%s connected anew", p.entry.Inst))
	}
	defer p.gone(n, c)
	c.start()
	<-served
	err = c.run(n.h.Serve)
	n.cfg.Log.Debug("MAL connection ended", "peer", p.entry.Inst, "err", err)
}

// welcome answers a hello.
func (n *Node) welcome(c *conn) error {
	ctx, cancel := context.WithTimeout(n.ctx, n.cfg.LoginTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.nc.Close() })
	defer stop()
	f, err := c.r.Read()
	if err != nil {
		return err
	}
	if f.Type != TypeHello {
		return base.Errorf(CodeMessage, "message of type %d instead of a hello", f.Type)
	}
	h, err := decodeHello(f.Payload)
	if err == nil {
		err = n.judge(h, "")
	}
	if err == nil {
		if bad := secure.Check(c.nc, secure.Instance, h.Inst); bad != nil {
			err = base.Errorf(CodeName, "%v", bad)
		}
	}
	if err != nil {
		_ = c.w.Write(TypeError, 0, appendError(nil, base.CodeOf(err, CodeMessage), err.Error()))
		return err
	}
	c.p, c.sender = n.peers[h.Inst], h.Identity.Incarnation
	b, err := appendHello(nil, n.hello(h.Inst))
	if err != nil {
		return err
	}
	if err := c.w.Write(TypeHelloReply, 0, b); err != nil {
		return err
	}
	if !stop() {
		return context.Cause(ctx)
	}
	c.p.mu.Lock()
	c.p.ident = &h.Identity
	c.p.mu.Unlock()
	n.h.PeerIdentity(h.Inst, h.Identity)
	return nil
}

func remote(nc net.Conn) slog.Value {
	if a := nc.RemoteAddr(); a != nil {
		return slog.StringValue(a.String())
	}
	return slog.StringValue("?")
}
