package cluster

import (
	"fmt"
	"sync"
)

// Every transaction of the clients makes the next state of the whole database:
// it counts up, and its number goes into a chain of hashes. So one look at a
// database tells the whole history that led to it, and two looks that do not lie
// on one chain prove that something was lost or that two primaries wrote.
//
//	G1  an acknowledged transaction is settled: whatever is acknowledged or seen
//	    later follows from it
//	G2  a transaction that any reader has seen is settled in the same way
//	G3  acknowledgements come from one opening, and never again from an older one
//	G6  a reader sees what one transaction left, whole
type chain struct {
	mu      sync.Mutex
	all     map[uint64]*tx // by hash
	settled []*tx          // by depth; what nobody may lose
	openID  uint64         // of the newest acknowledgement
	opener  string
	faults  []string
	acks    int
	unknown int
	reads   int
	changes int // of the database that acknowledges
	next    uint64
}

// tx is a transaction: the state it makes of its parent's.
type tx struct {
	id, hash uint64
	depth    uint64 // how many there were, with it
	parent   *tx
	key      int // the record it changed
	amount   int64
	acked    bool
}

// first is what the databases begin with.
var first = &tx{hash: 0}

func newChain() *chain {
	return &chain{all: map[uint64]*tx{0: first}, settled: []*tx{first}}
}

func mix(a, b uint64) uint64 {
	x := a ^ b*0x9e3779b97f4a7c15
	x ^= x >> 29
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 32
	return x | 1
}

func (c *chain) bad(f string, a ...any) { c.faults = append(c.faults, fmt.Sprintf(f, a...)) }

func (t *tx) String() string { return fmt.Sprintf("transaction %d (the %d-th)", t.id, t.depth) }

// begin makes a transaction that follows the state with a hash.
func (c *chain) begin(parent uint64, key int, amount int64) (*tx, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.all[parent]
	if p == nil {
		c.bad("G6: a writer found a state that no transaction left, hash %x", parent)
		return nil, fmt.Errorf("unknown state")
	}
	c.next++
	t := &tx{id: c.next, parent: p, depth: p.depth + 1, key: key, amount: amount}
	t.hash = mix(p.hash, t.id)
	c.all[t.hash] = t
	return t, nil
}

// settle: t may not be lost from now on, with all it follows from.
func (c *chain) settle(t *tx, what string) {
	top := c.settled[len(c.settled)-1]
	if t.depth <= top.depth {
		if c.settled[t.depth] != t {
			c.bad("%s: %s, but the history that was acknowledged or seen has %s there, and goes on to %s", what, t, c.settled[t.depth], top)
		}
		return
	}
	path := make([]*tx, 0, t.depth-top.depth)
	x := t
	for ; x.depth > top.depth; x = x.parent {
		path = append(path, x)
	}
	if x != top {
		c.bad("%s: %s does not follow from %s, which was acknowledged or seen before", what, t, top)
		return
	}
	for i := len(path) - 1; i >= 0; i-- {
		c.settled = append(c.settled, path[i])
	}
}

// acknowledged: a client was told that t is committed, by the opening of a
// database with that number.
func (c *chain) acknowledged(t *tx, by string, openID uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acks++
	t.acked = true
	c.settle(t, "G1, acknowledged by "+by)
	switch {
	case openID < c.openID || openID == c.openID && c.opener != by:
		c.bad("G3: %s, opening %d, acknowledges %s after %s, opening %d, has acknowledged", by, openID, t, c.opener, c.openID)
	default:
		if c.opener != "" && c.opener != by {
			c.changes++
		}
		c.openID, c.opener = openID, by
	}
}

// far tells how many commits were acknowledged, and by whom the last one.
func (c *chain) far() (acks int, by string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.acks, c.opener
}

// seen: a reader saw the state that a hash names. It returns its transaction.
func (c *chain) seen(hash uint64, by string) *tx {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	t := c.all[hash]
	if t == nil {
		c.bad("G6: a reader of %s saw a state that no transaction left, hash %x", by, hash)
		return nil
	}
	c.settle(t, "G2, seen at "+by)
	return t
}

// last is the transaction that wrote a record last, in the state of t.
func (c *chain) last(t *tx, key int) *tx {
	c.mu.Lock()
	defer c.mu.Unlock()
	for t.parent != nil && t.key != key {
		t = t.parent
	}
	return t
}

func (c *chain) fault(f string, a ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bad(f, a...)
}

func (c *chain) failed() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.faults
}
