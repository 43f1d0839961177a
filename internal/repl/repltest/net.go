// Package repltest is what the tests of replication share: a network in memory
// with faults, and an instance that has the real mal, ship and standby around
// an engine made of a slice. It is imported by tests only and keeps no
// guarantee; it checks some.
package repltest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Net is a network in memory. Everything blocks on channels only, so that it
// works inside synctest bubbles.
type Net struct {
	mu    sync.Mutex
	ports map[string]*listener
	conns map[*end]bool
	cut   map[[2]string]bool // unordered pair: refused and closed
	dead  map[[2]string]bool // unordered pair: silent, nothing arrives
	slow  map[[2]string]time.Duration
	rate  map[[2]string]int
}

// NewNet makes a network without faults.
func NewNet() *Net {
	return &Net{ports: map[string]*listener{}, conns: map[*end]bool{}, cut: map[[2]string]bool{}, dead: map[[2]string]bool{},
		slow: map[[2]string]time.Duration{}, rate: map[[2]string]int{}}
}

func pair(a, b string) [2]string {
	if a > b {
		a, b = b, a
	}
	return [2]string{a, b}
}

type listener struct {
	n      *Net
	host   string
	addr   string
	queue  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

type addr string

func (a addr) Network() string { return "mem" }
func (a addr) String() string  { return string(a) }

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.n.mu.Lock()
		delete(l.n.ports, l.addr)
		l.n.mu.Unlock()
		close(l.closed)
	})
	return nil
}

func (l *listener) Addr() net.Addr { return addr(l.addr) }

// Listen is a mal.Listener; hosts name the instance.
func (n *Net) Listen(_ context.Context, a string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(a)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ports[a] != nil {
		return nil, fmt.Errorf("address %s in use", a)
	}
	l := &listener{n: n, host: host, addr: a, queue: make(chan net.Conn, 16), closed: make(chan struct{})}
	n.ports[a] = l
	return l, nil
}

// DialFrom is a mal.Dialer for the host named.
func (n *Net) DialFrom(from string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, a string) (net.Conn, error) {
		host, _, _ := net.SplitHostPort(a)
		n.mu.Lock()
		l, cut, dead := n.ports[a], n.cut[pair(from, host)], n.dead[pair(from, host)]
		n.mu.Unlock()
		if dead {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		if l == nil || cut {
			return nil, errors.New("connection refused")
		}
		ab, ba := newPipe(), newPipe()
		mine := &end{n: n, link: pair(from, host), r: ba, w: ab}
		theirs := &end{n: n, link: pair(from, host), r: ab, w: ba}
		n.mu.Lock()
		for _, p := range []*pipe{ab, ba} {
			p.delay, p.rate = n.slow[mine.link], n.rate[mine.link]
		}
		n.conns[mine], n.conns[theirs] = true, true
		n.mu.Unlock()
		select {
		case l.queue <- theirs:
			return mine, nil
		case <-l.closed:
			return nil, errors.New("connection refused")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Cut closes every connection between two hosts and refuses new ones.
func (n *Net) Cut(a, b string) {
	n.mu.Lock()
	n.cut[pair(a, b)] = true
	n.mu.Unlock()
	n.Reset(a, b)
}

// Reset closes every connection between two hosts; they may dial again.
func (n *Net) Reset(a, b string) {
	n.mu.Lock()
	var cs []*end
	for c := range n.conns {
		if c.link == pair(a, b) {
			cs = append(cs, c)
		}
	}
	n.mu.Unlock()
	for _, c := range cs {
		c.Close()
	}
}

// Mute makes the network between two hosts silent: connections stand, nothing
// arrives, dialling hangs.
func (n *Net) Mute(a, b string) { n.setDead(a, b, true) }

// Delay lets what is written between two hosts from now on take a time, each way.
func (n *Net) Delay(a, b string, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.slow[pair(a, b)] = d
	for c := range n.conns {
		if c.link == pair(a, b) {
			c.r.setDelay(d)
		}
	}
}

// Rate lets so many bytes a second through between two hosts from now on, each
// way; 0: any number.
func (n *Net) Rate(a, b string, bytes int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rate[pair(a, b)] = bytes
	for c := range n.conns {
		if c.link == pair(a, b) {
			c.r.setRate(bytes)
		}
	}
}

func (n *Net) setDead(a, b string, dead bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dead[pair(a, b)] = dead
	for c := range n.conns {
		if c.link == pair(a, b) {
			c.r.mute(dead)
		}
	}
}

// Heal ends Cut and Mute.
func (n *Net) Heal(a, b string) {
	n.mu.Lock()
	n.cut[pair(a, b)] = false
	n.mu.Unlock()
	n.setDead(a, b, false)
}

const pipeMax = 4 << 20

// pipe is one direction of a connection.
type pipe struct {
	mu     sync.Mutex
	parts  []part // in the order written, and of arrival
	size   int    // of all of them
	eof    bool
	silent bool
	delay  time.Duration
	rate   int           // bytes a second; 0: any number
	free   time.Time     // when all that was written is through
	wake   chan struct{} // closed and replaced at every change
}

// part is what was written at once.
type part struct {
	b  []byte
	at time.Time // of its arrival
}

func newPipe() *pipe { return &pipe{wake: make(chan struct{})} }

func (p *pipe) changed() {
	close(p.wake)
	p.wake = make(chan struct{})
}

func (p *pipe) mute(s bool) {
	p.mu.Lock()
	p.silent = s
	p.changed()
	p.mu.Unlock()
}

func (p *pipe) setDelay(d time.Duration) { p.mu.Lock(); p.delay = d; p.mu.Unlock() }

func (p *pipe) setRate(r int) { p.mu.Lock(); p.rate = r; p.mu.Unlock() }

func (p *pipe) close() {
	p.mu.Lock()
	if !p.eof {
		p.eof = true
		p.changed()
	}
	p.mu.Unlock()
}

func (p *pipe) read(b []byte) (int, error) {
	for {
		var due <-chan time.Time
		p.mu.Lock()
		if len(p.parts) > 0 && !p.silent {
			first := &p.parts[0]
			if left := time.Until(first.at); left <= 0 {
				n := copy(b, first.b)
				p.size -= n
				if first.b = first.b[n:]; len(first.b) == 0 {
					p.parts = p.parts[1:]
				}
				p.changed()
				p.mu.Unlock()
				return n, nil
			} else if !p.eof {
				due = time.After(left)
			}
		}
		if p.eof {
			p.mu.Unlock()
			return 0, io.EOF
		}
		w := p.wake
		p.mu.Unlock()
		select {
		case <-w:
		case <-due:
		}
	}
}

func (p *pipe) write(b []byte) (int, error) {
	done := 0
	for {
		p.mu.Lock()
		if p.eof {
			p.mu.Unlock()
			return done, io.ErrClosedPipe
		}
		if room := pipeMax - p.size; room > 0 {
			k := min(room, len(b)-done)
			p.add(b[done : done+k])
			done += k
			p.changed()
		}
		w := p.wake
		p.mu.Unlock()
		if done == len(b) {
			return done, nil
		}
		<-w
	}
}

// add needs p.mu. Nothing arrives before what was written earlier.
func (p *pipe) add(b []byte) {
	for len(b) > 0 {
		k := len(b)
		if p.rate > 0 {
			k = min(k, 16<<10) // it arrives bit by bit
		}
		p.addPart(b[:k])
		b = b[k:]
	}
}

func (p *pipe) addPart(b []byte) {
	p.free = maxTime(p.free, time.Now())
	if p.rate > 0 {
		p.free = p.free.Add(time.Duration(len(b)) * time.Second / time.Duration(p.rate))
	}
	at := p.free.Add(p.delay)
	if n := len(p.parts); n > 0 && at.Before(p.parts[n-1].at) {
		at = p.parts[n-1].at
	}
	p.parts = append(p.parts, part{append([]byte(nil), b...), at})
	p.size += len(b)
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// end is one end of a connection.
type end struct {
	n    *Net
	link [2]string
	r, w *pipe
}

func (c *end) Read(b []byte) (int, error)  { return c.r.read(b) }
func (c *end) Write(b []byte) (int, error) { return c.w.write(b) }
func (c *end) Close() error {
	c.r.close()
	c.w.close()
	c.n.mu.Lock()
	delete(c.n.conns, c)
	c.n.mu.Unlock()
	return nil
}
func (c *end) LocalAddr() net.Addr              { return addr("local") }
func (c *end) RemoteAddr() net.Addr             { return addr("remote") }
func (c *end) SetDeadline(time.Time) error      { return nil }
func (c *end) SetReadDeadline(time.Time) error  { return nil }
func (c *end) SetWriteDeadline(time.Time) error { return nil }
