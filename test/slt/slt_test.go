package slt

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/ncruces/go-sqlite3"
)

const sample = `# a comment
hash-threshold 8

statement ok
CREATE TABLE t(a INTEGER, b TEXT)

onlyif mysql # not ours
statement ok
INSERT INTO t VALUES (9, 'nine')

skipif mysql
onlyif sqlite
statement ok
INSERT INTO t VALUES (2, 'two'),
  (1, NULL), (3, '')

statement error
INSERT INTO nosuch VALUES (1)

query IT rowsort label
SELECT a, b FROM t
----
1
NULL
2
two
3
(empty)

query TI valuesort
SELECT b, a FROM t WHERE a < 3 ORDER BY a
----
1
2
NULL
two

query R nosort
SELECT a / 4.0 FROM t
----
0.500
0.250
0.750

query IIIII nosort
SELECT 1,2,3,4,5 UNION ALL SELECT 1,2,3,4,5
----
10 values hashing to ` + sampleHash + `

skipif sqlite
halt

query I nosort
SELECT a FROM t WHERE 0
----

onlyif sqlite
halt

nonsense that is never reached
`

// of "1\n2\n3\n4\n5\n" twice, by md5sum.
const sampleHash = "b12a55333be37465b2c886127502e4e3"

func runOn(t *testing.T, text string, deviations ...Deviation) (Counts, []string) {
	t.Helper()
	db, err := sqlite3.Open(":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var got []string
	r := Runner{Primary: SQLite{db}, Deviations: deviations, Errorf: func(f string, a ...any) { got = append(got, fmt.Sprintf(f, a...)) }}
	n, err := r.Run(t.Context(), fstest.MapFS{"a.test": {Data: []byte(text)}}, "a.test")
	if err != nil {
		t.Fatal(err)
	}
	return n, got
}

func TestRun(t *testing.T) {
	n, got := runOn(t, sample)
	if want := (Counts{Files: 1, Statements: 3, Queries: 5}); len(got) > 0 || n != want {
		t.Errorf("%+v, want %+v; differences: %q", n, want, got)
	}
}

// TestDifferences: each wrong expectation is noticed.
func TestDifferences(t *testing.T) {
	for _, x := range []struct{ from, to, want string }{
		{"NULL\n2\ntwo", "NULL\n2\nthree", "two"},
		{"3\n(empty)\n", "", "two"},
		{"(3, '')", "(3, 'x')", "(empty)"},
		{"0.250", "0.251", "0.250"},
		{sampleHash, strings.Repeat("0", 32), "hashing to " + sampleHash},
		{"10 values", "9 values", "10 values"},
		{"statement error", "statement ok", "no such table: nosuch"},
		{"statement ok\nCREATE", "statement error\nCREATE", "was accepted"},
		{"query R nosort", "query RR nosort", "1 columns, want 2"},
		{"query I nosort", "query I nosort label", "earlier query of label"},
		{"IT rowsort", "IT nosort", `"2" "two" "1"`},
		{"skipif sqlite\nhalt", "skipif mysql\nhalt", ""}, // ends early, without a difference
		{"onlyif mysql", "skipif mysql", "nine"},
	} {
		changed := strings.Replace(sample, x.from, x.to, 1)
		if changed == sample {
			t.Fatalf("%q is not in the sample", x.from)
		}
		n, got := runOn(t, changed)
		if all := strings.Join(got, "\n"); !strings.Contains(all, x.want) || (len(got) == 0) != (x.want == "") {
			t.Errorf("%q for %q: %q, want %q", x.to, x.from, all, x.want)
		}
		if x.want == "" && n.Queries != 4 {
			t.Errorf("%q for %q: %d queries", x.to, x.from, n.Queries)
		}
	}
}

func TestDeviations(t *testing.T) {
	text := "query I nosort\nSELECT 2\n----\n1\n\nstatement ok\nSELECT nosuch\n"
	two := Deviation{File: "a.test", Line: 1, Answer: "2"}
	none := Deviation{File: "a.test", Line: 6, Answer: "1"} // SQLITE_ERROR
	other := two
	other.Answer = "3"
	for _, x := range []struct {
		list []Deviation
		want int
	}{{nil, 2}, {[]Deviation{two}, 1}, {[]Deviation{two, none}, 0}, {[]Deviation{other, none}, 2}, {[]Deviation{two, none, {File: "a.test", Line: 9}}, 1}} {
		if _, got := runOn(t, text, x.list...); len(got) != x.want {
			t.Errorf("%v: differences %q, want %d", x.list, got, x.want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, x := range []struct{ text, want string }{
		{"statement maybe\nSELECT 1", "line 1: not a record"},
		{"\nquery X\nSELECT 1", `line 2: column types "X"`},
		{"query I upside\nSELECT 1", `line 1: sort mode "upside"`},
		{"what", "line 1: not a record"},
	} {
		if _, err := Parse(strings.NewReader(x.text), "sqlite"); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%q: %v, want %s", x.text, err, x.want)
		}
	}
}

func TestValue(t *testing.T) {
	for _, x := range []struct {
		typ                   byte
		text                  string
		number, boolean, null bool
		want                  string
	}{
		{'I', "12", true, false, false, "12"}, {'I', "-3.9", true, false, false, "-3"}, {'I', "1e3", true, false, false, "1000"},
		{'I', "12abc", false, false, false, "12"}, {'I', "true", false, false, false, "0"}, {'I', "", false, false, false, "0"},
		{'I', "t", false, true, false, "1"}, {'R', "f", false, true, false, "0.000"}, {'T', "t", false, false, false, "t"},
		{'R', "2", true, false, false, "2.000"}, {'R', "-0.0005", true, false, false, "-0.001"}, {'R', "x", false, false, false, "0.000"},
		{'T', "", false, false, false, "(empty)"}, {'T', "a\tb\x7f", false, false, false, "a@b@"}, {'I', "", false, false, true, "NULL"},
	} {
		if got := Value(x.typ, x.text, x.number, x.boolean, x.null); got != x.want {
			t.Errorf("%c %q: %q, want %q", x.typ, x.text, got, x.want)
		}
	}
}

// TestSQLiteDeviates: where the list says that plain SQLite differs from the
// file as well, it does, and answers what the list says.
func TestSQLiteDeviates(t *testing.T) {
	corpus, err := Corpus(Selection)
	if err != nil {
		t.Fatal(err)
	}
	files, err := Files(corpus)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !strings.HasPrefix(file, "evidence/") {
			continue
		}
		var own []Deviation
		for _, d := range Deviations {
			if d.File == file && d.SQLite != "" {
				d.Answer = d.SQLite
				own = append(own, d)
			}
		}
		db, err := sqlite3.Open(":memory:")
		if err != nil {
			t.Fatal(err)
		}
		r := Runner{Primary: SQLite{db}, Deviations: own, Errorf: t.Errorf}
		if _, err := r.Run(t.Context(), corpus, file); err != nil {
			t.Error(err)
		}
		db.Close()
	}
	for _, d := range Deviations {
		if !slices.Contains(files, d.File) || d.Reason == "" {
			t.Errorf("%s:%d: no such file, or no reason", d.File, d.Line)
		}
		if d.SQLite != "" && !strings.HasPrefix(d.File, "evidence/") {
			t.Errorf("%s:%d: SQLite's answer is not checked there", d.File, d.Line)
		}
	}
}
