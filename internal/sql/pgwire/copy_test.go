package pgwire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"datawatch/internal/sql/sqlapi"

	"github.com/jackc/pgx/v5/pgconn"
)

// copyBackend is the fake backend, with "copyin" and "copyout" in text format
// and "copyin csv": the columns are an int4 and a text.
type copyBackend struct {
	*fakeBackend
	rows [][]sqlapi.Value
}

func (b *copyBackend) NewSession(ctx context.Context, info sqlapi.Info, n sqlapi.Notify) (sqlapi.Session, error) {
	s, err := b.fakeBackend.NewSession(ctx, info, n)
	if err != nil {
		return nil, err
	}
	return &copySession{s.(*fakeSession), b}, nil
}

type copySession struct {
	*fakeSession
	b *copyBackend
}

func (s *copySession) Prepare(ctx context.Context, sql string, oids []uint32) (sqlapi.Stmt, error) {
	st, err := s.fakeSession.Prepare(ctx, sql, oids)
	if err != nil || !strings.HasPrefix(sql, "copy") {
		return st, err
	}
	return &copyStmt{st, s, sql}, nil
}

type copyStmt struct {
	sqlapi.Stmt
	s   *copySession
	sql string
}

func (t *copyStmt) Bind(v []sqlapi.Value) (sqlapi.Portal, error) {
	p, err := t.Stmt.Bind(v)
	return &copyPortal{p, t}, err
}

type copyPortal struct {
	sqlapi.Portal
	t *copyStmt
}

func (p *copyPortal) Copy() *sqlapi.Copy {
	f := &sqlapi.Copy{In: strings.HasPrefix(p.t.sql, "copyin"), Delimiter: '\t', Null: `\N`, Columns: []sqlapi.Column{
		{Name: "a", OID: oidInt4, TypeMod: -1}, {Name: "b", OID: oidText, TypeMod: -1}}}
	f.Binary = strings.Contains(p.t.sql, "binary")
	if strings.Contains(p.t.sql, "csv") {
		f.CSV, f.Delimiter, f.Null, f.Quote, f.Escape = true, ',', "", '"', '"'
	}
	if strings.Contains(p.t.sql, "header") {
		f.Header, f.Match = true, true
	}
	return f
}

func (p *copyPortal) Run(_ context.Context, _ int, row func(sqlapi.Row) error) (string, bool, error) {
	for _, r := range p.t.s.b.rows {
		if err := row(fakeRow(r)); err != nil {
			return "", false, err
		}
	}
	return fmt.Sprintf("COPY %d", len(p.t.s.b.rows)), false, nil
}

func (p *copyPortal) CopyIn(ctx context.Context, next func(context.Context) ([]sqlapi.Value, error)) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-p.t.s.stop:
			cancel(&sqlapi.Error{Code: "57014", Message: "cancelled"})
		case <-p.t.s.done:
			cancel(p.t.s.term)
		case <-ended:
		}
	}()
	var rows [][]sqlapi.Value
	for {
		r, err := next(ctx)
		if errors.Is(err, io.EOF) {
			p.t.s.b.rows = rows
			return fmt.Sprintf("COPY %d", len(rows)), nil
		} else if err != nil {
			return "", err
		}
		var row []sqlapi.Value
		for _, v := range r {
			v.Bytes = append([]byte(nil), v.Bytes...)
			row = append(row, v)
		}
		rows = append(rows, row)
		if len(rows) == 1 && p.t.s.f.hanging != nil {
			p.t.s.f.hanging <- struct{}{}
		}
	}
}

func copyServer(t *testing.T) (*copyBackend, *pgconn.PgConn) {
	b := &copyBackend{fakeBackend: newFake()}
	_, addr := serve(t, b.fakeBackend, func(s *Server) { s.Backend, s.MaxMessage = b, 1<<20 })
	c, err := pgconn.Connect(t.Context(), "postgres://SYSDBA:SYSDBA@"+addr+"/x?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return b, c
}

func show(rows [][]sqlapi.Value) string {
	var out []string
	for _, r := range rows {
		s := fmt.Sprint(r[0].Int) + "="
		if r[1].Kind == sqlapi.Null {
			s += "null"
		} else {
			s += fmt.Sprintf("%q", r[1].Bytes)
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func TestCopyIn(t *testing.T) {
	b, c := copyServer(t)
	long := strings.Repeat("x", 100_000)
	for _, x := range []struct{ name, sql, in, want, code string }{
		{"plain", "copyin", "1\ta\n2\tb\n", `1="a" 2="b"`, ""},
		{"no end of line", "copyin", "1\ta", `1="a"`, ""},
		{"windows", "copyin", "1\ta\r\n2\tb\r\n", `1="a" 2="b"`, ""},
		{"nothing", "copyin", "", "", ""},
		{"nulls and escapes", "copyin", "1\t\\N\n2\t\\\\N\\t\\x41\\101\\\nq\n", `1=null 2="\\N\tAA\nq"`, ""},
		{"end mark", "copyin", "1\ta\n\\.\nrubbish", `1="a"`, ""},
		{"long line", "copyin", "1\t" + long + "\n2\tb\n", fmt.Sprintf("1=%q 2=\"b\"", long), ""},
		{"too long line", "copyin", "1\t" + strings.Repeat("x", 3<<20) + "\n", "", "54000"},
		{"bad integer", "copyin", "1\ta\nx\tb\n", "", "22P02"},
		{"too few", "copyin", "1\n", "", "22P04"}, {"too many", "copyin", "1\ta\tb\n", "", "22P04"},
		{"not UTF-8", "copyin", "1\t\xff\n", "", "22021"},
		{"csv", "copyin csv", "1,a\n2,\n3,\"\"\n4,\"x,\"\"y\"\"\nz\"\r\n5,p\"q\"r\n", `1="a" 2=null 3="" 4="x,\"y\"\nz" 5="pqr"`, ""},
		{"csv open quote", "copyin csv", "1,\"a\n", "", "22P04"},
		{"csv header", "copyin csv header", "a,b\n1,x\n", `1="x"`, ""},
		{"csv wrong header", "copyin csv header", "a,c\n1,x\n", "", "22P04"},
	} {
		for _, one := range []bool{false, true} {
			b.rows = nil
			var r io.Reader = strings.NewReader(x.in)
			if one {
				if len(x.in) > 1000 {
					continue
				}
				r = iotest.OneByteReader(r)
			}
			tag, err := c.CopyFrom(t.Context(), r, x.sql)
			code := ""
			if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
				code = e.Code
			} else if err != nil {
				t.Fatalf("%s: %v", x.name, err)
			}
			if got := show(b.rows); got != x.want || code != x.code {
				t.Errorf("%s: %s %s %v, want %s %s", x.name, got, tag, err, x.want, x.code)
			}
		}
	}
	if _, err := c.Exec(t.Context(), "insert").ReadAll(); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// TestCopyEnds: the client fails, is cancelled, disappears, or is ended.
func TestCopyEnds(t *testing.T) {
	b, c := copyServer(t)
	fail := io.MultiReader(strings.NewReader("1\ta\n"), iotest.ErrReader(errors.New("no more of this")))
	if _, err := c.CopyFrom(t.Context(), fail, "copyin"); err == nil || !strings.Contains(err.Error(), "no more of this") {
		t.Errorf("CopyFail: %v", err)
	}
	for len(b.hanging) > 0 {
		<-b.hanging
	}
	// While end is called the client goes on sending, as pgconn would
	// otherwise not look at what the server says.
	during := func(end func()) error {
		pr, pw := io.Pipe()
		done := make(chan error, 1)
		go func() {
			_, err := c.CopyFrom(t.Context(), pr, "copyin")
			pr.Close()
			done <- err
		}()
		fmt.Fprint(pw, "1\ta\n")
		<-b.hanging
		end()
		for {
			if _, err := fmt.Fprint(pw, "2\tb\n"); err != nil {
				return <-done
			}
		}
	}
	err := during(func() {
		if err := c.CancelRequest(t.Context()); err != nil {
			t.Error(err)
		}
	})
	if e := (*pgconn.PgError)(nil); !errors.As(err, &e) || e.Code != "57014" {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := c.Exec(t.Context(), "insert").ReadAll(); err != nil {
		t.Errorf("after a cancelled COPY: %v", err)
	}
	err = during(func() {
		b.last.Load().Terminate(&sqlapi.Error{Severity: "FATAL", Code: "57P01", Message: "ended"})
	})
	if err == nil { // the connection goes away; whether its last words are read depends on the client
		t.Error("a terminated COPY succeeded")
	}
}

func TestCopyOut(t *testing.T) {
	b, c := copyServer(t)
	b.rows = [][]sqlapi.Value{
		{{Kind: sqlapi.Integer, Int: 1}, {Kind: sqlapi.Text, Bytes: []byte("a\tb\\\n")}},
		{{Kind: sqlapi.Integer, Int: 2}, {}},
		{{Kind: sqlapi.Integer, Int: 3}, {Kind: sqlapi.Text, Bytes: []byte(`x,"y"`)}},
		{{Kind: sqlapi.Integer, Int: 4}, {Kind: sqlapi.Text}},
	}
	for sql, want := range map[string]string{
		"copyout":            "1\ta\\tb\\\\\\n\n2\t\\N\n3\tx,\"y\"\n4\t\n",
		"copyout csv header": "a,b\n1,\"a\tb\\\n\"\n2,\n3,\"x,\"\"y\"\"\"\n4,\"\"\n",
	} {
		var out strings.Builder
		tag, err := c.CopyTo(t.Context(), &out, sql)
		if err != nil || out.String() != want || tag.String() != "COPY 4" {
			t.Errorf("%s: %q %s %v, want %q", sql, out.String(), tag, err, want)
		}
	}
}
