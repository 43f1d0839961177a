package dialect

import (
	"strconv"
	"strings"
)

// Arithmetic with dates, times and intervals. SQLite keeps them as text and
// would read a number at the start of it, so + and - with one of them become
// function calls. An interval is text in PostgreSQL's form.

// Interval is PostgreSQL's type of lengths of time; clients are told text.
const Interval = 1186

func isTime(oid uint32) bool {
	switch oid {
	case Date, Time, Timestamp, TimestampTZ, Interval:
		return true
	}
	return false
}

// timeMath rewrites the literal INTERVAL '...' [unit].
func (st *Statement) timeMath(t []token, i int) (int, bool) {
	if !t[i].is("INTERVAL") || i+1 >= len(t) || t[i+1].kind != tString {
		return i, false
	}
	text, last := t[i+1].val, i+1
	unit := func(k int) bool {
		return k < len(t) && t[k].in("YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND", "YEARS", "MONTHS", "DAYS", "HOURS", "MINUTES", "SECONDS")
	}
	if unit(i + 2) {
		if last = i + 2; i+4 < len(t) && t[i+3].is("TO") && unit(i+4) {
			last = i + 4
		} else if !strings.ContainsAny(text, ": ") {
			text += " " + strings.ToLower(t[i+2].val)
		}
	}
	st.edits = append(st.edits, edit{t[i].start, t[last].end, "dw_interval(" + quoteString(text) + ")"})
	if st.casts == nil {
		st.casts = map[int]cast{}
	}
	st.casts[last] = cast{i, Type{Interval, -1}}
	return last, true
}

// mathPlaces finds the additions and subtractions: each with everything to its
// left that + and - of the same strength have made.
func (st *Statement) mathPlaces(add func(Place)) {
	t := st.toks
	starts := map[int]int{} // last token of a chain -> its first
	for i := 1; i+1 < len(t); i++ {
		if !t[i].in("+", "-", "*") || !endsOperand(t[i-1]) || t[i].is("*") && t[i+1].in(")", ",", "FROM") {
			continue
		}
		product := t[i].is("*")
		lo, ok := starts[i-1]
		if !ok {
			if lo = operand(t, i-1, st.casts); lo < 0 {
				continue
			}
			for !product && lo > 1 && t[lo-1].in("*", "/", "%") {
				k := operand(t, lo-2, st.casts)
				if k < 0 {
					break
				}
				lo = k
			}
		}
		last := st.termAfter(i + 1)
		for !product && last > 0 && last+2 < len(t) && t[last+1].in("*", "/", "%") {
			last = st.termAfter(last + 2)
		}
		if last < 0 {
			continue
		}
		starts[last] = lo
		add(Place{Kind: PlaceMath, At: t[i].start, lo: lo, hi: last + 1, op: i})
	}
}

// termAfter is operandAfter, which does not know how long a literal with words
// is.
func (st *Statement) termAfter(i int) int {
	for last, c := range st.casts {
		if c.from == i && c.typ.OID == Interval {
			return last
		}
	}
	return operandAfter(st.toks, i)
}

// Math is the operator of a place and the types of its sides.
func (st *Statement) Math(p Place, resolve Resolve) (op string, left, right Type) {
	return st.toks[p.op].up, st.typ(p.lo, p.op, resolve), st.typ(p.op+1, p.hi, resolve)
}

// MathChange makes a place the call of a function.
// Its last argument says which of the others are intervals for certain: 1 the
// left, 2 the right.
func (st *Statement) MathChange(p Place, function string, left, right Type) []Change {
	o := p
	o.lo, o.hi = p.op, p.op+1
	flags := 0
	if left.OID == Interval {
		flags = 1
	}
	if right.OID == Interval {
		flags |= 2
	}
	return []Change{{Place: o, Text: ","}, {Place: p, Open: function + "(", Shut: "," + strconv.Itoa(flags) + ")"}}
}

// TimeOperator reports whether op between values of these types is about times.
func TimeOperator(op string, a, b Type) bool {
	if op == "*" {
		return a.OID == Interval || b.OID == Interval
	}
	return isTime(a.OID) || isTime(b.OID)
}

// timeResult is the type of a op b when it is about times.
func timeResult(op string, a, b Type) (Type, bool) {
	if !TimeOperator(op, a, b) {
		return Type{}, false
	}
	stamp := func(o uint32) bool { return o == Timestamp || o == TimestampTZ }
	oid := uint32(Timestamp)
	switch {
	case op == "*":
		oid = Interval
	case op == "-" && a.OID == Date && b.OID == Date:
		oid = Int4
	case op == "-" && a.OID != Interval && isTime(a.OID) && (stamp(b.OID) || b.OID == Date || b.OID == Time):
		oid = Interval
	case a.OID == Interval && (b.OID == Interval || !isTime(b.OID)):
		oid = Interval
	case a.OID == Date && b.OID != Interval && b.OID != Time, b.OID == Date && a.OID != Interval && a.OID != Time:
		oid = Date
	case a.OID == Time && b.OID == Interval, b.OID == Time && a.OID == Interval:
		oid = Time
	case a.OID == TimestampTZ || b.OID == TimestampTZ:
		oid = TimestampTZ
	}
	return Type{oid, -1}, true
}
