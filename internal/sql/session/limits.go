package session

import (
	"strconv"
	"time"

	"datawatch/internal/sql/sqlapi"
)

// Limits bound what one session may take. They are the server's; where a
// variable of the same purpose is set in a session (SET statement_timeout ...),
// that counts instead. Zero is no limit.
type Limits struct {
	Statement   time.Duration // run time of a statement: 57014
	Lock        time.Duration // wait for the write lock: 55P03
	IdleInTx    time.Duration // idle in any transaction: 25P03
	IdleInWrite time.Duration // idle with the write lock held: 25P03
	Idle        time.Duration // idle outside of a transaction: 57P05

	Concurrent bool // plain BEGIN begins a concurrent transaction, where default_transaction_concurrent is not set

	Memory    int64 // bytes a statement may take on its connection, and rows kept for it: 53200
	TempSpace int64 // bytes of temporary files of all sessions: 53400

	Slow       time.Duration // statements that take longer are logged
	SlowParams bool          // with their parameters, shortened
}

// never stands for no limit where a timer is needed.
const never = 100 * 365 * 24 * time.Hour

// SetLimits changes the limits of all sessions, those that are idle now too.
func (b *Backend) SetLimits(l Limits) {
	b.mu.Lock()
	if tick := slowTick(l.Slow); int64(tick) != b.ticker.tick.Load() && b.closed == nil {
		b.ticker.run(tick)
	}
	b.mu.Unlock()
	b.limits.Store(&l)
	b.files.SetLimit(l.TempSpace)
	for _, s := range b.list() {
		if !s.mu.TryLock() {
			continue // it works, and looks at the limits when it is done
		}
		s.cmu.Lock()
		s.armIdle()
		s.cmu.Unlock()
		s.mu.Unlock()
	}
}

// Limits returns the server's limits.
func (b *Backend) Limits() Limits { return *b.limits.Load() }

// ownLimits are those that the session has set for itself; -1: not set.
type ownLimits struct{ statement, lock, idleInTx, idle time.Duration }

// own reads the session's variables; again only when one has changed.
func (v *vars) own() *ownLimits {
	if v.fresh {
		return &v.limits
	}
	read := func(name string) time.Duration {
		if !v.isSet(name) {
			return -1
		}
		n, _ := strconv.ParseInt(v.get(name), 10, 64)
		return time.Duration(n) * time.Millisecond
	}
	v.limits = ownLimits{read("statement_timeout"), read("lock_timeout"), read("idle_in_transaction_session_timeout"), read("idle_session_timeout")}
	v.fresh = true
	return &v.limits
}

func orServer(own, server time.Duration) time.Duration {
	if own >= 0 {
		return own
	}
	return server
}

// serverLimit is what a session has that did not set the variable, as SHOW
// gives it.
func (b *Backend) serverLimit(name string) (string, bool) {
	l := b.limits.Load()
	var d time.Duration
	switch name {
	case "statement_timeout":
		d = l.Statement
	case "lock_timeout":
		d = l.Lock
	case "idle_in_transaction_session_timeout":
		d = l.IdleInTx
	case "idle_session_timeout":
		d = l.Idle
	default:
		return "", false
	}
	return strconv.FormatInt(d.Milliseconds(), 10), true
}

// dueKind is what a session's deadline is for.
type dueKind uint8

const (
	dueNothing dueKind = iota
	dueStatement
	dueInTx
	dueIdle
)

// deadline is when the session reaches a limit. One timer serves all of them:
// a deadline that moves on, as it does with every statement, leaves it running,
// and when it fires too early it is set again. Under Session.cmu.
type deadline struct {
	kind  dueKind
	at    time.Time
	gen   uint64 // changes with every arm and disarm
	timer *time.Timer
	fires time.Time // when the timer fires; zero: it does not run
}

// arm sets the deadline. Under cmu.
func (s *Session) arm(kind dueKind, d time.Duration) {
	t := &s.due
	t.kind, t.at = kind, time.Now().Add(d)
	t.gen++
	switch {
	case t.timer == nil:
		t.timer = time.AfterFunc(d, s.expire)
	case t.fires.IsZero() || t.fires.After(t.at):
		t.timer.Reset(d)
	default:
		return
	}
	t.fires = t.at
}

// disarm forgets the deadline. Under cmu.
func (s *Session) disarm() {
	if s.due.kind != dueNothing {
		s.due.kind = dueNothing
		s.due.gen++
	}
}

// armIdle sets the deadline of a session that waits for its client. A holder of
// the write lock blocks every other writer and is never without limit. Under mu
// and cmu.
func (s *Session) armIdle() {
	own, l := s.vars.own(), s.b.limits.Load()
	kind, d := dueIdle, orServer(own.idle, l.Idle)
	if s.tx.active {
		if kind, d = dueInTx, orServer(own.idleInTx, l.IdleInTx); d <= 0 && s.tx.locked {
			d = l.IdleInWrite
		}
	}
	if d <= 0 || s.closed || s.term.Load() != nil {
		s.disarm()
		return
	}
	s.arm(kind, d)
}

// timeout arms statement_timeout for the running statement.
func (s *Session) timeout() {
	d := orServer(s.vars.own().statement, s.b.limits.Load().Statement)
	if d <= 0 {
		return
	}
	s.cmu.Lock()
	s.arm(dueStatement, d)
	s.cmu.Unlock()
}

// expire runs when the timer fires.
func (s *Session) expire() {
	s.cmu.Lock()
	t := &s.due
	t.fires = time.Time{}
	if t.kind == dueNothing {
		s.cmu.Unlock()
		return
	}
	if left := time.Until(t.at); left > 0 {
		t.timer.Reset(left)
		t.fires = t.at
		s.cmu.Unlock()
		return
	}
	kind, gen := t.kind, t.gen
	if kind == dueStatement {
		s.disarm()
		if s.running {
			s.cancel(&sqlapi.Error{Code: "57014", Message: "canceling statement due to statement timeout"})
		}
		s.cmu.Unlock()
		return
	}
	s.cmu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cmu.Lock()
	late := s.due.gen != gen || s.closed // the client said something after all
	s.cmu.Unlock()
	if late {
		return
	}
	e := &sqlapi.Error{Severity: "FATAL", Code: "57P05", Message: "terminating connection due to idle-session timeout"}
	if kind == dueInTx {
		e = &sqlapi.Error{Severity: "FATAL", Code: "25P03", Message: "terminating connection due to idle-in-transaction timeout"}
	}
	s.rollbackTx()
	s.b.counts.timedOut.Add(1)
	s.Terminate(e)
}

// stopTimer ends the timer of a session that closes.
func (s *Session) stopTimer() {
	s.cmu.Lock()
	defer s.cmu.Unlock()
	s.disarm()
	if s.due.timer != nil {
		s.due.timer.Stop()
	}
}
