package session

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"

	"datawatch/internal/sql/catalog"
	"datawatch/internal/sql/sqlapi"
)

// Sequences. What has been reserved of each is a row of SYSSEQUENCES, and so
// replicated, backed up and recovered like any data. The primary hands numbers
// out of memory, from ranges that it reserves with transactions of its own, and
// a range is used only when that is hardened: whatever a client has got is
// covered by a mark that every takeover finds (G1). A range reserved and not
// used is lost when the primary changes, which leaves a gap.
//
// A statement that runs out of numbers while its transaction has the write lock
// reserves more within that transaction, for that transaction alone. The rows
// of an autocommit statement go out when its commit, and with it the mark, is
// hardened. Memory remembers numbers of a transaction that was rolled back and
// reserves them afterwards, so that the same primary never repeats them.

// seqTable is the table of the sequences. NEXT is the first number that is not
// reserved, NULL when there is none left.
const seqTable = catalog.SequenceTable

const seqDDL = "CREATE TABLE IF NOT EXISTS main." + seqTable + `(ID INTEGER PRIMARY KEY, NAME TEXT NOT NULL UNIQUE COLLATE NOCASE, TYPE INTEGER NOT NULL,
	START INTEGER NOT NULL, INC INTEGER NOT NULL, MIN INTEGER NOT NULL, MAX INTEGER NOT NULL, CYCLE INTEGER NOT NULL, CACHE INTEGER NOT NULL,
	NEXT INTEGER, CALLED INTEGER NOT NULL, OWNER_TABLE TEXT, OWNER_COLUMN TEXT)`

// seqOID is what a sequence's ID is counted from in the catalog.
const seqOID = catalog.SequenceOID

// reserveStep is how many numbers are reserved at a time, at least; less when
// the sequence has only few.
const reserveStep = 1000

// seqState is a row of SYSSEQUENCES.
type seqState struct {
	name          string
	inc, min, max int64
	cycle         bool
	cache         int64
	next          int64
	spent         bool // there is no next
	start         int64
	oid           uint32
	table, column string
	called        bool
}

// numbers is a run of n numbers from first on, inc apart.
type numbers struct {
	first, inc int64
	n          uint64
}

func (r *numbers) take() int64 {
	v := r.first
	if r.n--; r.n > 0 {
		r.first += r.inc
	}
	return v
}

// reserve cuts up to n numbers off; none when the sequence is spent.
func (q *seqState) reserve(n uint64) numbers {
	if q.spent {
		return numbers{}
	}
	var left uint64 // steps to the last number
	if q.inc > 0 {
		left = (uint64(q.max) - uint64(q.next)) / uint64(q.inc)
	} else {
		left = (uint64(q.next) - uint64(q.min)) / uint64(-q.inc)
	}
	r := numbers{first: q.next, inc: q.inc, n: min(n, left+1)}
	switch {
	case left == math.MaxUint64:
		r.n = n
		fallthrough
	case r.n <= left:
		q.next += int64(r.n) * q.inc
	case q.cycle && q.inc > 0:
		q.next = q.min
	case q.cycle:
		q.next = q.max
	default:
		q.spent = true
	}
	q.called = true
	return r
}

// step is how many to reserve: no more than a hundredth of what there is, as
// what is not used is lost.
func (q *seqState) step() uint64 {
	n := (uint64(q.max) - uint64(q.min)) / uint64(max(q.inc, -q.inc)) / 100
	return max(min(reserveStep, n), uint64(max(q.cache, 1)))
}

func (q *seqState) spentError() error {
	what, at := "maximum", q.max
	if q.inc < 0 {
		what, at = "minimum", q.min
	}
	return &sqlapi.Error{Code: "2200H", Message: fmt.Sprintf("nextval: reached %s value of sequence %q (%d)", what, q.name, at)}
}

// sequences are those of a primary, in memory.
type sequences struct {
	mu sync.Mutex
	m  map[string]*sequence
}

type sequence struct {
	mu     sync.Mutex
	ready  []numbers
	known  bool // state is that of the table, or ahead of it
	state  seqState
	filler chan struct{} // closed when the reservation under way is over
	err    error         // of the last one
}

func (q *sequences) get(name string) *sequence {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.m == nil {
		q.m = map[string]*sequence{}
	}
	s := q.m[name]
	if s == nil {
		s = &sequence{}
		q.m[name] = s
	}
	return s
}

// forget drops what is known of sequences; of all without names.
func (q *sequences) forget(names ...string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(names) == 0 {
		q.m = nil
	}
	for _, n := range names {
		delete(q.m, n)
	}
}

// take returns a reserved number; low says that it is time for more.
func (s *sequence) take() (v int64, ok, low bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.ready) > 0 && s.ready[0].n == 0 {
		s.ready = s.ready[1:]
	}
	if len(s.ready) == 0 {
		return 0, false, true
	}
	v = s.ready[0].take()
	left := uint64(0)
	for _, r := range s.ready {
		left += r.n
	}
	return v, true, left < s.state.step()/2 && !s.state.spent
}

// fill reserves more, once for all who ask at a time, and waits for it.
func (b *Backend) fill(ctx context.Context, name string, s *sequence) error {
	s.mu.Lock()
	if done := s.filler; done != nil {
		s.mu.Unlock()
		select {
		case <-done:
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	done := make(chan struct{})
	s.filler = done
	s.mu.Unlock()
	err := b.reserve(ctx, name, s)
	s.mu.Lock()
	s.filler, s.err = nil, err
	s.mu.Unlock()
	close(done)
	return err
}

// errSequenceChanged: the sequence was changed or dropped while a reservation
// waited for the lock.
var errSequenceChanged = errors.New("sequence changed")

// fillLater is fill on a goroutine of its own; whoever needs the numbers asks
// again and gets the error.
func (b *Backend) fillLater(name string, s *sequence) {
	s.mu.Lock()
	busy := s.filler != nil
	s.mu.Unlock()
	if !busy {
		b.bg.run(func(ctx context.Context) { _ = b.fill(ctx, name, s) })
	}
}

func (b *Backend) reserve(ctx context.Context, name string, s *sequence) error {
	var got numbers
	err := b.autonomous(ctx, func(c *conn) error {
		if b.seqs.get(name) != s {
			return errSequenceChanged
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		state, err := c.sequence(name)
		if err != nil {
			return err
		}
		if s.known {
			state.next, state.spent = s.state.next, s.state.spent
		}
		if got = state.reserve(state.step()); got.n == 0 {
			return state.spentError()
		}
		s.state, s.known = *state, true
		return c.saveSequence(state)
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = append(s.ready, got)
	return nil
}

// autonomous runs fn in a transaction of its own, which is hardened when it
// returns.
func (b *Backend) autonomous(ctx context.Context, fn func(c *conn) error) error {
	if b.standby() {
		return readOnlyError("standby", "nextval()")
	}
	if !b.tables() {
		return b.notOpen()
	}
	s := &Session{b: b, done: make(chan struct{}), ctx: ctx}
	s.vars = newVars(b.cfg.DatabaseName, sqlapi.Info{})
	c, err := s.lockWrite(nil, false)
	if err != nil {
		return err
	}
	if err = c.run("BEGIN IMMEDIATE"); err == nil {
		if err = fn(c); err == nil {
			err = c.run("COMMIT")
		}
	}
	if err != nil && c.file != nil {
		err = s.storeError(c, err)
	}
	lsn := s.unlockWrite(c)
	if errors.Is(err, errSequenceChanged) {
		return err
	}
	if err != nil {
		return s.mapError(err, nil)
	}
	return s.waitHardened(lsn)
}

// query runs a statement of the server itself, with its rows; it may be called
// while another statement of the connection is running.
func (c *conn) query(sql string, args ...sqlapi.Value) ([]valueRow, error) {
	rec, was := c.rec, c.internal
	c.internal = true
	defer func() { c.rec, c.internal = rec, was }()
	cs, err := c.prepare(sql)
	if err != nil {
		return nil, err
	}
	defer c.done(cs)
	if err := cs.bind(args); err != nil {
		return nil, err
	}
	var rows []valueRow
	for {
		more, err := c.step(cs)
		if err != nil || !more {
			return rows, err
		}
		rows = append(rows, copyRow(cs.s, cs.ncols))
	}
}

func textValue(s string) sqlapi.Value { return sqlapi.Value{Kind: sqlapi.Text, Bytes: []byte(s)} }
func intValue(n int64) sqlapi.Value   { return sqlapi.Value{Kind: sqlapi.Integer, Int: n} }

func noSequence(name string) error {
	return &sqlapi.Error{Code: "42P01", Message: fmt.Sprintf("relation %q does not exist", name)}
}

// sequence reads a row of SYSSEQUENCES.
func (c *conn) sequence(name string) (*seqState, error) {
	rows, err := c.query("SELECT NAME, TYPE, START, INC, MIN, MAX, CYCLE, CACHE, NEXT, CALLED, OWNER_TABLE, OWNER_COLUMN FROM main."+seqTable+" WHERE NAME = $1", textValue(name))
	if err != nil {
		if strings.Contains(err.Error(), "no such table") {
			return nil, noSequence(name)
		}
		return nil, err
	}
	if len(rows) == 0 {
		return nil, noSequence(name)
	}
	r := rows[0]
	return &seqState{name: string(r[0].Bytes), oid: uint32(r[1].Int), start: r[2].Int, inc: r[3].Int, min: r[4].Int, max: r[5].Int, cycle: r[6].Int != 0,
		cache: r[7].Int, next: r[8].Int, spent: r[8].Kind == sqlapi.Null, called: r[9].Int != 0, table: string(r[10].Bytes), column: string(r[11].Bytes)}, nil
}

// saveSequence writes a row back.
func (c *conn) saveSequence(q *seqState) error {
	next := intValue(q.next)
	if q.spent {
		next = sqlapi.Value{}
	}
	owner := func(s string) sqlapi.Value {
		if s == "" {
			return sqlapi.Value{}
		}
		return textValue(s)
	}
	cycle, called := int64(0), int64(0)
	if q.cycle {
		cycle = 1
	}
	if q.called {
		called = 1
	}
	_, err := c.query("UPDATE main."+seqTable+` SET TYPE = $2, START = $3, INC = $4, MIN = $5, MAX = $6, CYCLE = $7, CACHE = $8, NEXT = $9, CALLED = $10,
		OWNER_TABLE = $11, OWNER_COLUMN = $12 WHERE NAME = $1`, textValue(q.name), intValue(int64(q.oid)), intValue(q.start), intValue(q.inc), intValue(q.min),
		intValue(q.max), intValue(cycle), intValue(q.cache), next, intValue(called), owner(q.table), owner(q.column))
	return err
}

// nextval is the next number of a sequence for a statement on c.
func (c *conn) nextval(s *Session, name string) (int64, error) {
	if s.tx.active && s.tx.readOnly {
		return 0, readOnlyError("", "nextval()")
	}
	q := c.b.seqs.get(name)
	if !c.seqChanged[name] {
		for ; ; q = c.b.seqs.get(name) {
			v, ok, low := q.take()
			if low && c.b.tables() && !c.b.standby() && (ok || c.locked) {
				c.b.fillLater(name, q) // it waits for the lock, and must not hold this statement
			}
			if ok {
				return v, nil
			}
			if c.locked {
				break
			}
			if err := c.b.fill(c.db.GetInterrupt(), name, q); err != nil && !errors.Is(err, errSequenceChanged) {
				return 0, err
			}
		}
	}
	// The lock is ours: more within this transaction, and for it alone.
	r := c.seqOwn[name]
	if r == nil || r.n == 0 {
		state, err := c.sequence(name)
		if err != nil {
			return 0, err
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.known && !c.seqChanged[name] {
			state.next, state.spent = q.state.next, q.state.spent
		}
		n := uint64(1)
		if r != nil {
			n = min(4*state.step(), 100_000)
		}
		got := state.reserve(n)
		if got.n == 0 {
			return 0, state.spentError()
		}
		if !c.seqChanged[name] {
			q.state, q.known = *state, true
		}
		if err := c.saveSequence(state); err != nil {
			return 0, err
		}
		if c.seqOwn == nil {
			c.seqOwn = map[string]*numbers{}
		}
		r = &got
		c.seqOwn[name] = r
	}
	return r.take(), nil
}

// seqCommit is called before a transaction commits: a statement that failed may
// have undone the reservation of numbers that others of the transaction use.
func (c *conn) seqCommit() error {
	for name := range c.seqOwn {
		if c.seqChanged[name] {
			continue
		}
		state, err := c.sequence(name)
		if err != nil {
			var e *sqlapi.Error
			if errors.As(err, &e) && e.Code == "42P01" { // dropped meanwhile
				continue
			}
			return err
		}
		q := c.b.seqs.get(name)
		q.mu.Lock()
		differs := q.known && (state.next != q.state.next || state.spent != q.state.spent)
		state.next, state.spent = q.state.next, q.state.spent
		q.mu.Unlock()
		if differs {
			if err := c.saveSequence(state); err != nil {
				return err
			}
		}
	}
	return nil
}

// seqEnd forgets what belonged to the transaction that has ended on c. Numbers
// that a transaction took and did not commit are reserved now.
func (c *conn) seqEnd() {
	if c.seqOwn == nil && c.seqChanged == nil {
		return
	}
	for name := range c.seqChanged {
		c.b.seqs.forget(name)
	}
	for name := range c.seqOwn {
		if !c.seqChanged[name] {
			c.b.fillLater(name, c.b.seqs.get(name))
		}
	}
	c.seqOwn, c.seqChanged = nil, nil
}

// background runs what no session waits for, until it is stopped.
type background struct {
	mu     sync.Mutex
	ctx    context.Context
	cancel context.CancelFunc
	ended  bool
	wg     sync.WaitGroup
}

func (g *background) run(fn func(ctx context.Context)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return
	}
	if g.ctx == nil {
		g.ctx, g.cancel = context.WithCancel(context.Background())
	}
	g.wg.Go(func() { fn(g.ctx) })
}

// stop ends what runs and waits for it.
func (g *background) stop() {
	g.mu.Lock()
	g.ended = true
	if g.cancel != nil {
		g.cancel()
	}
	g.mu.Unlock()
	g.wg.Wait()
}
