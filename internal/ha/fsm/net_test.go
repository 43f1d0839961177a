package fsm_test

import (
	"time"

	"datawatch/internal/ha/confirm"
	"datawatch/internal/ha/fsm"
)

// event is what happens at a moment: over a link only while that stands.
type event struct {
	at    time.Time
	n     int
	pipe  *pipe // nil: whatever happens
	epoch int
	run   func()
}

func (e *event) before(o *event) bool {
	if !e.at.Equal(o.at) {
		return e.at.Before(o.at)
	}
	return e.n < o.n
}

// queue is a heap; the first event is the next.
type queue []event

func (q *queue) push(e event) {
	l := append(*q, e)
	i := len(l) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !e.before(&l[up]) {
			break
		}
		l[i] = l[up]
		i = up
	}
	l[i] = e
	*q = l
}

func (q *queue) pop() event {
	l := *q
	first, e := l[0], l[len(l)-1]
	l[len(l)-1] = event{}
	l = l[:len(l)-1]
	*q = l
	for i := 0; len(l) > 0; {
		c := 2*i + 1
		if c+1 < len(l) && l[c+1].before(&l[c]) {
			c++
		}
		if c >= len(l) || !l[c].before(&e) {
			l[i] = e
			break
		}
		l[i] = l[c]
		i = c
	}
	return first
}

// pipe is a connection, end one side of it.
type pipe struct {
	key   string // in world.cut
	up    bool   // as last seen
	epoch int
}

type end struct {
	*pipe
	last time.Time // what is sent arrives in order
	mute bool      // what is sent waits: the connection stands, nothing comes through this way
	held []event
}

// conn is a connection that comes and goes.
type conn struct {
	*pipe
	on         func() bool
	upf, downf func()
	mon        bool // to the confirm monitor
}

func link(a, b string) string {
	if a > b {
		a, b = b, a
	}
	return a + "|" + b
}

// end is a's end of the connection to b.
func (w *world) end(a, b string) *end {
	if e := w.ends[[2]string{a, b}]; e != nil {
		return e
	}
	p := &pipe{key: link(a, b)}
	w.ends[[2]string{a, b}], w.ends[[2]string{b, a}] = &end{pipe: p}, &end{pipe: p}
	return w.ends[[2]string{a, b}]
}

func (w *world) reach(a, b string) bool { return len(w.cut) == 0 || !w.cut[w.end(a, b).key] }

func (w *world) after(d time.Duration, f func()) {
	w.n++
	w.q.push(event{at: w.now.Add(d), n: w.n, run: f})
}

// send delivers over a link, in order, unless the link breaks meanwhile.
func (w *world) send(a, b string, f func()) {
	e := w.end(a, b)
	if !e.up {
		return
	}
	at := w.now.Add(ms(1 + w.rng.IntN(60)))
	if w.rng.IntN(40) == 0 {
		at = at.Add(ms(w.rng.IntN(1500)))
	}
	if at.Before(e.last) {
		at = e.last
	}
	e.last = at
	if e.mute {
		e.held = append(e.held, event{pipe: e.pipe, epoch: e.epoch, run: f})
		return
	}
	w.n++
	w.q.push(event{at, w.n, e.pipe, e.epoch, f})
}

// mute lets nothing through from a to b; unmute delivers what has waited.
func (w *world) mute(a, b string) {
	w.end(a, b).mute = true
	w.muted = append(w.muted, w.end(a, b))
}

func (w *world) unmute() {
	for _, e := range w.muted {
		e.mute = false
		for _, h := range e.held {
			w.n++
			h.at, h.n = w.now.Add(ms(1)), w.n
			w.q.push(h)
		}
		e.held = nil
	}
	w.muted = nil
}

// passes: packages from database a reach database b.
func (w *world) passes(a, b *mdb) bool {
	return w.reach(a.ep, b.ep) && (len(w.muted) == 0 || !w.end(a.ep, b.ep).mute)
}

func (w *world) both(a, b *mdb) bool { return w.passes(a, b) && w.passes(b, a) }

// connect lists the connections and what their ends learn of them.
func (w *world) connect() {
	add := func(a, b string, on func() bool, upf, downf func()) {
		w.conns = append(w.conns, conn{w.end(a, b).pipe, on, upf, downf, b == "m:"})
	}
	for i, a := range w.names {
		x, d := w.ws[a], w.dbs[a]
		add(x.me, x.di, func() bool { return x.up && d.up }, func() { w.ev(a, fsm.InstUp{PID: d.pid()}) },
			func() { w.ev(a, fsm.InstDown{Gone: !d.up && !w.now.Before(d.goneAt)}) })
		add(x.me, "m:", func() bool { return x.up && w.monUp }, func() {
			w.ev(a, fsm.MonUp{ID: "mon", Confirm: true})
			w.monStep(confirm.Link{Addr: a, Up: true})
			w.broadcast(x)
		}, func() {
			w.ev(a, fsm.MonDown{ID: "mon"})
			w.monStep(confirm.Link{Addr: a})
		})
		for _, b := range w.names[i+1:] {
			y := w.ws[b]
			add(x.me, y.me, func() bool { return x.up && y.up }, func() {
				w.ev(a, fsm.RemoteUp{Inst: b})
				w.ev(b, fsm.RemoteUp{Inst: a})
			}, func() {
				w.ev(a, fsm.RemoteDown{Inst: b})
				w.ev(b, fsm.RemoteDown{Inst: a})
			})
		}
	}
}

// addViewer lets an ordinary monitor watch the group.
func (w *world) addViewer() {
	w.viewer = confirm.New(confirm.Config{Group: "G", ViewOnly: true, ErrorTime: w.cfg.ErrorTime, Addrs: w.names}, confirm.Record{}, w.now)
	w.viewed = true
	for _, a := range w.names {
		x := w.ws[a]
		w.conns = append(w.conns, conn{w.end(x.me, "v:").pipe, func() bool { return x.up }, func() {
			w.ev(a, fsm.MonUp{ID: "view"})
			w.view(confirm.Link{Addr: a, Up: true})
			w.broadcast(x)
		}, func() {
			w.ev(a, fsm.MonDown{ID: "view"})
			w.view(confirm.Link{Addr: a})
		}, false})
	}
}

// view shows an event to the ordinary monitor, which decides nothing.
func (w *world) view(e confirm.Event) {
	for _, a := range w.viewer.Advance(e, w.now) {
		switch a.(type) {
		case confirm.Tell, confirm.Reconnect:
		default:
			w.bad("an ordinary monitor does %T", a)
		}
	}
}

// links brings connections up and down, and tells both ends.
func (w *world) links() {
	for _, c := range w.conns {
		on := c.on() && (len(w.cut) == 0 || !w.cut[c.key])
		if on == c.up {
			continue
		}
		c.up = on
		c.epoch++
		if on {
			c.upf()
		} else {
			c.downf()
		}
	}
}
