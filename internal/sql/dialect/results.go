package dialect

import (
	"math"
	"strconv"
	"strings"
)

// Item is one entry of a select list or RETURNING list.
type Item struct {
	Star bool   // * or t.*: any number of columns
	Name string // PostgreSQL's title for an expression without alias; "" when SQLite's is right
	st   *Statement
	lo   int // tokens of the expression, without alias
	hi   int
}

// Items analyses the result columns of a statement; nil when it has none that
// can be told from the text.
func (st *Statement) Items() []Item {
	t := st.toks
	lo, depth := -1, 0
	if st.ForUpdate {
		for i := range t {
			if t[i].is("FOR") && i+1 < len(t) && t[i+1].in("UPDATE", "SHARE", "NO", "KEY") && depth == 0 {
				t = t[:i]
				break
			}
		}
	}
	switch st.Tag {
	case "SELECT":
		for i, x := range t {
			if depth += nest(x); depth == 0 && x.is("SELECT") {
				lo = i + 1
				break
			}
		}
		if lo > 0 && lo < len(t) && t[lo].in("DISTINCT", "ALL") {
			lo++
			if lo+1 < len(t) && t[lo].is("ON") && t[lo+1].is("(") {
				lo = closing(t, lo+1) + 1
			}
		}
	case "INSERT", "UPDATE", "DELETE":
		for i, x := range t {
			if depth += nest(x); depth == 0 && x.is("RETURNING") {
				lo = i + 1
			}
		}
	}
	if lo < 0 {
		return nil
	}
	var items []Item
	depth = 0
	from := lo
	add := func(hi int) {
		if hi > from {
			items = append(items, st.item(t, from, hi))
		}
	}
	for i := lo; i < len(t); i++ {
		x := t[i]
		depth += nest(x)
		if depth > 0 {
			continue
		}
		if x.is(",") {
			add(i)
			from = i + 1
		} else if depth < 0 || x.in("FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "UNION", "EXCEPT", "INTERSECT", "WINDOW", "OFFSET") {
			add(i)
			return items
		}
	}
	add(len(t))
	return items
}

// nest is the change of depth at a token; CASE ... END counts as brackets.
func nest(x token) int {
	switch {
	case x.is("("), x.is("CASE"):
		return 1
	case x.is(")"), x.is("END"):
		return -1
	}
	return 0
}

func (st *Statement) item(t []token, lo, hi int) Item {
	it := Item{st: st, lo: lo, hi: hi}
	if t[hi-1].is("*") && (hi-lo == 1 || hi-lo == 3 && t[hi-2].is(".")) {
		it.Star = true
		return it
	}
	if hi-lo > 2 && t[hi-2].is("AS") {
		it.hi = hi - 2
		return it
	}
	if hi-lo > 1 && t[hi-1].isName() && !t[hi-1].in("END", "NULL", "TRUE", "FALSE", "CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_TIME", "CURRENT_USER", "ISNULL", "NOTNULL") {
		if p := t[hi-2]; p.isName() || p.is(")") || p.kind == tString || p.kind == tNumber || p.kind == tParam {
			if _, isType := st.casts[hi-1]; !isType && !p.in("AND", "OR", "NOT", "IS", "LIKE", "IN", "GLOB", "ILIKE", "DATE", "TIMESTAMP", "COLLATE", "FROM", "ESCAPE", "BETWEEN", "REGEXP", "MATCH") {
				it.hi = hi - 1
				return it
			}
		}
	}
	it.Name = st.title(t[:hi], lo)
	return it
}

// title is PostgreSQL's name of an unnamed expression.
func (st *Statement) title(t []token, lo int) string {
	hi := len(t)
	if operand(t, hi-1, nil) != lo {
		if c, ok := st.casts[hi-1]; ok && c.from == lo && !t[lo].is("CAST") {
			// PostgreSQL names x::type after x when x has a name.
			for j := lo; j < hi; j++ {
				if t[j].is("::") {
					if n := st.title(t[:j], lo); n != "?column?" && n != "" {
						return n
					}
					if t[j-1].isName() && operand(t, j-1, nil) == lo {
						return t[j-1].val
					}
					break
				}
			}
			return NameOf(c.typ.OID)
		}
		if st.window(t[:hi], lo) > 0 {
			return strings.ToLower(t[lo].val)
		}
		return "?column?"
	}
	switch x := t[lo]; {
	case x.is("CASE"):
		return "case"
	case x.is("CAST"):
		if c, ok := st.casts[hi-1]; ok {
			if t[lo+2].isName() && t[lo+3].is("AS") {
				return t[lo+2].val
			}
			return NameOf(c.typ.OID)
		}
	case x.in("TRUE", "FALSE") && hi-lo == 1:
		return "bool"
	case x.is("NULL") && hi-lo == 1:
		return "?column?"
	case x.isName() && hi-lo == 1:
		if x.kind == tIdent && (niladic[x.up] != "" || strings.HasPrefix(x.up, "CURRENT_")) {
			return strings.ToLower(x.val)
		}
		return ""
	case x.isName() && t[lo+1].is("."):
		for j := lo; j < hi; j++ {
			if t[j].is("(") {
				return strings.ToLower(t[j-1].val)
			}
		}
		return ""
	case x.isName() && t[lo+1].is("("):
		return strings.ToLower(x.val)
	}
	return "?column?"
}

// window: f(...) [FILTER (...)] OVER ...; returns the token after f's arguments.
func (st *Statement) window(t []token, lo int) int {
	if lo+1 < len(t) && t[lo].isName() && t[lo+1].is("(") {
		if end := closing(t, lo+1); end > 0 && end+1 < len(t) && t[end+1].in("OVER", "FILTER") {
			return end + 1
		}
	}
	return 0
}

// Column reports whether the item is a column's name, with its table or without.
func (it Item) Column() bool {
	if it.Star {
		return false
	}
	t := it.st.toks[it.lo:it.hi]
	return (len(t) == 1 || len(t) == 3 && t[1].is(".")) && t[0].isName() && t[len(t)-1].isName() && !t[0].in("NULL", "TRUE", "FALSE") &&
		(t[0].kind != tIdent || niladic[t[0].up] == "" && !strings.HasPrefix(t[0].up, "CURRENT_") && !t[0].in("SYSDATE", "LOCALTIMESTAMP"))
}

// Resolve gives the type of a column, or of a parameter such as $1; table is ""
// when the text does not say.
type Resolve func(table, column string) Type

// Type guesses the type of the item; resolve gives the type of a column by its
// name. OID 0: unknown.
func (it Item) Type(resolve Resolve) Type {
	if it.Star {
		return Type{Mod: -1}
	}
	return it.st.typ(it.lo, it.hi, resolve)
}

var functionTypes = map[string]uint32{
	"COUNT": Int8, "LENGTH": Int8, "INSTR": Int8, "CHANGES": Int8, "TOTAL_CHANGES": Int8, "LAST_INSERT_ROWID": Int8,
	"UNICODE": Int8, "ROW_NUMBER": Int8, "RANK": Int8, "DENSE_RANK": Int8, "NTILE": Int8, "RANDOM": Int8, "SIGN": Int8,
	"OCTET_LENGTH": Int8, "CHAR_LENGTH": Int8, "PG_BACKEND_PID": Int4, "JSON_ARRAY_LENGTH": Int8, "UNIXEPOCH": Int8,
	"AVG": Float8, "TOTAL": Float8, "ROUND": Float8, "SQRT": Float8, "POWER": Float8, "POW": Float8, "EXP": Float8,
	"LN": Float8, "LOG": Float8, "PI": Float8, "JULIANDAY": Float8, "CUME_DIST": Float8, "PERCENT_RANK": Float8,
	"NOW": Timestamp, "PG_IS_IN_RECOVERY": Bool, "PG_CANCEL_BACKEND": Bool, "PG_TERMINATE_BACKEND": Bool, "PG_BLOCKING_PIDS": Text, "DW_BOOL": Bool, "EXISTS": Bool, "PG_TABLE_IS_VISIBLE": Bool, "HAS_TABLE_PRIVILEGE": Bool, "HAS_SCHEMA_PRIVILEGE": Bool, "PG_TRY_ADVISORY_LOCK": Bool,
	"LOWER": Text, "UPPER": Text, "SUBSTR": Text, "SUBSTRING": Text, "TRIM": Text, "LTRIM": Text, "RTRIM": Text,
	"REPLACE": Text, "HEX": Text, "QUOTE": Text, "TYPEOF": Text, "PRINTF": Text, "FORMAT": Text, "CONCAT": Text,
	"GROUP_CONCAT": Text, "STRING_AGG": Text, "VERSION": Text, "CURRENT_SCHEMA": Name, "CURRENT_USER": Name,
	"SESSION_USER": Name, "CURRENT_DATABASE": Name, "CURRENT_CATALOG": Name, "CURRENT_SETTING": Text, "SET_CONFIG": Text,
	"STRFTIME": Text, "DATE": Text, "TIME": Text, "DATETIME": Text, "CHAR": Text, "RANDOMBLOB": Bytea, "ZEROBLOB": Bytea,
	"UNHEX": Bytea, "JSON": Text, "JSON_OBJECT": Text, "JSON_ARRAY": Text, "JSON_GROUP_ARRAY": Text, "PG_POSTMASTER_START_TIME": Timestamp, "PG_SLEEP": Void, "GEN_RANDOM_UUID": UUID,
	"REPEAT": Text, "LEFT": Text, "RIGHT": Text, "LPAD": Text, "RPAD": Text, "REVERSE": Text, "SPLIT_PART": Text, "MD5": Text, "STRPOS": Int4, "DATE_TRUNC": Timestamp,
	"AGE": Interval, "MAKE_INTERVAL": Interval, "JUSTIFY_HOURS": Interval, "JUSTIFY_DAYS": Interval, "JUSTIFY_INTERVAL": Interval, "MAKE_DATE": Date, "TO_DATE": Date,
	"TO_TIMESTAMP": TimestampTZ, "MAKE_TIMESTAMP": Timestamp, "CLOCK_TIMESTAMP": TimestampTZ, "STATEMENT_TIMESTAMP": TimestampTZ, "TRANSACTION_TIMESTAMP": TimestampTZ,
	"CEIL": Numeric, "CEILING": Numeric, "FLOOR": Numeric, "TRUNC": Numeric, "MOD": Numeric,
	"EXTRACT": Numeric, "DATE_PART": Float8, "TO_CHAR": Text, "TO_NUMBER": Numeric, "INITCAP": Text, "CONCAT_WS": Text, "REGEXP_REPLACE": Text, "REGEXP_SUBSTR": Text,
	"REGEXP_COUNT": Int4, "REGEXP_LIKE": Bool, "STARTS_WITH": Bool, "BOOL_AND": Bool, "BOOL_OR": Bool, "EVERY": Bool, "POSITION": Int4, "OVERLAY": Text, "TRANSLATE": Text,
	"ASCII": Int4, "CHR": Text, "BTRIM": Text, "TO_HEX": Text, "ENCODE": Text, "DECODE": Bytea, "NEXTVAL": Int8, "CURRVAL": Int8, "LASTVAL": Int8, "SETVAL": Int8,
	"JSON_AGG": JSON, "JSONB_AGG": JSONB, "JSON_BUILD_OBJECT": JSON, "JSONB_BUILD_OBJECT": JSONB, "JSON_OBJECT_AGG": JSON, "TO_JSON": JSON, "TO_JSONB": JSONB, "JSONB_SET": JSONB,
	"STDDEV": Float8, "STDDEV_SAMP": Float8, "STDDEV_POP": Float8, "VARIANCE": Float8, "VAR_SAMP": Float8, "VAR_POP": Float8, "BIT_LENGTH": Int4, "DIV": Int8, "GCD": Int8, "LCM": Int8,
	"QUOTE_IDENT": Text, "QUOTE_LITERAL": Text, "QUOTE_NULLABLE": Text, "JSON_TYPEOF": Text, "JSONB_TYPEOF": Text, "ARRAY_TO_STRING": Text,
}

// typ is the type of the expression in tokens lo to hi. Operators are taken
// from the loosest binding to the tightest.
func (st *Statement) typ(lo, hi int, resolve Resolve) Type {
	unknown := Type{Mod: -1}
	t := st.toks
	if hi > len(t) || lo >= hi {
		return unknown
	}
	boolean := Type{Bool, -1}
	depth := 0
	var add, mul []int
	concat, json := false, false
	for i := lo; i < hi; i++ {
		x := t[i]
		depth += nest(x)
		if depth > 0 || x.is(")") || x.is("END") {
			continue
		}
		switch {
		case x.in("AND", "OR", "NOT", "=", "==", "<", ">", "<=", ">=", "<>", "!=", "IS", "IN", "LIKE", "ILIKE", "GLOB", "BETWEEN", "ISNULL", "NOTNULL", "EXISTS", "REGEXP", "MATCH"):
			return boolean
		case x.is("~") && i > lo && endsOperand(t[i-1]), x.is("!") && i+1 < hi && t[i+1].is("~"):
			return boolean
		case x.is("||"):
			concat = true
		case x.is("->"), x.is("->>"):
			json = true
		case x.in("+", "-") && i > lo && !t[i-1].in("*", "/", "%", "+", "-", "("):
			add = append(add, i)
		case x.in("*", "/", "%", "&", "|", "<<", ">>") && i > lo:
			mul = append(mul, i)
		}
	}
	switch {
	case json:
		return unknown
	case concat && len(add)+len(mul) == 0:
		return Type{Text, -1}
	case len(add) > 0:
		return st.arith(lo, hi, add, resolve)
	case len(mul) > 0:
		return st.arith(lo, hi, mul, resolve)
	}
	if t[lo].in("+", "-") {
		return st.typ(lo+1, hi, resolve)
	}
	if c, ok := st.casts[hi-1]; ok && c.from == lo {
		return c.typ
	}
	if end := st.window(t[:hi], lo); end > 0 {
		return st.call(lo, end, resolve)
	}
	if operand(t[:hi], hi-1, st.casts) != lo {
		return unknown
	}
	switch x := t[lo]; {
	case x.kind == tNumber:
		return numberType(x.val)
	case x.kind == tParam && resolve != nil:
		return resolve("", x.val)
	case x.kind == tString:
		return Type{Text, -1}
	case x.in("DATE") && hi-lo == 2:
		return Type{Date, -1}
	case x.in("TIMESTAMPTZ", "TIME") && hi-lo == 2:
		return Type{map[string]uint32{"TIMESTAMPTZ": TimestampTZ, "TIME": Time}[x.up], -1}
	case x.in("TIMESTAMP") && hi-lo == 2:
		return Type{Timestamp, -1}
	case x.is("X") && hi-lo == 2 && t[lo+1].kind == tString:
		return Type{Bytea, -1}
	case x.is("("):
		if t[lo+1].in("SELECT", "WITH", "VALUES") {
			return unknown
		}
		return st.typ(lo+1, hi-1, resolve)
	case x.is("CASE"):
		for i, d := lo+1, 0; i < hi-1; i++ {
			if d += nest(t[i]); d == 0 && t[i].is("THEN") {
				j := i + 1
				for d2 := 0; j < hi-1 && (d2 != 0 || !t[j].in("WHEN", "ELSE")); j++ {
					d2 += nest(t[j])
				}
				return st.typ(i+1, j, resolve)
			}
		}
		return unknown
	case x.in("TRUE", "FALSE"):
		return boolean
	case x.in("CURRENT_TIMESTAMP", "LOCALTIMESTAMP", "SYSDATE") && hi-lo == 1:
		return Type{Timestamp, -1}
	case x.is("CURRENT_DATE"):
		return Type{Date, -1}
	case x.is("CURRENT_TIME"):
		return Type{Time, -1}
	case x.kind == tIdent && niladic[x.up] != "" && hi-lo == 1:
		return Type{Name, -1}
	case x.isName() && !x.is("NULL"):
		for j := lo; j < hi; j++ {
			if t[j].is("(") {
				return st.call(j-1, hi, resolve)
			}
		}
		if resolve == nil {
			return unknown
		}
		if hi-lo < 3 {
			return resolve("", t[hi-1].val)
		}
		if table := st.tableOf(t[hi-3].val); table != "" {
			return resolve(table, t[hi-1].val)
		}
	}
	return unknown
}

func numberType(s string) Type {
	n, err := strconv.ParseInt(s, 0, 64)
	switch {
	case err != nil && strings.ContainsAny(s, ".eE"):
		return Type{Numeric, -1}
	case err != nil || n > math.MaxInt32:
		return Type{Int8, -1}
	}
	return Type{Int4, -1}
}

// call is the type of f(...) with f at token i.
func (st *Statement) call(i, hi int, resolve Resolve) Type {
	t := st.toks
	end := closing(t[:hi], i+1)
	if end < 0 {
		return Type{Mod: -1}
	}
	arg := func() Type {
		j, depth := i+2, 0
		if j < end && t[j].in("DISTINCT", "ALL") {
			j++
		}
		from := j
		for ; j < end && (depth > 0 || !t[j].is(",")); j++ {
			depth += nest(t[j])
		}
		return st.typ(from, j, resolve)
	}
	switch name := strings.ToUpper(t[i].val); name {
	case "SUM":
		switch a := arg(); a.OID {
		case Int2, Int4, Int8:
			return Type{Int8, -1}
		case Float4, Float8:
			return Type{Float8, -1}
		case Numeric:
			return Type{Numeric, -1}
		}
		return Type{Mod: -1}
	case "ABS", "MIN", "MAX", "GREATEST", "LEAST", "COALESCE", "IFNULL", "NULLIF", "FIRST_VALUE", "LAST_VALUE", "LAG", "LEAD", "NTH_VALUE":
		return arg()
	default:
		return Type{functionTypes[name], -1}
	}
}

// arith is the type of operands joined by + - * / %.
func (st *Statement) arith(lo, hi int, ops []int, resolve Resolve) Type {
	result := uint32(Int4)
	last := ops[len(ops)-1]
	if t, ok := timeResult(st.toks[last].up, st.typ(lo, last, resolve), st.typ(last+1, hi, resolve)); ok {
		return t
	}
	for k := 0; k <= len(ops); k++ {
		from, to := lo, hi
		if k > 0 {
			from = ops[k-1] + 1
		}
		if k < len(ops) {
			to = ops[k]
		}
		switch st.typ(from, to, resolve).OID {
		case Int2, Int4:
		case Int8:
			if result == Int4 {
				result = Int8
			}
		case Numeric:
			if result != Float8 {
				result = Numeric
			}
		case Float4, Float8:
			result = Float8
		default:
			if from < to && st.toks[from].kind == tParam && to-from == 1 {
				continue
			}
			return Type{Mod: -1}
		}
	}
	if result == Int4 {
		result = Int8 // SQLite's integers do not overflow at 32 bits
	}
	return Type{result, -1}
}
