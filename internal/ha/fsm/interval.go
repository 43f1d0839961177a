package fsm

import (
	"time"

	"datawatch/internal/base"
)

// minRecover is the shortest recovery interval and what it is set to after an
// opening, seconds (ruling: anything below acts as 3).
const minRecover = 3

// Intervals after a failed recovery, seconds (manual 3.1.9): minRecover for the
// first failures and for lost connections, then longer.
const (
	recoverSoon = 30
	recoverLate = 300
	recoverGap  = 1800 // the redo does not continue: only new archives help
)

// codeGap are the server's codes for archives that do not reach back to where
// the standby stands.
var codeGap = map[base.Code]bool{-715: true, -718: true}

// Results of a recovery beside those of the server (manual 10.2.8.3).
const (
	codeRecNone   base.Code = 100    // none has been made, or it is under way
	codeRecBroken base.Code = -10050 // the standby's mode, state or connection
	codeRecBreak  base.Code = -721   // interrupted
)

// interval is the life of INST_RECOVER_TIME for one standby (manual 3.1.9).
type interval struct {
	secs  int       // its value in memory
	since time.Time // it counts from here; zero: it is over
	cut   time.Time // the archive became Invalid by a failure: the standby's next report may still be from before
	// byHand: secs was set by a command, and holds until a recovery that began
	// afterwards has ended.
	byHand bool
	untold time.Time // it is slow, and could not be told that its archive becomes Invalid
	bad    int       // recoveries failed in a row
	begun  time.Time
	code   base.Code // of the last recovery
}

// left is how long the next recovery has to wait.
func (v interval) left(now time.Time) time.Duration {
	l := minRecover*time.Second - now.Sub(v.cut)
	if !v.since.IsZero() {
		l = max(l, time.Duration(max(v.secs, minRecover))*time.Second-now.Sub(v.since))
	}
	return l
}

// hold starts the interval anew: with these seconds, or those of a command that
// still hold.
func (v *interval) hold(secs int, now time.Time) {
	v.since = now
	if !v.byHand {
		v.secs = secs
	}
}

// command sets the value by hand. It counts from now and not from the last
// recovery: on a primary that has run for a day every interval is over, and
// `detach database` would last no time at all.
func (v *interval) command(secs int, now time.Time) {
	v.byHand = true
	v.secs, v.since = secs, now
}

// reborn: the standby was started anew, and perhaps rebuilt.
func (v *interval) reborn() {
	if v.bad > 0 && !v.byHand {
		v.secs = minRecover
	}
	v.bad = 0
}

// begin notes that a recovery begins: a command's value has been obeyed.
func (v *interval) begin(now time.Time) { v.begun, v.code, v.byHand = now, codeRecNone, false }

// done: the configured value is in force again.
func (v *interval) done(ini int, now time.Time) {
	v.bad, v.code = 0, 0
	v.hold(ini, now)
}

func (v *interval) failed(code base.Code, now time.Time) {
	secs := recoverLate
	switch {
	case codeGap[code]:
		secs = recoverGap
	case code == 0 || v.bad < 2:
		secs = minRecover
	case v.bad < 5:
		secs = recoverSoon
	}
	v.bad++
	if v.code = code; code == 0 {
		v.code = codeRecBroken
	}
	v.hold(secs, now)
}

func (v *interval) interrupted(now time.Time) {
	v.code = codeRecBreak
	v.hold(minRecover, now)
}

// change applies f to the interval of standby n.
func (x *m) change(n string, f func(*interval)) {
	v := x.recT[n]
	f(&v)
	x.recT[n] = v
}

// opened notes that a primary has been opened: standbys whose archive is Invalid
// are recovered soon (manual 3.1.9); for the others the configured interval is
// in force.
func (x *m) opened() {
	x.openedAt = x.now
	for _, n := range x.names() {
		a, _ := x.arch(n)
		x.change(n, func(v *interval) {
			v.byHand, v.secs, v.since = false, minRecover, x.now
			if a.State == base.ArchValid {
				v.secs, v.since = x.Cfg.RecoverTime, time.Time{}
			}
		})
	}
}
