package dialect

import (
	"fmt"
	"strings"
)

// distinctOn rewrites SELECT DISTINCT ON (e, ...) list FROM ... ORDER BY o, ...
// LIMIT ... at token i, the ON, as
//
//	SELECT * FROM (SELECT list, row_number() OVER (PARTITION BY e, ... ORDER BY o, ...) AS "dw:n", o AS "dw:1", ... FROM ...)
//	WHERE "dw:n" = 1 ORDER BY "dw:1", ... LIMIT ...
//
// The columns that are the server's are the last ones, Hidden of them. Only the
// outermost SELECT of a statement can hide columns.
func (st *Statement) distinctOn(t []token, i int) {
	refuse := func(what string) { st.refused = "SELECT DISTINCT ON" + what }
	if st.Tag != "SELECT" || i < 2 || !t[i-2].is("SELECT") || i > 2 && !t[0].is("WITH") {
		refuse(" in this place (use it in a statement of its own, or row_number() OVER ...)")
		return
	}
	on := closing(t, i+1)
	if on < 0 {
		return // a syntax error
	}
	from, order, end := -1, -1, len(t)
	for k, depth := on+1, 0; k < len(t); k++ {
		switch x := t[k]; {
		case nest(x) != 0:
			if depth += nest(x); depth < 0 {
				refuse(" in brackets")
				return
			}
		case depth > 0:
		case x.in("UNION", "EXCEPT", "INTERSECT"):
			refuse(" with " + x.up)
			return
		case x.is("FROM") && from < 0 && !t[k-1].is("DISTINCT"):
			from = k
		case x.is("ORDER") && k+1 < len(t) && t[k+1].is("BY"):
			order = k
		case x.in("LIMIT", "OFFSET", "FETCH") && order < k && end == len(t):
			end = k
		}
	}
	if from < 0 || on+1 == from {
		refuse(" without FROM")
		return
	}
	list := split(t, on+1, from)
	var part, over, hidden, outer []string
	for _, e := range split(t, i+2, on) {
		s, err := st.piece(t, st.chosen(t, list, e))
		if err != nil {
			return // the statement as a whole has the error
		}
		part = append(part, s)
	}
	if order > 0 {
		for n, e := range split(t, order+2, end) {
			hi := e.hi
			for hi > e.lo+1 && t[hi-1].in("ASC", "DESC", "NULLS", "FIRST", "LAST") {
				hi--
			}
			way := ""
			if hi < e.hi {
				way = " " + st.Text[t[hi].start:t[e.hi-1].end]
			}
			s, err := st.piece(t, st.chosen(t, list, span{e.lo, hi}))
			if err != nil {
				return
			}
			over = append(over, s+way)
			hidden = append(hidden, fmt.Sprintf(`%s AS "dw:%d"`, s, n+1))
			outer = append(outer, fmt.Sprintf(`"dw:%d"%s`, n+1, way))
		}
	}
	st.Hidden = 1 + len(hidden)
	window := `row_number() OVER (PARTITION BY ` + strings.Join(part, ", ")
	if order > 0 {
		window += " ORDER BY " + strings.Join(over, ", ")
	}
	window += `) AS "dw:n"`
	add := ", " + strings.Join(append([]string{window}, hidden...), ", ") + " "
	tail := `) WHERE "dw:n" = 1`
	if order > 0 {
		tail += " ORDER BY " + strings.Join(outer, ", ")
	}
	last := t[end-1].end
	st.edits = append(st.edits, edit{t[i-2].start, t[on].end, "SELECT * FROM (SELECT"}, edit{t[from].start, t[from].start, add})
	if order > 0 {
		st.edits = append(st.edits, edit{t[order].start, last, tail})
	} else {
		st.edits = append(st.edits, edit{last, last, tail})
	}
}

// span are the tokens from lo up to but not including hi.
type span struct{ lo, hi int }

// split cuts the tokens from lo to hi at their commas.
func split(t []token, lo, hi int) (out []span) {
	from, depth := lo, 0
	for k := lo; k < hi; k++ {
		if depth += nest(t[k]); depth == 0 && t[k].is(",") {
			out = append(out, span{from, k})
			from = k + 1
		}
	}
	return append(out, span{from, hi})
}

// chosen is what a position in the select list, or the alias of one of its
// items, stands for; everything else stands for itself.
func (st *Statement) chosen(t []token, list []span, e span) span {
	if e.hi-e.lo != 1 {
		return e
	}
	x := t[e.lo]
	for n, it := range list {
		before := -1 // where the alias begins
		if n := it.hi - it.lo; n > 2 && t[it.hi-2].is("AS") {
			before = it.hi - 2
		} else if n > 1 && t[it.hi-1].isName() && (t[it.hi-2].is(")") || t[it.hi-2].kind == tNumber || t[it.hi-2].isName() && !t[it.hi-2].is("NOT") && (n == 2 || t[it.hi-3].is("."))) {
			before = it.hi - 1
		}
		named := before > 0 && t[it.hi-1].isName() && x.isName() && strings.EqualFold(t[it.hi-1].val, x.val)
		if t[it.hi-1].is("*") && x.kind == tNumber {
			// Not known which column that is: a number says nothing to a window.
			st.refused = "SELECT DISTINCT ON with the number of a column that is, or is behind, *"
			return e
		}
		if named || x.kind == tNumber && x.val == fmt.Sprint(n+1) {
			if before > 0 {
				it.hi = before
			}
			return it
		}
	}
	return e
}

// piece is an expression as SQLite gets it.
func (st *Statement) piece(t []token, e span) (string, error) {
	if e.hi <= e.lo {
		return "", &SyntaxError{"syntax error", t[e.lo].start}
	}
	x, err := Parse("SELECT " + st.Text[t[e.lo].start:t[e.hi-1].end])
	if err != nil || x.Kind != SQL {
		return "", fmt.Errorf("not an expression: %w", err)
	}
	return strings.TrimPrefix(x.SQL, "SELECT "), nil
}
