package session

import (
	"context"
	"errors"
	"sync"
	"time"
)

// pool is a LIFO of connections of one kind, so that the warm ones are used.
// When all are in use a caller waits a moment, then gets an extra connection
// (slow clients must not block the others), up to overflow times the size; where
// overflow is 0, errPoolBusy.
type pool struct {
	open     func() (*conn, error)
	size     int
	overflow int
	patience time.Duration

	mu      sync.Mutex
	idle    []*conn
	inUse   int
	waiters []chan *conn // nil received: open one yourself
	shut    bool
}

const (
	poolPatience = 20 * time.Millisecond
	poolOverflow = 20
)

func newPool(size int, open func() (*conn, error)) *pool {
	return &pool{open: open, size: size, overflow: poolOverflow, patience: poolPatience}
}

var (
	errPoolClosed = errors.New("the server is shutting down")
	errPoolBusy   = errors.New("all connections are in use")
)

// get returns a connection for use until put or drop.
func (p *pool) get(ctx context.Context) (*conn, error) {
	p.mu.Lock()
	if p.shut {
		p.mu.Unlock()
		return nil, errPoolClosed
	}
	if n := len(p.idle); n > 0 {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.inUse++
		p.mu.Unlock()
		return c, nil
	}
	if p.inUse < p.size {
		return p.make()
	}
	if p.size == 0 {
		p.mu.Unlock()
		return nil, errPoolBusy
	}
	w := make(chan *conn, 1)
	p.waiters = append(p.waiters, w)
	p.mu.Unlock()
	patience := time.NewTimer(p.patience)
	defer patience.Stop()
	for {
		select {
		case c := <-w:
			if c != nil {
				return c, nil
			}
			p.mu.Lock()
			p.inUse-- // the place was kept for us
			return p.make()
		case <-ctx.Done():
			if c, ok := p.leave(w); !ok {
				if c == nil {
					p.drop(nil)
				} else {
					p.put(c)
				}
			}
			return nil, context.Cause(ctx)
		case <-patience.C:
			p.mu.Lock()
			if p.overflow == 0 && p.remove(w) {
				p.mu.Unlock()
				return nil, errPoolBusy
			}
			if p.inUse < p.size*p.overflow && p.remove(w) {
				return p.make()
			}
			p.mu.Unlock()
		}
	}
}

// make opens a connection; p.mu is held and released.
func (p *pool) make() (*conn, error) {
	p.inUse++
	p.mu.Unlock()
	c, err := p.open()
	if err != nil {
		p.drop(nil)
		return nil, err
	}
	return c, nil
}

func (p *pool) remove(w chan *conn) bool {
	for i, x := range p.waiters {
		if x == w {
			p.waiters = append(p.waiters[:i], p.waiters[i+1:]...)
			return true
		}
	}
	return false
}

// leave takes a waiter out of the queue; if it was served already, its
// connection is returned.
func (p *pool) leave(w chan *conn) (*conn, bool) {
	p.mu.Lock()
	ok := p.remove(w)
	p.mu.Unlock()
	if ok {
		return nil, true
	}
	return <-w, false
}

// put gives a connection back.
func (p *pool) put(c *conn) {
	if c.worn() {
		p.drop(c)
		return
	}
	p.mu.Lock()
	if len(p.waiters) > 0 {
		w := p.waiters[0]
		p.waiters = p.waiters[1:]
		w <- c
		p.mu.Unlock()
		return
	}
	p.inUse--
	if p.shut || len(p.idle)+p.inUse >= p.size {
		p.mu.Unlock()
		c.close()
		return
	}
	p.idle = append(p.idle, c)
	p.mu.Unlock()
}

// drop closes a connection in use (nil: only its place is given back).
func (p *pool) drop(c *conn) {
	if c != nil {
		c.close()
	}
	p.mu.Lock()
	if len(p.waiters) > 0 {
		w := p.waiters[0]
		p.waiters = p.waiters[1:]
		w <- nil
	} else {
		p.inUse--
	}
	p.mu.Unlock()
}

func (p *pool) close() error {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.shut = nil, true
	p.mu.Unlock()
	var errs []error
	for _, c := range idle {
		errs = append(errs, c.close())
	}
	return errors.Join(errs...)
}

// count is the number of open connections.
func (p *pool) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle) + p.inUse
}
