package secure

import (
	"sync"
	"time"

	"datawatch/internal/clock"
)

// gateEvery is how long one kind of complaint is kept quiet.
const gateEvery = 30 * time.Second

// maxGate bounds how many kinds of complaints are remembered.
const maxGate = 512

// Gate lets one line per kind pass in half a minute and counts the others.
type Gate struct {
	clk clock.Clock
	mu  sync.Mutex
	at  map[string]*gated
}

type gated struct {
	last time.Time
	more int
}

// NewGate makes an open gate.
func NewGate(clk clock.Clock) *Gate { return &Gate{clk: clk, at: map[string]*gated{}} }

// Pass reports whether a line of that kind may be written, and how many were
// kept back since the last one.
func (g *Gate) Pass(kind string) (ok bool, more int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.clk.Now()
	k := g.at[kind]
	if k == nil && len(g.at) >= maxGate {
		for name, o := range g.at {
			if now.Sub(o.last) >= gateEvery {
				delete(g.at, name)
			}
		}
		if len(g.at) >= maxGate { // a flood from many hosts shares one line
			kind = ""
			k = g.at[kind]
		}
	}
	if k == nil {
		g.at[kind] = &gated{last: now}
		return true, 0
	}
	if now.Sub(k.last) < gateEvery {
		k.more++
		return false, 0
	}
	more, k.more, k.last = k.more, 0, now
	return true, more
}
