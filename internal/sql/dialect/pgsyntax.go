package dialect

import "strings"

// PostgreSQL's operators and array expressions in SQLite's words. Arrays are
// text in PostgreSQL's form, {a,b}.

// endsOperand reports whether an expression may end with the token.
func endsOperand(x token) bool {
	switch x.kind {
	case tString, tNumber, tParam, tQuoted:
		return true
	case tIdent:
		return !x.in("SELECT", "WHERE", "AND", "OR", "NOT", "WHEN", "THEN", "ELSE", "ON", "BY", "IN", "LIKE", "BETWEEN", "CASE",
			"HAVING", "LIMIT", "OFFSET", "RETURNING", "DISTINCT", "SET", "VALUES", "FROM", "AS", "USING", "COLLATE", "CHECK")
	}
	return x.is(")") || x.is("]")
}

// matching reads one of ~ !~ ~* !~* ~~ !~~ ~~* !~~* at token i: what SQLite
// calls it, and how many tokens it has; 0 when there is none.
func matching(t []token, i int) (op string, n int) {
	k := i
	touch := func(s string) bool {
		if k < len(t) && t[k].is(s) && (k == i || t[k].start == t[k-1].end) {
			k++
			return true
		}
		return false
	}
	not := ""
	if touch("!") {
		not = "NOT "
	}
	if !touch("~") {
		return "", 0
	}
	if touch("~") {
		op = not + "LIKE"
		if touch("*") {
			op = not + "MATCH"
		}
		return op, k - i
	}
	op = not + "REGEXP"
	if touch("*") {
		op += " '(?i)' ||"
	}
	return op, k - i
}

// pgSyntax rewrites what starts at token i and returns the last token it has
// dealt with; false when there is nothing.
func (st *Statement) pgSyntax(t []token, i int) (int, bool) {
	x := t[i]
	at := func(k int, words ...string) bool { return k < len(t) && t[k].in(words...) }
	span := func(from, to int, s string) { st.edits = append(st.edits, edit{t[from].start, t[to].end, s}) }
	if last, ok := st.sequenceCall(t, i); ok {
		return last, true
	}
	if last, ok := st.wordForm(t, i); ok {
		if x.is("SUBSTRING") {
			st.replace(x, "dw_substring")
		}
		return last, true
	}
	if last, ok := st.similar(t, i); ok {
		return last, true
	}
	if last, ok := st.timeMath(t, i); ok {
		return last, true
	}
	if last, ok := st.limit(t, i); ok {
		return last, true
	}
	if st.otherForms(t, i) {
		return i, true
	}
	if x.is("(") && st.columnAliases(t, i) {
		return i, true
	}
	if st.functionName(t, i) {
		return i, true
	}
	switch {
	case x.is("LATERAL"):
		st.refused = "LATERAL"
	case (x.is("~") || x.is("!")) && i > 0 && endsOperand(t[i-1]):
		if op, n := matching(t, i); n > 0 {
			span(i, i+n-1, " "+op+" ")
			return i + n - 1, true
		}
	case x.is("OPERATOR") && at(i+1, "("):
		end := closing(t, i+1)
		k := i + 2
		if at(k+1, ".") {
			k += 2
		}
		if end < 0 || k >= end {
			break
		}
		op, n := matching(t, k)
		if n > 0 && k+n == end {
			if strings.HasSuffix(op, "REGEXP") { // psql's patterns: names here have no case
				op += " '(?i)' ||"
			}
		} else {
			op = st.Text[t[k].start:t[end-1].end]
		}
		span(i, end, op)
		return end, true
	case x.is("COLLATE"):
		k := i + 1
		if at(k+1, ".") {
			k += 2
		}
		if k < len(t) && t[k].isName() {
			switch strings.ToLower(t[k].val) {
			case "default", "c", "posix", "ucs_basic":
				span(i, k, "")
				return k, true
			}
		}
	case x.in("ANY", "SOME", "ALL") && i > 0 && t[i-1].in("=", "<>", "!=") && at(i+1, "("):
		return st.anyOf(t, i)
	case x.is("ARRAY") && at(i+1, "("):
		end := closing(t, i+1)
		if end < 0 || !at(i+2, "SELECT", "WITH", "VALUES") {
			break
		}
		span(i, i+1, "(WITH dw_a(x) AS (")
		span(end, end, ") SELECT dw_array_agg(x) FROM dw_a)")
		return i + 1, true
	case x.is("ARRAY") && at(i+1, "["):
		if end := bracket(t, i+1); end > 0 {
			span(i, i+1, "dw_array(")
			span(end, end, ")")
			return i + 1, true
		}
	case x.is("[") && i > 0 && t[i-1].end == x.start && (t[i-1].isName() || t[i-1].is(")")):
		if from, end := operand(t, i-1, st.casts), bracket(t, i); from >= 0 && end > i+1 {
			st.edits = append(st.edits, edit{t[from].start, t[from].start, "dw_element("})
			span(i, i, ", ")
			span(end, end, ")")
			return i, true
		}
	case x.in("SUBSTRING", "SUBSTR") && at(i+1, "("):
		st.substring(t, i)
	case x.is("(") && st.expanded != "" && at(i+2, ".") && at(i+4, ")") && at(i+5, "."): // (s.keys).x
		span(i, i, "")
		span(i+4, i+6, "")
		return i, true
	case x.isName() && strings.EqualFold(x.val, "information_schema") && at(i+1, ".") && at(i+2, "_PG_EXPANDARRAY") && at(i+3, "("):
		return st.expandArray(t, i)
	case x.isName() && strings.EqualFold(x.val, "information_schema") && at(i+1, ".") && i+2 < len(t) && t[i+2].isName():
		span(i, i+2, QuoteName("information_schema."+strings.ToLower(t[i+2].val)))
		return i + 2, true
	case x.is("SELECT") && st.top(t, i):
		return i, true
	case x.is("TRIM") && at(i+1, "(") && at(i+2, "LEADING", "TRAILING", "BOTH"):
		return st.trim(t, i)
	case x.in("GENERATE_SERIES", "UNNEST", "PG_PARTITION_ANCESTORS") && at(i+1, "("):
		return i, st.tableFunction(t, i)
	}
	return i, false
}

// trim rewrites TRIM(LEADING|TRAILING|BOTH chars FROM x).
func (st *Statement) trim(t []token, i int) (int, bool) {
	end, from := closing(t, i+1), -1
	for k, depth := i+3, 0; k < end && from < 0; k++ {
		switch {
		case t[k].is("("):
			depth++
		case t[k].is(")"):
			depth--
		case depth == 0 && t[k].is("FROM"):
			from = k
		}
	}
	if from < 0 {
		return i, false
	}
	fn := map[string]string{"LEADING": "ltrim(", "TRAILING": "rtrim(", "BOTH": "trim("}[t[i+2].up]
	chars := "' '"
	if from > i+3 {
		chars = st.Text[t[i+3].start:t[from-1].end]
	}
	st.edits = append(st.edits, edit{t[i].start, t[from].end, fn}, edit{t[end].start, t[end].end, ", " + chars + ")"})
	return from, true
}

// tableFunction rewrites generate_series and unnest in FROM. Their one column
// has the name of the alias.
func (st *Statement) tableFunction(t []token, i int) bool {
	from := i
	if i > 1 && t[i-1].is(".") {
		from -= 2
	}
	depth, table := 0, false
scan:
	for k := from - 1; k >= 0; k-- {
		switch x := t[k]; {
		case x.is(")"):
			depth++
		case x.is("("):
			if depth--; depth < 0 {
				break scan
			}
		case depth == 0 && x.in("FROM", "JOIN"):
			table = true
			break scan
		case depth == 0 && x.in("SELECT", "WHERE", "GROUP", "ORDER", "HAVING", "LIMIT", "ON", "SET", "VALUES", "RETURNING"):
			break scan
		}
	}
	end := closing(t, i+1)
	if !table || end < 0 {
		return false
	}
	last, alias := end, strings.ToLower(t[i].val)
	k, ordinal := end+1, false
	if k+1 < len(t) && t[k].is("WITH") && t[k+1].is("ORDINALITY") {
		k, last, ordinal = k+2, k+1, true
	}
	if k < len(t) && t[k].is("AS") {
		k++
	}
	if k < len(t) && t[k].isName() && !t[k].in("WHERE", "GROUP", "ORDER", "HAVING", "LIMIT", "OFFSET", "UNION", "EXCEPT", "INTERSECT", "JOIN", "CROSS", "LEFT",
		"INNER", "RIGHT", "FULL", "NATURAL", "ON", "USING", "WINDOW", "FOR", "RETURNING") {
		alias, last = t[k].val, k
	}
	columns := []string{alias, "ordinality"}
	if last == k && last+3 < len(t) && t[last+1].is("(") && t[last+2].isName() {
		columns[0] = t[last+2].val
		last += 3
		if t[last].is(",") && last+2 < len(t) && t[last+1].isName() {
			columns[1] = t[last+1].val
			last += 2
		}
		if !t[last].is(")") {
			return false
		}
	}
	column := QuoteName(columns[0])
	count := ""
	if ordinal {
		count = ", key + 1 AS " + QuoteName(columns[1])
	}
	args := 1
	for j, d := i+2, 0; j < end; j++ {
		if t[j].is("(") || t[j].is("[") {
			d++
		} else if t[j].is(")") || t[j].is("]") {
			d--
		} else if d == 0 && t[j].is(",") {
			args++
		}
	}
	open, shut := "(SELECT value AS "+column+count+" FROM json_each(dw_json(", ")))"
	switch {
	case t[i].is("PG_PARTITION_ANCESTORS"): // nothing is partitioned: the table itself
		open = "(SELECT value AS " + column + count + " FROM json_each(json_array("
	case t[i].is("GENERATE_SERIES"):
		if args < 2 || args > 3 || ordinal {
			return false
		}
		step := ""
		if args == 2 {
			step = ", 1"
		}
		open = "(WITH RECURSIVE dw_p(a, b, s) AS (SELECT "
		shut = step + "), dw_s(x) AS (SELECT a FROM dw_p WHERE iif(s > 0, a <= b, a >= b) UNION ALL SELECT x + s FROM dw_s, dw_p" +
			" WHERE iif(s > 0, x + s <= b, x + s >= b)) SELECT x AS " + column + " FROM dw_s)"
	}
	st.edits = append(st.edits, edit{t[from].start, t[i+1].end, open}, edit{t[end].start, t[last].end, shut + " AS " + QuoteName(alias)})
	return true
}

// bracket finds the ] of a [.
func bracket(t []token, i int) int {
	for depth := 0; i < len(t); i++ {
		if t[i].is("[") {
			depth++
		} else if t[i].is("]") {
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// anyOf rewrites x = ANY (...) and x <> ALL (...), the forms that IN has.
func (st *Statement) anyOf(t []token, i int) (int, bool) {
	end := closing(t, i+1)
	equal := t[i-1].is("=")
	if end < 0 || equal == t[i].is("ALL") {
		return i, false
	}
	in := "IN "
	if !equal {
		in = "NOT IN "
	}
	set := func(from, to int, s string) { st.edits = append(st.edits, edit{t[from].start, t[to].end, s}) }
	switch k := i + 2; {
	case t[k].in("SELECT", "WITH", "VALUES"):
		set(i-1, i, in)
		return i, true
	case t[k].is("ARRAY") && t[k+1].is("["):
		shut := bracket(t, k+1)
		if shut < 0 || shut > end {
			return i, false
		}
		set(i-1, k+1, in+"(")
		if shut+1 < end { // a cast of the whole array
			set(shut, end, ")")
		} else {
			set(shut, end, ")")
		}
		return k + 1, true
	}
	set(i-1, i+1, in+"(SELECT value FROM json_each(dw_json(")
	set(end, end, ")))")
	return i + 1, true
}

// top rewrites SELECT TOP n to LIMIT n.
func (st *Statement) top(t []token, i int) bool {
	k := i + 1
	for k < len(t) && t[k].in("DISTINCT", "ALL") {
		k++
	}
	if k+2 >= len(t) || !t[k].is("TOP") || t[k+1].kind != tNumber && t[k+1].kind != tParam || t[k+2].in(",", "FROM") {
		return false
	}
	end := len(t)
	for depth, j := 0, k+2; j < len(t); j++ {
		if t[j].is("(") {
			depth++
		} else if t[j].is(")") {
			if depth--; depth < 0 {
				end = j
				break
			}
		}
		if depth == 0 && t[j].in("UNION", "EXCEPT", "INTERSECT", "LIMIT") {
			return false
		}
	}
	st.edits = append(st.edits, edit{t[k].start, t[k+1].end, ""}, edit{t[end-1].end, t[end-1].end, " LIMIT " + t[k+1].val})
	return true
}

// list cuts DROP TABLE a, b and TRUNCATE a, b into one statement for each
// table; nil when there is one only.
func (p *parser) list() []string {
	t := p.toks
	i, head, tail := 0, "", ""
	switch {
	case t[0].is("DROP") && len(t) > 3 && t[1].in("TABLE", "VIEW", "INDEX"):
		i = 2
		if len(t) > 5 && t[2].is("IF") && t[3].is("EXISTS") {
			i = 4
		}
		head = p.s[t[0].start:t[i-1].end] + " "
	case t[0].is("TRUNCATE") && len(t) > 3:
		i = 1
		if t[1].is("TABLE") {
			i = 2
		}
		head = "TRUNCATE TABLE "
	default:
		return nil
	}
	var out []string
	for i < len(t) {
		if t[i].is("ONLY") {
			i++
		}
		from := i
		for i < len(t) && (t[i].isName() || t[i].is(".")) && !(i > from && t[i-1].isName() && t[i].isName()) {
			i++
		}
		if i == from {
			return nil
		}
		out = append(out, head+p.s[t[from].start:t[i-1].end]+tail)
		if i == len(t) {
			break
		}
		if !t[i].is(",") {
			for k := i; k < len(t); k++ {
				if !t[k].in("CASCADE", "RESTRICT", "RESTART", "CONTINUE", "IDENTITY") {
					return nil
				}
			}
			break
		}
		i++
	}
	if len(out) < 2 {
		return nil
	}
	return out
}

// reindex leaves of PostgreSQL's REINDEX (options) INDEX, TABLE, SCHEMA, DATABASE or
// SYSTEM, with or without CONCURRENTLY, what SQLite knows: a name, which says by
// itself what it is, or nothing, which is everything.
func (st *Statement) reindex(t []token) []token {
	i := 1
	if i < len(t) && t[i].is("(") {
		i = closing(t, i) + 1
	}
	if i < 1 || i >= len(t) || !t[i].in("INDEX", "TABLE", "SCHEMA", "DATABASE", "SYSTEM") {
		return t
	}
	all := t[i].in("SCHEMA", "DATABASE", "SYSTEM")
	i++
	if i < len(t) && t[i].is("CONCURRENTLY") {
		i++
	}
	st.Tag = "REINDEX"
	switch {
	case all && i >= len(t)-1: // the one name that may follow is this database's
		st.edits = append(st.edits, edit{t[0].end, t[len(t)-1].end, ""})
		return t[:1]
	case all || i >= len(t):
		return t
	}
	st.edits = append(st.edits, edit{t[1].start, t[i].start, ""})
	return append([]token{t[0]}, t[i:]...)
}
