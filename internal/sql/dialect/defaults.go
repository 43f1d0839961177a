package dialect

import (
	"errors"
	"fmt"

	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/sql/value"
)

// defaultOf brings the DEFAULT of a column to the column's type, and into the
// brackets that SQLite wants around anything but a literal.
func (st *Statement) defaultOf(t []token, c *ColumnDef) error {
	i := c.rest
	for depth := 0; i < c.end; i++ {
		if depth += nest(t[i]); depth == 0 && t[i].is("DEFAULT") {
			break
		}
	}
	lo := i + 1
	if lo >= c.end {
		return nil
	}
	hi := defaultEnd(t, lo, c.end)
	typ := value.Type(c.Type)
	sub := &Statement{Text: st.Text, toks: t}
	p, special := sub.place(lo, hi, Place{})
	switch {
	case !special: // NULL, a whole number, TRUE, FALSE
		return nil
	case p.Kind == PlaceString && t[lo].up != "" || p.Kind == PlaceString && !typ.Converts():
		return nil
	case p.Kind == PlaceString || p.Kind == PlaceNumber:
		if !typ.Converts() {
			return nil
		}
		v, err := p.Value(typ)
		if err != nil {
			var e *sqlapi.Error
			if errors.As(err, &e) {
				return &ValueError{Err: e, Offset: p.At}
			}
			return err
		}
		st.late = append(st.late, edit{t[lo].start, t[hi-1].end, value.SQL(v)})
		return nil
	}
	open, shut := "(", ")"
	if t[lo].is("(") && closing(t, lo) == hi-1 {
		open, shut = "", ""
	}
	if hi-lo == 1 && t[lo].in("CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_TIME") {
		open, shut = "", ""
		want := map[string]uint32{"CURRENT_DATE": Date, "CURRENT_TIME": Time, "CURRENT_TIMESTAMP": Timestamp}[t[lo].up]
		if want == typ.OID || want == Timestamp && typ.OID == TimestampTZ {
			return nil
		}
	}
	guess := sub.typ(lo, hi, nil).OID
	switch typ.OID {
	case guess:
	case Date, Time, Timestamp, TimestampTZ, Int2, Int4, Int8, Numeric, Bool:
		open, shut = fmt.Sprintf("(dw_assign(%d,%d,", typ.OID, typ.Mod), "))"
	}
	if open != "" {
		st.late = append(st.late, edit{t[lo].start, t[lo].start, open}, edit{t[hi-1].end, t[hi-1].end, shut})
	}
	return nil
}

// defaultEnd is the token after the expression of a DEFAULT at token lo: an
// operand, perhaps with a sign and casts.
func defaultEnd(t []token, lo, end int) int {
	i := lo
	if t[i].in("-", "+") && i+1 < end {
		i++
	}
	if t[i].in("DATE", "TIMESTAMP", "TIME", "X") && i+1 < end && t[i+1].kind == tString {
		i++
	}
	for i+2 < end && t[i].isName() && t[i+1].is(".") {
		i += 2
	}
	if t[i].is("(") {
		i = closing(t, i)
	} else if i+1 < end && t[i].isName() && t[i+1].is("(") {
		i = closing(t, i+1)
	}
	for i+1 < end && t[i+1].is("::") {
		_, next := parseType(t, i+2)
		if next < 0 {
			break
		}
		i = next - 1
	}
	return min(max(i, lo)+1, end)
}

// ValueError is a literal in the statement that is not of its type.
type ValueError struct {
	Err    *sqlapi.Error
	Offset int // in bytes
}

func (e *ValueError) Error() string { return e.Err.Error() }
