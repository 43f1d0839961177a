package cluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/storage/engine"
	"datawatch/internal/storage/pagestore"
)

// A client works on pages of the store as a SQL session does, without SQLite: a
// connection of that costs more than all the rest of a life. Page 2 has the
// number of transactions, the hash of their history and one account; page 3 the
// number again and the other account, of equal and opposite amount; the pages
// behind them one record each: the transaction that changed it last.
const (
	pageA   = 2
	pageB   = 3
	pageKey = 4
	keys    = 24
)

var le = binary.LittleEndian.Uint64

type client struct {
	w    *world
	name string
	rng  *rand.Rand
}

func newClient(w *world, n int) *client {
	return &client{w: w, name: fmt.Sprint("c", n), rng: rand.New(rand.NewPCG(w.seed, uint64(1000+n)))}
}

// pause waits; false: the client shall go.
func (c *client) pause(most time.Duration) bool {
	t := time.NewTimer(1 + time.Duration(c.rng.Int64N(int64(most))))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.w.end:
		return false
	}
}

func (c *client) write() {
	for c.pause(150 * time.Millisecond) {
		p := c.w.primaries()
		if len(p) == 0 {
			continue
		}
		i := p[c.rng.IntN(len(p))]
		if e := i.engine(); e != nil {
			c.commit(i, e)
		}
	}
}

func page(h *pagestore.Handle, n int) ([]byte, error) {
	b := make([]byte, pageSize)
	_, err := h.ReadAt(b, int64(n-1)*pageSize)
	if err == pagestore.ErrShortRead {
		err = nil
	}
	return b, err
}

// commit makes one transaction and waits until it is acknowledged, or gives up.
func (c *client) commit(i *instance, e *engine.Engine) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s := e.Store()
	h := s.NewHandle(false)
	defer h.Close()
	lock, stop := context.WithTimeout(ctx, 2*time.Second)
	err := s.LockWrite(lock, h)
	stop()
	if err != nil {
		return
	}
	t, lsn, err := c.change(ctx, h)
	s.UnlockWrite(h)
	if err != nil || lsn == 0 {
		return
	}
	err = e.WaitHardened(ctx, lsn)
	i.node.still()
	if err != nil || i.dead.Load() {
		c.w.chain.mu.Lock()
		c.w.chain.unknown++
		c.w.chain.mu.Unlock()
		return
	}
	c.w.chain.acknowledged(t, i.h.name, opening(e))
}

// change writes the pages of a transaction.
func (c *client) change(ctx context.Context, h *pagestore.Handle) (*tx, base.LSN, error) {
	defer h.Unlock(pagestore.LockNone)
	h.SetContext(ctx)
	if err := h.Lock(pagestore.LockShared); err != nil {
		return nil, 0, err
	}
	a, err := page(h, pageA)
	if err != nil {
		return nil, 0, err
	}
	b, err := page(h, pageB)
	if err != nil {
		return nil, 0, err
	}
	t, err := c.w.chain.begin(binary.LittleEndian.Uint64(a[8:]), c.rng.IntN(keys), int64(c.rng.IntN(100)))
	if err != nil {
		return nil, 0, err
	}
	if err := h.Lock(pagestore.LockExclusive); err != nil {
		return nil, 0, err
	}
	binary.LittleEndian.PutUint64(a, t.depth)
	binary.LittleEndian.PutUint64(a[8:], t.hash)
	binary.LittleEndian.PutUint64(a[16:], binary.LittleEndian.Uint64(a[16:])+uint64(t.amount))
	binary.LittleEndian.PutUint64(b, t.depth)
	binary.LittleEndian.PutUint64(b[16:], binary.LittleEndian.Uint64(b[16:])-uint64(t.amount))
	k := make([]byte, pageSize)
	binary.LittleEndian.PutUint64(k, t.id)
	for n := range c.rng.IntN(200) { // changes of unequal size
		k[16+n] = byte(c.rng.Uint32())
	}
	for _, p := range []struct {
		n int
		b []byte
	}{{pageA, a}, {pageB, b}, {pageKey + t.key, k}} {
		if _, err := h.WriteAt(p.b, int64(p.n-1)*pageSize); err != nil {
			return nil, 0, err
		}
	}
	if err := h.Sync(); err != nil {
		return nil, 0, err
	}
	h.CommitPhaseTwo()
	if err := h.Unlock(pagestore.LockShared); err != nil {
		return nil, 0, err
	}
	return t, h.LastCommit(), nil
}

func (c *client) read() {
	for c.pause(300 * time.Millisecond) {
		x := c.w.hosts[c.rng.IntN(len(c.w.hosts))]
		i := x.current()
		if i == nil {
			continue
		}
		if e := i.engine(); e != nil && (e.Status() == base.StatusOpen || e.Status() == base.StatusSuspend) {
			c.look(i, e)
		}
	}
}

// look reads a snapshot and compares it with the history it claims.
func (c *client) look(i *instance, e *engine.Engine) {
	h := e.Store().NewHandle(true)
	defer h.Close()
	if err := h.Lock(pagestore.LockShared); err != nil {
		return
	}
	defer h.Unlock(pagestore.LockNone)
	key := c.rng.IntN(keys)
	var p [3][]byte
	for n, at := range []int{pageA, pageB, pageKey + key} {
		var err error
		if p[n], err = page(h, at); err != nil {
			return
		}
	}
	if i.dead.Load() {
		return
	}
	u := le
	who := i.h.name
	t := c.w.chain.seen(u(p[0][8:]), who)
	if t == nil {
		return
	}
	if u(p[0]) != t.depth || u(p[1]) != t.depth || u(p[0][16:])+u(p[1][16:]) != 0 {
		c.w.chain.fault("G6: a reader of %s at %s saw counters %d and %d and accounts %d and %d", who, t, u(p[0]), u(p[1]), u(p[0][16:]), u(p[1][16:]))
	}
	if l := c.w.chain.last(t, key); l.id != u(p[2]) && (l.parent != nil || u(p[2]) != 0) {
		c.w.chain.fault("G6: a reader of %s at %s saw record %d as of transaction %d, not %s", who, t, key, u(p[2]), l)
	}
}
