package sqldiff

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// kind is what an expression is made of.
type kind int

const (
	anInt kind = iota
	aReal
	aText
	aBool
	aBlob
)

// colType is a declared type with the check that the documents promise for it,
// %s being the column.
type colType struct {
	decl  string
	kind  kind
	check string
}

var colTypes = []colType{
	{"int", anInt, `CONSTRAINT "22003" CHECK (typeof(%s) IN ('integer', 'null') AND coalesce(%[1]s, 0) BETWEEN -2147483648 AND 2147483647)`},
	{"integer", anInt, `CONSTRAINT "22003" CHECK (typeof(%s) IN ('integer', 'null'))`},
	{"bigint", anInt, `CONSTRAINT "22003" CHECK (typeof(%s) IN ('integer', 'null'))`},
	{"smallint", anInt, `CONSTRAINT "22003" CHECK (typeof(%s) IN ('integer', 'null') AND coalesce(%[1]s, 0) BETWEEN -32768 AND 32767)`},
	{"double precision", aReal, `CONSTRAINT "22P02" CHECK (typeof(%s) IN ('integer', 'real', 'null'))`},
	{"numeric", aReal, `CONSTRAINT "22P02" CHECK (typeof(%s) IN ('integer', 'real', 'null'))`},
	{"text", aText, ""},
	{"varchar(6)", aText, `CONSTRAINT "22001" CHECK (length(%s) <= 6)`},
	{"boolean", aBool, `CONSTRAINT "22P02" CHECK (coalesce(%s, 0) IN (0, 1))`},
	{"blob", aBlob, ""},
}

type column struct {
	name string
	colType
}

type table struct {
	name string
	cols []column
	view bool
	key  bool // the first column is the primary key
	temp bool
}

// schema is what the generator believes to exist; statements that fail make it
// wrong now and then, which is one more kind of test.
type schema struct {
	tables  map[string]table
	indexes map[string]bool
}

func (s schema) clone() schema { return schema{maps.Clone(s.tables), maps.Clone(s.indexes)} }

// Gen makes statements.
type Gen struct {
	r     *rand.Rand
	s     schema
	saved []schema // at BEGIN and at each savepoint
	n     int      // for new names
	args  []any    // of the statement being made; nil when it gets none
	ext   bool     // values may become parameters
	fits  bool     // every value fits its column
}

// Generate makes n statements, the same for the same seed.
func Generate(seed uint64, n int) []Stmt {
	g := &Gen{r: rand.New(rand.NewPCG(seed, 0)), s: schema{map[string]table{}, map[string]bool{}}}
	var out []Stmt
	for range 2 {
		out = append(out, g.createTable())
	}
	for len(out) < n {
		out = append(out, g.statement())
	}
	if len(g.saved) > 0 {
		out = append(out, Stmt{SQL: []string{"COMMIT"}})
	}
	return out
}

func (g *Gen) one(in int) bool { return g.r.IntN(in) == 0 }

func pick[T any](g *Gen, from []T) T { return from[g.r.IntN(len(from))] }

func (g *Gen) statement() Stmt {
	if len(g.saved) > 0 && g.one(4) || g.one(14) {
		return g.transaction()
	}
	switch x := g.r.IntN(100); {
	case x < 8:
		return g.ddl()
	case x < 13: // one implicit transaction of several
		var s Stmt
		for range 2 + g.r.IntN(3) {
			s.SQL = append(s.SQL, g.dml(false).SQL[0])
		}
		return s
	case x < 16:
		return Stmt{SQL: []string{pick(g, []string{
			"SELECT * FROM nosuch", "SELECT nosuch FROM " + g.anyTable().name, "SELEC 1", "INSERT INTO " + g.anyTable().name + " (nosuch) VALUES (1)",
			"UPDATE " + g.anyTable().name + " SET nosuch = 1", "DROP TABLE nosuch", "SELECT count(*) FROM", "SELECT nosuch(1)", "DROP INDEX nosuch",
			"SELECT 1 FROM " + g.anyTable().name + " WHERE sum(1) > 0", "RELEASE nosuch", "ROLLBACK TO nosuch",
		})}, Way: Way(g.r.IntN(3))}
	case x < 60:
		return g.dml(true)
	}
	return g.parametrised(func() (string, bool) { return g.query() })
}

func (g *Gen) transaction() Stmt {
	do := func(sql string) Stmt { return Stmt{SQL: []string{sql}, Way: Way(g.r.IntN(2))} }
	if len(g.saved) == 0 {
		g.saved = append(g.saved, g.s.clone())
		return do(pick(g, []string{"BEGIN", "BEGIN TRANSACTION"}))
	}
	depth := len(g.saved) - 1 // savepoints are named by it
	switch x := g.r.IntN(10); {
	case x < 3:
		g.saved = append(g.saved, g.s.clone())
		return do(fmt.Sprintf("SAVEPOINT s%d", depth))
	case x < 5 && depth > 0:
		k := g.r.IntN(depth)
		g.s, g.saved = g.saved[k+1].clone(), g.saved[:k+2]
		return do(fmt.Sprintf("ROLLBACK TO SAVEPOINT s%d", k))
	case x < 6 && depth > 0:
		k := g.r.IntN(depth)
		g.saved = g.saved[:k+1]
		return do(fmt.Sprintf("RELEASE SAVEPOINT s%d", k))
	case x < 8:
		g.saved = nil
		return do("COMMIT")
	}
	g.s, g.saved = g.saved[0], nil
	return do("ROLLBACK")
}

var (
	parameter = regexp.MustCompile(`\$\d+`)
	compound  = regexp.MustCompile(` (UNION|EXCEPT|INTERSECT) (ALL )?SELECT `)
)

// parametrised makes a statement whose values are parameters now and then.
func (g *Gen) parametrised(f func() (string, bool)) Stmt {
	g.args, g.ext = nil, g.one(2)
	sql, ordered := f()
	// Some were made for parts that are not in the statement.
	var used []any
	sql = parameter.ReplaceAllStringFunc(sql, func(p string) string {
		i, _ := strconv.Atoi(p[1:])
		used = append(used, g.args[i-1])
		return "$" + strconv.Itoa(len(used))
	})
	s := Stmt{SQL: []string{sql}, Args: used, Ordered: ordered, Way: Way(g.r.IntN(3))}
	if s.Way == Simple && len(s.Args) > 0 {
		s.Way = Text
	}
	if s.Way == Binary && compound.MatchString(sql) {
		s.Way = Text // the first SELECT says of which type the columns are; binary refuses others
	}
	g.args, g.ext = nil, false
	return s
}

func (g *Gen) name(prefix string) string {
	g.n++
	if g.one(8) {
		return fmt.Sprintf(`"%s %d"`, strings.ToUpper(prefix), g.n)
	}
	return fmt.Sprintf("%s%d", prefix, g.n)
}

func (g *Gen) tables(ok func(table) bool) []table {
	var out []table
	for _, n := range slices.Sorted(maps.Keys(g.s.tables)) {
		if t := g.s.tables[n]; ok(t) {
			out = append(out, t)
		}
	}
	return out
}

func (g *Gen) anyTable() table {
	all := g.tables(func(table) bool { return true })
	if len(all) == 0 {
		return table{name: "t1", cols: []column{{"a", colTypes[0]}}}
	}
	return pick(g, all)
}

func (g *Gen) baseTable() table {
	all := g.tables(func(t table) bool { return !t.view })
	if len(all) == 0 {
		return table{name: "t1", cols: []column{{"a", colTypes[0]}}}
	}
	return pick(g, all)
}

func (g *Gen) createTable() Stmt {
	t := table{name: g.name("t"), key: !g.one(4), temp: g.one(12)}
	var own, ref []string
	for i := range 2 + g.r.IntN(4) {
		c := column{string(rune('a' + i)), pick(g, colTypes)}
		if i == 0 && t.key {
			c.colType = pick(g, colTypes[:4])
		}
		def, check := c.name+" "+c.decl, c.check
		switch {
		case i == 0 && t.key:
			def += " PRIMARY KEY"
			if c.decl == "integer" { // the row number: SQLite itself enforces it
				check = ""
			} else if g.one(2) {
				def += " NOT NULL"
			}
		case g.one(6):
			def += " NOT NULL DEFAULT " + g.literal(c.kind)
		case g.one(8):
			def += " UNIQUE"
		case g.one(8) && c.kind == anInt:
			def += fmt.Sprintf(" CHECK (%s < 90)", c.name)
		}
		own = append(own, def)
		if check != "" {
			def += " " + fmt.Sprintf(check, c.name)
		}
		ref, t.cols = append(ref, def), append(t.cols, c)
	}
	if parents := g.tables(func(p table) bool { return p.key && !p.view && !p.temp }); len(parents) > 0 && !t.temp && g.one(3) {
		for _, c := range t.cols[1:] {
			if c.kind == anInt {
				fk := fmt.Sprintf("FOREIGN KEY (%s) REFERENCES %s(a)%s", c.name, pick(g, parents).name,
					pick(g, []string{"", " ON DELETE CASCADE", " ON DELETE SET NULL", " DEFERRABLE INITIALLY DEFERRED"}))
				own, ref = append(own, fk), append(ref, fk)
				break
			}
		}
	}
	create := "CREATE TABLE "
	if t.temp {
		create = "CREATE TEMP TABLE "
	}
	g.s.tables[t.name] = t
	return Stmt{SQL: []string{create + t.name + " (" + strings.Join(own, ", ") + ")"}, Ref: create + t.name + " (" + strings.Join(ref, ", ") + ")"}
}

func (g *Gen) ddl() Stmt {
	do := func(f string, a ...any) Stmt { return Stmt{SQL: []string{fmt.Sprintf(f, a...)}, Way: Way(g.r.IntN(2))} }
	t := g.baseTable()
	c := pick(g, t.cols)
	switch g.r.IntN(9) {
	case 0, 1:
		if len(g.s.tables) < 6 {
			return g.createTable()
		}
		return do("CREATE TABLE %s (a int)", t.name) // exists
	case 2, 3:
		n := g.name("i")
		g.s.indexes[n] = true
		unique, where := "", ""
		if g.one(4) {
			unique = "UNIQUE "
		}
		if g.one(3) {
			where = " WHERE " + c.name + " IS NOT NULL"
		}
		return do("CREATE %sINDEX %s ON %s (%s%s)%s", unique, n, t.name, c.name, pick(g, []string{"", " DESC", ", " + t.cols[0].name}), where)
	case 4:
		if len(g.s.indexes) == 0 {
			return do("DROP INDEX IF EXISTS nosuch")
		}
		n := pick(g, slices.Sorted(maps.Keys(g.s.indexes)))
		delete(g.s.indexes, n)
		return do("DROP INDEX %s", n)
	case 5:
		v := table{name: g.name("v"), view: true}
		var list []string
		for i, x := range []kind{anInt, aText, anInt} {
			v.cols = append(v.cols, column{string(rune('a' + i)), map[kind]colType{anInt: colTypes[1], aText: colTypes[6]}[x]})
			list = append(list, g.expr(x, []table{t}, 1)+" AS "+v.cols[i].name)
		}
		if t.temp {
			return do("SELECT 1")
		}
		g.s.tables[v.name] = v
		return do("CREATE VIEW %s AS SELECT %s FROM %s", v.name, strings.Join(list, ", "), t.name)
	case 6:
		delete(g.s.tables, t.name)
		if len(g.s.tables) < 3 {
			g.s.tables[t.name] = t
			return do("DELETE FROM %s", t.name)
		}
		return do("DROP TABLE %s", t.name)
	case 7:
		n := column{fmt.Sprintf("x%d", len(t.cols)), pick(g, colTypes)}
		s := do("ALTER TABLE %s ADD COLUMN %s %s DEFAULT %s", t.name, n.name, n.decl, g.literal(n.kind))
		if n.check != "" {
			s.Ref = s.SQL[0] + " " + fmt.Sprintf(n.check, n.name)
		}
		t.cols = append(slices.Clone(t.cols), n)
		g.s.tables[t.name] = t
		return s
	}
	trigger := g.name("tr")
	to := pick(g, t.cols)
	return do("CREATE TRIGGER %s AFTER INSERT ON %s WHEN new.%s IS NULL BEGIN UPDATE %[2]s SET %[4]s = %[5]s WHERE %[3]s IS NULL; END",
		trigger, t.name, c.name, to.name, g.literal(to.kind))
}

func (g *Gen) dml(params bool) Stmt {
	t := g.baseTable()
	make := func() (string, bool) {
		switch x := g.r.IntN(10); {
		case x < 6:
			return g.insert(t), false
		case x < 9:
			set := []string{}
			for range 1 + g.r.IntN(2) {
				c := pick(g, t.cols)
				set = append(set, c.name+" = "+g.stored(c, []table{t}))
			}
			return fmt.Sprintf("UPDATE %s SET %s%s%s", t.name, strings.Join(set, ", "), g.where([]table{t}, 3), g.returning(t)), false
		}
		return fmt.Sprintf("DELETE FROM %s%s%s", t.name, " WHERE "+g.expr(aBool, []table{t}, 2), g.returning(t)), false
	}
	if params {
		return g.parametrised(make)
	}
	sql, _ := make()
	return Stmt{SQL: []string{sql}}
}

func (g *Gen) returning(t table) string {
	if !g.one(3) {
		return ""
	}
	return " RETURNING " + pick(g, []string{"*", t.cols[0].name, g.expr(anInt, []table{t}, 1) + ", " + pick(g, t.cols).name})
}

func (g *Gen) insert(t table) string {
	cols := slices.Clone(t.cols)
	// IGNORE is for the conflicts of rows: a value that its column cannot hold
	// is an error to the server, in SQLite one more constraint.
	or := ""
	switch g.r.IntN(8) {
	case 0:
		or, g.fits = "OR IGNORE ", true
		defer func() { g.fits = false }()
	case 1:
		or = "OR REPLACE "
	}
	if g.one(3) {
		g.r.Shuffle(len(cols), func(i, j int) { cols[i], cols[j] = cols[j], cols[i] })
		cols = cols[:1+g.r.IntN(len(cols))]
	}
	var names, rows []string
	for _, c := range cols {
		names = append(names, c.name)
	}
	for range 1 + g.r.IntN(3) {
		var vals []string
		for _, c := range cols {
			if c.name == "a" && t.key && !g.one(8) {
				vals = append(vals, g.value(int64(g.r.IntN(400))))
			} else {
				vals = append(vals, g.stored(c, nil))
			}
		}
		rows = append(rows, "("+strings.Join(vals, ", ")+")")
	}
	source := "VALUES " + strings.Join(rows, ", ")
	if g.one(6) {
		from := g.baseTable()
		var list []string
		for _, c := range cols {
			list = append(list, g.stored(c, []table{from}))
		}
		source = fmt.Sprintf("SELECT %s FROM %s%s", strings.Join(list, ", "), from.name, g.where([]table{from}, 1))
	}
	conflict := ""
	if or == "" && g.one(6) {
		if t.key && !strings.HasPrefix(source, "SELECT") {
			c := pick(g, t.cols)
			conflict = pick(g, []string{" ON CONFLICT (a) DO NOTHING", fmt.Sprintf(" ON CONFLICT (a) DO UPDATE SET %s = excluded.%[1]s", c.name)})
		}
	}
	return fmt.Sprintf("INSERT %sINTO %s (%s) %s%s%s", or, t.name, strings.Join(names, ", "), source, conflict, g.returning(t))
}

// stored is a value for a column: of its type, as PostgreSQL's conversions are
// not SQLite's, but out of its range or too long now and then; by an expression,
// as a literal is refused even where no row is written.
func (g *Gen) stored(c column, from []table) string {
	switch {
	case g.one(12):
		return "NULL"
	case g.fits:
		return g.literal(c.kind)
	case g.one(20) && c.kind == anInt:
		return pick(g, []string{"(70000 + 0)", "(3000000000 + 0)", "(-40000 - 0)"})
	case g.one(20) && c.kind == aText:
		return "('longer than' || ' six')"
	case from != nil && g.one(2):
		return g.expr(c.kind, from, 1)
	}
	return g.literal(c.kind)
}

func (g *Gen) where(from []table, depth int) string {
	if g.one(5) {
		return ""
	}
	return " WHERE " + g.expr(aBool, from, depth)
}
