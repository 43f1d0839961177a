package secure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"datawatch/internal/wire"
)

// maxPending is how many connections to one port may be without a known peer.
const maxPending = 64

// Port is how connections to one listener are judged.
type Port struct {
	// Name of the port in log lines: "MAL_PORT".
	Name string
	// Allow says whether a peer that is who it claims to be may use this
	// port; nil: all of the group.
	Allow func(Peer) error
	// Refusal is the frame by which the port's own protocol refuses, for a
	// peer in plain text that has to be told to use TLS and the other way
	// round; nil: it is only closed.
	Refusal func(msg string) (typ uint16, payload []byte)
}

// Listen puts a port under protection: Accept of what it returns yields
// connections whose peer is known or, in mode Off, that at least began like
// one of ours. Everything before that happens beside Accept, in bounded time
// and memory.
func (e *Endpoint) Listen(ln net.Listener, p Port) net.Listener {
	if e == nil {
		return ln
	}
	l := &listener{Listener: ln, e: e, port: p, ready: make(chan accepted), pending: map[*pending]struct{}{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.wg.Add(1)
	go l.loop()
	return l
}

type accepted struct {
	nc  net.Conn
	err error
}

type listener struct {
	net.Listener
	e      *Endpoint
	port   Port
	ready  chan accepted
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	pending map[*pending]struct{}
	n       uint64
}

// pending is a connection whose peer is not known yet.
type pending struct {
	nc      net.Conn
	host    string
	n       uint64
	evicted bool
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case a := <-l.ready:
		return a.nc, a.err
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close ends the port and every connection not yet taken from it.
func (l *listener) Close() error {
	l.cancel()
	err := l.Listener.Close()
	l.mu.Lock()
	for p := range l.pending {
		p.nc.Close()
	}
	l.mu.Unlock()
	l.wg.Wait()
	return err
}

func (l *listener) loop() {
	defer l.wg.Done()
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			if l.ctx.Err() != nil {
				return
			}
			if !l.deliver(accepted{err: err}) || errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		p := &pending{nc: nc, host: host(nc)}
		l.admit(p)
		l.wg.Add(1)
		go func() {
			defer l.wg.Done()
			l.serve(p)
		}()
	}
}

func (l *listener) deliver(a accepted) bool {
	select {
	case l.ready <- a:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// admit gives a new connection a place. When there is none, the oldest one of
// the host that holds most places loses its own: silent connections from one
// place do not keep the others out.
func (l *listener) admit(p *pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) >= maxPending {
		count := map[string]int{}
		for q := range l.pending {
			count[q.host]++
		}
		var victim *pending
		for q := range l.pending {
			if victim == nil || count[q.host] > count[victim.host] || count[q.host] == count[victim.host] && q.n < victim.n {
				victim = q
			}
		}
		victim.evicted = true
		delete(l.pending, victim)
		victim.nc.Close()
	}
	l.n++
	p.n = l.n
	l.pending[p] = struct{}{}
	if l.ctx.Err() != nil {
		p.nc.Close()
	}
}

func (l *listener) serve(p *pending) {
	ctx, cancel := context.WithTimeout(l.ctx, l.e.cfg.Timeout)
	stop := context.AfterFunc(ctx, func() { p.nc.Close() })
	nc, why, err := l.greet(ctx, p.nc)
	late := !stop()
	cancel()
	l.mu.Lock()
	delete(l.pending, p)
	evicted := p.evicted
	l.mu.Unlock()
	switch {
	case l.ctx.Err() != nil:
		p.nc.Close()
	case evicted:
		l.log(p, "crowd", fmt.Errorf("more than %d connections that do not say who they are", maxPending))
	case err != nil || late:
		p.nc.Close()
		if late {
			why, err = "silent", fmt.Errorf("did not say who it is within %v", l.e.cfg.Timeout)
		}
		l.log(p, why, err)
	case !l.deliver(accepted{nc: nc}):
		nc.Close()
	}
}

// errProbe is a connection that was closed without a word, as those who look
// whether a port is open do.
var errProbe = errors.New("closed without a word")

func (l *listener) log(p *pending, why string, err error) {
	if errors.Is(err, errProbe) {
		l.e.cfg.Log.Debug("connection closed without a word", "port", l.port.Name, "from", p.host)
		return
	}
	if ok, more := l.e.gate.Pass(l.port.Name + " " + p.host + " " + why); ok {
		args := []any{"port", l.port.Name, "from", p.nc.RemoteAddr().String(), "err", clean(err.Error(), 600)}
		if more > 0 {
			args = append(args, "like_it_since", more)
		}
		l.e.cfg.Log.Warn("connection refused", args...)
	}
}

// greet looks at the first bytes of a connection and takes it as far as a
// known peer. why is a class of errors that is logged once in a while.
func (l *listener) greet(ctx context.Context, nc net.Conn) (out net.Conn, why string, err error) {
	var first [4]byte
	n, err := io.ReadFull(nc, first[:])
	if err != nil {
		if n == 0 && errors.Is(err, io.EOF) {
			return nil, "", errProbe
		}
		return nil, "garbage", fmt.Errorf("not one of our programs: %q and nothing more", first[:n])
	}
	again := &prefixed{Conn: nc, first: bytes.Clone(first[:])}
	isTLS := first[0] == 0x16 && first[1] == 0x03 // a handshake record (RFC 8446, 5.1)
	isPlain := string(first[:]) == "DWF1"
	off := l.e.Mode() == Off
	switch {
	case off && isPlain:
		return again, "", nil
	case !off && isTLS:
		out, err := l.e.server(ctx, again, l.port.Allow)
		if err != nil {
			return nil, "tls", err
		}
		return out, "", nil
	case off && isTLS:
		l.refuse(nc, fmt.Sprintf("this side does not use TLS: %s must be the same in the whole group", paramName(l.e.cfg.Param)))
		return nil, "tls to plain", fmt.Errorf("it speaks TLS, this side does not (%s): the setting must be the same in the whole group", l.e.cfg.Param)
	case isPlain:
		l.refuse(nc, fmt.Sprintf("this side takes TLS only: %s must be the same in the whole group", paramName(l.e.cfg.Param)))
		return nil, "plain to tls", fmt.Errorf("it speaks plain text, this side takes TLS only (%s = %s): the setting must be the same in the whole group", l.e.cfg.Param, l.e.Mode())
	}
	return nil, "garbage", fmt.Errorf("not one of our programs: it began with %q", first[:])
}

func (l *listener) refuse(nc net.Conn, msg string) {
	if l.port.Refusal == nil {
		return
	}
	var b bytes.Buffer
	typ, payload := l.port.Refusal(msg)
	if wire.NewWriter(&b).Write(typ, 0, payload) == nil {
		sayPlain(nc, b.Bytes(), l.e.cfg.Clock.Now())
	}
}

// prefixed gives back bytes that were looked at.
type prefixed struct {
	net.Conn
	first []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

func host(nc net.Conn) string {
	a := nc.RemoteAddr().String()
	if h, _, err := net.SplitHostPort(a); err == nil {
		return h
	}
	return a
}
