package dialect

// information_schema._pg_expandarray, by which pgJDBC asks for the columns of
// keys and indexes.

// expandArray rewrites the row-making function in a select list, (f(x)).n,
// (f(x)).x or f(x), to columns of a table that is joined once. Token i is
// information_schema; the last token dealt with is returned.
func (st *Statement) expandArray(t []token, i int) (int, bool) {
	end := closing(t, i+3)
	if end < 0 {
		return i, false
	}
	array := st.Text[t[i+4].start:t[end-1].end]
	from, last, column := i, end, "dw_x.value"
	if i > 0 && t[i-1].is("(") && end+3 < len(t) && t[end+1].is(")") && t[end+2].is(".") {
		if from, last = i-1, end+3; t[last].is("N") {
			column = "(dw_x.key + 1)"
		}
	}
	st.edits = append(st.edits, edit{t[from].start, t[last].end, column})
	if st.expanded == array {
		return last, true
	}
	k, depth := last+1, 0
	for ; k < len(t) && (depth > 0 || !t[k].in("WHERE", ")", "GROUP", "ORDER")); k++ {
		if t[k].is("(") {
			depth++
		} else if t[k].is(")") {
			depth--
		}
	}
	if k < len(t) {
		at := t[k].start
		st.edits = append(st.edits, edit{at, at, " JOIN json_each('[' || replace(trim(" + array + ", '{}'), ' ', ',') || ']') dw_x "})
		st.expanded = array
	}
	return last, true
}

// substring: substring(x FROM a FOR b) becomes substring(x , a , b).
func (st *Statement) substring(t []token, i int) {
	end := closing(t, i+1)
	for k, depth := i+2, 0; k < end; k++ {
		if t[k].is("(") {
			depth++
		} else if t[k].is(")") {
			depth--
		} else if depth == 0 && t[k].in("FROM", "FOR") && !t[i+2].in("SELECT", "FOR") {
			st.replace(t[k], ",")
		}
	}
}
