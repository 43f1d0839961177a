package dialect

import (
	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/sql/value"
)

// Place is an expression whose value goes into a column of a table, or a string
// that is compared with one. What becomes of it depends on the column's type,
// which only the session knows.
type Place struct {
	Table    string // "": any table that the statement names
	Column   string // or
	Pos      int    // the 1-based position among the table's columns
	Compared bool   // not assigned

	Kind  PlaceKind
	Param int    // PlaceParam: n of $n
	Text  string // PlaceString: its value; PlaceNumber: as written, with its sign
	At    int    // offset in the text

	lo, hi int // tokens
	op     int // PlaceMath: the operator
}

// PlaceKind is the form of the expression.
type PlaceKind uint8

const (
	PlaceExpr PlaceKind = iota
	PlaceString
	PlaceNumber // with a decimal point or an exponent, or beyond 32 bits
	PlaceParam
	PlaceDefault // the word DEFAULT
	PlaceMath    // an addition or subtraction anywhere: see TimeOperator
)

// Value is what a literal becomes in a column of type t.
func (p Place) Value(t value.Type) (sqlapi.Value, error) {
	v := sqlapi.Value{Kind: sqlapi.Text, Bytes: []byte(p.Text)}
	if p.Kind == PlaceNumber {
		var err error
		if v, err = value.Assign(value.Type{OID: value.Numeric, Mod: -1}, v); err != nil {
			return v, err
		}
	}
	return value.Assign(t, v)
}

// maxPlaces bounds the work for bulk inserts with literal values.
const maxPlaces = 100_000

// place classifies the expression in tokens lo to hi; false when nothing about
// it depends on a type: NULL, whole numbers, TRUE and FALSE.
func (st *Statement) place(lo, hi int, p Place) (Place, bool) {
	t := st.toks
	if lo >= hi {
		return p, false
	}
	p.lo, p.hi, p.At = lo, hi, t[lo].start
	n := lo
	if t[n].in("-", "+") && hi-lo == 2 {
		n++
	}
	if x := t[n]; n+1 == hi {
		switch {
		case x.kind == tNumber:
			if numberType(x.val).OID == Int4 {
				return p, false
			}
			p.Kind, p.Text = PlaceNumber, x.val
			if t[lo].is("-") {
				p.Text = "-" + x.val
			}
			return p, true
		case n > lo:
		case x.kind == tString:
			p.Kind, p.Text = PlaceString, x.val
			return p, true
		case x.kind == tParam:
			p.Kind, p.Param = PlaceParam, paramNumber(x.val)
			return p, p.Param > 0
		case x.is("DEFAULT"):
			p.Kind = PlaceDefault
			return p, true
		case x.in("NULL", "TRUE", "FALSE"):
			return p, false
		}
	}
	return p, true
}

// Places finds the expressions that a statement assigns to columns, and the
// strings that it compares with columns.
func (st *Statement) Places() []Place {
	var out []Place
	t := st.toks
	add := func(lo, hi int, p Place) {
		if len(out) < maxPlaces {
			if p, ok := st.place(lo, hi, p); ok {
				out = append(out, p)
			}
		}
	}
	i := 0
	if len(t) > 0 && t[0].is("WITH") {
		for depth := 0; i < len(t) && (depth > 0 || !t[i].in("INSERT", "REPLACE", "UPDATE", "DELETE", "SELECT")); i++ {
			depth += nest(t[i])
		}
	}
	switch st.Tag {
	case "INSERT":
		st.insertPlaces(i, add)
	case "UPDATE":
		k := i + 1
		for k < len(t) && !t[k].is("SET") {
			k++
		}
		if table := st.nameAt(i + 1); table != "" {
			st.setPlaces(k+1, table, add)
		}
	case "SELECT", "DELETE":
	default:
		return nil
	}
	st.mathPlaces(func(p Place) {
		if len(out) < maxPlaces {
			out = append(out, p)
		}
	})
	for i, x := range t {
		if x.kind != tString || len(out) >= maxPlaces || i+1 < len(t) && t[i+1].in("::", "||", "+", "-", "->", "->>", "COLLATE") {
			continue
		}
		j := comparedWith(t, i)
		if j < 0 || st.renamed(t[j].val) {
			continue
		}
		table, known := "", true
		if j > 1 && t[j-1].is(".") {
			table = st.tableOf(t[j-2].val)
			known = table != ""
		}
		if known {
			out = append(out, Place{Table: table, Column: t[j].val, Compared: true, Kind: PlaceString, Text: x.val, At: x.start, lo: i, hi: i + 1})
		}
	}
	return out
}

// renamed reports a name that a subquery gives to something of its own.
func (st *Statement) renamed(name string) bool {
	t := st.toks
	depth := 0
	for i := 1; i < len(t); i++ {
		if t[i-1].is("(") {
			depth++
		} else if t[i-1].is(")") {
			depth--
		}
		if depth > 0 && t[i].isName() && t[i-1].is("AS") && t[i].val == name {
			return true
		}
	}
	return false
}

// comparedWith is the token of the column that the string at token i is
// compared with; -1: none.
func comparedWith(t []token, i int) int {
	j := i - 1
	for j > 1 && t[j].is(",") && t[j-1].kind == tString { // IN ('a', 'b' ...
		j -= 2
	}
	switch {
	case j > 1 && t[j].is("(") && t[j-1].is("IN"):
		if j -= 2; t[j].is("NOT") && j > 0 {
			j--
		}
	case j < i-1:
		return -1
	case j > 3 && t[j].is("AND") && t[j-2].is("BETWEEN"):
		j -= 3
	case j > 0 && t[j].in("=", "==", "<", ">", "<=", ">=", "<>", "!=", "BETWEEN"):
		j--
	default:
		return columnAfterString(t, i)
	}
	if j >= 0 && t[j].is("NOT") && j > 0 {
		j--
	}
	if j >= 0 && t[j].isName() && !t[j].in("NOT", "IS", "AND", "OR", "WHERE", "END") && (j == 0 || !t[j-1].in("::", "AS", "||", "+", "-", "*", "/")) {
		return j
	}
	return -1
}

// columnAfterString: 'x' = column.
func columnAfterString(t []token, i int) int {
	if i > 0 && !t[i-1].in("WHERE", "AND", "OR", "ON", "(", "NOT", "WHEN", "HAVING") || i+1 >= len(t) || !t[i+1].in("=", "<", ">", "<=", ">=", "<>", "!=") {
		return -1
	}
	return columnAfter(t, i)
}

// nameAt is the table named at token i, perhaps after ONLY, OR REPLACE and its
// schema.
func (st *Statement) nameAt(i int) string {
	t := st.toks
	for i < len(t) && t[i].in("ONLY", "OR", "REPLACE", "IGNORE", "ABORT", "FAIL", "ROLLBACK") {
		i++
	}
	if i+2 < len(t) && t[i].isName() && t[i+1].is(".") {
		i += 2
	}
	if i < len(t) && t[i].isName() {
		return t[i].val
	}
	return ""
}

// commas calls fn for each item of a list between brackets or keywords: tokens
// lo to hi, from 0.
func commas(t []token, lo, hi int, fn func(n, lo, hi int)) {
	depth, from, n := 0, lo, 0
	for i := lo; i < hi; i++ {
		if depth += nest(t[i]); t[i].is("[") {
			depth++
		} else if t[i].is("]") {
			depth--
		}
		if depth == 0 && t[i].is(",") {
			fn(n, from, i)
			from, n = i+1, n+1
		}
	}
	fn(n, from, hi)
}

// insertPlaces: INSERT INTO table [(columns)] VALUES (...), ... or SELECT ...
func (st *Statement) insertPlaces(i int, add func(lo, hi int, p Place)) {
	t := st.toks
	for i < len(t) && !t[i].is("INTO") {
		i++
	}
	table := st.nameAt(i + 1)
	if table == "" {
		return
	}
	if i += 2; i+1 < len(t) && t[i].is(".") {
		i += 2
	}
	if i+1 < len(t) && t[i].is("AS") {
		i += 2
	}
	var cols []string
	if i < len(t) && t[i].is("(") && i+1 < len(t) && !t[i+1].in("SELECT", "WITH", "VALUES") {
		end := closing(t, i)
		if end < 0 {
			return
		}
		commas(t, i+1, end, func(_, lo, _ int) { cols = append(cols, t[lo].val) })
		i = end + 1
	}
	at := func(n int) (Place, bool) {
		if cols == nil {
			return Place{Table: table, Pos: n + 1}, true
		}
		if n >= len(cols) {
			return Place{}, false
		}
		return Place{Table: table, Column: cols[n]}, true
	}
	if i < len(t) && t[i].is("OVERRIDING") {
		i += 3
	}
	switch {
	case i >= len(t):
		return
	case t[i].is("VALUES"):
		for i++; i < len(t) && t[i].is("("); i++ {
			end := closing(t, i)
			if end < 0 {
				return
			}
			commas(t, i+1, end, func(n, lo, hi int) {
				if p, ok := at(n); ok {
					add(lo, hi, p)
				}
			})
			if i = end + 1; i >= len(t) || !t[i].is(",") {
				break
			}
		}
	case t[i].is("SELECT"):
		i = st.selectPlaces(i, at, add)
	}
	for ; i+2 < len(t); i++ { // ON CONFLICT ... DO UPDATE SET
		if t[i].is("DO") && t[i+1].is("UPDATE") && t[i+2].is("SET") {
			st.setPlaces(i+3, table, add)
			return
		}
	}
}

// selectPlaces: the list of INSERT ... SELECT. Compound ones keep their values.
func (st *Statement) selectPlaces(i int, at func(int) (Place, bool), add func(lo, hi int, p Place)) int {
	t := st.toks
	end, depth := 0, 0
	for k := i + 1; k < len(t); k++ {
		if depth += nest(t[k]); depth > 0 {
			continue
		}
		if end == 0 && t[k].in("FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "WINDOW", "RETURNING", "ON") && !t[k-1].is("DISTINCT") {
			end = k
		}
		if t[k].in("UNION", "EXCEPT", "INTERSECT") {
			return i
		}
		if depth < 0 {
			break
		}
	}
	if end == 0 {
		end = len(t)
	}
	lo := i + 1
	if lo < end && t[lo].in("DISTINCT", "ALL", "TOP") {
		return i
	}
	type item struct{ n, lo, hi int }
	var items []item
	star := false
	commas(t, lo, end, func(n, lo, hi int) {
		if hi > lo {
			it := st.item(t[:hi], lo, hi)
			star = star || it.Star
			items = append(items, item{n, lo, it.hi})
		}
	})
	if !star {
		for _, x := range items {
			if p, ok := at(x.n); ok {
				add(x.lo, x.hi, p)
			}
		}
	}
	return i
}

// setPlaces: column = expression, ... from token i on.
func (st *Statement) setPlaces(i int, table string, add func(lo, hi int, p Place)) {
	t := st.toks
	end := i
	for depth := 0; end < len(t); end++ {
		if depth += nest(t[end]); depth == 0 && t[end].in("WHERE", "FROM", "RETURNING", "ORDER", "LIMIT") && !t[end-1].is("DISTINCT") || depth < 0 {
			break
		}
	}
	if i >= end {
		return
	}
	commas(t, i, end, func(_, lo, hi int) {
		if lo+2 < hi && t[lo].isName() && t[lo+1].is("=") {
			add(lo+2, hi, Place{Table: table, Column: t[lo].val})
		}
	})
}

// TypeAt guesses the type of the expression at a place; resolve gives the types
// of columns.
func (st *Statement) TypeAt(p Place, resolve Resolve) Type {
	return st.typ(p.lo, p.hi, resolve)
}

// Change is what a place is replaced by, or wrapped in.
type Change struct {
	Place Place
	Text  string // instead of it; "": it stays, between
	Open  string
	Shut  string
}

// With is the statement with its places changed; the rest of it is shared.
func (st *Statement) With(changes []Change) *Statement {
	out := *st
	out.edits = append([]edit(nil), st.edits...)
	for _, c := range changes {
		a, z := st.toks[c.Place.lo].start, st.toks[c.Place.hi-1].end
		if c.Text != "" {
			out.edits = append(out.edits, edit{a, z, c.Text})
			continue
		}
		out.edits = append(out.edits, edit{a, a, c.Open}, edit{z, z, c.Shut})
	}
	out.apply()
	return &out
}
