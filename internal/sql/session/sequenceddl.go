package session

import (
	"fmt"
	"math"
	"strings"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
)

// seqName reads the name of a sequence as functions take it: perhaps quoted,
// perhaps with its schema.
func seqName(text string) string {
	text = strings.TrimSpace(text)
	for _, schema := range []string{"public.", `"public".`, "main."} {
		if len(text) > len(schema) && strings.EqualFold(text[:len(schema)], schema) {
			text = text[len(schema):]
		}
	}
	if len(text) > 1 && text[0] == '"' && text[len(text)-1] == '"' {
		text = strings.ReplaceAll(text[1:len(text)-1], `""`, `"`)
	}
	return fold(text)
}

// sequenceArg is the argument of nextval and the like: a name, or a number that
// regclass has made of it.
func (c *conn) sequenceArg(v sqlapi.Value) (string, error) {
	switch v.Kind {
	case sqlapi.Text:
		return seqName(string(v.Bytes)), nil
	case sqlapi.Integer:
		rows, err := c.query("SELECT NAME FROM main."+seqTable+" WHERE ID = $1", intValue(v.Int-seqOID))
		if err == nil && len(rows) == 1 {
			return fold(string(rows[0][0].Bytes)), nil
		}
	}
	return "", &sqlapi.Error{Code: "42809", Message: "the argument is not a sequence"}
}

// sequenceFunctions registers nextval, currval, lastval and setval.
func (c *conn) sequenceFunctions() error {
	session := func(fn func(s *Session, a []sqlapi.Value) (sqlapi.Value, error)) sqlite3.ScalarFunction {
		return sqlFunction(func(a []sqlapi.Value) (sqlapi.Value, error) {
			for _, v := range a {
				if v.Kind == sqlapi.Null {
					return v, nil
				}
			}
			s := c.sess.Load()
			if s == nil || c.kind == emptyConn {
				return sqlapi.Value{}, c.b.notOpen()
			}
			return fn(s, a)
		})
	}
	named := func(function string, fn func(s *Session, name string, a []sqlapi.Value) (int64, error)) sqlite3.ScalarFunction {
		return session(func(s *Session, a []sqlapi.Value) (sqlapi.Value, error) {
			name, err := c.sequenceArg(a[0])
			if err != nil {
				return sqlapi.Value{}, err
			}
			if err := c.maySequence(function, name); err != nil {
				return sqlapi.Value{}, err
			}
			v, err := fn(s, name, a)
			return intValue(v), err
		})
	}
	setval := named("setval", func(s *Session, name string, a []sqlapi.Value) (int64, error) {
		called := len(a) < 3 || a[2].Int != 0 || string(a[2].Bytes) == "t" || string(a[2].Bytes) == "true"
		return a[1].Int, c.setval(s, name, a[1].Int, called)
	})
	for _, f := range []struct {
		name string
		n    int
		fn   sqlite3.ScalarFunction
	}{
		{"nextval", 1, named("nextval", func(s *Session, name string, _ []sqlapi.Value) (int64, error) {
			x, err := c.draw(name, func() (sqlapi.Value, error) {
				v, err := c.nextval(s, name)
				return intValue(v), err
			})
			v := x.Int
			if err == nil {
				if s.seqs == nil {
					s.seqs = map[string]int64{}
				}
				s.seqs[name], s.lastSeq = v, name
			}
			return v, err
		})},
		{"currval", 1, named("currval", func(s *Session, name string, _ []sqlapi.Value) (int64, error) {
			v, ok := s.seqs[name]
			if !ok {
				return 0, &sqlapi.Error{Code: "55000", Message: fmt.Sprintf("currval of sequence %q is not yet defined in this session", name)}
			}
			return v, nil
		})},
		{"lastval", 0, session(func(s *Session, _ []sqlapi.Value) (sqlapi.Value, error) {
			if s.lastSeq == "" {
				return sqlapi.Value{}, &sqlapi.Error{Code: "55000", Message: "lastval is not yet defined in this session"}
			}
			return intValue(s.seqs[s.lastSeq]), nil
		})},
		{"setval", 2, setval}, {"setval", 3, setval},
	} {
		if err := c.db.CreateFunction(f.name, f.n, sqlite3.INNOCUOUS, f.fn); err != nil {
			return fmt.Errorf("register function %s: %w", f.name, err)
		}
	}
	return nil
}

// setval sets a sequence: in the transaction under way when it has the write
// lock, else in one of its own.
func (c *conn) setval(s *Session, name string, v int64, called bool) error {
	if s.tx.active && s.tx.readOnly {
		return readOnlyError("", "setval()")
	}
	set := func(w *conn) error {
		q, err := w.sequence(name)
		if err != nil {
			return err
		}
		if v < q.min || v > q.max {
			return &sqlapi.Error{Code: "22003", Message: fmt.Sprintf("setval: value %d is out of bounds for sequence %q (%d..%d)", v, q.name, q.min, q.max)}
		}
		w.touchSequence(name)
		q.next, q.spent = v, false
		if called {
			q.reserve(1)
		}
		if q.called = called; called && s.seqs == nil {
			s.seqs = map[string]int64{}
		}
		if called {
			s.seqs[name] = v
		}
		return w.saveSequence(q)
	}
	if c.locked {
		return set(c)
	}
	return c.b.autonomous(c.db.GetInterrupt(), set)
}

// touchSequence notes a change of a sequence by the transaction on c: until its
// end, what memory knows of it does not count.
func (c *conn) touchSequence(name string) {
	if c.seqChanged == nil {
		c.seqChanged = map[string]bool{}
	}
	c.seqChanged[name] = true
	delete(c.seqOwn, name)
}

// seqLimits are the bounds of an integer type.
func seqLimits(oid uint32) (lo, hi int64) {
	switch oid {
	case dialect.Int2:
		return math.MinInt16, math.MaxInt16
	case dialect.Int4:
		return math.MinInt32, math.MaxInt32
	}
	return math.MinInt64, math.MaxInt64
}

// seqOptions puts the options of CREATE or ALTER into a sequence.
func seqOptions(q *seqState, o *dialect.SequenceSpec, create bool) error {
	invalid := func(f string, a ...any) error { return &sqlapi.Error{Code: "22023", Message: fmt.Sprintf(f, a...)} }
	if o.OID != 0 {
		q.oid = o.OID
	}
	lo, hi := seqLimits(q.oid)
	if o.Increment != nil {
		if q.inc = *o.Increment; q.inc == 0 {
			return invalid("INCREMENT must not be zero")
		}
		if q.inc == math.MinInt64 {
			return invalid("INCREMENT is out of range")
		}
	}
	if create || o.NoMin || o.OID != 0 && o.Min == nil {
		if q.min = 1; q.inc < 0 {
			q.min = lo
		}
	}
	if create || o.NoMax || o.OID != 0 && o.Max == nil {
		if q.max = hi; q.inc < 0 {
			q.max = -1
		}
	}
	if o.Min != nil {
		q.min = *o.Min
	}
	if o.Max != nil {
		q.max = *o.Max
	}
	if q.min = max(q.min, lo); q.max > hi {
		q.max = hi
	}
	if q.min >= q.max {
		return invalid("MINVALUE (%d) must be less than MAXVALUE (%d)", q.min, q.max)
	}
	if create {
		if q.start = q.min; q.inc < 0 {
			q.start = q.max
		}
	}
	if o.Start != nil {
		q.start = *o.Start
	}
	if q.start < q.min || q.start > q.max {
		return invalid("START value (%d) must be between MINVALUE (%d) and MAXVALUE (%d)", q.start, q.min, q.max)
	}
	if o.Cache != nil {
		if q.cache = *o.Cache; q.cache < 1 || q.cache > 1<<31 {
			return invalid("CACHE (%d) must be greater than zero", q.cache)
		}
	}
	if o.Cycle != nil {
		q.cycle = *o.Cycle
	}
	switch {
	case create:
		q.next, q.spent = q.start, false
	case o.RestartWith != nil:
		q.next, q.spent, q.called = *o.RestartWith, false, false
	case o.Restart:
		q.next, q.spent, q.called = q.start, false, false
	}
	if !q.spent && (q.next < q.min || q.next > q.max) {
		if o.Restart {
			return invalid("RESTART value (%d) must be between MINVALUE (%d) and MAXVALUE (%d)", q.next, q.min, q.max)
		}
		q.spent = true
	} else if q.spent && o.Max != nil && !create {
		return invalid("the sequence is used up: give RESTART WITH together with new limits")
	}
	if o.NoOwner {
		q.table, q.column = "", ""
	} else if o.OwnerTable != "" {
		q.table, q.column = o.OwnerTable, o.OwnerColumn
	}
	return nil
}

// sequenceStmt executes CREATE, ALTER and DROP SEQUENCE.
func (s *Session) sequenceStmt(p *parsed) error {
	return s.atomic(p.Tag, func(c *conn) (err error) {
		done, err := s.recordSequences(c, p)
		if err != nil {
			return err
		}
		defer func() {
			if err == nil {
				err = done()
			}
		}()
		if p.Verb == "CREATE" {
			return s.createSequence(c, p.Sequence, false)
		}
		for _, n := range p.Sequence.Names {
			q, err := c.sequence(fold(n))
			if err != nil {
				if p.Sequence.IfExists && s.mapError(err, nil).(*sqlapi.Error).Code == "42P01" {
					s.notice("42P01", fmt.Sprintf("relation %q does not exist, skipping", n))
					continue
				}
				return err
			}
			if p.Verb == "ALTER" {
				c.touchSequence(fold(n))
				err = s.alterSequence(c, q, p.Sequence)
			} else {
				err = s.dropSequence(c, q, p.Sequence)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// createSequence makes a sequence; one for a column takes the place of what a
// table that is gone has left.
func (s *Session) createSequence(c *conn, o *dialect.SequenceSpec, column bool) error {
	name := o.Names[0]
	if _, err := c.sequence(fold(name)); err == nil {
		if o.IfExists {
			s.notice("42P07", fmt.Sprintf("relation %q already exists, skipping", name))
			return nil
		}
		return &sqlapi.Error{Code: "42P07", Message: fmt.Sprintf("relation %q already exists", name)}
	}
	if rows, err := c.query("SELECT 1 FROM main.sqlite_schema WHERE lower(name) = lower($1)", textValue(name)); err != nil || len(rows) > 0 {
		if err == nil {
			err = &sqlapi.Error{Code: "42P07", Message: fmt.Sprintf("relation %q already exists", name)}
		}
		return err
	}
	if rows, err := c.query("SELECT 1 FROM main.sqlite_schema WHERE name = '" + seqTable + "'"); err != nil {
		return err
	} else if len(rows) == 0 {
		if err := c.run(seqDDL); err != nil {
			return err
		}
		c.ddl = true
		c.flush()
		s.b.schemaGen.Add(1)
	}
	q := &seqState{name: name, oid: dialect.Int8, inc: 1, cache: 1}
	if err := seqOptions(q, o, true); err != nil {
		return err
	}
	if q.table != "" && !column {
		if c.table(q.table).column(q.column, 0) == nil {
			return &sqlapi.Error{Code: "42703", Message: fmt.Sprintf("column %q of relation %q does not exist", q.column, q.table)}
		}
	}
	c.touchSequence(fold(name))
	if _, err := c.query("INSERT INTO main."+seqTable+"(NAME, TYPE, START, INC, MIN, MAX, CYCLE, CACHE, CALLED) VALUES($1, 0, 0, 0, 0, 0, 0, 0, 0)", textValue(name)); err != nil {
		return err
	}
	return c.saveSequence(q)
}

func (s *Session) alterSequence(c *conn, q *seqState, o *dialect.SequenceSpec) error {
	if o.Rename != "" {
		if rows, err := c.query("SELECT 1 FROM main.sqlite_schema WHERE lower(name) = lower($1) UNION ALL SELECT 1 FROM main."+seqTable+" WHERE NAME = $1", textValue(o.Rename)); err != nil {
			return err
		} else if len(rows) > 0 {
			return &sqlapi.Error{Code: "42P07", Message: fmt.Sprintf("relation %q already exists", o.Rename)}
		}
		if user, err := c.sequenceUser(q); err != nil || user != "" {
			if err == nil {
				err = &sqlapi.Error{Code: "0A000", Message: fmt.Sprintf("ALTER SEQUENCE ... RENAME of a sequence that table %q uses is not supported", user)}
			}
			return err
		}
		c.touchSequence(fold(o.Rename))
		_, err := c.query("UPDATE main."+seqTable+" SET NAME = $2 WHERE NAME = $1", textValue(q.name), textValue(o.Rename))
		return err
	}
	if o.OwnerTable != "" && c.table(o.OwnerTable).column(o.OwnerColumn, 0) == nil {
		return &sqlapi.Error{Code: "42703", Message: fmt.Sprintf("column %q of relation %q does not exist", o.OwnerColumn, o.OwnerTable)}
	}
	if err := seqOptions(q, o, false); err != nil {
		return err
	}
	return c.saveSequence(q)
}

// sequenceUser is a table that takes its defaults from the sequence.
func (c *conn) sequenceUser(q *seqState) (string, error) {
	rows, err := c.query("SELECT name FROM main.sqlite_schema WHERE type = 'table' AND instr(lower(sql), $1) > 0", textValue("nextval('"+strings.ReplaceAll(fold(q.name), "'", "''")+"'"))
	if err != nil || len(rows) == 0 {
		return "", err
	}
	return string(rows[0][0].Bytes), nil
}

func (s *Session) dropSequence(c *conn, q *seqState, o *dialect.SequenceSpec) error {
	user, err := c.sequenceUser(q)
	if err != nil {
		return err
	}
	if user != "" {
		if o.Cascade {
			return &sqlapi.Error{Code: "0A000", Message: "DROP SEQUENCE ... CASCADE is not supported for a sequence that a default uses"}
		}
		return &sqlapi.Error{Code: "2BP01", Message: fmt.Sprintf("cannot drop sequence %s because other objects depend on it", q.name),
			Detail: fmt.Sprintf("A default value of table %s depends on sequence %s.", user, q.name)}
	}
	c.touchSequence(fold(q.name))
	_, err = c.query("DELETE FROM main."+seqTable+" WHERE NAME = $1", textValue(q.name))
	return err
}

// withSequences executes a statement that makes, drops or renames tables, and
// what that means for the sequences of their columns, in one transaction.
func (p *Portal) withSequences(c *conn) ([]valueRow, int64, error) {
	s, st := p.s, p.st.p
	exists := false
	for _, q := range st.Sequences {
		if c.table(q.OwnerTable) != nil {
			exists = true // IF NOT EXISTS, or an error in a moment
			break
		}
		if err := s.createSequence(c, q, true); err != nil {
			return nil, 0, err
		}
	}
	rows, n, err := p.exec(c)
	if err == nil && !exists && st.Moves {
		err = c.sequenceOwners(st.Renamed)
	}
	return rows, n, err
}

// sequenceOwners follows tables and columns that were dropped or renamed.
func (c *conn) sequenceOwners(r *dialect.Rename) error {
	rows, err := c.query("SELECT NAME, OWNER_TABLE, OWNER_COLUMN FROM main." + seqTable + " WHERE OWNER_TABLE IS NOT NULL")
	if err != nil {
		if strings.Contains(err.Error(), "no such table") {
			return nil
		}
		return err
	}
	for _, row := range rows {
		name, table, column := row[0], string(row[1].Bytes), string(row[2].Bytes)
		if r != nil && strings.EqualFold(table, r.Table) {
			if r.Column == "" {
				table = r.To
			} else if strings.EqualFold(column, r.Column) {
				column = r.To
			}
			if _, err := c.query("UPDATE main."+seqTable+" SET OWNER_TABLE = $2, OWNER_COLUMN = $3 WHERE NAME = $1", name, textValue(table), textValue(column)); err != nil {
				return err
			}
		}
		if c.table(table).column(column, 0) == nil {
			c.touchSequence(fold(string(name.Bytes)))
			if _, err := c.query("DELETE FROM main."+seqTable+" WHERE NAME = $1", name); err != nil {
				return err
			}
		}
	}
	return nil
}
