package fsm_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"datawatch/internal/base"
)

// What the model has of standbys that answer later than the lease (repl/ship,
// late.go). A package reaches such a standby, and its answer is of no use. The
// primary waits for a lease, so that commits stop; then the send has failed.

const (
	lagPatience = 5*time.Second + leaseTime // MAL_CONN_FAIL_INTERVAL, and the question for its state
	lagQuick    = 3 * time.Second           // as long a late standby has to answer quickly
	lagSay      = 2 * time.Second           // what is said on the link comes so late
)

// lag is what a primary knows of the answers of a standby.
type lag struct {
	late  bool
	since time.Time // it waits for a lease
	quick time.Time // answers are in time since
}

// lags: answers between the databases come later than the lease.
func (w *world) lags(a, b *mdb) bool {
	_, ok := w.lagging[link(a.ep, b.ep)]
	return ok
}

// speaks: what is said on the link unasked comes through now.
func (w *world) speaks(a, b *mdb) bool {
	since, ok := w.lagging[link(a.ep, b.ep)]
	return !ok || w.now.Sub(since)%lagSay == 0
}

// lagOf begins or ends the latency of a link of databases.
func (w *world) lagOf(rng *rand.Rand) {
	a, b := w.names[rng.IntN(len(w.names))], w.names[rng.IntN(len(w.names))]
	if p := w.primary(); p != "" {
		a = p
	}
	k := link("d:"+a, "d:"+b)
	if _, ok := w.lagging[k]; ok || a == b {
		w.log("FAULT answers between databases are in time")
		clear(w.lagging)
		return
	}
	w.log("FAULT answers between databases %s and %s come later than the lease", a, b)
	w.lagging[k] = w.now
}

// inTime: the answer of a standby is a lease. Else it is late.
func (d *mdb) inTime(a *marc, s *mdb) bool {
	if !d.w.lags(d, s) {
		return true
	}
	if !a.late {
		d.w.log("answers of %s to %s are late", s.name, d.name)
		d.w.did[didLag]++
	}
	a.late, a.quick = true, time.Time{}
	return false
}

// waitsForLease: a commit waits, and nobody is called late yet.
func (d *mdb) waitsForLease() bool {
	wait := false
	for _, n := range d.w.names {
		a := d.arch[n]
		if a == nil || a.state != base.ArchValid || a.late || !d.w.lags(d, d.w.dbs[n]) {
			if a != nil {
				a.since = time.Time{}
			}
			continue
		}
		if a.since.IsZero() {
			a.since = d.w.now
		}
		wait = wait || d.w.now.Sub(a.since) < lagPatience
	}
	return wait
}

// probe finds out whether late standbys answer in time again.
func (d *mdb) probe() {
	for _, n := range d.w.names {
		a, s := d.arch[n], d.w.dbs[n]
		switch {
		case a == nil || !a.late:
		case d.mode != base.ModePrimary:
			a.late = false
		case !s.up || s.hung || !d.w.both(d, s) || d.w.lags(d, s):
			a.quick = time.Time{}
		case a.quick.IsZero():
			a.quick = d.w.now
		case d.w.now.Sub(a.quick) >= lagQuick:
			a.late = false
		}
	}
}

// TestLateStandby: a standby whose answers are later than the lease stops commits
// for a bounded time. The primary goes on alone with leave of the monitor, is not
// held up again as long as the latency lasts, and nobody takes over; then the
// standby comes back.
func TestLateStandby(t *testing.T) {
	for _, timely := range []bool{false, true} {
		w := newWorld(t, 1, 2, auto())
		w.timely = timely
		w.startAll()
		w.settle(time.Minute)
		w.run(5 * time.Second)
		w.lagging[link("d:A", "d:B")] = w.now
		n, stopped, longest := len(w.acked), 0, 0
		for range 1200 {
			w.run(ms(50))
			if stopped++; len(w.acked) > n {
				n, stopped = len(w.acked), 0
			}
			longest = max(longest, stopped)
		}
		w.fail()
		if pause := ms(50 * longest); pause < lagPatience || pause > lagPatience+3*time.Second {
			t.Fatalf("commits stopped for %v", pause)
		}
		if w.primary() != "A" || w.dbs["A"].arch["B"].state != base.ArchInvalid || w.rec.Taken != nil {
			t.Fatalf("primary %q, archive %v", w.primary(), w.dbs["A"].arch["B"].state)
		}
		clear(w.lagging)
		w.settle(30 * time.Second)
		w.durable()
	}
}
