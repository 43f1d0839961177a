package dialect

import (
	"errors"
	"slices"
	"sort"
	"strings"

	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/sql/value"
)

// edit replaces src[start:end] by text; open edits at one place nest.
type edit struct {
	start, end int
	text       string
}

// cast is a :: cast: the token where its operand starts, and its type.
type cast struct {
	from int
	typ  Type
}

// sql makes the statement that SQLite gets: its command tag and its rewriting.
func (p *parser) sql() (*Statement, error) {
	st := &Statement{Kind: SQL}
	t := p.toks
	verb := t[0]
	if verb.is("WITH") {
		verb = mainVerb(t)
	}
	second := func(skip ...string) string {
		for _, x := range t[1:] {
			if x.kind == tIdent && !x.in(skip...) {
				return x.up
			}
			if x.kind != tIdent {
				break
			}
		}
		return ""
	}
	switch {
	case verb.in("SELECT", "VALUES"), verb.is("("):
		st.Tag = "SELECT"
	case verb.in("INSERT", "REPLACE"):
		st.Tag, st.Rows = "INSERT", true
	case verb.in("UPDATE", "DELETE"):
		st.Tag, st.Rows = verb.up, true
	case verb.is("TRUNCATE"):
		st.Tag = "TRUNCATE TABLE"
		n := 1
		if len(t) > n && t[n].is("TABLE") {
			n++
		}
		if len(t) > n && t[n].is("ONLY") {
			n++
		}
		end := len(t)
		for end > n && t[end-1].in("CASCADE", "RESTRICT", "IDENTITY", "RESTART", "CONTINUE") {
			end--
		}
		if end != n+1 && !(end == n+3 && t[n+1].is(".")) || !t[n].isName() {
			return nil, unexpected(p.s, t, min(n+1, len(t)))
		}
		st.edits = append(st.edits, edit{t[0].start, t[n].start, "DELETE /* TRUNCATE */ FROM "})
		if end < len(t) {
			st.edits = append(st.edits, edit{t[end-1].end, len(p.s), ""})
		}
	case verb.is("CREATE"):
		w := second("TEMP", "TEMPORARY", "LOCAL", "GLOBAL", "UNIQUE", "OR", "REPLACE")
		st.Tag = "CREATE " + w
		for i := 1; i < len(t) && i < 4; i++ {
			if t[i].in("TEMP", "TEMPORARY") {
				st.Temp = true
			}
			if t[i].in("LOCAL", "GLOBAL") {
				st.edits = append(st.edits, edit{t[i].start, t[i].end, ""})
			}
		}
		for i := 2; i+1 < len(t) && i < 8; i++ {
			if t[i].isName() && strings.EqualFold(t[i].val, "temp") && t[i+1].is(".") {
				st.Temp = true
			}
		}
	case verb.is("DROP"):
		st.Tag = "DROP " + second()
		if last := t[len(t)-1]; len(t) > 3 && last.in("CASCADE", "RESTRICT") {
			st.edits = append(st.edits, edit{last.start, last.end, ""})
		}
	case verb.is("ALTER"):
		st.Tag = "ALTER " + second()
	case verb.is("EXPLAIN"):
		st.Tag = "EXPLAIN"
		return p.explain(st)
	case verb.kind == tIdent:
		st.Tag = verb.up
	default:
		return nil, unexpected(p.s, t, 0)
	}
	return st, nil
}

// explain: EXPLAIN [VERBOSE] x becomes EXPLAIN QUERY PLAN x.
func (p *parser) explain(st *Statement) (*Statement, error) {
	t := p.toks
	if len(t) > 1 && t[1].is("QUERY") {
		return st, nil
	}
	i := 1
	for i < len(t) && t[i].in("VERBOSE", "ANALYZE", "ANALYSE") || i < len(t) && t[i].is("(") {
		if t[i].in("ANALYZE", "ANALYSE") {
			return unsupported("EXPLAIN ANALYZE"), nil
		}
		if t[i].is("(") {
			for i < len(t) && !t[i].is(")") {
				if t[i].in("ANALYZE", "ANALYSE") {
					return unsupported("EXPLAIN ANALYZE"), nil
				}
				if t[i].in("SELECT", "VALUES", "WITH") {
					return nil, unexpected(p.s, t, i)
				}
				i++
			}
		}
		i++
	}
	if i >= len(t) {
		return nil, unexpected(p.s, t, i)
	}
	st.edits = append(st.edits, edit{t[0].start, t[i].start, "EXPLAIN QUERY PLAN "})
	return st, nil
}

// mainVerb is the verb after the common table expressions.
func mainVerb(t []token) token {
	depth := 0
	for _, x := range t[1:] {
		switch {
		case x.is("("):
			depth++
		case x.is(")"):
			depth--
		case depth == 0 && x.in("SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "VALUES"):
			return x
		}
	}
	return t[0]
}

var niladic = map[string]string{
	"CURRENT_USER": "current_user()", "SESSION_USER": "session_user()", "CURRENT_CATALOG": "current_catalog()",
	"CURRENT_ROLE": "current_role()", "CURRENT_SCHEMA": "current_schema()",
	"LOCALTIMESTAMP": "now()", "SYSDATE": "now()",
}

// rewrite makes SQL from Text.
func (st *Statement) rewrite() error {
	t := st.toks
	if t[0].is("SELECT") || t[0].is("WITH") || t[0].is("(") {
		t = st.forUpdate(t)
	}
	if t[0].is("REINDEX") {
		t = st.reindex(t)
	}
	create := t[0].in("CREATE", "ALTER")
	var err error
	switch st.Tag {
	case "CREATE TABLE", "CREATE UNLOGGED":
		st.Tag = "CREATE TABLE"
		if st.refused, err = st.createTable(t); err != nil {
			return err
		}
	case "DROP TABLE":
		st.Moves = true
	case "ALTER TABLE":
		for _, x := range t {
			st.Moves = st.Moves || x.is("RENAME") || x.is("DROP")
		}
		st.Renamed = renames(t)
		if err := st.addColumn(t); err != nil {
			return err
		}
	case "CREATE INDEX":
		if i := storageTail(t); i > 0 {
			st.refused = st.dropTail(t, i)
		}
	}
	for i := 0; i < len(t); i++ {
		x := t[i]
		if last, ok := st.pgSyntax(t, i); ok {
			i = last
			continue
		}
		afterDot := i > 0 && t[i-1].is(".")
		next := func(s string) bool { return i+1 < len(t) && t[i+1].is(s) }
		switch {
		case x.kind == tString && x.up != "":
			if strings.IndexByte(x.val, 0) >= 0 {
				return &SyntaxError{"invalid byte in string", x.start}
			}
			st.replace(x, quoteString(x.val))
		case x.is("::"):
			n, err := st.castAt(t, i)
			if err != nil {
				return err
			}
			i = n - 1
		case x.is("CAST") && next("("):
			st.castCall(t, i)
		case x.kind != tIdent && x.kind != tQuoted:
		case x.is("ILIKE"):
			st.replace(x, "MATCH")
		case x.kind == tIdent && i > 0 && t[i-1].is("AS") && !create && x.in("DEFAULT", "TABLE", "INDEX", "CHECK", "UNIQUE", "PRIMARY", "REFERENCES", "FOREIGN", "ORDER", "GROUP", "LIMIT", "CONSTRAINT", "TO", "ADD"):
			st.replace(x, QuoteName(strings.ToLower(x.val))) // any word may be a title
		case next(".") && !afterDot && schemaName(x):
			if x.kind == tIdent && strings.EqualFold(x.val, "pg_catalog") {
				st.edits = append(st.edits, edit{x.start, t[i+1].end, ""})
			} else {
				st.replace(x, "main")
			}
		case x.kind == tQuoted || afterDot:
		case niladic[x.up] != "" && !next("(") && !next("."):
			if i > 0 && t[i-1].is("AS") {
				break
			}
			st.replace(x, niladic[x.up])
		case x.is("FROM") && next("DUAL") && !(i+2 < len(t) && t[i+2].in(".", "(")):
			st.edits = append(st.edits, edit{x.start, t[i+1].end, ""})
			i++
		case x.in("DATE", "TIMESTAMP", "TIME", "TIMESTAMPTZ") && i+1 < len(t) && t[i+1].kind == tString && t[i+1].up == "":
			oid := typeNames[x.up]
			v, err := value.Assign(value.Type{OID: oid, Mod: -1}, sqlapi.Value{Kind: sqlapi.Text, Bytes: []byte(t[i+1].val)})
			if err != nil {
				var e *sqlapi.Error
				if errors.As(err, &e) {
					return &ValueError{Err: e, Offset: t[i+1].start}
				}
				return err
			}
			st.edits = append(st.edits, edit{x.start, t[i+1].end, value.SQL(v)})
			i++
		case create && x.is("USING") && next("BTREE"):
			st.edits = append(st.edits, edit{x.start, t[i+1].end, ""})
			i++
		}
	}
	st.edits = append(st.edits, st.late...)
	st.apply()
	return nil
}

func schemaName(x token) bool {
	return strings.EqualFold(x.val, "public") || strings.EqualFold(x.val, "sysdba") || strings.EqualFold(x.val, "pg_catalog")
}

func (st *Statement) replace(x token, s string) {
	st.edits = append(st.edits, edit{x.start, x.end, s})
}

// forUpdate cuts a trailing FOR UPDATE clause.
func (st *Statement) forUpdate(t []token) []token {
	depth := 0
	for i, x := range t {
		switch {
		case x.is("("):
			depth++
		case x.is(")"):
			depth--
		case depth == 0 && x.is("FOR") && i > 0 && i+1 < len(t) && t[i+1].in("UPDATE", "SHARE", "NO", "KEY"):
			st.ForUpdate = true
			for _, y := range t[i:] {
				st.NoWait = st.NoWait || y.is("NOWAIT")
			}
			st.edits = append(st.edits, edit{x.start, t[len(t)-1].end, ""})
			return t[:i]
		}
	}
	return t
}

// castAt rewrites "operand :: type" at token i and returns the token after it.
func (st *Statement) castAt(t []token, i int) (int, error) {
	from := operand(t, i-1, st.casts)
	typ, next := parseType(t, i+1)
	if from < 0 || next < 0 {
		return 0, unexpected(st.Text, t, i)
	}
	open, shut := typ.wrap()
	st.edits = append(st.edits, edit{t[from].start, t[from].start, open},
		edit{t[i].start, t[next-1].end, shut})
	if st.casts == nil {
		st.casts = map[int]cast{}
	}
	st.casts[next-1] = cast{from, shown(typ)}
	return next, nil
}

// shown is the type that clients see of a cast.
func shown(t Type) Type {
	switch t.OID {
	case RegClass, RegType, RegProc, RegNamespace:
		return Type{Text, -1}
	}
	return t
}

// castCall rewrites the type in CAST(x AS type) where SQLite would read
// something else into its name.
func (st *Statement) castCall(t []token, i int) {
	end := closing(t, i+1)
	if end < 0 {
		return
	}
	depth := 0
	for j := i + 2; j < end; j++ {
		switch {
		case t[j].is("("):
			depth++
		case t[j].is(")"):
			depth--
		case depth == 0 && t[j].is("AS"):
			typ, next := parseType(t, j+1)
			if next != end {
				return
			}
			open, shut := typ.wrap()
			st.edits = append(st.edits, edit{t[i].start, t[i+1].end, open}, edit{t[j].start, t[end].end, shut})
			if st.casts == nil {
				st.casts = map[int]cast{}
			}
			st.casts[end] = cast{i, shown(typ)}
			return
		}
	}
}

// operand finds the first token of the primary expression that ends at j.
func operand(t []token, j int, casts map[int]cast) int {
	if j < 0 {
		return -1
	}
	if c, ok := casts[j]; ok {
		return c.from
	}
	x := t[j]
	switch {
	case x.is(")"):
		k := opening(t, j)
		if k > 0 && t[k-1].isName() && !t[k-1].in("IN", "AND", "OR", "NOT", "WHERE", "SELECT", "VALUES", "THEN", "ELSE", "WHEN",
			"ON", "SET", "BY", "LIKE", "BETWEEN", "CASE", "AS", "HAVING", "LIMIT", "RETURNING", "DISTINCT", "EXISTS") {
			k--
			for k > 1 && t[k-1].is(".") && t[k-2].isName() {
				k -= 2
			}
		} else if k > 0 && t[k-1].is("EXISTS") {
			k--
		}
		return k
	case x.is("END"):
		for k, depth := j-1, 1; k >= 0; k-- {
			if t[k].is("END") {
				depth++
			} else if t[k].is("CASE") {
				if depth--; depth == 0 {
					return k
				}
			}
		}
		return -1
	case x.isName():
		for j > 1 && t[j-1].is(".") && t[j-2].isName() {
			j -= 2
		}
		return j
	case x.kind == tString, x.kind == tNumber, x.kind == tParam:
		if x.kind == tString && j > 0 && t[j-1].in("DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIME", "INTERVAL", "X") && t[j-1].end <= x.start {
			return j - 1
		}
		return j
	}
	return -1
}

func opening(t []token, j int) int {
	for depth := 0; j >= 0; j-- {
		if t[j].is(")") {
			depth++
		} else if t[j].is("(") {
			if depth--; depth == 0 {
				return j
			}
		}
	}
	return -1
}

func closing(t []token, i int) int {
	for depth := 0; i < len(t); i++ {
		if t[i].is("(") {
			depth++
		} else if t[i].is(")") {
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// apply builds SQL. At one place, insertions come before replacements.
func (st *Statement) apply() {
	if len(st.edits) == 0 {
		st.SQL = st.Text
		return
	}
	st.sorted = slices.Clone(st.edits)
	slices.Reverse(st.sorted) // of insertions at one place the later ones are outside
	sort.SliceStable(st.sorted, func(i, j int) bool {
		a, b := st.sorted[i], st.sorted[j]
		if a.start != b.start {
			return a.start < b.start
		}
		return a.end == a.start && b.end != b.start
	})
	var b strings.Builder
	at := 0
	for _, e := range st.sorted {
		if e.start < at { // inside something already replaced
			continue
		}
		b.WriteString(st.Text[at:e.start])
		b.WriteString(e.text)
		at = e.end
	}
	b.WriteString(st.Text[at:])
	st.SQL = b.String()
}

// Offset maps an offset in SQL to one in Text.
func (st *Statement) Offset(n int) int {
	at, out := 0, 0 // positions in Text and in SQL
	for _, e := range st.sorted {
		if e.start < at {
			continue
		}
		if n < out+e.start-at {
			break
		}
		out += e.start - at
		at = e.start
		if n < out+len(e.text) {
			return at
		}
		out += len(e.text)
		at = e.end
	}
	return min(at+n-out, len(st.Text))
}
