package cluster

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
	"datawatch/internal/storage/engine"
	"datawatch/internal/vfs"
)

// settings are what a seed decides before the life begins.
type settings struct {
	dbs, monitors                                  int
	confirm, auto, restart, reconnect, force       bool
	errorTime, instErrorTime, recoverTime          int // s
	malCheck, malFail, ckpt, sendLimit, applyLimit int // s
	clients, readers                               int
	timely, waitApply                              bool
}

func (s settings) String() string {
	type plain settings // without this method
	return strings.Trim(fmt.Sprintf("%+v", plain(s)), "{}")
}

func choose(rng *rand.Rand) settings {
	yes := func(of int) bool { return rng.IntN(of) > 0 }
	s := settings{dbs: []int{1, 2, 2, 2, 2, 3, 3, 4}[rng.IntN(8)], confirm: yes(6), auto: yes(6), restart: yes(8), reconnect: yes(2), force: yes(3),
		errorTime: 3 + rng.IntN(5), instErrorTime: 3 + rng.IntN(4), recoverTime: 3 + rng.IntN(8), malCheck: 1 + rng.IntN(3), malFail: 2 + rng.IntN(4),
		ckpt: 1 + rng.IntN(20), clients: 1 + rng.IntN(3), readers: 1 + rng.IntN(2)}
	if rng.IntN(4) == 0 {
		s.monitors = 1
	}
	if rng.IntN(5) == 0 {
		s.sendLimit, s.applyLimit = 1, 1
	}
	return s
}

// line is one of the trace.
type line struct {
	at    time.Duration
	from  string
	text  string
	attrs []slog.Attr
}

// timeWidth is how many characters the time of a line has.
const timeWidth = 9

func (l line) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%*.3f %-5s %s", timeWidth, l.at.Seconds(), l.from, l.text)
	for _, a := range l.attrs {
		if a.Key != "group" && a.Key != "inst" || a.Key == "inst" && a.Value.String() != strings.TrimPrefix(l.from, "w") {
			fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
		}
	}
	return b.String()
}

// world is one cluster and its life.
type world struct {
	seed  uint64
	rng   *rand.Rand // of the life: faults and waits
	cfg   settings
	net   *simNet
	hosts []*host
	mons  []*monHost
	chain *chain
	began time.Time

	mu    sync.Mutex
	trace []line

	stirred  chan struct{} // a disk was synced: see watch
	stopped  chan struct{} // closed when watch shall go
	end      chan struct{} // closed when the clients shall go
	left     bool
	watching sync.WaitGroup
	clients  sync.WaitGroup
	commands sync.WaitGroup

	kinds   []kind // of harm that are done in this life
	did     deeds
	results deeds // of commands, under mu
	lenient bool  // an operator may have given up acknowledged commits
	byHand  bool  // at the end people start instances that have ended
}

func newWorld(seed uint64, cfg settings) *world {
	w := &world{seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), cfg: cfg, net: newNet(rand.New(rand.NewPCG(seed, 2))), chain: newChain(),
		began: time.Now(), stirred: make(chan struct{}, 1), stopped: make(chan struct{}), end: make(chan struct{}), did: deeds{}, results: deeds{}}
	for i := range cfg.dbs {
		w.hosts = append(w.hosts, newHost(w, i))
	}
	for i := range cfg.monitors + 1 {
		confirm := i == 0
		if confirm && !cfg.confirm {
			continue
		}
		w.mons = append(w.mons, &monHost{w: w, name: fmt.Sprintf("m%d", i+1), addr: fmt.Sprintf("10.0.1.%d", i+1), confirm: confirm, disk: vfs.NewMem()})
	}
	return w
}

func (w *world) since() time.Duration { return time.Since(w.began) }

func (w *world) note(l line) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace = append(w.trace, l)
}

func (w *world) log(from, f string, a ...any) {
	w.note(line{at: w.since(), from: from, text: fmt.Sprintf(f, a...)})
}

// start creates the databases and starts everything.
func (w *world) start() error {
	for i, h := range w.hosts {
		mode := base.ModeStandby
		if i == 0 {
			mode = base.ModePrimary
		}
		if err := h.create(mode); err != nil {
			return err
		}
	}
	w.watching.Go(w.watch)
	for _, h := range w.hosts {
		h.startInst()
		if err := h.startWatch(); err != nil {
			return err
		}
	}
	for _, m := range w.mons {
		m.start()
	}
	for i := range w.cfg.clients {
		w.clients.Go(func() { newClient(w, i).write() })
	}
	for i := range w.cfg.readers {
		w.clients.Go(func() { newClient(w, 50+i).read() })
	}
	return nil
}

// stop ends everything, and waits for it: a bubble ends when its goroutines do.
func (w *world) stop() {
	close(w.stopped)
	w.watching.Wait()
	w.leave()
	w.net.heal()
	for _, h := range w.hosts {
		h.freeze(false)
	}
	w.commands.Wait()
	for _, m := range w.mons {
		m.close()
	}
	for _, h := range w.hosts {
		if g := h.watch; g != nil {
			h.killWatch(false)
			<-g.done // it may be starting an instance until then
		}
	}
	for _, h := range w.hosts {
		h.killInst(false)
		for _, i := range h.procs {
			<-i.done
		}
	}
}

// unhealthy tells what keeps the group from being whole, "" when it is: one
// primary, Open, everything else Open and its archive Valid.
func (w *world) unhealthy() string {
	var prim *host
	for _, h := range w.hosts {
		if w.split(h) {
			continue // a person has to make it anew
		}
		e := h.engine()
		if e == nil {
			return h.name + " does not run"
		}
		if e.Status() != base.StatusOpen {
			return fmt.Sprintf("%s is %s, %s", h.name, e.Mode(), e.Status())
		}
		if e.Mode() != base.ModePrimary {
			continue
		}
		if prim != nil {
			return fmt.Sprintf("%s and %s are primaries", prim.name, h.name)
		}
		prim = h
	}
	if prim == nil {
		return "there is no primary"
	}
	for _, h := range w.hosts {
		st, why := h.state()
		if st != proto.DWOpen && w.cfg.dbs > 1 && !w.split(h) {
			return fmt.Sprintf("the watcher of %s is %s: %s", h.name, st, why)
		}
	}
	if s := prim.current().srv.Load(); s != nil {
		for _, a := range s.Views().ArchStatus() {
			if a.Type != base.ArchLocal && a.Status != base.ArchValid && !w.split(w.host(a.Dest)) {
				return fmt.Sprintf("the archive %s to %s is %s", prim.name, a.Dest, a.Status)
			}
		}
	}
	return ""
}

// settle waits until the group is whole.
func (w *world) settle(limit time.Duration) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if w.unhealthy() == "" {
			return true
		}
		for _, h := range w.hosts {
			if w.byHand && h.on.Load() && h.current() == nil {
				h.startInst()
			}
		}
		if len(w.chain.failed()) > 0 {
			return false
		}
	}
	w.chain.fault("not whole after %v: %s\n%s", limit, w.unhealthy(), w.explain())
	return false
}

// split: its watcher marked the database Split. That can happen where the old
// primary had redo that nobody else has: with timely archives, which are written
// after the own log, and after a takeover that a person ordered in MANUAL mode.
func (w *world) split(h *host) bool {
	if h == nil || !w.cfg.timely && !w.lenient {
		return false
	}
	_, err := h.etc.Stat("/db/dmwatcher.ctl")
	if err == nil {
		w.did["split"] = 1
	}
	return err == nil
}

func (w *world) host(name string) *host {
	for _, h := range w.hosts {
		if h.name == name {
			return h
		}
	}
	return nil
}

// explain says what everybody waits for.
func (w *world) explain() string {
	var b strings.Builder
	for _, h := range w.hosts {
		st, why := h.state()
		fmt.Fprintf(&b, "  %s: watcher %s: %s", h.name, st, why)
		if e := h.engine(); e != nil {
			r, _ := e.SuspendReason()
			fmt.Fprintf(&b, "; %s %s, hardened %v, suspended: %q", e.Mode(), e.Status(), e.Positions().File, r)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// primaries are the databases that take commits now, as a client finds them.
func (w *world) primaries() (out []*instance) {
	for _, h := range w.hosts {
		if i := h.current(); i != nil {
			if e := i.engine(); e != nil && e.Mode() == base.ModePrimary && e.Status() == base.StatusOpen {
				out = append(out, i)
			}
		}
	}
	return out
}

// opening is the number of the opening that a primary's commits belong to.
func opening(e *engine.Engine) uint64 { return e.Lineage().Last().ID }
