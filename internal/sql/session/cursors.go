package session

import (
	"fmt"
	"strconv"
	"strings"

	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/sql/value"
)

// SQL's own prepared statements and cursors. Both are portals of the session's
// own; a cursor is one that ends with its transaction.

const maxNamed = 4096 // prepared statements, and cursors, of a session

// namedCursor is what DECLARE makes.
type namedCursor struct {
	p    *Portal
	done bool
}

func noStatement(name string) error {
	return &sqlapi.Error{Code: "26000", Message: fmt.Sprintf("prepared statement %q does not exist", name)}
}

func noCursor(name string) error {
	return &sqlapi.Error{Code: "34000", Message: fmt.Sprintf("cursor %q does not exist", name)}
}

// prepareNamed executes PREPARE.
func (s *Session) prepareNamed(p *parsed) error {
	name := fold(p.Name)
	switch {
	case s.prepared[name] != nil:
		return &sqlapi.Error{Code: "42P05", Message: fmt.Sprintf("prepared statement %q already exists", p.Name)}
	case len(s.prepared) >= maxNamed:
		return &sqlapi.Error{Code: "53400", Message: fmt.Sprintf("more than %d prepared statements in one session", maxNamed)}
	}
	oids := make([]uint32, len(p.Types))
	for i, t := range p.Types {
		oids[i] = t.OID
	}
	st, err := s.prepare(p.Value, oids)
	if err != nil {
		return err
	}
	if st.p.Kind != dialect.SQL {
		return &sqlapi.Error{Code: "0A000", Message: "PREPARE of this statement is not supported"}
	}
	if s.prepared == nil {
		s.prepared = map[string]*Stmt{}
	}
	s.prepared[name] = st
	return nil
}

// deallocate executes DEALLOCATE.
func (s *Session) deallocate(p *parsed) (string, error) {
	if p.Name == "ALL" {
		s.prepared = nil
		return "DEALLOCATE ALL", nil
	}
	if s.prepared[fold(p.Name)] == nil {
		return "", noStatement(p.Name)
	}
	delete(s.prepared, fold(p.Name))
	return p.Tag, nil
}

// execute makes the portal of EXECUTE.
func (s *Session) execute(p *parsed) (*Portal, error) {
	st := s.prepared[fold(p.Name)]
	if st == nil {
		return nil, noStatement(p.Name)
	}
	if len(p.Tables) != len(st.oids) {
		return nil, &sqlapi.Error{Code: "42601", Message: fmt.Sprintf("wrong number of parameters for prepared statement %q", p.Name),
			Detail: fmt.Sprintf("Expected %d parameters but got %d.", len(st.oids), len(p.Tables))}
	}
	var params []sqlapi.Value
	if len(p.Tables) > 0 {
		args, err := s.prepare("SELECT "+strings.Join(p.Tables, ", "), nil)
		if err != nil {
			return nil, err
		}
		if len(args.oids) > 0 || len(args.cols) != len(st.oids) {
			return nil, &sqlapi.Error{Code: "0A000", Message: "parameters in the arguments of EXECUTE are not supported"}
		}
		_, _, err = (&Portal{st: args, s: s}).run(0, func(r sqlapi.Row) error {
			for i, oid := range st.oids {
				v := sqlapi.Value{Kind: r.Kind(i), Int: r.Int64(i), Float: r.Float64(i)}
				if v.Kind == sqlapi.Text || v.Kind == sqlapi.Blob {
					v.Bytes = r.Bytes(i)
				}
				v, err := value.Cast(value.Type{OID: oid, Mod: -1}, v)
				if err != nil {
					return err
				}
				v.Bytes = append([]byte(nil), v.Bytes...)
				params = append(params, v)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	b, err := st.Bind(params)
	if err != nil {
		return nil, err
	}
	return b.(*Portal), nil
}

// declare executes DECLARE: the query starts with the first FETCH, but for one
// that takes locks.
func (s *Session) declare(p *parsed) error {
	name := fold(p.Cursor.Name)
	switch {
	case !s.inBlock():
		return &sqlapi.Error{Code: "25P01", Message: "DECLARE CURSOR can only be used in transaction blocks"}
	case s.named[name] != nil:
		return &sqlapi.Error{Code: "42P03", Message: fmt.Sprintf("cursor %q already exists", p.Cursor.Name)}
	case len(s.named) >= maxNamed:
		return &sqlapi.Error{Code: "53400", Message: fmt.Sprintf("more than %d cursors in one session", maxNamed)}
	}
	st, err := s.prepare(p.Cursor.Query, nil)
	if err != nil {
		return err
	}
	switch {
	case len(st.oids) > 0:
		return &sqlapi.Error{Code: "0A000", Message: "parameters in DECLARE CURSOR are not supported"}
	case st.p.Kind != dialect.SQL || st.write:
		return &sqlapi.Error{Code: "0A000", Message: "DECLARE CURSOR for a statement that is not a query is not supported"}
	}
	po := &Portal{st: st, s: s}
	// The cursor shows what there is now: start it.
	if po.cur, err = po.open(); err != nil {
		return err
	}
	po.ran = true
	s.track(po.cur)
	if s.named == nil {
		s.named = map[string]*namedCursor{}
	}
	s.named[name] = &namedCursor{p: po}
	if !po.cur.release || po.cur.c.kind != readerConn { // in the way of what the transaction does next
		return po.cur.materialise()
	}
	return nil
}

// fetchNamed executes FETCH and MOVE.
func (s *Session) fetchNamed(p *parsed, row func(sqlapi.Row) error) (string, error) {
	cur := s.named[fold(p.Cursor.Name)]
	if cur == nil {
		return "", noCursor(p.Cursor.Name)
	}
	n := int64(0)
	if p.Cursor.Count != 0 && !cur.done {
		_, suspended, err := cur.p.fetch(int(max(p.Cursor.Count, 0)), func(r sqlapi.Row) error {
			n++
			if p.Verb == "MOVE" {
				return nil
			}
			return row(r)
		})
		if err != nil {
			return "", err
		}
		cur.done = !suspended
	}
	return p.Tag + " " + strconv.FormatInt(n, 10), nil
}

// closeNamed executes CLOSE.
func (s *Session) closeNamed(p *parsed) (string, error) {
	if p.Cursor.Name == "" {
		for _, c := range s.named {
			c.close()
		}
		s.named = nil
		return "CLOSE CURSOR ALL", nil
	}
	c := s.named[fold(p.Cursor.Name)]
	if c == nil {
		return "", noCursor(p.Cursor.Name)
	}
	c.close()
	delete(s.named, fold(p.Cursor.Name))
	return p.Tag, nil
}

func (c *namedCursor) close() {
	if c.p.cur != nil {
		c.p.cur.close()
		c.p.cur = nil
	}
}
