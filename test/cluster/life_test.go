package cluster

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/storage/engine"
	"datawatch/internal/vfs"
)

// whole is how long a cluster without faults may take to become whole.
const whole = 10 * time.Minute

// deeds are what shows that lives are lived.
type deeds map[string]int

// live is the life that a seed decides: the cluster becomes whole, faults and
// commands come and go, then the faults end, and it has to become whole again.
func (w *world) live() {
	if err := w.start(); err != nil {
		w.chain.fault("start: %v", err)
		return
	}
	if !w.settle(whole) {
		return
	}
	w.log("life", "WHOLE")
	// Half of the lives know a few kinds of harm only: those come together more
	// often there than where everything is possible.
	if w.kinds = kinds; w.rng.IntN(2) == 0 {
		w.kinds = nil
		for range 2 + w.rng.IntN(3) {
			w.kinds = append(w.kinds, one(w, kinds))
		}
		w.kinds = append(w.kinds, kind{"connections reset", reset}) // can always be done
	}
	var later []func() // what ends faults
	for range 2 + w.rng.IntN(9) {
		if end := w.fault(); end != nil {
			later = append(later, end)
		}
		w.pass(time.Duration(w.rng.IntN(7000)) * time.Millisecond)
		calm := w.rng.IntN(3) == 0 // the next harm finds it whole again, if it can be
		for len(later) > 0 && (calm || w.rng.IntN(3) > 0) {
			k := w.rng.IntN(len(later))
			end := later[k]
			later = append(later[:k], later[k+1:]...)
			end()
		}
		for i := 0; calm && i < 100 && w.unhealthy() != ""; i++ {
			w.pass(200 * time.Millisecond)
		}
		if len(w.chain.failed()) > 0 {
			return
		}
	}
	w.log("life", "REPAIR")
	for _, end := range later {
		end()
	}
	w.repair()
	if w.settle(whole) {
		w.log("life", "WHOLE again")
		w.finish()
	}
}

// pass lets time pass, until something is wrong.
func (w *world) pass(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end) && len(w.chain.failed()) == 0; {
		time.Sleep(min(time.Until(end), 200*time.Millisecond))
	}
}

// repair ends what keeps machines down: people switch them on.
func (w *world) repair() {
	w.commands.Wait()
	w.net.heal()
	for _, h := range w.hosts {
		h.freeze(false)
		h.slow.Store(0)
		h.setFull(false)
		h.mend()
		h.boot()
		if h.watch == nil {
			h.watchAnew()
		}
		if h.current() == nil && !w.cfg.restart {
			h.startInst()
		}
	}
	for _, m := range w.mons {
		if m.m == nil {
			m.start()
		}
	}
	w.byHand = !w.cfg.restart
	for _, m := range w.mons { // who has stopped databases or watchers by command starts them again
		if m.m != nil && m.m.Err() == nil {
			time.Sleep(2 * time.Second)
			w.watchAgain(m.m)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			err := m.m.StartupGroup(ctx, "")
			cancel()
			w.log("life", "STARTUP GROUP at %s: %v", m.name, err)
			break
		}
	}
}

// one picks an element.
func one[T any](w *world, l []T) T { return l[w.rng.IntN(len(l))] }

// fault does harm and returns what ends it, nil when it ends by itself. Where no kind
// of this life is possible (links, with one host in all) it does none.
func (w *world) fault() func() {
	for range 20 {
		h := one(w, w.hosts)
		if p := w.primaries(); len(p) > 0 && w.rng.IntN(2) == 0 {
			h = p[0].h // there is most to break
		}
		k := one(w, w.kinds)
		if end, did := k.do(w, h); did {
			w.did[k.name]++
			return end
		}
	}
	w.log("life", "NOTHING TO BREAK")
	return nil
}

type kind struct {
	name string
	do   func(w *world, h *host) (end func(), did bool)
}

var kinds []kind

func init() {
	kinds = []kind{
		{"instance killed", killInst}, {"instance killed", killInst}, {"power cut", powerCut}, {"power cut", powerCut},
		{"watcher killed", killWatch}, {"monitor killed", killMon}, {"host cut off", cutOff}, {"host cut off", cutOff},
		{"one direction cut", oneWay}, {"one direction cut", oneWay}, {"path slow", slowPath}, {"connections reset", reset}, {"connections reset", reset},
		{"disk slow", slowDisk}, {"disk full", fullDisk}, {"disk broken", brokenDisk}, {"process stopped", stopProcess}, {"process stopped", stopProcess},
		{"clock set", setClock}, {"cut off, then dead", cutThenDead}, {"cut off, then dead", cutThenDead}, {"cut off at a turn", cutAtTurn}, {"command", command}, {"command", command}, {"command", command},
	}
}

func killInst(w *world, h *host) (func(), bool) {
	if h.current() == nil {
		return nil, false
	}
	w.log("life", "KILL instance %s", h.name)
	h.killInst(false)
	if w.cfg.restart {
		return nil, true
	}
	return func() {
		if h.on.Load() && h.current() == nil {
			w.log("life", "START instance %s by hand", h.name)
			h.startInst()
		}
	}, true
}

func powerCut(w *world, h *host) (func(), bool) {
	if !h.on.Load() {
		return nil, false
	}
	w.log("life", "POWER CUT %s", h.name)
	h.cut()
	return func() {
		w.log("life", "POWER ON %s", h.name)
		h.boot()
		if !w.cfg.restart && h.current() == nil {
			h.startInst()
		}
	}, true
}

func killWatch(w *world, h *host) (func(), bool) {
	if h.watch == nil {
		return nil, false
	}
	w.log("life", "KILL watcher %s", h.name)
	h.killWatch(false)
	return func() {
		if h.on.Load() && h.watch == nil {
			w.log("life", "START watcher %s", h.name)
			h.watchAnew()
		}
	}, true
}

func killMon(w *world, _ *host) (func(), bool) {
	if len(w.mons) == 0 {
		return nil, false
	}
	m := one(w, w.mons)
	if m.m == nil {
		return nil, false
	}
	w.log("life", "KILL monitor %s", m.name)
	m.kill()
	return func() {
		w.log("life", "START monitor %s", m.name)
		m.start()
	}, true
}

// addrs of every machine.
func (w *world) addrs() (out []string) {
	for _, h := range w.hosts {
		out = append(out, h.addr)
	}
	for _, m := range w.mons {
		out = append(out, m.addr)
	}
	return out
}

func cutOff(w *world, _ *host) (func(), bool) {
	all := w.addrs()
	a := one(w, all)
	part := w.rng.IntN(3) == 0 // from some only
	w.log("life", "CUT OFF %s, partly %v", a, part)
	var cut []string
	for _, b := range all {
		if b != a && (!part || w.rng.IntN(2) == 0) {
			cut = append(cut, b)
			w.net.set(a, b, true, 0)
			w.net.set(b, a, true, 0)
		}
	}
	return func() {
		w.log("life", "JOIN %s", a)
		for _, b := range cut {
			w.net.set(a, b, false, 0)
			w.net.set(b, a, false, 0)
		}
	}, true
}

// cutThenDead: as when a machine goes down with its network first: what it does
// in between nobody else hears of.
func cutThenDead(w *world, h *host) (func(), bool) {
	if !h.on.Load() {
		return nil, false
	}
	w.log("life", "CUT OFF, then dead: %s", h.name)
	var cut []string
	some := w.rng.IntN(2) == 0 // monitors hear it still
	for _, b := range w.addrs() {
		if b != h.addr && (!some || strings.HasPrefix(b, "10.0.0.")) {
			cut = append(cut, b)
			w.net.set(h.addr, b, true, 0)
			w.net.set(b, h.addr, true, 0)
			if w.rng.IntN(2) == 0 {
				w.net.reset(h.addr, b)
			}
		}
	}
	w.pass(time.Duration(w.rng.IntN(9000)) * time.Millisecond)
	w.log("life", "POWER CUT %s", h.name)
	h.cut()
	return func() {
		w.log("life", "POWER ON %s", h.name)
		for _, b := range cut {
			w.net.set(h.addr, b, false, 0)
			w.net.set(b, h.addr, false, 0)
		}
		h.boot()
		if !w.cfg.restart && h.current() == nil {
			h.startInst()
		}
	}, true
}

func (w *world) direction() (a, b string, ok bool) {
	all := w.addrs()
	a, b = one(w, all), one(w, all)
	return a, b, a != b
}

func oneWay(w *world, _ *host) (func(), bool) {
	a, b, ok := w.direction()
	if !ok {
		return nil, false
	}
	w.log("life", "CUT %s > %s", a, b)
	w.net.set(a, b, true, 0)
	return func() {
		w.log("life", "JOIN %s > %s", a, b)
		w.net.set(a, b, false, 0)
	}, true
}

func slowPath(w *world, _ *host) (func(), bool) {
	a, b, ok := w.direction()
	if !ok {
		return nil, false
	}
	d := time.Duration(1+w.rng.IntN(2000)) * time.Millisecond
	w.log("life", "SLOW %s > %s: %v", a, b, d)
	w.net.set(a, b, false, d)
	return func() { w.net.set(a, b, false, 0) }, true
}

func reset(w *world, _ *host) (func(), bool) {
	a, b, ok := w.direction()
	if !ok {
		return nil, false
	}
	w.log("life", "RESET %s %s", a, b)
	w.net.reset(a, b)
	return nil, true
}

func slowDisk(w *world, h *host) (func(), bool) {
	d := time.Duration(1+w.rng.IntN(1000)) * time.Millisecond
	w.log("life", "DISK SLOW %s: %v", h.name, d)
	h.slow.Store(int64(d))
	return func() { h.slow.Store(0) }, true
}

func fullDisk(w *world, h *host) (func(), bool) {
	w.log("life", "DISK FULL %s", h.name)
	h.setFull(true)
	return func() {
		w.log("life", "DISK NOT FULL %s", h.name)
		h.setFull(false)
	}, true
}

func brokenDisk(w *world, h *host) (func(), bool) {
	i := h.current()
	if i == nil {
		return nil, false
	}
	k := one(w, []vfs.OpKind{vfs.OpWrite, vfs.OpSync, vfs.OpRead})
	w.log("life", "DISK ERROR %s: %s", h.name, k)
	h.mend()
	h.mend = i.disk.Inject(vfs.Fault{Kind: k, Skip: w.rng.IntN(20), Times: 1 + w.rng.IntN(2), Err: syscall.EIO})
	if w.cfg.restart {
		return nil, true
	}
	return func() {
		if h.on.Load() && h.current() == nil {
			h.startInst()
		}
	}, true
}

func stopProcess(w *world, h *host) (func(), bool) {
	d := time.Duration(200+w.rng.IntN(14000)) * time.Millisecond
	var nd *node
	switch w.rng.IntN(4) {
	case 0:
		if len(w.mons) > 0 {
			if m := one(w, w.mons); m.m != nil {
				nd = m.node
			}
		}
	case 1:
		if h.watch != nil {
			nd = h.watch.node
		}
	case 2:
		w.log("life", "STOP everything of %s for %v", h.name, d)
		h.freeze(true)
		w.pass(d)
		w.log("life", "GO ON %s", h.name)
		h.freeze(false)
		return nil, true
	default:
		if i := h.current(); i != nil {
			nd = i.node
		}
	}
	if nd == nil {
		return nil, false
	}
	w.log("life", "STOP %s of %s for %v", nd.name, nd.host, d)
	nd.freeze(true)
	w.pass(d)
	w.log("life", "GO ON %s of %s", nd.name, nd.host)
	nd.freeze(false)
	return nil, true
}

func setClock(w *world, h *host) (func(), bool) {
	s := int64(w.rng.IntN(7200) - 3600)
	if w.rng.IntN(2) == 0 {
		s = int64(w.rng.IntN(60) - 30)
	}
	wall := &h.wall
	name := h.name
	if len(w.mons) > 0 && w.rng.IntN(2) == 0 {
		m := one(w, w.mons)
		wall, name = &m.wall, m.name
	}
	w.log("life", "CLOCK of %s: %+d s", name, s)
	wall.Add(s)
	return nil, true
}

// stir says that positions are about to change.
func (w *world) stir() {
	select {
	case w.stirred <- struct{}{}:
	default:
	}
}

// watch looks at the positions just after each sync of a database: half of what a
// packet takes at least, so before a primary can hear of what its standby did.
func (w *world) watch() {
	for {
		select {
		case <-w.stopped:
			return
		case <-w.stirred:
			time.Sleep(quickest / 2)
			w.ahead()
		}
	}
}

// ahead: no standby has replayed what its primary may be without (G7), but one that
// is taking over and about to be primary itself, and those that follow it then.
func (w *world) ahead() {
	for _, p := range w.hosts {
		pe := p.engine()
		if pe == nil || pe.Mode() != base.ModePrimary || w.replaced(pe) {
			continue
		}
		for _, s := range w.hosts {
			se := s.engine()
			if s == p || se == nil || se.Mode() != base.ModeStandby {
				continue
			}
			if i := s.current(); i == nil || i.srv.Load().Standby().Info().Frozen {
				continue
			}
			spos, sl := se.HardState()
			ppos, pl := pe.HardState()
			if sl.Last().TGUID == pl.Last().TGUID && spos.LSN > ppos.LSN && p.engine() == pe && s.engine() == se {
				w.chain.fault("G7: %s has replayed %v, its primary %s has %v", s.name, spos, p.name, ppos)
			}
		}
	}
}

// replaced: somebody is primary of a newer opening.
func (w *world) replaced(p *engine.Engine) bool {
	for _, h := range w.hosts {
		if e := h.engine(); e != nil && e.Mode() == base.ModePrimary && opening(e) > opening(p) {
			return true
		}
	}
	return false
}

func (d deeds) String() string {
	s := ""
	for _, k := range sortedKeys(d) {
		s += fmt.Sprintf(" %s %d,", k, d[k])
	}
	return s
}
