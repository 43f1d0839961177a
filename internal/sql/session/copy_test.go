package session

import (
	"context"
	"errors"
	"io"
	"testing"

	"datawatch/internal/sql/sqlapi"
)

// copyRows runs COPY FROM STDIN with rows of one integer; the error ends them.
func copyRows(t *testing.T, s sqlapi.Session, sql string, end error, rows ...int64) (string, error) {
	t.Helper()
	if _, err := s.Split(sql); err != nil {
		t.Fatal(err)
	}
	st, err := s.Prepare(t.Context(), sql, nil)
	if err != nil {
		return "", err
	}
	defer st.Close()
	if st.Columns() != nil || st.ParamOIDs() != nil {
		t.Errorf("COPY is described with columns %v and parameters %v", st.Columns(), st.ParamOIDs())
	}
	p, err := st.Bind(nil)
	if err != nil {
		return "", err
	}
	defer p.Close()
	tag, err := p.(sqlapi.Copier).CopyIn(t.Context(), func(context.Context) ([]sqlapi.Value, error) {
		if len(rows) == 0 {
			return nil, end
		}
		v := sqlapi.Value{Kind: sqlapi.Integer, Int: rows[0]}
		rows = rows[1:]
		return []sqlapi.Value{v}, nil
	})
	if serr := s.Sync(t.Context(), err != nil); serr != nil {
		t.Error(serr)
	}
	return tag, err
}

func TestCopyIn(t *testing.T) {
	e := newEnv(t)
	c := e.client()
	c.exec("create table t(a int primary key, b text default 'd')")
	for _, x := range []struct {
		name, sql string
		end       error
		rows      []int64
		tag, code string
		count     string
	}{
		{"rows", "copy t(a) from stdin", io.EOF, []int64{1, 2, 3}, "COPY 3", "", "3"},
		{"duplicate", "copy t(a) from stdin", io.EOF, []int64{4, 1}, "", "23505", "3"},
		{"out of range", "copy t(a) from stdin", io.EOF, []int64{4, 1 << 40}, "", "22003", "3"},
		{"the client fails", "copy t(a) from stdin", &sqlapi.Error{Code: "57014", Message: "x"}, []int64{4}, "", "57014", "3"},
		{"nothing", "copy t(a) from stdin", io.EOF, nil, "COPY 0", "", "3"},
		{"no table", "copy u from stdin", io.EOF, nil, "", "42P01", "3"},
		{"no column", "copy t(z) from stdin", io.EOF, nil, "", "42703", "3"},
		{"column twice", "copy t(a, A) from stdin", io.EOF, nil, "", "42701", "3"},
		{"users", "copy sysusers from stdin", io.EOF, nil, "", "42501", "3"},
	} {
		tag, err := copyRows(t, c.Session, x.sql, x.end, x.rows...)
		code := ""
		if se := (*sqlapi.Error)(nil); errors.As(err, &se) {
			code = se.Code
		}
		if tag != x.tag || code != x.code {
			t.Errorf("%s: %q %v, want %q %s", x.name, tag, err, x.tag, x.code)
		}
		if got := c.exec("select count(*) from t"); got != x.count {
			t.Errorf("%s: %s rows", x.name, got)
		}
	}
	c.exec("begin")
	if tag, err := copyRows(t, c.Session, "copy t(a) from stdin", io.EOF, 10); tag != "COPY 1" || err != nil {
		t.Errorf("in a transaction: %q %v", tag, err)
	}
	c.exec("rollback")
	if got := c.exec("select count(*) from t"); got != "3" {
		t.Errorf("after ROLLBACK: %s rows", got)
	}
}

func TestAddConstraint(t *testing.T) {
	e := newEnv(t)
	c := e.client()
	c.exec("create table a(x int, y text); create index ay on a(y); insert into a values(1,'p'),(2,'q'); create table b(x int)")
	for _, x := range []struct{ sql, code string }{
		{"alter table a add primary key (nosuch)", "42703"}, {"alter table nosuch add primary key (x)", "42P01"},
		{"alter table a add constraint c check (x > 1)", "23514"}, {"alter table sysusers add unique (name)", "42501"},
		{"alter table a add primary key (x)", ""}, {"alter table a add primary key (y)", "42P16"},
		{"insert into a values(1,'r')", "23505"}, {"insert into a values(null,'r')", ""},
		{"alter table only b add constraint fk foreign key (x) references a(x)", ""}, {"insert into b values(77)", "23503"},
		{"alter table a add unique (y)", "0A000"},
		{"begin; drop table if exists b, nosuch; truncate table a; drop table if exists zz, zy; rollback", ""},
	} {
		code := ""
		if _, _, err := c.simpleQ(x.sql); err != nil {
			code = codeOf(t, err)
		}
		if code != x.code {
			t.Errorf("%s: %q, want %q", x.sql, code, x.code)
		}
		if c.TxStatus() != sqlapi.TxIdle {
			c.exec("rollback")
		}
	}
	if got := c.exec("select group_concat(x || y) || (select count(*) from b) || (select count(*) from sqlite_schema where name = 'ay') from a"); got != "1p,2q,3r01" {
		t.Errorf("rows, tables, indexes: %s", got)
	}
}
