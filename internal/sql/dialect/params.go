package dialect

import "strings"

// ParamHint says where a parameter stands, for inferring its type.
type ParamHint struct {
	Type   Type   // known from the text ($1::int, LIMIT $1); OID 0 otherwise
	Column string // it is compared with, or assigned to, this column
	Table  string // the table of Column, or with INSERT of
	Pos    int    // the 1-based position among the table's columns
	Array  bool   // an array of the type of Column
}

// Params finds the parameters $n: hints for them by number, and the largest
// number.
func (st *Statement) Params() (hints map[int]ParamHint, n int) {
	t := st.toks
	set := func(k int, h ParamHint) {
		if hints == nil {
			hints = map[int]ParamHint{}
		}
		if old, ok := hints[k]; !ok || old.Type.OID == 0 && old.Column == "" && old.Pos == 0 {
			hints[k] = h
		}
	}
	anonymous := 0
	for i, x := range t {
		if x.kind != tParam {
			continue
		}
		k := paramNumber(x.val)
		if x.val == "?" {
			anonymous++
			k = anonymous
		}
		if k == 0 {
			continue
		}
		n = max(n, k)
		if i+2 < len(t) && t[i+1].is("::") {
			if typ, next := parseType(t, i+2); next > 0 {
				if array, ok := arrayCast(t, i+2, next); ok {
					typ = array
				}
				set(k, ParamHint{Type: typ})
				continue
			}
		}
		if c := anyColumn(t, i); c != "" {
			set(k, ParamHint{Column: c, Array: true})
			continue
		}
		if i+2 < len(t) && t[i+1].is("AS") && i > 1 && t[i-1].is("(") && t[i-2].is("CAST") {
			if typ, next := parseType(t, i+2); next > 0 {
				set(k, ParamHint{Type: typ})
				continue
			}
		}
		if i > 0 && t[i-1].in("LIMIT", "OFFSET") {
			set(k, ParamHint{Type: Type{Int8, -1}})
			continue
		}
		j := columnBefore(t, i)
		if j < 0 {
			j = columnAfter(t, i)
		}
		if j >= 0 {
			h := ParamHint{Column: t[j].val}
			if j > 1 && t[j-1].is(".") {
				h.Table = st.tableOf(t[j-2].val)
			}
			set(k, h)
		}
	}
	if st.Tag == "INSERT" {
		st.insertParams(set)
	}
	return hints, n
}

// columnBefore is the token of a column, -1 none: column op $n, column IN ($n, ...), column BETWEEN $n AND $m,
// column + $n and the like.
func columnBefore(t []token, i int) int {
	j := i - 1
	for j > 1 && (t[j].is(",") && t[j-1].kind == tParam) { // IN ($1, $2 ...
		j -= 2
	}
	if j > 1 && t[j].is("(") && t[j-1].is("IN") {
		j -= 2
		if j > 0 && t[j].is("NOT") {
			j--
		}
	} else if j < i-1 {
		return -1
	} else if j > 3 && t[j].is("AND") && t[j-2].is("BETWEEN") {
		j -= 3
	} else if j > 0 && t[j].in("=", "==", "<", ">", "<=", ">=", "<>", "!=", "LIKE", "ILIKE", "BETWEEN", "+", "-", "*", "/", "%", "IS") {
		j--
	} else {
		return -1
	}
	if j >= 0 && t[j].isName() && !t[j].in("NOT", "IS", "AND", "OR", "WHERE") {
		return j
	}
	return -1
}

// columnAfter: $n op column.
func columnAfter(t []token, i int) int {
	if i+2 < len(t) && t[i+1].in("=", "<", ">", "<=", ">=", "<>", "!=", "+", "-", "*", "/", "%") && t[i+2].isName() {
		j := i + 2
		for j+2 < len(t) && t[j+1].is(".") {
			j += 2
		}
		if j+1 < len(t) && t[j+1].is("(") {
			return -1
		}
		return j
	}
	return -1
}

// insertParams: INSERT INTO table [(columns)] VALUES ($1, ...), ...
func (st *Statement) insertParams(set func(int, ParamHint)) {
	t := st.toks
	i := 0
	for i < len(t) && !t[i].is("INTO") {
		i++
	}
	i++
	if i >= len(t) || !t[i].isName() {
		return
	}
	table := t[i].val
	if i+2 < len(t) && t[i+1].is(".") {
		i += 2
		table = t[i].val
	}
	i++
	if i+1 < len(t) && t[i].is("AS") {
		i += 2
	}
	var cols []string
	if i < len(t) && t[i].is("(") {
		end := closing(t, i)
		for j := i + 1; j < end; j++ {
			if t[j].isName() {
				cols = append(cols, t[j].val)
			}
		}
		if end < 0 {
			return
		}
		i = end + 1
	}
	if i >= len(t) || !t[i].is("VALUES") {
		return
	}
	anonymous := 0
	for i++; i < len(t) && t[i].is("("); i++ {
		end := closing(t, i)
		if end < 0 {
			return
		}
		pos, depth := 1, 0
		for j := i + 1; j < end; j++ {
			depth += nest(t[j])
			if depth == 0 && t[j].is(",") {
				pos++
			}
			if t[j].kind != tParam {
				continue
			}
			k := paramNumber(t[j].val)
			if t[j].val == "?" {
				anonymous++
				k = anonymous
			}
			alone := (t[j-1].is(",") || j == i+1) && (t[j+1].is(",") || j+1 == end)
			if k == 0 || !alone || depth != 0 {
				continue
			}
			h := ParamHint{Table: table, Pos: pos}
			if cols != nil {
				if pos > len(cols) {
					continue
				}
				h = ParamHint{Table: table, Column: cols[pos-1]}
			}
			set(k, h)
		}
		i = end
		if i+1 < len(t) && !t[i+1].is(",") {
			return
		}
		i++
	}
}

// TableNames lists the names that follow FROM, JOIN, INTO, UPDATE and TABLE: the
// tables a statement may touch, for messages.
func (st *Statement) TableNames() []string {
	var out []string
	t := st.toks
	for i := 0; i+1 < len(t); i++ {
		if (t[i].in("FROM", "JOIN", "INTO", "UPDATE", "TABLE") || t[i].is("USING") && st.Tag == "DELETE") && t[i+1].isName() {
			out = append(out, t[i+1].val)
		}
	}
	return out
}

// tableOf is the table that a name before a column means: itself, or what it is
// an alias of; "" when that is a subquery.
func (st *Statement) tableOf(name string) string {
	t := st.toks
	for i := 1; i < len(t); i++ {
		if !t[i].isName() || !strings.EqualFold(t[i].val, name) || i+1 < len(t) && t[i+1].is(".") {
			continue
		}
		j := i - 1
		if t[j].is("AS") {
			j--
		}
		switch {
		case t[i-1].in("FROM", "JOIN", "INTO", "UPDATE", ",", "ONLY", "."):
			return t[i].val
		case j > 0 && t[j].isName() && !t[j].is("AS") && t[j-1].in("FROM", "JOIN", ",", "UPDATE", "INTO", "."):
			return t[j].val
		case j > 0 && t[j].is(")"):
			return ""
		}
	}
	return name
}

// Mentions reports whether the statement contains the word, quoted or not.
func (st *Statement) Mentions(word string) bool {
	for _, x := range st.toks {
		if x.isName() && strings.EqualFold(x.val, word) {
			return true
		}
	}
	return false
}
