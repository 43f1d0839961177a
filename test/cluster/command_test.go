package cluster

import (
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/base"
)

// command has an operator type something at a monitor, and perhaps lose
// patience before it has ended.
func command(w *world, h *host) (func(), bool) {
	if len(w.mons) == 0 {
		return nil, false
	}
	m := one(w, w.mons)
	if m.m == nil {
		return nil, false
	}
	w.give(m, h, one(w, []string{"switchover", "switchover", "switchover", "takeover", "takeover", "set arch invalid", "detach and attach",
		"stop and start watching", "kill database", "set recover time", "stop database"}))
	return nil, true
}

// give has a command given that is about the database of h.
func (w *world) give(m *monHost, h *host, name string) {
	mon := m.m
	if name == "takeover" && !w.cfg.auto {
		w.lenient = true // a person decided, and may be wrong (docs/guarantees.md)
	}
	patience := time.Duration(1+w.rng.IntN(60)) * time.Second
	recover := 3 + w.rng.IntN(10)
	if name == "takeover" && w.rng.IntN(2) == 0 {
		// Somebody is quicker than the confirm monitor.
		for _, p := range w.primaries() {
			w.log("life", "KILL instance %s", p.h.name)
			p.h.killInst(false)
		}
		w.pass(time.Duration(100+w.rng.IntN(3000)) * time.Millisecond)
	}
	w.log("life", "COMMAND %s %s at %s, patience %v", name, h.name, m.name, patience)
	w.did[name]++
	w.commands.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err := mon.Login(ctx, "SYSDBA", "SYSDBA")
		if err == nil {
			switch name {
			case "switchover":
				err = mon.Switchover(ctx, "", h.name)
			case "takeover":
				for err = mon.Takeover(ctx, "", h.name, false); err != nil && ctx.Err() == nil; err = mon.Takeover(ctx, "", h.name, false) {
					time.Sleep(300 * time.Millisecond) // not yet, says it
				}
			case "set arch invalid":
				err = mon.SetArchInvalid(ctx, "", h.name)
			case "detach and attach":
				if err = mon.Detach(ctx, "", h.name); err == nil {
					time.Sleep(2 * time.Second)
				}
				for range 20 { // whoever detaches attaches again
					if e := mon.Attach(context.Background(), "", h.name); e == nil || mon.Err() != nil {
						break
					}
					time.Sleep(time.Second)
				}
			case "stop and start watching":
				err = mon.StopWatch(ctx, "", h.name)
				time.Sleep(3 * time.Second)
				w.watchAgain(mon)
			case "kill database":
				err = mon.KillDatabase(ctx, "", h.name)
			case "set recover time":
				err = mon.SetRecoverTime(ctx, "", h.name, recover)
			case "stop database":
				err = mon.StopDatabase(ctx, "", h.name)
			}
		}
		w.mu.Lock()
		if w.results[name+" given"]++; err == nil {
			w.results[name+" done"]++
		}
		w.mu.Unlock()
		w.log("life", "COMMAND %s %s has ended: %v", name, h.name, err)
	})
}

// cutAtTurn: what the primary's machine says takes its time to get out, and just
// when something has changed there, an archive or the database, it is cut off: it
// knows of the change and nobody else does. Often somebody gives a command before,
// as people do when something is slow.
func cutAtTurn(w *world, _ *host) (func(), bool) {
	p := w.primaries()
	if len(p) == 0 || w.cfg.dbs < 2 {
		return nil, false
	}
	h := p[0].h
	name, s := one(w, []string{"", "switchover", "set arch invalid", "set arch invalid"}), one(w, w.hosts)
	if s == h {
		name = ""
	}
	end, dead := w.turn(h, s, name), false
	w.pass(time.Duration(w.rng.IntN(12000)) * time.Millisecond)
	if dead = w.rng.IntN(2) == 0; dead {
		w.log("life", "POWER CUT %s", h.name)
		h.cut()
	}
	return func() {
		end()
		if h.boot(); dead && !w.cfg.restart && h.current() == nil {
			h.startInst()
		}
	}, true
}

// turn cuts the primary h off at its next turn; somebody gives a command, unless its
// name is "", about the database of s.
func (w *world) turn(h, s *host, name string) (end func()) {
	d := time.Duration(50+w.rng.IntN(1500)) * time.Millisecond
	w.log("life", "SLOW, to be cut off at a turn: %s, %v", h.name, d)
	var others []string
	for _, a := range w.addrs() {
		if a != h.addr {
			others = append(others, a)
			w.net.set(h.addr, a, false, d)
		}
	}
	if name != "" && len(w.mons) > 0 {
		if m := one(w, w.mons); m.m != nil {
			w.give(m, s, name)
		}
	}
	was := w.standing(h)
	for end := time.Now().Add(15 * time.Second); w.standing(h) == was && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	w.log("life", "CUT OFF %s: it was %s, and is %s", h.name, was, w.standing(h))
	for _, a := range others {
		w.net.set(h.addr, a, true, 0)
		w.net.set(a, h.addr, true, 0)
	}
	return func() {
		w.log("life", "JOIN %s", h.name)
		for _, a := range others {
			w.net.set(h.addr, a, false, 0)
			w.net.set(a, h.addr, false, 0)
		}
	}
}

// TestCutAtTurn: the archive is made Invalid by command, and in that moment nobody
// hears of the primary any more. Either the standby was told, and does not take over,
// or the primary acknowledges nothing (G1, G3).
func TestCutAtTurn(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(seed, settings{dbs: 2, monitors: int(seed % 2), confirm: true, auto: true, restart: true, reconnect: true, errorTime: 3,
				instErrorTime: 3, recoverTime: 3, malCheck: 1, malFail: 3, ckpt: 2, clients: 3, readers: 1})
			defer w.stop()
			if err := w.start(); err != nil {
				t.Fatal(err)
			}
			if w.settle(time.Minute) {
				end := w.turn(w.hosts[0], w.hosts[1], "set arch invalid")
				w.pass(20 * time.Second)
				end()
				w.repair()
				if w.settle(whole) {
					w.finish()
				}
			}
			if f := w.chain.failed(); len(f) > 0 {
				t.Errorf("seed %d: %s", seed, f)
				w.dump(os.Stdout)
			}
		})
	}
}

// standing is what others have to know of a database: mode, status and archives.
func (w *world) standing(h *host) string {
	i := h.current()
	if i == nil {
		return "its end"
	}
	e, s := i.engine(), i.srv.Load()
	if e == nil || s == nil {
		return "its start"
	}
	out := e.Mode().String() + " " + e.Status().String()
	for _, a := range s.Views().ArchStatus() {
		if a.Type != base.ArchLocal {
			out += " " + a.Dest + " " + a.Status.String()
		}
	}
	return out
}
