package mal

import (
	"net"
	"sync"
	"time"
)

// Refused connections come again and again: a peer of another version dials each
// second, and anybody may dial.
const (
	refusedEvery = time.Minute // between two lines about the same refusal
	refusedKinds = 64          // remembered; any beyond share one
)

// refusedLog decides which refused connections are worth a line in the log. Keys
// come from the network, so their number is capped (G8).
type refusedLog struct {
	mu   sync.Mutex
	seen map[[2]string]refused
}

type refused struct {
	at   time.Time // of the last line
	more int       // refused since without a line
}

// note counts a refusal of a host for a reason. It reports whether to log it,
// and how many like it were not logged since the last line.
func (r *refusedLog) note(host, why string, now time.Time) (log bool, more int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = map[[2]string]refused{}
	}
	for k, x := range r.seen {
		if x.more == 0 && now.Sub(x.at) >= refusedEvery {
			delete(r.seen, k)
		}
	}
	k := [2]string{host, why}
	x, ok := r.seen[k]
	if !ok && len(r.seen) >= refusedKinds {
		k = [2]string{}
		x, ok = r.seen[k]
	}
	if ok && now.Sub(x.at) < refusedEvery {
		x.more++
		r.seen[k] = x
		return false, 0
	}
	r.seen[k] = refused{at: now}
	return true, x.more
}

// host is the address of a peer without its port, which changes each time.
func host(nc net.Conn) string {
	a := nc.RemoteAddr()
	if a == nil {
		return "?"
	}
	h, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return h
}
