package session

import (
	"strings"
	"testing"
)

// TestPostgresFunctions: the values are those of PostgreSQL 15.
func TestPostgresFunctions(t *testing.T) {
	c := newEnv(t).client()
	for _, x := range []struct{ expr, want string }{
		{"greatest(1, 3, 2)", "3"}, {"least(2, 1.5)", "1.5"}, {"greatest(NULL, 'a', 'b')", "b"}, {"least(NULL, NULL)", "NULL"}, {"greatest(9007199254740993, 9007199254740992)", "9007199254740993"},
		{"repeat('ab', 3)", "ababab"}, {"repeat('ab', -1)", ""}, {"repeat(NULL, 3)", "NULL"},
		{"left('héllo', 2)", "hé"}, {"left('hello', -2)", "hel"}, {"left('hello', 99)", "hello"}, {"left('hello', -99)", ""},
		{"right('héllo', 4)", "éllo"}, {"right('hello', -2)", "llo"}, {"right('hello', 0)", ""}, {"right('hello', 99)", "hello"},
		{"lpad('7', 3, '0')", "007"}, {"lpad('hello', 3)", "hel"}, {"rpad('hi', 5, 'xy')", "hixyx"}, {"rpad('hi', 4)", "hi  "}, {"lpad('hi', -1)", ""}, {"lpad('hi', 5, '')", "hi"},
		{"reverse('añb')", "bña"}, {"strpos('höllo', 'l')", "3"}, {"strpos('x', 'y')", "0"},
		{"split_part('a,b,c', ',', 2)", "b"}, {"split_part('a,b,c', ',', -1)", "c"}, {"split_part('a,b,c', ',', 9)", ""}, {"split_part('a', '', 1)", "a"},
		{"md5('abc')", "900150983cd24fb0d6963f7d28e17f72"},
		{"date_trunc('month', '2024-02-29 13:14:15.5')", "2024-02-01 00:00:00"}, {"date_trunc('week', '2024-03-03')", "2024-02-26 00:00:00"},
		{"date_trunc('quarter', '2024-12-31')", "2024-10-01 00:00:00"}, {"date_trunc('hour', '2024-02-29T13:14:15')", "2024-02-29 13:00:00"},
	} {
		want := "[" + x.want + "]"
		if x.want == "NULL" {
			want = "NULL"
		}
		if got := c.exec("select '[' || " + x.expr + " || ']'"); got != want {
			t.Errorf("%s = %q, want %q", x.expr, got, x.want)
		}
	}
	for expr, want := range map[string]string{"repeat('x', 9999999999)": "too big", "lpad('x', 9999999999)": "too big", "split_part('a', ',', 0)": "zero",
		"date_trunc('eon', '2024-01-01')": "eon", "date_trunc('day', 'yesterday-ish')": "timestamp"} {
		if _, _, err := c.simpleQ("select " + expr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", expr, err, want)
		}
	}
}
