package scan

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"pgregory.net/rapid"
)

func init() { strict = true }

// file is a database file as a Source.
type file struct {
	data []byte
	ps   int
}

func (f *file) Page(no uint32, buf []byte) ([]byte, error) {
	at := (int(no) - 1) * f.ps
	if no == 0 || at+f.ps > len(f.data) {
		return nil, errors.New("beyond the end")
	}
	return f.data[at : at+f.ps : at+f.ps], nil
}

// database is a plain SQLite database made by statements, and its file.
func database(tb testing.TB, pageSize int, sql string) (*sqlite3.Conn, *file) {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "db")
	c, err := sqlite3.Open("file:" + path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	if err := c.Exec(fmt.Sprintf("pragma page_size=%d; pragma synchronous=off; ", pageSize) + sql); err != nil {
		tb.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return c, &file{data, pageSize}
}

func compileSQL(c *sqlite3.Conn, sql string) (*Program, error) {
	st, _, err := c.Prepare("EXPLAIN " + sql)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	var list []Instr
	for st.Step() {
		list = append(list, Instr{Op: st.ColumnText(1), P1: st.ColumnInt(2), P2: st.ColumnInt(3), P3: st.ColumnInt(4), P4: st.ColumnText(5),
			HasP4: st.ColumnType(5) != sqlite3.NULL, P5: st.ColumnInt(6)})
	}
	return Compile(list)
}

func (v Value) show() string {
	switch v.Kind {
	case Int:
		return fmt.Sprint("i", v.n)
	case Real:
		return fmt.Sprintf("r%x", uint64(v.n))
	case Text, Blob:
		return fmt.Sprintf("%d%q", v.Kind, v.Bytes)
	}
	return "null"
}

func show(rows [][]Value) string {
	var b strings.Builder
	for _, r := range rows {
		for _, v := range r {
			b.WriteString(v.show() + " ")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// bySQLite is what SQLite answers.
func bySQLite(tb fataler, c *sqlite3.Conn, sql string) (string, error) {
	st, _, err := c.Prepare(sql)
	if err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	defer st.Close()
	var rows [][]Value
	for st.Step() {
		var r []Value
		for i := range st.ColumnCount() {
			switch st.ColumnType(i) {
			case sqlite3.INTEGER:
				r = append(r, IntValue(st.ColumnInt64(i)))
			case sqlite3.FLOAT:
				r = append(r, Value{Kind: Real, n: int64(math.Float64bits(st.ColumnFloat(i)))})
			case sqlite3.TEXT:
				r = append(r, TextValue([]byte(st.ColumnText(i))))
			case sqlite3.BLOB:
				r = append(r, BlobValue(st.ColumnBlob(i, nil)))
			default:
				r = append(r, Value{})
			}
		}
		rows = append(rows, r)
	}
	return show(rows), st.Err()
}

type fataler interface{ Fatalf(string, ...any) }

// equal runs a statement both ways, the executor with each number of workers, and
// reports whether the executor did it.
func equal(tb fataler, c *sqlite3.Conn, f *file, sql string, workers ...int) bool {
	p, err := compileSQL(c, sql)
	if err != nil {
		if !errors.Is(err, ErrUnsupported) {
			tb.Fatalf("%s: %v", sql, err)
		}
		return false
	}
	want, failed := bySQLite(tb, c, sql)
	for _, n := range workers {
		rows, err := p.Run(context.Background(), f, Options{Workers: n})
		switch {
		case errors.Is(err, ErrUnsupported):
			return false
		case err != nil:
			tb.Fatalf("%s: %v", sql, err)
		case failed != nil:
			tb.Fatalf("%s: the executor answers %s, SQLite %v", sql, show(rows), failed)
		}
		if got := show(rows); got != want {
			tb.Fatalf("%s with %d workers:\n%sSQLite:\n%s", sql, n, got, want)
		}
	}
	return true
}

// literal draws a value as SQL, of all kinds and near the borders.
func literal() *rapid.Generator[string] {
	ints := rapid.SampledFrom([]string{"0", "1", "-1", "2", "7", "127", "128", "-128", "-129", "32767", "32768", "-32769", "8388607", "8388608", "-8388609",
		"2147483647", "2147483648", "140737488355327", "140737488355328", "4503599627370496", "9007199254740993", "1000000000000000000", "-1000000000000000000"})
	reals := rapid.SampledFrom([]string{"0.0", "-0.0", "0.1", "0.5", "1.0", "2.0", "-1.5", "1e15", "1e16", "1e300", "-1e300", "9007199254740992.0", "0.30000000000000004", "1e-300", "7.25"})
	texts := rapid.SampledFrom([]string{"''", "'a'", "'A'", "'b'", "'ab'", "'2024-01-01'", "'ä'", "'zzzzzzzzzzzzzzzzzzzzzzzz'", "x''", "x'00'", "x'6162'"})
	return rapid.OneOf(ints, ints, reals, texts, rapid.Just("NULL"), rapid.Map(rapid.Int64Range(-50, 50), func(n int64) string { return fmt.Sprint(n) }),
		rapid.Map(rapid.Float64Range(-100, 100), func(f float64) string { return fmt.Sprintf("%.17g", f) }))
}

// TestDifferential: generated tables and statements are answered as by SQLite, to
// the bit, whatever the number of workers and the size of pages.
func TestDifferential(t *testing.T) {
	done, all := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		types := []string{"", "int", "text", "real", "numeric", "blob", "varchar(9)", "boolean"}
		var cols []string
		for i := range rapid.IntRange(1, 4).Draw(rt, "columns") {
			cols = append(cols, fmt.Sprintf("c%d %s", i, rapid.SampledFrom(types).Draw(rt, "type")))
		}
		var b strings.Builder
		key := rapid.SampledFrom([]string{"", "id integer primary key, "}).Draw(rt, "key")
		fmt.Fprintf(&b, "create table t(%s%s); begin;", key, strings.Join(cols, ", "))
		v := literal()
		n := rapid.SampledFrom([]int{0, 1, 5, 40, 300}).Draw(rt, "rows")
		var pool []string
		for range rapid.IntRange(1, 12).Draw(rt, "pool") {
			pool = append(pool, v.Draw(rt, "value"))
		}
		names := make([]string, len(cols))
		for i := range cols {
			names[i] = fmt.Sprintf("c%d", i)
		}
		seed := rapid.IntRange(0, 1000).Draw(rt, "seed")
		for i := range n {
			vals := make([]string, len(cols))
			for j := range vals {
				vals[j] = pool[(i*7919+j*31+seed+i*i)%len(pool)]
			}
			fmt.Fprintf(&b, "insert into t(%s) values(%s);", strings.Join(names, ","), strings.Join(vals, ","))
		}
		b.WriteString("commit;")
		if rapid.Bool().Draw(rt, "holes") {
			b.WriteString("delete from t where rowid % 3 = 1;")
		}
		c, f := database(t, rapid.SampledFrom([]int{512, 1024, 4096}).Draw(rt, "page"), b.String())
		defer c.Close()
		col := rapid.SampledFrom(append(names, "rowid"))
		term := rapid.Custom(func(rt *rapid.T) string {
			a := col.Draw(rt, "col")
			switch rapid.IntRange(0, 6).Draw(rt, "term") {
			case 0:
				return a + " is null"
			case 1:
				return a + " is not null"
			case 2:
				return fmt.Sprintf("%s between %s and %s", a, v.Draw(rt, "low"), v.Draw(rt, "high"))
			case 3:
				return fmt.Sprintf("%s in (%s, %s, %s, %s)", a, v.Draw(rt, "1"), v.Draw(rt, "2"), v.Draw(rt, "3"), v.Draw(rt, "4"))
			case 4:
				return a + " is not " + v.Draw(rt, "value")
			case 5:
				return fmt.Sprintf("%s %s %s", a, rapid.SampledFrom([]string{"<", "<=", "=", "<>", ">", ">="}).Draw(rt, "op"), col.Draw(rt, "other"))
			}
			return fmt.Sprintf("%s %s %s", a, rapid.SampledFrom([]string{"<", "<=", "=", "<>", ">", ">="}).Draw(rt, "op"), v.Draw(rt, "value"))
		})
		for range 8 {
			arg := rapid.Custom(func(rt *rapid.T) string {
				a := col.Draw(rt, "arg")
				switch rapid.IntRange(0, 5).Draw(rt, "form") {
				case 0:
					return fmt.Sprintf("%s %s %s", a, rapid.SampledFrom([]string{"+", "-", "*", "/", "%"}).Draw(rt, "op"), v.Draw(rt, "value"))
				case 1:
					return fmt.Sprintf("case when %s then %s else %s end", term.Draw(rt, "when"), a, v.Draw(rt, "else"))
				}
				return a
			})
			var items []string
			group := ""
			if rapid.Bool().Draw(rt, "group") {
				g := rapid.SampledFrom(names).Draw(rt, "by")
				items, group = append(items, g), " group by "+g
				if rapid.Bool().Draw(rt, "two") {
					g2 := arg.Draw(rt, "by2")
					items, group = append(items, g2), group+", "+g2
				}
				group += rapid.SampledFrom([]string{"", " having count(*) > 1", " order by 1 desc", " order by count(*), 1"}).Draw(rt, "after")
			}
			for range rapid.IntRange(1, 3).Draw(rt, "items") {
				it := fmt.Sprintf("%s(%s)", rapid.SampledFrom([]string{"count", "sum", "total", "avg", "min", "max"}).Draw(rt, "agg"), arg.Draw(rt, "arg"))
				if rapid.IntRange(0, 4).Draw(rt, "filter") == 0 {
					it += " filter (where " + term.Draw(rt, "when") + ")"
				}
				items = append(items, it)
			}
			sql := "select " + strings.Join(append(items, "count(*)"), ", ") + " from t"
			if rapid.Bool().Draw(rt, "where") {
				sql += " where " + term.Draw(rt, "and") + rapid.SampledFrom([]string{" and ", " or "}).Draw(rt, "junction") + term.Draw(rt, "and")
			}
			all++
			if equal(rt, c, f, sql+group, rapid.IntRange(1, 4).Draw(rt, "workers")) {
				done++
			}
		}
	})
	if done*2 < all {
		t.Errorf("the executor did %d of %d statements only", done, all)
	}
	t.Logf("the executor did %d of %d statements", done, all)
}

// TestLarge: trees of several levels, values over many pages, sums of doubles that
// depend on the order of the rows, integers before and after doubles.
func TestLarge(t *testing.T) {
	c, f := database(t, 1024, `create table t(id integer primary key, a int, r real, n numeric, s text, m);
		with recursive g(i) as (select 1 union all select i+1 from g where i<60000) insert into t
		select i, (i*7919)%1000, (i*7919)%1000/7.0, case when i<30000 then i else i/3.0 end, case when i%5000=0 then hex(zeroblob(i)) else 's'||i%70 end,
		case when i%1000=999 then 0.1 else i end from g`)
	for _, sql := range []string{
		"select count(*), sum(a), min(a), max(a), avg(a) from t where a >= 0",
		"select sum(r), avg(r), total(r), min(r), max(r) from t",
		"select sum(n), avg(n), total(n), sum(m), avg(m) from t",
		"select min(s), max(s), count(s) from t where a < 999",
		"select a, count(*), sum(r), avg(n), max(id), sum(m) from t group by a",
		"select s, count(*), sum(r) from t where a > 3 group by s",
		"select a, sum(r) filter (where id % 7 = 0) from t group by a order by 2",
	} {
		if !equal(t, c, f, sql, 1, 2, 5) {
			p, err := compileSQL(c, sql)
			t.Errorf("%s: not done (%v, %v)", sql, p != nil, err)
		}
	}
}

// TestBorders: where a bit can be lost. Tables have one row in a leaf, so that
// chunks have few rows, unless small says otherwise.
func TestBorders(t *testing.T) {
	wide := func(values ...string) string {
		var b strings.Builder
		b.WriteString("create table t(id integer primary key, v, w text); begin;")
		for i, v := range values {
			fmt.Fprintf(&b, "insert into t values(%d, %s, hex(zeroblob(150)));", i+1, v)
		}
		return b.String() + "commit;"
	}
	zeros := func(n int) []string {
		z := make([]string, n)
		for i := range z {
			z[i] = "0"
		}
		return z
	}
	with := func(at map[int]string) []string {
		z := zeros(400)
		for i, v := range at {
			z[i] = v
		}
		return z
	}
	const all = "select count(v), sum(v), total(v), avg(v), min(v), max(v) from t"
	for _, c := range []struct {
		name   string
		values []string
		sql    string
		done   bool
	}{
		{"integers", with(map[int]string{3: "9223372036854775000", 399: "-5"}), all, true},
		{"overflow at the end", with(map[int]string{3: "9223372036854775800", 399: "100"}), all, false},
		{"overflow on the way", with(map[int]string{3: "9223372036854775800", 300: "100", 301: "-1000"}), all, false},
		{"overflow on the way down", with(map[int]string{3: "-9223372036854775800", 300: "-100", 301: "1000"}), all, false},
		{"overflow within a chunk", with(map[int]string{3: "9223372036854775800", 4: "100", 5: "-1000"}), all, false},
		{"the first of equals", with(map[int]string{1: "7", 2: "7.0", 3: "-7.0", 4: "-7"}), all, true},
		{"the first of equals, far away", with(map[int]string{1: "7.0", 300: "7", 3: "-7", 301: "-7.0"}), all, true},
		{"a double last", with(map[int]string{100: "4611686018427387904", 200: "4611686018427387903", 399: "0.5"}), all, true},
		{"a double first", with(map[int]string{0: "0.5", 100: "9007199254740993", 200: "4611686018427387903", 300: "-4611686018427387905"}), all, true},
		{"rounding", with(map[int]string{0: "1e16", 100: "1.0", 200: "-1e16", 300: "0.1", 301: "0.2"}), all, true},
		{"beyond doubles", with(map[int]string{0: "1e308", 100: "1e308", 200: "-1e308"}), all, true},
		{"infinite", with(map[int]string{0: "9e999", 100: "1.5", 200: "7"}), all, true},
		{"equal keys", with(map[int]string{1: "7", 2: "7.0", 200: "7.0", 201: "7", 300: "'7'", 301: "x'37'"}), "select v, typeof(v) is not null, count(*) from t group by v", false},
		{"equal keys", with(map[int]string{1: "7", 2: "7.0", 200: "7.0", 201: "7", 300: "'7'", 301: "x'37'"}), "select v, count(*), sum(id) from t group by v", true},
		{"equal keys and a column of the largest", with(map[int]string{1: "7", 2: "7.0"}), "select v, max(id) from t group by v", false},
		{"equal keys in two chunks", with(map[int]string{1: "7", 300: "7.0"}), "select v, max(id) from t group by v", false},
		{"negative zero", with(map[int]string{1: "-0.0", 2: "0.0"}), "select v, count(*) from t group by v", true},
		{"integers and doubles side by side", with(map[int]string{1: "9007199254740993", 2: "9007199254740992.0"}), "select v, count(*) from t where v >= 9007199254740992.0 group by v", true},
	} {
		db, f := database(t, 512, wide(c.values...))
		if done := equal(t, db, f, c.sql, 1, 3); done != c.done {
			t.Errorf("%s: done: %v", c.name, done)
		}
	}
	// Every length of a payload around those that fit a page.
	for _, ps := range []int{512, 1024} {
		c, f := database(t, ps, fmt.Sprintf(`create table t(id integer primary key, a text, b int);
			with recursive g(i) as (select 0 union all select i+1 from g where i < %d) insert into t select i, substr(hex(zeroblob(%[1]d)), 1, i), i from g`, 3*ps))
		for _, sql := range []string{"select min(a), max(a), count(a), sum(b), max(b) from t where b >= 0", "select a, sum(b) from t group by a"} {
			if !equal(t, c, f, sql, 2) {
				t.Errorf("pages of %d: %s: not done", ps, sql)
			}
		}
	}
}

// TestRefused: programs that are not this executor's, and why.
func TestRefused(t *testing.T) {
	c, f := database(t, 4096, `create table t(a int, b text collate nocase, c text); create index ti on t(c); create table w(a integer primary key, b) without rowid;
		create table g(a int, v int generated always as (a+1) stored); insert into t values(1,'x','y'); insert into w values(1,2)`)
	for sql, want := range map[string]string{
		"select count(*) from w where b > 1":                           "ordinary table",
		"select count(*) from t where b = 'X'":                         "collation",
		"select min(b) from t":                                         "collation",
		"select count(*) from t where c = 'y'":                         "",
		"select count(c) from t":                                       "ordinary table",
		"select max(a), c from t":                                      "bare column",
		"select count(*) from t, w where t.a = w.b":                    "",
		"select a from t where a > 3":                                  "opcode",
		"select count(distinct a) from t":                              "",
		"select sum(a) from t where c like 'a%'":                       "opcode",
		"select sum(a) from t union select sum(a) from t":              "",
		"select sum(a) from t where a > (select max(b) from w)":        "",
		"select group_concat(c) from t where a > 1":                    "aggregate",
		"select sum(random()) from t":                                  "",
		"select random(), sum(a) from t":                               "function",
		"select count(*) from sqlite_schema where rootpage > 1":        "ordinary table",
		"insert into t select sum(a), 1, 2 from t":                     "",
		"select sum(a) from (select a from t limit 1)":                 "",
		"select sum(a) over () from t":                                 "",
		"select sum(abs(a)) from t":                                    "",
		"select count(*) from pragma_table_info('t') where name > 'a'": "",
	} {
		p, err := compileSQL(c, sql)
		if err == nil {
			t.Errorf("%s: taken: %+v", sql, p)
		} else if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", sql, err, want)
		}
	}
	// Another schema, and an end on request.
	p, err := compileSQL(c, "select sum(a) from t where a > 0")
	if err != nil {
		t.Fatal(err)
	}
	q := *p
	q.Cookie++
	if _, err := q.Run(t.Context(), f, Options{}); !errors.Is(err, ErrStale) {
		t.Errorf("another schema: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Run(ctx, f, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// Groups beyond the memory are SQLite's.
	c2, f2 := database(t, 4096, "create table t(a int); with recursive g(i) as (select 1 union all select i+1 from g where i<20000) insert into t select i from g")
	if p, err = compileSQL(c2, "select a, count(*) from t group by a"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Run(t.Context(), f2, Options{Memory: 1 << 20, Workers: 2}); !errors.Is(err, errMemory) {
		t.Errorf("too many groups: %v", err)
	}
}

// FuzzPages: a damaged file is an error or a result, and nothing else; results of
// the undamaged one are SQLite's.
func FuzzPages(f *testing.F) {
	c, db := database(f, 512, `create table t(id integer primary key, a int, r real, s text);
		with recursive g(i) as (select 1 union all select i+1 from g where i<400) insert into t
		select i*1000, i, i/3.0, case when i%50=0 then hex(zeroblob(i*3)) else 's'||i%7 end from g`)
	var progs []*Program
	for _, sql := range []string{"select count(*), sum(a), min(s), max(r), sum(r) from t where a > 0", "select s, count(*), sum(r) from t group by s"} {
		p, err := compileSQL(c, sql)
		if err != nil {
			f.Fatal(err)
		}
		if !equal(f, c, db, sql, 2) {
			f.Fatalf("%s: not done", sql)
		}
		progs = append(progs, p)
	}
	f.Add(uint32(0), []byte{0})
	f.Add(uint32(512), []byte{5, 0, 0, 255, 255})
	f.Add(uint32(513), []byte{13, 255})
	f.Add(uint32(1024), []byte{13, 0, 0, 0, 200})
	f.Add(uint32(2000), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, at uint32, with []byte) {
		d := &file{append([]byte(nil), db.data...), db.ps}
		copy(d.data[int(at)%len(d.data):], with)
		for _, p := range progs {
			_, _ = p.Run(t.Context(), d, Options{Workers: 2, Memory: 8 << 20})
		}
	})
}

// FuzzCompile: no list of instructions is the end of the program.
func FuzzCompile(f *testing.F) {
	c, db := database(f, 512, `create table t(id integer primary key, a int, s text); insert into t values(1, 2, 'a'), (2, 3, 'b')`)
	var lists [][]Instr
	for _, sql := range []string{"select count(*), sum(a), min(s) from t where a in (1, 2, 3, 4) and s > 'a'", "select s, count(*), sum(a) from t group by s having count(*) > 0 order by 2"} {
		st, _, err := c.Prepare("EXPLAIN " + sql)
		if err != nil {
			f.Fatal(err)
		}
		var list []Instr
		for st.Step() {
			list = append(list, Instr{Op: st.ColumnText(1), P1: st.ColumnInt(2), P2: st.ColumnInt(3), P3: st.ColumnInt(4), P4: st.ColumnText(5), P5: st.ColumnInt(6)})
		}
		st.Close()
		lists = append(lists, list)
		f.Add(uint8(len(lists)-1), uint16(5), uint8(0), int32(3))
	}
	f.Fuzz(func(t *testing.T, which uint8, at uint16, field uint8, v int32) {
		list := append([]Instr(nil), lists[int(which)%len(lists)]...)
		in := &list[int(at)%len(list)]
		switch field % 6 {
		case 0:
			in.P1 = int(v)
		case 1:
			in.P2 = int(v)
		case 2:
			in.P3 = int(v)
		case 3:
			in.P5 = int(v)
		case 4:
			in.Op = lists[0][int(uint32(v))%len(lists[0])].Op
		default:
			in.P4 = fmt.Sprint(v)
		}
		p, err := Compile(list)
		if err != nil {
			if !errors.Is(err, ErrUnsupported) {
				t.Fatal(err)
			}
			return
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, _ = p.Run(&stepsCtx{Context: ctx, left: 50}, db, Options{Workers: 1, Memory: 1 << 20})
	})
}

// stepsCtx ends after it was asked so many times: a changed program may not end.
type stepsCtx struct {
	context.Context
	left int
}

func (c *stepsCtx) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}
