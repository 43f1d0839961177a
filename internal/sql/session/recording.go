package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"strings"
	"time"

	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
)

// recording is what a concurrent transaction has done so far, and what its
// client knows of it.
type recording struct {
	cookie uint32 // of the schema
	steps  []*step
	now    *step // being executed; nil: none that is recorded
	writes bool
	bytes  int           // of parameters and texts
	pages  int           // written beside the connection's cache
	took   time.Duration // of its statements, without the client's time
	hash   maphash.Hash
}

// step is one statement with its outcome, or a savepoint.
type step struct {
	r     *recording
	p     *Portal // nil: verb and name of a savepoint
	verb  string
	name  string
	write bool

	rows  int64  // that the client may have seen
	sum   uint64 // their hash
	whole bool   // the client knows that there are no more, or err
	count int64  // of a writing one: rows changed
	err   *sqlapi.Error

	drawn []drawn
	at    int // the next of them, when they are drawn again
}

type drawn struct {
	what string
	v    sqlapi.Value
}

var hashSeed = maphash.MakeSeed()

func quoted(name string) string { return dialect.QuoteName(name) }

// full reports whether the transaction has done more than is recorded.
func (r *recording) full() bool {
	return len(r.steps) >= maxSteps || r.bytes > maxRecorded || r.pages > maxPrivate
}

// mark records a savepoint; r may be nil.
func (r *recording) mark(verb, name string) {
	if r != nil {
		r.steps = append(r.steps, &step{r: r, verb: verb, name: name})
		r.bytes += 64 + len(name)
	}
}

// begin records a statement that is about to be executed.
func (r *recording) begin(p *Portal, write bool) *step {
	st := &step{r: r, p: p, write: write}
	r.steps = append(r.steps, st)
	r.bytes += 256 + len(p.st.p.SQL)
	for i := range p.params {
		r.bytes += valueSize + len(p.params[i].Bytes)
	}
	r.now = st
	r.writes = r.writes || write
	return st
}

// row adds a row of a query; without more, its end.
func (st *step) row(row sqlapi.Row, n int, more bool) {
	if !more {
		st.whole = true
		return
	}
	st.rows++
	st.sum = st.r.add(st.sum, row, n)
}

// done is the outcome of a writing statement.
func (st *step) done(rows []valueRow, count int64, n int) {
	st.count, st.whole, st.rows = count, true, int64(len(rows))
	for _, row := range rows {
		st.sum = st.r.add(st.sum, row, n)
	}
}

// failed is the outcome of a statement that failed. What has nothing to do with
// the data is not expected again: a writing statement has done nothing then, and
// of a query the rows before it count.
func (st *step) failed(s *Session, err error) {
	e := new(sqlapi.Error)
	if !errors.As(s.mapError(err, st.p.st), &e) {
		return
	}
	if lasting(e) {
		st.err, st.whole = e, true
		return
	}
	if st.write {
		if n := len(st.r.steps); n > 0 && st.r.steps[n-1] == st {
			st.r.steps = st.r.steps[:n-1]
		}
	}
}

// lasting reports whether an error comes from the statement and the data, and
// not from the moment.
func lasting(e *sqlapi.Error) bool {
	switch e.Code[:min(2, len(e.Code))] {
	case "08", "40", "53", "55", "57", "58", "XX":
		return false
	}
	return true
}

// add continues a hash of rows with one more of n columns.
func (r *recording) add(sum uint64, row sqlapi.Row, n int) uint64 {
	h := &r.hash
	h.SetSeed(hashSeed)
	var b [9]byte
	word := func(k byte, x uint64) {
		b[0] = k
		binary.LittleEndian.PutUint64(b[1:], x)
		h.Write(b[:])
	}
	word(255, sum)
	for i := range n {
		switch k := row.Kind(i); k {
		case sqlapi.Integer:
			word(byte(k), uint64(row.Int64(i)))
		case sqlapi.Float:
			word(byte(k), math.Float64bits(row.Float64(i)))
		case sqlapi.Null:
			h.WriteByte(byte(k))
		default:
			v := row.Bytes(i)
			word(byte(k), uint64(len(v)))
			h.Write(v)
		}
	}
	return h.Sum64()
}

// errConflict is behind the error of a transaction whose statements would answer
// differently now.
var errConflict = errors.New("conflict")

// conflict is the error of the client, and errConflict.
type conflict struct{ e *sqlapi.Error }

func (c conflict) Error() string   { return c.e.Error() }
func (c conflict) Unwrap() []error { return []error{errConflict, c.e} }

// conflicts makes the error of the client.
func conflicts(i int, st *step, why string) error {
	e := &sqlapi.Error{Code: "40001", Message: "could not serialize access due to concurrent update", Detail: why,
		Hint: "Run the transaction again, from its beginning."}
	if st != nil {
		text := strings.Join(strings.Fields(st.p.st.text()), " ")
		if len(text) > 100 {
			text = cutText(text, 100) + "..."
		}
		e.Detail = fmt.Sprintf("Statement %d of the transaction, %s, %s.", i+1, text, why)
	}
	return conflict{e}
}

// repeat executes the recorded statements on c, in the transaction under way
// there. The names of savepoints are given the prefix. The error is a conflict,
// or says why a statement could not be executed at all.
func (s *Session) repeat(c *conn, r *recording, prefix string) error {
	v, err := c.cookie()
	if err != nil {
		return err
	}
	if v != r.cookie {
		return conflicts(0, nil, "Tables, users or privileges have been changed since the transaction began.")
	}
	defer func() { s.again = nil }()
	n := 0
	for _, st := range r.steps {
		if st.p == nil {
			if err := c.run(st.verb + quoted(prefix+st.name)); err != nil {
				return err
			}
			continue
		}
		st.at = 0
		s.again = st
		why, err := st.differs(c)
		if err != nil {
			return err
		}
		if why != "" {
			return conflicts(n, st, why)
		}
		n++
	}
	return nil
}

// differs executes the statement again; what is different comes as text. The
// error is one that tells nothing of the data.
func (st *step) differs(c *conn) (string, error) {
	now := step{r: st.r}
	var err error
	if st.write {
		var rows []valueRow
		if rows, now.count, err = st.p.exec(c); err == nil {
			now.done(rows, now.count, len(st.p.st.cols))
		}
	} else {
		err = st.query(c, &now)
	}
	if err != nil {
		e := new(sqlapi.Error)
		if !errors.As(st.p.s.mapError(err, st.p.st), &e) || !lasting(e) {
			return "", err
		}
		now.err, now.whole = e, true
	}
	switch {
	case now.err != nil && st.err == nil:
		return "fails now: " + now.err.Message, nil
	case now.err == nil && st.err != nil:
		return "does not fail any more", nil
	case st.err != nil && (now.err.Code != st.err.Code || now.err.Message != st.err.Message):
		return "fails differently now: " + now.err.Message, nil
	case st.write && now.count != st.count:
		return fmt.Sprintf("changes %d rows now, not %d", now.count, st.count), nil
	case now.rows != st.rows || now.sum != st.sum || now.whole != st.whole:
		return "has another result now", nil
	}
	return "", nil
}

// query executes a query again, as far as its client has read it.
func (st *step) query(c *conn, now *step) error {
	p := st.p
	cs, err := c.exact(p.st.p.SQL, len(p.st.cols)+p.st.p.Hidden)
	if err != nil {
		return err
	}
	defer c.done(cs)
	if err := cs.bind(p.params); err != nil {
		return err
	}
	for st.whole && now.rows <= st.rows || now.rows < st.rows {
		more, err := c.step(cs)
		if err != nil {
			if c.file != nil {
				err = p.s.storeError(c, err)
			}
			return err
		}
		if more && cs.s.DataCount() != cs.ncols {
			return planChanged()
		}
		if now.row(stmtRow{cs}, cs.ncols, more); !more {
			break
		}
	}
	return nil
}
