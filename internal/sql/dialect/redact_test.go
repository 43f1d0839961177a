package dialect

import (
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	for _, x := range []struct{ in, always, all string }{
		{"select 1", "select 1", "select 1"},
		{"insert into t values('a', $$b$$, 3) -- it's", "insert into t values('a', $$b$$, 3) -- it's", "insert into t values('?', '?', 3) -- it's"},
		{`alter user u identified by "secret"`, "alter user u identified by '***'", "alter user u identified by '***'"},
		{`create user u identified by secret limit x 3`, "create user u identified by '***' limit x 3", "create user u identified by '***' limit x 3"},
		{`alter user u identified by "secret" replace "secret"`, "alter user u identified by '***' replace '***'", "alter user u identified by '***' replace '***'"},
		{"create role r login password 'secret'", "create role r login password '***'", "create role r login password '***'"},
		{"ALTER ROLE r WITH ENCRYPTED PASSWORD E'secret' CREATEDB", "ALTER ROLE r WITH ENCRYPTED PASSWORD '***' CREATEDB", "ALTER ROLE r WITH ENCRYPTED PASSWORD '***' CREATEDB"},
		{"update u set passwd = 'secret', a='b' where sysdba_pwd='secret'", "update u set passwd = '***', a='b' where sysdba_pwd='***'", "update u set passwd = '***', a='?' where sysdba_pwd='***'"},
		{"alter user u password 'secret", "(a statement with a password)", "(a statement with a password)"},
		{"select 'secret", "select 'secret", "select ..."},
	} {
		got, hidden := Redact(x.in, false)
		if got != x.always || hidden != (got != x.in) {
			t.Errorf("%q: %q (%v), want %q", x.in, got, hidden, x.always)
		}
		if got, _ := Redact(x.in, true); got != x.all {
			t.Errorf("%q with literals: %q, want %q", x.in, got, x.all)
		}
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("alter user u identified by \"x\" replace 'y'")
	f.Fuzz(func(t *testing.T, s string) {
		for _, lit := range []bool{false, true} {
			Redact(s, lit)
		}
		if out, _ := Redact("alter user u identified by 'Zq8secret' "+strings.ReplaceAll(s, "Zq8secret", ""), true); strings.Contains(out, "Zq8secret") {
			t.Errorf("%q shows the password: %q", s, out)
		}
	})
}
