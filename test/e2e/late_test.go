package e2e

import (
	"os"
	"slices"
	"testing"
	"time"

	"datawatch/internal/app/dw"
)

// TestLateStandby lets the link between primary and standby take DW_LATE seconds
// (20) longer for every answer than the lease of a commit: after MAL_CONN_FAIL_INTERVAL
// and the lease the primary goes on alone, once, with nobody else's role changed,
// and the standby comes back by itself when its answers are in time again.
func TestLateStandby(t *testing.T) {
	if os.Getenv(labEnv) == "" {
		t.Parallel()
	}
	if !inLab(t) {
		return
	}
	l, ld := labUnderLoad(t, labOptions{Options: dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true},
		MAL: [][2]string{{"MAL_CHECK_INTERVAL", "1"}, {"MAL_CONN_FAIL_INTERVAL", "5"}}})
	ld.setPatience(30 * time.Second)
	healthy(t, l.sys)
	prim := primary(t, l.sys)
	at := time.Now()
	end := slowCards(3*time.Second/2, l.of(standbyOf(l.sys, prim)).inner) // 3 s there and back
	pause(t.Context(), envSeconds("DW_LATE", 20))
	last := time.Now()
	end()
	// What was on its way when the latency began is answered within a round trip.
	gaps := ld.gaps(at, last, 3*time.Second)
	t.Logf("times without a commit under latency: %v", gaps)
	// 5 s, a lease, and twice a message to its watcher and the confirm monitor.
	if len(gaps) != 1 || gaps[0] > 12*time.Second {
		t.Errorf("commits did not flow again, once and for all, in time\n%s", timeline(l.sys, at, last))
	}
	ld.flows(t, 30*time.Second)
	healthy(t, l.sys)
	t.Logf("healthy %v after the latency has ended", time.Since(last).Round(100*time.Millisecond))
	if now := primary(t, l.sys); now != prim {
		t.Errorf("%s took over from %s\n%s", now, prim, timeline(l.sys, at, time.Now()))
	}
	ld.stop()
	ld.check(t, 0)
}

// gaps are the times longer than least without an acknowledgement between two
// moments, in their order.
func (l *load) gaps(from, to time.Time, least time.Duration) (long []time.Duration) {
	l.mu.Lock()
	at := []time.Time{to}
	for _, a := range l.acked {
		if a.at.After(from) && a.at.Before(to) {
			at = append(at, a.at)
		}
	}
	l.mu.Unlock()
	slices.SortFunc(at, time.Time.Compare)
	for last, i := from, 0; i < len(at); i++ {
		if g := at[i].Sub(last); g > least {
			long = append(long, g.Round(time.Millisecond))
		}
		last = at[i]
	}
	return long
}
