package standby

import (
	"context"
	"slices"
	"time"

	"datawatch/internal/repl/mal"
)

// Promise is how long a standby that has accepted a package does not become
// primary (G3). The primary releases the commits of a package only while less
// than Lease has passed since it sent it, to every standby whose archive is
// Valid, and asks again otherwise. A primary that stands still between the
// answers and the release, or whose answers lie in a buffer, finds its lease
// over when it goes on; one that cannot reach its standbys acknowledges nothing
// Lease after the last package they took.
//
// The primary's time begins before the standby's, at the sending. Both clocks
// are the monotonic ones of their machines; Promise is longer than Lease by more
// than two clocks run apart. Where the very clock stands still with the machine
// (a paused virtual machine), up to Lease of it is left afterwards: what is then
// acknowledged is on the new primary all the same (G1).
const (
	Promise = 3 * time.Second
	Lease   = Promise * 5 / 6
)

// promise is the last one given.
type promise struct {
	at time.Time // zero: none
	to string    // incarnation of the primary
}

// promiseAgain renews the promise for a package that a primary whose archive to
// us is Valid has sent, if it is the newest that we have: as Accept does when
// the package is repeated. It reports whether it has.
func (r *Receiver) promiseAgain(from, sender string, w mal.Renewal) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	claim := Claim{true, from, w.OpenID}
	if r.ready() != nil || r.claim != claim || r.keepTail() != (tail{w.Pos, w.OpenID, w.OpenGUID}) {
		return false
	}
	r.promise = promise{at: r.cfg.Clock.Now(), to: sender}
	return true
}

// promiseOver ends a promise that its holder says it does not need any more.
func (r *Receiver) promiseOver(sender string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.promise.to == sender {
		r.endPromise()
	}
}

func (r *Receiver) endPromise() {
	r.promise = promise{}
	if r.promised != nil {
		close(r.promised)
		r.promised = nil
	}
}

// maxEnded is how many processes known to have ended are remembered: more than
// a group has, and a promise is seconds old.
const maxEnded = 32

// Ended notes incarnations of instances whose processes are known to have ended:
// what was promised to one of them is over, and a wait for it ends. An
// incarnation is of one process only, so what is noted stays true whenever it
// comes and however often; one to which nothing was promised changes nothing.
func (r *Receiver) Ended(incarnations ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, inc := range incarnations {
		if inc != "" && !slices.Contains(r.ended, inc) {
			r.ended = append(r.ended, inc)
		}
	}
	if n := len(r.ended) - maxEnded; n > 0 {
		r.ended = slices.Delete(r.ended, 0, n)
	}
	if slices.Contains(r.ended, r.promise.to) {
		r.endPromise()
	}
}

// awaitPromise waits out the promise, unless its holder's process has ended.
// Nothing is accepted meanwhile, so no new one is given.
func (r *Receiver) awaitPromise(ctx context.Context) error {
	r.mu.Lock()
	p := r.promise
	left := Promise - r.cfg.Clock.Now().Sub(p.at)
	if p.at.IsZero() || left <= 0 || slices.Contains(r.ended, p.to) {
		r.endPromise()
		r.mu.Unlock()
		return nil
	}
	if r.promised == nil {
		r.promised = make(chan struct{})
	}
	over := r.promised
	r.mu.Unlock()
	r.cfg.Log.Info("waiting until the old primary can acknowledge nothing any more", "wait", left, "incarnation", p.to)
	timer := r.cfg.Clock.NewTimer(left)
	defer timer.Stop()
	select {
	case <-over:
		r.cfg.Log.Info("the old primary can acknowledge nothing any more: its process has ended, or it says so", "incarnation", p.to)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	r.mu.Lock()
	r.endPromise()
	r.mu.Unlock()
	return nil
}
