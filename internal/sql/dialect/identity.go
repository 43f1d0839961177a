package dialect

import (
	"fmt"
	"math"
	"strings"
)

// numbered rewrites a serial or identity column. The only column of the primary
// key becomes SQLite's row number, as long as it counts from 1 in steps of 1;
// every other one gets a sequence, and then sequence is true.
func (st *Statement) numbered(d *TableDef, c *ColumnDef) (sequence bool, refused string, err error) {
	t := d.toks
	q := &SequenceSpec{Names: []string{strings.ToLower(d.Name + "_" + c.Name + "_seq")}, OwnerTable: d.Name, OwnerColumn: c.Name, OID: c.Type.OID}
	plain := true
	if c.identity > 0 {
		if plain, err = st.identityOptions(t[c.identity:c.identityEnd], q); err != nil {
			return false, "", err
		}
		st.edits = append(st.edits, edit{t[c.identity].start, t[c.identityEnd-1].end, ""})
	}
	if d.keyOf(c) && plain {
		if c.rest > c.typ {
			st.edits = append(st.edits, edit{t[c.typ].start, t[c.rest-1].end, "INTEGER"})
		}
		return false, "", nil
	}
	if st.Temp {
		return false, "a serial or identity column of a temporary table that is not its primary key", nil
	}
	decl := map[string]string{"SERIAL": "INT", "SERIAL4": "INT", "BIGSERIAL": "BIGINT", "SERIAL8": "BIGINT", "SMALLSERIAL": "SMALLINT", "SERIAL2": "SMALLINT"}
	switch {
	case c.serial:
		c.Decl = decl[t[c.typ].up]
		c.Type = TypeOf(c.Decl)
		st.edits = append(st.edits, edit{t[c.typ].start, t[c.rest-1].end, c.Decl})
	case c.rest == c.typ, d.keyOf(c) && strings.EqualFold(c.Decl, "INTEGER"): // a row number would not ask the sequence
		c.Decl, c.Type = "BIGINT", TypeOf("BIGINT")
		if c.rest > c.typ {
			st.edits = append(st.edits, edit{t[c.typ].start, t[c.rest-1].end, c.Decl})
		} else {
			st.edits = append(st.edits, edit{t[c.name].end, t[c.name].end, " " + c.Decl})
		}
	}
	switch q.OID = c.Type.OID; q.OID {
	case Int2, Int4, Int8:
	case Numeric:
		q.OID = Int8
	default:
		return false, "", &SyntaxError{"identity column type must be smallint, integer, or bigint", t[c.name].start}
	}
	at := t[max(c.name, c.rest-1)].end
	st.late = append(st.late, edit{at, at, fmt.Sprintf(" NOT NULL DEFAULT (nextval(%s))", quoteString(q.Names[0]))})
	st.Sequences = append(st.Sequences, q)
	return true, "", nil
}

// identityOptions reads IDENTITY [(seed, step)], AUTO_INCREMENT, or GENERATED ...
// AS IDENTITY [(options)]; plain: they count from 1 in steps of 1 without limit.
func (st *Statement) identityOptions(t []token, q *SequenceSpec) (plain bool, err error) {
	open := 0
	for open < len(t) && !t[open].is("(") {
		open++
	}
	if open == len(t) {
		return true, nil
	}
	p := &parser{s: st.Text, toks: t, i: open + 1}
	if x := p.peek(); x.kind == tNumber || x.is("-") {
		if q.Start, err = p.integer(); err != nil {
			return false, err
		}
		if p.accept(",") {
			if q.Increment, err = p.integer(); err != nil {
				return false, err
			}
			if top := int64(math.MaxInt64); *q.Increment < 0 { // down from the seed
				q.Max = &top
			}
		}
	} else if err = p.sequenceOptions(q, "CREATE"); err != nil {
		return false, err
	}
	if !p.accept(")") {
		return false, p.err()
	}
	one := func(n *int64) bool { return n == nil || *n == 1 }
	return one(q.Start) && one(q.Increment) && one(q.Min) && q.Max == nil && q.Cycle == nil, nil
}

// Rename is what ALTER TABLE renames.
type Rename struct{ Table, Column, To string } // Column "": the table

// renames reads ALTER TABLE t RENAME TO x and RENAME [COLUMN] a TO b.
func renames(t []token) *Rename {
	r := &Rename{}
	for i := 2; i+2 < len(t); i++ {
		switch {
		case t[i].is("RENAME") && t[i-1].isName():
			r.Table = t[i-1].val
			if k := len(t) - 3; t[k+1].is("TO") && k > i {
				r.Column = t[k].val
			}
			r.To = t[len(t)-1].val
			return r
		}
	}
	return nil
}
