package dialect

import "strings"

// The standard's functions whose arguments are set apart by words.

// wordForm rewrites EXTRACT(f FROM x), POSITION(a IN b), OVERLAY(a PLACING b FROM n
// [FOR m]) and SUBSTRING(a FROM n [FOR m]) to calls with commas.
func (st *Statement) wordForm(t []token, i int) (int, bool) {
	x := t[i]
	if x.kind != tIdent || i+2 >= len(t) || !t[i+1].is("(") || !x.in("EXTRACT", "POSITION", "OVERLAY", "SUBSTRING") {
		return i, false
	}
	end := closing(t, i+1)
	if end < 0 {
		return i, false
	}
	words := map[string][]string{"EXTRACT": {"FROM"}, "POSITION": {"IN"}, "OVERLAY": {"PLACING", "FROM", "FOR"}, "SUBSTRING": {"FROM", "FOR", "SIMILAR"}}[x.up]
	var at []int
	for k, depth := i+2, 0; k < end; k++ {
		if depth += nest(t[k]); depth == 0 && t[k].in(words...) && !t[k-1].is("DISTINCT") {
			at = append(at, k)
		}
	}
	if len(at) == 0 {
		return i, false
	}
	set := func(k int, s string) { st.edits = append(st.edits, edit{t[k].start, t[k].end, s}) }
	switch x.up {
	case "EXTRACT":
		field := t[i+2]
		st.edits = append(st.edits, edit{x.start, t[at[0]].end, "dw_extract(" + quoteString(strings.ToLower(field.val)) + ", "})
		return at[0], true
	case "POSITION":
		set(i, "dw_position")
		set(at[0], ",")
	case "OVERLAY":
		for _, k := range at {
			set(k, ",")
		}
	case "SUBSTRING":
		switch first := t[at[0]]; {
		case first.is("SIMILAR"):
			st.refused = "SUBSTRING(... SIMILAR ...)"
		case first.is("FOR"): // SUBSTRING(a FOR m)
			set(at[0], ", 1,")
		default:
			for _, k := range at {
				set(k, ",")
			}
		}
	}
	return i, true
}

// similar rewrites x [NOT] SIMILAR TO pattern to a regular expression.
func (st *Statement) similar(t []token, i int) (int, bool) {
	if !t[i].is("SIMILAR") || i+2 >= len(t) || !t[i+1].is("TO") {
		return i, false
	}
	last := operandAfter(t, i+2)
	if last < 0 {
		return i, false
	}
	st.edits = append(st.edits, edit{t[i].start, t[i+1].end, "REGEXP dw_similar("}, edit{t[last].end, t[last].end, ")"})
	return i + 1, true
}

// operandAfter is the last token of the primary expression that begins at i.
func operandAfter(t []token, i int) int {
	if i < len(t) && t[i].in("-", "+") {
		i++
	}
	if i >= len(t) {
		return -1
	}
	if t[i].in("INTERVAL", "DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIME") && i+1 < len(t) && t[i+1].kind == tString {
		i++
	}
	switch x := t[i]; {
	case x.is("("):
		i = closing(t, i)
	case x.is("CASE"):
		for depth := 0; i < len(t); i++ {
			if depth += nest(t[i]); depth == 0 {
				break
			}
		}
		if i >= len(t) {
			return -1
		}
	case x.isName():
		for i+2 < len(t) && t[i+1].is(".") && t[i+2].isName() {
			i += 2
		}
		if i+1 < len(t) && t[i+1].is("(") {
			i = closing(t, i+1)
		}
	case x.kind == tOp:
		return -1
	}
	for i >= 0 && i+1 < len(t) && t[i+1].is("::") {
		_, next := parseType(t, i+2)
		if next < 0 {
			return -1
		}
		i = next - 1
	}
	return i
}

// renamedFunctions are PostgreSQL's functions that SQLite has under another name.
var renamedFunctions = map[string]string{
	"JSON_AGG": "dw_json_agg", "JSONB_AGG": "dw_json_agg", "JSON_OBJECT_AGG": "json_group_object", "JSONB_OBJECT_AGG": "json_group_object",
	"JSON_BUILD_OBJECT": "json_object", "JSONB_BUILD_OBJECT": "json_object", "JSON_BUILD_ARRAY": "json_array", "JSONB_BUILD_ARRAY": "json_array",
	"JSONB_ARRAY_LENGTH": "json_array_length", "FORMAT": "dw_format", "SUBSTRING": "dw_substring",
}

// refusedFunctions are those that would be something else in SQLite, or nothing
// that tells why.
var refusedFunctions = map[string]string{
	"ROW_TO_JSON": "row_to_json", "JSON_POPULATE_RECORD": "json_populate_record", "JSONB_PATH_QUERY": "jsonb_path_query", "TO_TSVECTOR": "full text search", "TO_TSQUERY": "full text search",
	"PLAINTO_TSQUERY": "full text search", "REGEXP_MATCHES": "regexp_matches (regexp_match finds the first)", "REGEXP_SPLIT_TO_TABLE": "regexp_split_to_table", "STRING_TO_TABLE": "string_to_table",
}

// functionName rewrites or refuses a function by its name.
func (st *Statement) functionName(t []token, i int) bool {
	x := t[i]
	if x.kind != tIdent || i+1 >= len(t) || !t[i+1].is("(") || i > 0 && (t[i-1].in("TABLE", "INTO", "INDEX", "ON", "VIEW", "EXISTS") || t[i-1].is(".") && !(i > 1 && t[i-2].in("PG_CATALOG"))) {
		return false
	}
	if f := refusedFunctions[x.up]; f != "" {
		st.refused = f
		return true
	}
	if n := renamedFunctions[x.up]; n != "" {
		st.replace(x, n)
		return true
	}
	return false
}

// columnAliases rewrites a subquery in FROM with names for its columns,
// (VALUES ...) AS v(a, b), which SQLite has for common table expressions only.
func (st *Statement) columnAliases(t []token, i int) bool {
	if i == 0 || i+1 >= len(t) || !t[i-1].in("FROM", "JOIN", ",") || !t[i+1].in("SELECT", "VALUES", "WITH") {
		return false
	}
	end := closing(t, i)
	k := end + 1
	if k < len(t) && t[k].is("AS") {
		k++
	}
	if end < 0 || k+3 >= len(t)+1 || k+1 >= len(t) || !t[k].isName() || !t[k+1].is("(") {
		return false
	}
	shut := closing(t, k+1)
	if shut < 0 {
		return false
	}
	for j := k + 2; j < shut; j++ {
		if !t[j].isName() && !t[j].is(",") {
			return false
		}
	}
	list := st.Text[t[k+1].start:t[shut].end]
	st.edits = append(st.edits, edit{t[i].start, t[i].end, "(WITH dw_v" + list + " AS ("},
		edit{t[end].start, t[end].end, ") SELECT * FROM dw_v)"}, edit{t[k+1].start, t[shut].end, ""})
	return true
}

// limit rewrites OFFSET without LIMIT or before it, and FETCH FIRST n ROWS ONLY.
func (st *Statement) limit(t []token, i int) (int, bool) {
	at := func(k int, words ...string) bool { return k < len(t) && t[k].in(words...) }
	value := func(k int) bool { return k < len(t) && (t[k].kind == tNumber || t[k].kind == tParam) }
	fetch := func(k int) (n string, last int) { // FETCH FIRST [n] ROW|ROWS ONLY from token k
		if !at(k, "FETCH") || !at(k+1, "FIRST", "NEXT") {
			return "", -1
		}
		n, last = "1", k+2
		if value(last) {
			n, last = t[last].val, last+1
		}
		if !at(last, "ROW", "ROWS") || !at(last+1, "ONLY") {
			return "", -1
		}
		return n, last + 1
	}
	set := func(last int, s string) (int, bool) {
		st.edits = append(st.edits, edit{t[i].start, t[last].end, s})
		return last, true
	}
	if n, last := fetch(i); last > 0 && i > 0 {
		return set(last, "LIMIT "+n)
	}
	for k := i - 1; k > 0 && k > i-6 && t[i].is("OFFSET"); k-- {
		if t[k].is("LIMIT") {
			return i, false
		}
	}
	if !t[i].is("OFFSET") || i < 2 || !value(i+1) || t[i-1].in(".", "AS", ",", "SELECT") {
		return i, false
	}
	end := i + 1
	if at(end+1, "ROW", "ROWS") {
		end++
	}
	if n, last := fetch(end + 1); last > 0 {
		return set(last, "LIMIT "+n+" OFFSET "+t[i+1].val)
	}
	if at(end+1, "LIMIT") && value(end+2) {
		return set(end+2, "LIMIT "+t[end+2].val+" OFFSET "+t[i+1].val)
	}
	return set(end, "LIMIT -1 OFFSET "+t[i+1].val)
}

// otherForms drops ONLY, which means nothing without inheritance, and refuses by
// name what SQLite would call a syntax error.
func (st *Statement) otherForms(t []token, i int) bool {
	x := t[i]
	switch {
	case x.is("ONLY") && i > 0 && t[i-1].in("UPDATE", "FROM") && i+1 < len(t) && t[i+1].isName():
		st.replace(x, "")
		return true
	case x.is("ON") && i > 0 && t[i-1].is("DISTINCT") && i+1 < len(t) && t[i+1].is("("):
		st.distinctOn(t, i)
	case x.is("USING") && st.Tag == "DELETE" && i > 2 && t[i-1].isName() && i+1 < len(t) && t[i+1].isName():
		st.deleteUsing(t, i)
	case x.is("TABLESAMPLE") && i > 1:
		st.refused = "TABLESAMPLE"
	case x.in("CUBE", "ROLLUP") && i > 0 && t[i-1].is("BY"), x.is("GROUPING") && i+1 < len(t) && t[i+1].is("SETS"):
		st.refused = "GROUP BY " + x.up
	}
	return st.refused != ""
}

// deleteUsing: DELETE FROM t [AS a] USING x WHERE c becomes DELETE FROM t AS a
// WHERE a.rowid IN (SELECT a.rowid FROM t AS a, x WHERE c). What RETURNING
// names is the table's.
func (st *Statement) deleteUsing(t []token, using int) {
	from := using
	for from > 0 && !t[from].is("FROM") {
		from--
	}
	if from+1 < using && t[from+1].is("ONLY") {
		from++
	}
	end, depth := len(t), 0
	for k := using + 1; k < end; k++ {
		if depth += nest(t[k]); depth < 0 || depth == 0 && t[k].is("RETURNING") {
			end = k
		}
	}
	name := st.Text[t[using-1].start:t[using-1].end]
	first := from + 1
	if first+2 < using && t[first+1].is(".") && inSchema(t[first].val) {
		first += 2 // as everywhere else it is left out
	}
	if using-from > 2 && !t[using-2].in(".", "AS") && !t[using-2].isName() {
		return // a syntax error
	}
	table := st.Text[t[first].start:t[using-1].end]
	if using-2 >= first && t[using-2].isName() && !t[using-2].is("AS") { // which SQLite wants here
		st.edits = append(st.edits, edit{t[using-1].start, t[using-1].start, "AS "})
	}
	st.edits = append(st.edits, edit{t[using].start, t[using].end, "WHERE " + name + "._rowid_ IN (SELECT " + name + "._rowid_ FROM " + table + ","},
		edit{t[end-1].end, t[end-1].end, ")"})
}
