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
		r.promise = promise{}
	}
}

// awaitPromise waits out the promise, unless its holder's process has ended.
// Nothing is accepted meanwhile, so no new one is given.
func (r *Receiver) awaitPromise(ctx context.Context, ended []string) error {
	r.mu.Lock()
	p := r.promise
	r.mu.Unlock()
	if p.at.IsZero() {
		return nil
	}
	if p.to == "" || !slices.Contains(ended, p.to) {
		if left := Promise - r.cfg.Clock.Now().Sub(p.at); left > 0 {
			r.cfg.Log.Info("waiting until the old primary can acknowledge nothing any more", "wait", left, "incarnation", p.to)
			if err := r.cfg.Clock.Sleep(ctx, left); err != nil {
				return err
			}
		}
	}
	r.mu.Lock()
	r.promise = promise{}
	r.mu.Unlock()
	return nil
}
