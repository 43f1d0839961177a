package session

import (
	"time"

	"datawatch/internal/sql/sqlapi"
)

// cursor is a half-read result: on a connection it holds, or in memory.
type cursor struct {
	s       *Session
	c       *conn
	cs      *cstmt
	primed  bool // the current row was not delivered yet
	release bool // c goes back to the pool at the end
	rows    []valueRow
	err     error
	step    *step // of a concurrent transaction, that this is
}

// row returns the next row, nil at the end.
func (cur *cursor) row() (sqlapi.Row, error) {
	if cur.cs == nil {
		if len(cur.rows) == 0 {
			return nil, nil
		}
		r := cur.rows[0]
		cur.rows = cur.rows[1:]
		return r, nil
	}
	if cur.primed {
		cur.primed = false
		return stmtRow{cur.cs}, nil
	}
	more, err := cur.next()
	if err != nil || !more {
		return nil, err
	}
	return stmtRow{cur.cs}, nil
}

func (cur *cursor) next() (bool, error) {
	cur.c.db.SetInterrupt(cur.s.ctx)
	var start time.Time
	if cur.step != nil {
		start = time.Now()
	}
	more, err := cur.c.step(cur.cs)
	if cur.step != nil {
		cur.step.r.took += time.Since(start)
	}
	if err != nil && cur.step != nil && cur.c.trapped {
		return cur.trapped()
	}
	if err != nil {
		if cur.c.file != nil {
			err = cur.s.storeError(cur.c, err)
		}
		if cur.step != nil {
			cur.step.failed(cur.s, err)
		}
		return false, err
	}
	if more && cur.cs.s.DataCount() != cur.cs.ncols {
		cur.c.forget(cur.cs)
		cur.cs = nil
		return false, planChanged()
	}
	if cur.step != nil {
		cur.step.row(stmtRow{cur.cs}, cur.cs.ncols, more)
	}
	return more, nil
}

// materialise reads the rest into memory and lets the connection go.
func (cur *cursor) materialise() error {
	kept := cur.s.b.keep()
	if cur.primed {
		if err := kept.add(copyRow(cur.cs.s, cur.cs.ncols)); err != nil {
			return err
		}
		cur.primed = false
	}
	for {
		more, err := cur.next()
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if err := kept.add(copyRow(cur.cs.s, cur.cs.ncols)); err != nil {
			return err
		}
	}
	err := cur.close()
	cur.rows = kept.rows
	return err
}

// track remembers an open cursor, to be closed with its transaction.
func (s *Session) track(cur *cursor) {
	if s.cursors == nil {
		s.cursors = map[*cursor]struct{}{}
	}
	s.cursors[cur] = struct{}{}
}

func (s *Session) closeCursors() {
	for cur := range s.cursors {
		cur.close()
		if cur.err == nil {
			cur.err = &sqlapi.Error{Code: "34000", Message: "portal does not exist: its transaction has ended"}
		}
	}
}

// close ends the statement and gives the connection back. It may be called
// again.
func (cur *cursor) close() error {
	delete(cur.s.cursors, cur)
	cur.rows = nil
	if cur.c == nil {
		return nil
	}
	c := cur.c
	if cur.cs != nil {
		c.done(cur.cs)
		cur.cs = nil
	}
	cur.c = nil
	if cur.release {
		cur.s.giveBack(c)
	}
	return nil
}
