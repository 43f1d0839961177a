package engine

import (
	"time"

	"datawatch/internal/metrics"
)

// stageTimes are how long packages take in each stage of their way. They are
// measured once per package, which many commits share.
type stageTimes struct {
	stage [stageDone]metrics.Histogram
}

// passed counts the time in a stage that is over and returns its end.
func (t *stageTimes) passed(s stage, begun, now time.Time) time.Time {
	t.stage[s].Observe(now.Sub(begun))
	return now
}

// FlushTimes are how long packages took to be sent to the realtime archives,
// written and synced to the online log, sent to the timely archives, and
// written to the local archive.
func (e *Engine) FlushTimes() (realtime, log, timely, archive *metrics.Histogram) {
	t := &e.times.stage
	return &t[stageShip], &t[stageLog], &t[stageTimely], &t[stageArch]
}

// HardenedAt tells when the hardened LSN last moved, in Unix nanoseconds; 0
// when it has not since the start.
func (e *Engine) HardenedAt() int64 { return e.hardAt.Load() }

// LeaseOver reports that so much time has passed since the newest package was
// released that its commits must not be acknowledged any more: this process stood
// still, and another database may have become primary (G3).
func (e *Engine) LeaseOver() bool {
	until := e.until.Load()
	if until == nil || until.IsZero() {
		return false
	}
	now := e.cfg.Clock.Now() // the wall clock too: the monotonic one does not count the machine's sleep
	return now.After(*until) || now.Round(0).After(until.Round(0))
}
