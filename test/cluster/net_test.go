package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// simNet is the network of a cluster: hosts, and the paths between them, each
// direction with faults of its own. Bytes of a connection arrive in order or not
// at all, as TCP's do: what a cut path holds back arrives when it is whole again,
// unless the connection was reset meanwhile. Writes never block: a wire.Writer
// holds a lock across them.
type simNet struct {
	mu    sync.Mutex
	rng   *rand.Rand
	ports map[string]*simPort
	paths map[[2]string]*path // from host, to host
	conns map[*simConn]bool
	order []*simConn // conns in the order of their making
	down  map[string]bool
}

// path is one direction between two hosts.
type path struct {
	cut   bool // nothing arrives
	delay time.Duration
}

// quickest is what a packet between two hosts takes at least.
const quickest = 200 * time.Microsecond

// dialTime bounds an attempt that nobody answers.
const dialTime = 3 * time.Second

func newNet(rng *rand.Rand) *simNet {
	return &simNet{rng: rng, ports: map[string]*simPort{}, paths: map[[2]string]*path{}, conns: map[*simConn]bool{}, down: map[string]bool{}}
}

// node is a process on a host.
type node struct {
	n      *simNet
	host   string
	name   string
	dead   bool
	frozen bool
	thaw   chan struct{} // closed when it goes on
	gone   chan struct{} // closed when it has ended
}

func (n *simNet) node(host, name string) *node {
	return &node{n: n, host: host, name: name, gone: make(chan struct{})}
}

// path is called with mu held.
func (n *simNet) path(from, to string) *path {
	p := n.paths[[2]string{from, to}]
	if p == nil {
		p = &path{}
		n.paths[[2]string{from, to}] = p
	}
	return p
}

// open: bytes from one host reach the other. mu is held.
func (n *simNet) open(from, to string) bool {
	return from == to && !n.down[from] || !n.down[from] && !n.down[to] && !n.path(from, to).cut
}

// takes is how long a packet takes now. mu is held.
func (n *simNet) takes(from, to string) time.Duration {
	if from == to {
		return 0
	}
	d := quickest + n.path(from, to).delay
	return d + time.Duration(n.rng.Int64N(int64(d)))
}

// set changes one direction.
func (n *simNet) set(from, to string, cut bool, delay time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.path(from, to)
	p.cut, p.delay = cut, delay
	n.wakeAll()
}

// heal makes every path whole and quick.
func (n *simNet) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.paths {
		*p = path{}
	}
	n.wakeAll()
}

func (n *simNet) wakeAll() {
	for _, c := range n.order {
		c.wakeup()
	}
}

// reset breaks every connection between two hosts: both ends learn it at once.
func (n *simNet) reset(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.order {
		if c.node.host == a && c.peer.node.host == b || c.node.host == b && c.peer.node.host == a {
			c.in = append(c.in[:0], chunk{rst: true})
			c.peer.gone = true
			c.wakeup()
		}
	}
}

// kill ends a process: what it has sent arrives, then its connections are reset.
// With the power of the host gone nothing arrives any more, and peers learn of
// it when the host is there again.
func (n *simNet) kill(nd *node, power bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if nd.dead {
		return
	}
	nd.dead = true
	close(nd.gone)
	nd.wake()
	for a, p := range n.ports {
		if p.node == nd {
			delete(n.ports, a)
			p.shut()
		}
	}
	for _, c := range n.order {
		if c.node != nd {
			continue
		}
		c.closed = true
		// What a timer made a stopped process write was never sent.
		c.peer.in = slices.DeleteFunc(c.peer.in, func(k chunk) bool { return k.held })
		if !power {
			c.peer.push(chunk{at: c.arrives(), rst: true})
			c.peer.gone = true
		}
		c.wakeup()
	}
	n.sweep()
}

// sweep forgets connections that both ends have left. mu is held.
func (n *simNet) sweep() {
	rest := n.order[:0]
	for _, c := range n.order {
		if c.closed && c.peer.closed {
			delete(n.conns, c)
			continue
		}
		rest = append(rest, c)
	}
	clear(n.order[len(rest):])
	n.order = rest
}

// power switches the network card of a host; peers of connections that it had
// learn now that it knows nothing of them.
func (n *simNet) power(host string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down[host] = !on
	for _, c := range n.order {
		if on && c.node.host == host && c.closed && !c.peer.closed {
			c.peer.push(chunk{at: time.Now().Add(n.takes(host, c.peer.node.host)), rst: true})
			c.peer.gone = true
		}
		c.wakeup()
	}
}

// freeze stops a process, or lets it go on: it neither reads nor accepts.
func (nd *node) freeze(on bool) {
	n := nd.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if nd.frozen == on {
		return
	}
	nd.frozen = on
	if on {
		nd.thaw = make(chan struct{})
		return
	}
	nd.wakeFrozen()
	for _, c := range n.order {
		if c.node != nd {
			continue
		}
		for i := range c.peer.in {
			if c.peer.in[i].held {
				c.peer.in[i].held = false
				c.peer.in[i].at = c.arrives()
			}
		}
		c.peer.wakeup()
		c.wakeup()
	}
}

func (nd *node) wakeFrozen() {
	if nd.thaw != nil {
		close(nd.thaw)
		nd.thaw = nil
	}
}

func (nd *node) wake() {
	nd.frozen = false
	nd.wakeFrozen()
}

// still waits while the process is stopped.
func (nd *node) still() {
	for {
		nd.n.mu.Lock()
		ch := nd.thaw
		nd.n.mu.Unlock()
		if ch == nil {
			return
		}
		<-ch
	}
}

type simAddr string

func (a simAddr) Network() string { return "sim" }
func (a simAddr) String() string  { return string(a) }

// simPort is a listener.
type simPort struct {
	node  *node
	addr  string
	queue chan *simConn
	done  chan struct{}
	ended bool
}

func (p *simPort) shut() {
	if !p.ended {
		p.ended = true
		close(p.done)
	}
}

func (p *simPort) Accept() (net.Conn, error) {
	select {
	case c := <-p.queue:
		p.node.still()
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *simPort) Close() error {
	n := p.node.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ports[p.addr] == p {
		delete(n.ports, p.addr)
	}
	p.shut()
	return nil
}

func (p *simPort) Addr() net.Addr { return simAddr(p.addr) }

// listen opens a port of the process.
func (nd *node) listen(_ context.Context, addr string) (net.Listener, error) {
	n := nd.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if nd.dead {
		return nil, net.ErrClosed
	}
	if n.ports[addr] != nil {
		return nil, &net.OpError{Op: "listen", Net: "sim", Err: fmt.Errorf("%s: %w", addr, syscall.EADDRINUSE)}
	}
	p := &simPort{node: nd, addr: addr, queue: make(chan *simConn, 64), done: make(chan struct{})}
	n.ports[addr] = p
	return p, nil
}

// dialTo connects. An attempt over a cut path is repeated, as TCP's first packet is.
func (nd *node) dialTo(ctx context.Context, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	n := nd.n
	for {
		n.mu.Lock()
		ok, dead := n.open(nd.host, host) && n.open(host, nd.host), nd.dead
		wait := n.takes(nd.host, host) + n.takes(host, nd.host)
		n.mu.Unlock()
		if dead {
			return nil, net.ErrClosed
		}
		if !ok {
			wait = time.Second
		}
		if wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return nil, fmt.Errorf("dial %s: %w", addr, ctx.Err())
			}
		}
		if ok {
			break
		}
	}
	nd.still()
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.ports[addr]
	if nd.dead {
		return nil, net.ErrClosed
	}
	if p == nil || len(p.queue) == cap(p.queue) {
		return nil, fmt.Errorf("dial %s: %w", addr, syscall.ECONNREFUSED)
	}
	a, b := &simConn{node: nd, wake: make(chan struct{}, 1)}, &simConn{node: p.node, wake: make(chan struct{}, 1)}
	a.peer, b.peer = b, a
	n.order = append(n.order, a, b)
	p.queue <- b
	return a, nil
}

// chunk is bytes on their way, or the end of a connection.
type chunk struct {
	at       time.Time
	b        []byte
	eof, rst bool
	held     bool // written while its process stood still
}

// simConn is one end of a connection. All of it is guarded by simNet.mu.
type simConn struct {
	node   *node
	peer   *simConn
	in     []chunk
	wake   chan struct{}
	closed bool
	gone   bool // the other end is known to be closed
	rdl    time.Time
	wdl    time.Time
}

func (c *simConn) wakeup() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// arrives is when what is sent now arrives: never before what was sent earlier.
func (c *simConn) arrives() time.Time {
	at := time.Now().Add(c.node.n.takes(c.node.host, c.peer.node.host))
	if k := len(c.peer.in); k > 0 && c.peer.in[k-1].at.After(at) {
		at = c.peer.in[k-1].at
	}
	return at
}

func (c *simConn) push(k chunk) {
	c.in = append(c.in, k)
	c.wakeup()
}

func (c *simConn) Read(b []byte) (int, error) {
	n := c.node.n
	for {
		got, wait, err := c.tryRead(n, b)
		if got > 0 || err != nil {
			return got, err
		}
		if wait < 0 {
			<-c.wake
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-c.wake:
			t.Stop()
		case <-t.C:
		}
	}
}

// tryRead reads what is there, or tells how long to wait; negative: until woken.
func (c *simConn) tryRead(n *simNet, b []byte) (got int, wait time.Duration, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.closed {
		return 0, 0, net.ErrClosed
	}
	if c.node.frozen {
		return 0, -1, nil
	}
	now := time.Now()
	wait = -1
	if !c.rdl.IsZero() {
		if wait = c.rdl.Sub(now); wait <= 0 {
			return 0, 0, os.ErrDeadlineExceeded
		}
	}
	if len(c.in) == 0 {
		return 0, wait, nil
	}
	k := &c.in[0]
	switch {
	case k.rst && k.at.IsZero():
		return 0, 0, syscall.ECONNRESET
	case k.held || !n.open(c.peer.node.host, c.node.host):
		return 0, wait, nil
	case k.at.After(now):
		if d := k.at.Sub(now); wait < 0 || d < wait {
			wait = d
		}
		return 0, wait, nil
	case k.rst:
		return 0, 0, syscall.ECONNRESET
	case k.eof:
		return 0, 0, io.EOF
	}
	got = copy(b, k.b)
	if k.b = k.b[got:]; len(k.b) == 0 {
		c.in = c.in[1:]
	}
	return got, 0, nil
}

func (c *simConn) Write(b []byte) (int, error) {
	n := c.node.n
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case !c.wdl.IsZero() && !time.Now().Before(c.wdl):
		return 0, os.ErrDeadlineExceeded
	case c.gone && n.open(c.peer.node.host, c.node.host):
		return 0, syscall.EPIPE
	}
	if c.peer.closed {
		return len(b), nil
	}
	c.peer.push(chunk{at: c.arrives(), b: append([]byte(nil), b...), held: c.node.frozen})
	return len(b), nil
}

func (c *simConn) Close() error {
	n := c.node.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.closed {
		return errors.New("closed already")
	}
	c.closed = true
	if !c.peer.closed {
		c.peer.push(chunk{at: c.arrives(), eof: true, held: c.node.frozen})
		c.peer.gone = true
	}
	c.wakeup()
	n.sweep()
	return nil
}

func (c *simConn) LocalAddr() net.Addr  { return simAddr(c.node.host + ":" + c.node.name) }
func (c *simConn) RemoteAddr() net.Addr { return simAddr(c.peer.node.host + ":" + c.peer.node.name) }

func (c *simConn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *simConn) SetReadDeadline(t time.Time) error {
	c.node.n.mu.Lock()
	defer c.node.n.mu.Unlock()
	c.rdl = bubble(t)
	c.wakeup()
	return nil
}

func (c *simConn) SetWriteDeadline(t time.Time) error {
	c.node.n.mu.Lock()
	defer c.node.n.mu.Unlock()
	c.wdl = bubble(t)
	return nil
}
