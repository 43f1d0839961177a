package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
)

// COPY is executed as the SELECT or INSERT it stands for: the statement is
// prepared as that, and remembers the form of the data in copy.

// prepareCopy prepares the statement behind COPY.
func (s *Session) prepareCopy(p *parsed) (*Stmt, error) {
	spec := p.Copy
	st := &Stmt{s: s, p: p}
	inner := spec.Query
	var cols []string
	if spec.Query == "" {
		var err error
		if cols, err = s.copyColumns(spec); err != nil {
			return st, err
		}
		inner = copySQL(spec, cols)
	}
	in, err := s.prepare(inner, nil)
	if err != nil {
		return st, err
	}
	if len(in.oids) > 0 && !spec.In {
		return st, &sqlapi.Error{Code: "42P02", Message: "there is no parameter $1: COPY has none"}
	}
	out := *in
	own := *in.p
	own.Statement = &dialect.Statement{}
	*own.Statement = *in.p.Statement
	own.Text, own.Copy = p.Text, spec
	out.p = &own
	c := &sqlapi.Copy{In: spec.In, Columns: in.cols, Binary: spec.Binary, CSV: spec.CSV, Delimiter: spec.Delimiter, Null: spec.Null,
		Header: spec.Header, Match: spec.Match, Quote: spec.Quote, Escape: spec.Escape}
	if spec.In {
		for i, name := range cols {
			oid := in.oids[i]
			c.Columns = append(c.Columns, sqlapi.Column{Name: name, OID: oid, Size: dialect.SizeOf(oid), TypeMod: -1})
		}
	}
	out.copy = c
	return &out, nil
}

// copyColumns are the columns of the table of COPY: those named, else all that
// can be stored.
func (s *Session) copyColumns(spec *dialect.CopySpec) ([]string, error) {
	c, release, err := s.describeConn(nil)
	if err != nil {
		return nil, err
	}
	defer release()
	c.fresh()
	cs, err := c.prepare("SELECT name, hidden FROM pragma_table_xinfo($1)")
	if err != nil {
		return nil, s.notHere(c, nil, err)
	}
	defer c.done(cs)
	if err := cs.bind([]sqlapi.Value{{Kind: sqlapi.Text, Bytes: []byte(spec.Table)}}); err != nil {
		return nil, err
	}
	var all []string
	found := false
	for {
		more, err := c.step(cs)
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
		found = true
		if cs.s.ColumnInt(1) == 0 || !spec.In && cs.s.ColumnInt(1) != 1 {
			all = append(all, cs.s.ColumnText(0))
		}
	}
	switch {
	case !found && c.kind == emptyConn:
		return nil, s.b.notOpen()
	case !found:
		return nil, &sqlapi.Error{Code: "42P01", Message: fmt.Sprintf("relation %q does not exist", spec.Table)}
	case spec.Columns == nil:
		return all, nil
	}
	seen := map[string]bool{}
	for _, n := range spec.Columns {
		if k := strings.ToLower(n); seen[k] {
			return nil, &sqlapi.Error{Code: "42701", Message: fmt.Sprintf("column %q specified more than once", n)}
		} else {
			seen[k] = true
		}
	}
	return spec.Columns, nil
}

// copySQL is the statement that COPY stands for.
func copySQL(spec *dialect.CopySpec, cols []string) string {
	var b, v strings.Builder
	for i, n := range cols {
		if i > 0 {
			b.WriteString(", ")
			v.WriteString(", ")
		}
		b.WriteString(dialect.QuoteName(n))
		v.WriteString("$" + strconv.Itoa(i+1))
	}
	if !spec.In {
		return "SELECT " + b.String() + " FROM " + dialect.QuoteName(spec.Table)
	}
	return "INSERT INTO " + dialect.QuoteName(spec.Table) + " (" + b.String() + ") VALUES (" + v.String() + ")"
}

// Copy implements sqlapi.Copier.
func (p *Portal) Copy() *sqlapi.Copy { return p.st.copy }

// CopyIn implements sqlapi.Copier.
func (p *Portal) CopyIn(ctx context.Context, next func(context.Context) ([]sqlapi.Value, error)) (tag string, err error) {
	s := p.s
	if err := s.enter(ctx); err != nil {
		return "", err
	}
	defer s.leave()
	s.begun(p.st.text())
	s.timeout()
	defer s.finished()
	n, err := p.copyIn(next)
	defer func() { s.noteSlow(p, tag, err) }()
	if err != nil {
		err = s.fail(err, p.st)
	}
	if s.simple > 0 {
		if s.simple--; s.simple == 0 && err == nil && s.tx.active && s.tx.implicit {
			err = s.fail(s.commit(), nil)
		}
	}
	if e := s.ended(); e != nil && err == nil && s.term.Load() != nil {
		err = e
	}
	if err != nil {
		return "", err
	}
	return "COPY " + strconv.FormatInt(n, 10), nil
}

func (p *Portal) copyIn(next func(context.Context) ([]sqlapi.Value, error)) (int64, error) {
	s, st := p.s, p.st
	switch {
	case s.tx.failed:
		return 0, s.aborted()
	case p.ran:
		return 0, &sqlapi.Error{Code: "55000", Message: "portal cannot be run any more"}
	case s.tx.active && s.tx.readOnly && st.main:
		return 0, readOnlyError("", "COPY FROM")
	case s.b.standby() && st.main:
		return 0, readOnlyError("standby", "COPY FROM")
	case !s.tx.active && s.vars.get("default_transaction_read_only") == "on" && st.main:
		return 0, readOnlyError("", "COPY FROM")
	case !s.b.tables():
		return 0, s.b.notOpen()
	}
	p.ran = true
	// The client may take its time: other writers wait for it only from the
	// first line on.
	row, err := next(s.ctx)
	if errors.Is(err, io.EOF) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	if !s.tx.active {
		s.begin(dialect.Modes{}, true)
	}
	var c *conn
	if !st.main && s.own != nil { // a temporary table
		if c = s.own; s.tx.c == nil {
			if c, err = s.pin(); err != nil {
				return 0, err
			}
		}
	} else if c, err = s.writeTx(false); err != nil {
		return 0, err
	}
	c.use(s)
	s.tx.ran = true
	cs, err := c.exact(st.p.SQL, 0)
	if err != nil {
		return 0, err
	}
	defer c.done(cs)
	// A client that stops in the middle must not keep the lock for ever.
	ctx, cancel := s.ctx, s.cancel
	limit := s.b.limits.Load().IdleInWrite
	if limit <= 0 {
		limit = never
	}
	idle := time.AfterFunc(limit, func() {
		s.cmu.Lock()
		defer s.cmu.Unlock()
		if s.running && s.ctx == ctx {
			cancel(&sqlapi.Error{Code: "57014", Message: "canceling COPY: the client sent nothing for too long while it held the write lock"})
		}
	})
	defer idle.Stop()
	for n := int64(0); ; {
		if err := fit(st.targets, row); err != nil {
			return 0, err
		}
		if err := cs.bind(row); err != nil {
			return 0, err
		}
		if _, err := c.step(cs); err != nil {
			if c.file != nil {
				err = s.storeError(c, err)
			}
			e := new(sqlapi.Error)
			if errors.As(s.mapError(err, st), &e) && e.Detail == "" {
				x := *e
				x.Detail = fmt.Sprintf("COPY %s, row %d.", st.p.Copy.Table, n+1)
				return 0, &x
			}
			return 0, err
		}
		if err := cs.s.Reset(); err != nil {
			return 0, err
		}
		n++
		idle.Reset(limit)
		if row, err = next(ctx); errors.Is(err, io.EOF) {
			return n, nil
		} else if err != nil {
			return 0, err
		}
	}
}

var _ sqlapi.Copier = &Portal{}
