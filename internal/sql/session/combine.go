package session

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/base"
)

// Single writing statements outside a transaction wait for the write lock as
// jobs. The session that gets the lock runs, with its own, the jobs queued
// right behind it, in their order, in one transaction of SQLite: their sessions
// need not be woken one after the other, each with the lock waiting for it, and
// what a commit costs (page images, differences, checksums, redo) is paid once.
//
// To each client it is as if its statement had run alone: a statement that
// fails undoes its own changes only; when the common transaction itself fails,
// every statement runs again in a transaction of its own. None of them is
// acknowledged, and no other session sees anything, before the common commit is
// hardened (G1, G2).

const (
	// maxJobs and maxTime bound one common transaction, which its first client
	// waits for: no more is added to it after that.
	maxJobs = 128
	maxTime = 2 * time.Millisecond
	// A statement that took longer than this the last time runs alone: others
	// must not wait for it after they have run.
	quickTime = time.Millisecond
	// commonPatience is how long the common commit may wait for room in the redo
	// buffer: the sessions in it cannot be cancelled one by one meanwhile.
	commonPatience = 100 * time.Millisecond
)

// job is a statement, or the commit of a concurrent transaction, that waits for
// the write lock; the session that waits with it does not touch it until then.
type job struct {
	s     *Session
	p     *Portal    // the statement; nil: rec
	rec   *recording // the transaction
	quick bool
	state atomic.Uint32

	rows []valueRow
	n    int64
	err  error
	lsn  base.LSN // to be hardened before the client hears of it
}

const (
	jobQueued uint32 = iota
	jobTaken         // being run
	jobWithdrawn
)

// take claims the job for running; false: its session has given up waiting.
func (j *job) take() bool { return j.state.CompareAndSwap(jobQueued, jobTaken) }

// withdraw takes it back; false: it is being run.
func (j *job) withdraw() bool { return j.state.CompareAndSwap(jobQueued, jobWithdrawn) }

// shared reports whether a statement may run in a transaction with others. The
// other kinds have rules of their own about transactions (VACUUM, PRAGMA), or
// change what the next statement is compiled for.
func (st *Stmt) shared() bool {
	switch st.p.Tag {
	case "INSERT", "UPDATE", "DELETE":
		return st.main
	}
	return false
}

func newJob(p *Portal) *job { return &job{s: p.s, p: p, quick: p.st.p.quick()} }

// quick guesses whether a statement takes little time: by the last time, and
// the first time only for an INSERT of values.
func (p *parsed) quick() bool {
	if d := p.took.Load(); d > 0 {
		return d < int64(quickTime)
	}
	return p.Tag == "INSERT" && len(p.Text) <= maxCachedSQL && !strings.Contains(strings.ToUpper(p.Text), "SELECT")
}

// runJobs runs the caller's job and those queued behind it. While a package is
// on its way a commit gains nothing from being early: what comes until it can be
// of use to the next package, or somebody needs the gate for himself, runs in the
// same transaction. The caller has the gate, which is free afterwards.
func (b *Backend) runJobs(own *job) {
	own.state.Store(jobTaken)
	landed := b.cfg.DB.Flight()
	c, err := own.s.lockStore(nil)
	if err != nil {
		own.err = err
		b.gate.unlock()
		return
	}
	if !own.quick || landed == nil && !b.gate.company() {
		own.alone(c)
		own.lsn = b.release(c)
		b.gate.unlock()
		return
	}
	queue, ok := b.common(c, append(make([]waiter, 0, 64), waiter{job: own}), landed)
	lsn := b.release(c)
	for _, w := range queue {
		w.job.lsn = lsn
	}
	if !ok {
		b.oneByOne(queue)
	}
	b.gate.unlock()
	for _, w := range queue[1:] {
		if w.job.state.Load() == jobTaken {
			w.turn <- false
		}
	}
}

// alone executes the job as a transaction of its own.
func (j *job) alone(c *conn) {
	if j.rec == nil {
		j.run(c)
		return
	}
	c.use(j.s)
	j.err = j.s.wholly(c, j.rec)
}

// run executes the job in the transaction under way; without one, a statement
// commits by itself.
func (j *job) run(c *conn) {
	c.use(j.s)
	if j.rec != nil {
		j.err = j.s.within(c, j.rec)
		return
	}
	start := time.Now()
	j.rows, j.n, j.err = j.p.exec(c)
	j.p.st.p.took.Store(max(1, int64(time.Since(start))))
}

// common runs the jobs, and those queued behind them, in one transaction. It
// returns all of them and reports whether it was committed. If not, what became
// of each of them means nothing. It waits for more until landed is closed; nil:
// it takes those that are there.
func (b *Backend) common(c *conn, queue []waiter, landed <-chan struct{}) ([]waiter, bool) {
	if err := c.run("BEGIN IMMEDIATE"); err != nil {
		return queue, false
	}
	start := time.Now()
	for i := 0; i < len(queue); i++ {
		if j := queue[i].job; i == 0 || j.take() {
			j.run(c)
			if c.old || c.db.GetAutocommit() || !c.settled() {
				// Interrupted, out of memory, OR ROLLBACK: the whole transaction is gone,
				// or may not be committed so.
				return queue, false
			}
		}
		if i == len(queue)-1 && len(queue) < maxJobs && time.Since(start) < b.maxTime {
			if landed != nil {
				b.gate.gather(landed, b.maxTime-time.Since(start))
			}
			if w, ok := b.gate.next(); ok {
				queue = append(queue, w)
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), commonPatience)
	defer cancel()
	c.interruptBy(ctx)
	err := c.seqCommit()
	if err == nil {
		err = c.run("COMMIT")
	}
	if err != nil {
		c.file.Err() // of nobody's statement
		return queue, false
	}
	return queue, true
}

// settled reports whether no foreign key is violated that is checked at the
// commit. A job that leaves one fails by itself, and must not be mended by
// another one of the common transaction, nor be the end of all of them.
func (c *conn) settled() bool {
	n, _, err := c.db.Status(sqlite3.DBSTATUS_DEFERRED_FKS, false)
	return err == nil && n == 0
}

// oneByOne runs each job in a transaction of its own.
func (b *Backend) oneByOne(queue []waiter) {
	for _, w := range queue {
		j := w.job
		if j.state.Load() != jobTaken && !j.take() {
			continue
		}
		c, err := j.s.lockStore(nil)
		if err != nil {
			j.rows, j.err = nil, err
			continue
		}
		j.alone(c)
		j.lsn = b.release(c)
	}
}
