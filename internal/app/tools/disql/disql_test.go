package disql

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"datawatch/internal/app/tools"
	"datawatch/internal/sql/views"
)

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     []string
		rest     string
	}{
		{"two on a line", "a; b;", []string{"a", "b"}, ""},
		{"over lines", "select\n1\n;", []string{"select\n1"}, ""},
		{"string", "select 'a;b'';c';", []string{"select 'a;b'';c'"}, ""},
		{"string over lines", "select 'a;\nb';", []string{"select 'a;\nb'"}, ""},
		{"identifiers", "select \";\", `;`, [;];", []string{"select \";\", `;`, [;]"}, ""},
		{"line comment", "select 1 -- a;b\n;", []string{"select 1 -- a;b"}, ""},
		{"block comment", "select /* ; */ 1;", []string{"select /* ; */ 1"}, ""},
		{"comment over lines", "/* ;\n; */ select 1;", []string{"/* ;\n; */ select 1"}, ""},
		{"only comments", "-- nothing;\n/* ; */;", nil, ""},
		{"trigger", "CREATE TRIGGER t AFTER INSERT ON a BEGIN\nUPDATE b SET x = 1; DELETE FROM c;\nEND;\nselect 1;", []string{"CREATE TRIGGER t AFTER INSERT ON a BEGIN\nUPDATE b SET x = 1; DELETE FROM c;\nEND", "select 1"}, ""},
		{"temp trigger", "create temp trigger t delete on a begin select 1; end;", []string{"create temp trigger t delete on a begin select 1; end"}, ""},
		{"column named end", "select 1 as \"end\"; x;", []string{"select 1 as \"end\"", "x"}, ""},
		{"slash ends", "select 1\n/\nselect 2\n/", []string{"select 1", "select 2"}, ""},
		{"division", "select 4\n/2;", []string{"select 4\n/2"}, ""},
		{"slash in a string", "select '\n/\n';", []string{"select '\n/\n'"}, ""},
		{"unfinished", "select 1; select", []string{"select 1"}, "select"},
		{"command after a statement", "a; \\d t\nb;", []string{"a", `\d t`, "b"}, ""},
		{"minus minus only", "select 1 - -1;", []string{"select 1 - -1"}, ""},
		{"star slash after slash star", "/*/ ; */ a;", []string{"/*/ ; */ a"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s splitter
			var got []string
			for _, l := range strings.Split(c.in, "\n") {
				got = append(got, s.Feed(l)...)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if rest := s.Rest(); rest != c.rest {
				t.Errorf("rest %q, want %q", rest, c.rest)
			}
		})
	}
}

func TestParseLogin(t *testing.T) {
	for _, c := range []struct {
		in   string
		want login
		bad  bool
	}{
		{"", login{"SYSDBA", "", false, "localhost", 5236, "DAMENG", ""}, false},
		{"SYSDBA/SYSDBA@127.0.0.1:32141", login{"SYSDBA", "SYSDBA", true, "127.0.0.1", 32141, "DAMENG", ""}, false},
		{"u/a@b@h:1", login{"u", "a@b", true, "h", 1, "DAMENG", ""}, false},
		{`u/"a/b@c"@[::1]:5/db`, login{"u", "a/b@c", true, "::1", 5, "db", ""}, false},
		{"u@10.0.0.1", login{"u", "", false, "10.0.0.1", 5236, "DAMENG", ""}, false},
		{"u/p@dw_svc", login{"u", "p", true, "dw_svc", 5236, "DAMENG", "dw_svc"}, false},
		{"@dw_svc", login{"SYSDBA", "", false, "dw_svc", 5236, "DAMENG", "dw_svc"}, false},
		{"u/p@", login{}, true},
		{"/p@h:1", login{}, true},
		{"u/p@h:99999", login{}, true},
		{"u/p@h:x", login{}, true},
	} {
		got, err := parseLogin(c.in)
		if (err != nil) != c.bad || !c.bad && got != c.want {
			t.Errorf("%q: %+v, %v", c.in, got, err)
		}
		if c.bad && tools.ExitCode(err) != tools.ExitUsage {
			t.Errorf("%q: exit code %d", c.in, tools.ExitCode(err))
		}
		if err != nil && strings.Contains(err.Error(), "/p") {
			t.Errorf("%q: the message shows the password: %v", c.in, err)
		}
	}
}

// server is a PostgreSQL server that knows a few statements. It answers on one
// port of this machine until the test ends.
func server(t *testing.T, mode string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(c, mode)
		}
	}()
	return ln.Addr().String()
}

func serve(c net.Conn, mode string) {
	defer c.Close()
	b := pgproto3.NewBackend(c, c)
	for {
		m, err := b.ReceiveStartupMessage()
		if err != nil {
			return
		}
		if _, ok := m.(*pgproto3.StartupMessage); ok {
			break
		}
		if _, err := c.Write([]byte("N")); err != nil { // no TLS
			return
		}
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if b.Flush() != nil {
		return
	}
	row := func(names []string, rows ...[][]byte) {
		var fs []pgproto3.FieldDescription
		for _, n := range names {
			fs = append(fs, pgproto3.FieldDescription{Name: []byte(n), DataTypeOID: 25})
		}
		b.Send(&pgproto3.RowDescription{Fields: fs})
		for _, r := range rows {
			b.Send(&pgproto3.DataRow{Values: r})
		}
		b.Send(&pgproto3.CommandComplete{CommandTag: []byte(fmt.Sprintf("SELECT %d", len(rows)))})
	}
	for {
		m, err := b.Receive()
		if err != nil {
			return
		}
		q, ok := m.(*pgproto3.Query)
		if !ok {
			return
		}
		switch q.String {
		case "rows":
			row([]string{"a", "b"}, [][]byte{[]byte("1"), nil}, [][]byte{[]byte("x\ty\n\\"), []byte("\x1b[2J")})
		case "SELECT MODE$ FROM V$INSTANCE":
			row([]string{"MODE$"}, [][]byte{[]byte(mode)})
		case "insert":
			b.Send(&pgproto3.NoticeResponse{Severity: "NOTICE", Message: "heed this"})
			b.Send(&pgproto3.CommandComplete{CommandTag: []byte("INSERT 0 1")})
		default:
			b.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: "42601", Message: "syntax error near " + q.String, Hint: "try rows"})
		}
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if b.Flush() != nil {
			return
		}
	}
}

func runDisql(t *testing.T, stdin string, args ...string) (int, string, string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "stdin")
	if err := os.WriteFile(name, []byte(stdin), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var out, errOut bytes.Buffer
	code := Main(t.Context(), args, in, &out, &errOut)
	return code, out.String(), errOut.String()
}

func TestScripts(t *testing.T) {
	addr := server(t, "Primary")
	to := "SYSDBA/SYSDBA@" + addr
	script := filepath.Join(t.TempDir(), "s.sql")
	if err := os.WriteFile(script, []byte("insert; -- comment\nrows;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const rows = "1\t\\N\nx\\ty\\n\\\\\t\x1b[2J\n"
	for _, c := range []struct {
		name        string
		args        []string
		stdin       string
		code        int
		out, errOut string // wanted: out exactly, errOut as a part
	}{
		{"plain rows", []string{to, "-e", "rows"}, "", 0, rows, ""},
		{"from standard input", []string{to}, "rows;\nexit\nrows;\n", 0, rows, ""},
		{"from a file, notice", []string{to, "-f", script}, "", 0, rows, "NOTICE: heed this"},
		{"stops at an error", []string{to, "-e", "bad; rows;"}, "", 1, "", "ERROR: syntax error near bad (SQLSTATE 42601)\n  hint: try rows"},
		{"goes on after an error", []string{to, "-continue", "-e", "bad; rows;"}, "", 1, rows, "SQLSTATE 42601"},
		{"script in a script", []string{to, "-e", `\i ` + script}, "", 0, rows, ""},
		{"no such script", []string{to, "-f", "/does/not/exist"}, "", 2, "", "no such file"},
		{"not logged in", []string{"/nolog", "-e", "rows"}, "", 1, "", "not logged in"},
		{"logs in later", []string{"/nolog", "-e", "conn " + to + "\nrows;"}, "", 0, rows, ""},
		{"unknown option", []string{"-z"}, "", 2, "", "unexpected argument"},
		{"unknown command", []string{to, "-e", `\z`}, "", 2, "", "unknown command"},
		{"nobody there", []string{"a/b@127.0.0.1:1"}, "", 1, "", "connect to 127.0.0.1:1"},
		{"no password in a script", []string{"a@" + addr}, "", 2, "", "no password"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errOut := runDisql(t, c.stdin, c.args...)
			if code != c.code || out != c.out || !strings.Contains(errOut, c.errOut) || c.errOut != "" && strings.Count(errOut, c.errOut) != 1 {
				t.Errorf("exit %d\nout %q\nerr %q", code, out, errOut)
			}
		})
	}
	t.Run("tables", func(t *testing.T) {
		code, out, _ := runDisql(t, "", to, "-table", "-e", `rows; insert; \x
rows;`)
		for _, want := range []string{"│ a", "NULL", `\x1b[2J`, "2 rows   used time:", "INSERT 0 1   used time:"} {
			if !strings.Contains(out, want) {
				t.Errorf("exit %d, %q is missing in\n%s", code, want, out)
			}
		}
		if strings.Contains(out, "\x1b[2J") {
			t.Error("data reached the terminal unescaped")
		}
	})
}

// LOGIN_MODE decides between the servers of a service, whichever comes first.
func TestService(t *testing.T) {
	primary, standby := server(t, "Primary"), server(t, "Standby")
	conf := filepath.Join(t.TempDir(), "dm_svc.conf")
	t.Setenv("DM_SVC_CONF", conf)
	for _, c := range []struct {
		mode int
		want string
		code int
	}{{0, "Primary", 0}, {1, "Primary", 0}, {2, "Standby", 0}, {3, "Standby", 0}, {4, "Primary", 0}} {
		text := fmt.Sprintf("dw_svc=(127.0.0.1:1,%s,%s)\nLOGIN_MODE=(%d)\nSWITCH_INTERVAL=(1)\n", standby, primary, c.mode)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			code, out, errOut := runDisql(t, "", "a/b@dw_svc", "-e", "SELECT MODE$ FROM V$INSTANCE")
			if code != c.code || out != c.want+"\n" {
				t.Errorf("LOGIN_MODE %d: exit %d, %q, %q", c.mode, code, out, errOut)
			}
		}
	}
	if err := os.WriteFile(conf, []byte("dw_svc=("+standby+")\nLOGIN_MODE=(1)\nSWITCH_INTERVAL=(1)\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := runDisql(t, "", "a/b@dw_svc", "-e", "rows"); code != 1 || !strings.Contains(errOut, "is Standby, not what LOGIN_MODE = 1 asks for") {
		t.Errorf("exit %d, %q", code, errOut)
	}
	if err := os.WriteFile(conf, []byte("dw_svc=(x:y)\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := runDisql(t, "", "a/b@dw_svc", "-e", "rows"); code != 2 || !strings.Contains(errOut, "dm_svc.conf:1") {
		t.Errorf("exit %d, %q", code, errOut)
	}
}

func TestHelp(t *testing.T) {
	var out bytes.Buffer
	if code := Main(context.Background(), []string{"help"}, os.Stdin, &out, &out); code != 0 || !strings.Contains(out.String(), "Exit status") {
		t.Errorf("exit %d, %s", code, out.String())
	}
}

// TestTabKnowsEveryView: Tab completes the names of all views.
func TestTabKnowsEveryView(t *testing.T) {
	for _, v := range views.All() {
		if !slices.Contains(words, v.Name) {
			t.Errorf("Tab does not know %s", v.Name)
		}
	}
}
