package sqldiff

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// query makes a SELECT; ordered says that its rows have one order only.
func (g *Gen) query() (sql string, ordered bool) {
	var from []table
	for i := range 1 + g.r.IntN(2) {
		t := g.anyTable()
		t.name += fmt.Sprintf(" AS q%d", i)
		from = append(from, t)
	}
	joined := g.joined(from)
	switch g.r.IntN(10) {
	case 0, 1: // groups
		key := g.column(from, kind(g.r.IntN(4)))
		aggregates := []string{}
		for range 1 + g.r.IntN(3) {
			aggregates = append(aggregates, g.aggregate(from))
		}
		sql = fmt.Sprintf("SELECT %s, %s FROM %s%s GROUP BY %[1]s", key, strings.Join(aggregates, ", "), joined, g.where(from, 2))
		if g.one(3) {
			sql += " HAVING count(*) > " + g.value(int64(g.r.IntN(3)))
		}
	case 2:
		sql = fmt.Sprintf("SELECT %s, %s FROM %s%s", g.aggregate(from), g.aggregate(from), joined, g.where(from, 2))
	case 3: // compound
		k := kind(g.r.IntN(3))
		t, u := g.anyTable(), g.anyTable()
		sql = fmt.Sprintf("SELECT %s FROM %s%s %s SELECT %s FROM %s", g.expr(k, []table{t}, 1), t.name, g.where([]table{t}, 1),
			pick(g, []string{"UNION", "UNION ALL", "EXCEPT", "INTERSECT"}), g.expr(k, []table{u}, 1), u.name)
	case 4: // common table expressions
		t := g.anyTable()
		if g.one(2) {
			return fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) SELECT i, (SELECT count(*) FROM %s WHERE %s > i) FROM n ORDER BY i",
				2+g.r.IntN(6), t.name, g.column([]table{t}, anInt)), true
		}
		return fmt.Sprintf("WITH w AS (SELECT %s AS x, %s AS y FROM %s) SELECT x, count(y), max(y) FROM w GROUP BY x", g.expr(anInt, []table{t}, 1), g.expr(aText, []table{t}, 1), t.name), false
	case 5: // window functions over a fixed order
		t := from[0]
		c := g.column(from[:1], anInt)
		return fmt.Sprintf("SELECT %[1]s, rank() OVER (ORDER BY %[1]s), count(*) OVER (PARTITION BY %[2]s), sum(%[1]s) OVER (ORDER BY %[1]s) FROM %[3]s%[4]s",
			c, g.column(from[:1], kind(g.r.IntN(4))), t.name, g.where(from[:1], 1)), false
	default:
		var list []string
		for range 1 + g.r.IntN(4) {
			list = append(list, g.expr(kind(g.r.IntN(5)), from, 3))
		}
		distinct := ""
		if g.one(5) {
			distinct = "DISTINCT "
		}
		sql = fmt.Sprintf("SELECT %s%s FROM %s%s", distinct, strings.Join(list, ", "), joined, g.where(from, 3))
		if g.one(3) {
			var by []string
			for i := range list {
				by = append(by, strconv.Itoa(i+1)+pick(g, []string{"", " DESC", " ASC"}))
			}
			sql, ordered = sql+" ORDER BY "+strings.Join(by, ", "), true
			if g.one(2) {
				sql += fmt.Sprintf(" LIMIT %d OFFSET %d", 1+g.r.IntN(5), g.r.IntN(3))
			}
		}
	}
	return sql, ordered
}

func (g *Gen) joined(from []table) string {
	if len(from) == 1 {
		return from[0].name
	}
	on := fmt.Sprintf(" ON %s = %s", g.column(from[:1], anInt), g.column(from[1:], anInt))
	return from[0].name + pick(g, []string{" JOIN ", " LEFT JOIN ", " INNER JOIN "}) + from[1].name + on
}

func (g *Gen) aggregate(from []table) string {
	x := g.expr(anInt, from, 1)
	return pick(g, []string{
		"count(*)", "count(" + x + ")", "min(" + x + ")", "max(" + g.expr(aText, from, 1) + ")", "count(DISTINCT " + x + ")",
		"sum(" + g.column(from, anInt) + ")", "avg(" + g.column(from, anInt) + ")", "sum(CASE WHEN " + g.expr(aBool, from, 1) + " THEN 1 ELSE 0 END)",
	})
}

// column is a column of a kind, or a value when there is none.
func (g *Gen) column(from []table, k kind) string {
	var names []string
	for _, t := range from {
		prefix := ""
		if _, alias, ok := strings.Cut(t.name, " AS "); ok {
			prefix = alias + "."
		}
		for _, c := range t.cols {
			if c.kind == k {
				names = append(names, prefix+c.name)
			}
		}
	}
	if len(names) == 0 {
		return g.constant(k)
	}
	return pick(g, names)
}

// expr is an expression of a kind; depth bounds how far it nests.
func (g *Gen) expr(k kind, from []table, depth int) string {
	if depth <= 0 || g.one(4) {
		if g.one(3) {
			return g.literal(k)
		}
		return g.column(from, k)
	}
	sub := func(k kind) string { return g.expr(k, from, depth-1) }
	two := func(f string, k kind) string { return fmt.Sprintf(f, sub(k), sub(k)) }
	switch k {
	case anInt:
		switch g.r.IntN(9) {
		case 0, 1:
			return two("(%s "+pick(g, []string{"+", "-", "*", "/", "%%", "&", "|"})+" %s)", anInt)
		case 2:
			return "length(" + sub(aText) + ")"
		case 3:
			return fmt.Sprintf("CASE WHEN %s THEN %s ELSE %s END", sub(aBool), sub(anInt), sub(anInt))
		case 4:
			return two("coalesce(%s, %s)", anInt)
		case 5:
			return "abs(" + g.column(from, anInt) + ")"
		case 6:
			return "CAST(CAST(" + sub(anInt) + " AS double precision) AS bigint)" // a fraction would be rounded, not cut
		case 7:
			t := g.anyTable()
			return fmt.Sprintf("(SELECT count(*) FROM %s WHERE %s)", t.name, g.expr(aBool, []table{t}, depth-1))
		}
		return two("nullif(%s, %s)", anInt)
	case aReal:
		switch g.r.IntN(4) {
		case 0:
			return fmt.Sprintf("(%s %s %s)", sub(aReal), pick(g, []string{"+", "-"}), sub(anInt))
		case 1:
			return fmt.Sprintf("(%s / 4.0)", sub(anInt))
		case 2:
			return "round(" + sub(aReal) + ", 1)"
		}
		return "CAST(" + sub(anInt) + " AS double precision)"
	case aText:
		switch g.r.IntN(7) {
		case 0:
			return two("(%s || %s)", aText)
		case 1:
			return pick(g, []string{"upper", "lower", "trim", "ltrim"}) + "(" + sub(aText) + ")"
		case 2:
			return fmt.Sprintf("substr(%s, %d, %d)", sub(aText), 1+g.r.IntN(3), 1+g.r.IntN(4))
		case 3:
			return "CAST(" + sub(anInt) + " AS text)"
		case 4:
			return fmt.Sprintf("CASE WHEN %s THEN %s END", sub(aBool), sub(aText))
		case 5:
			return fmt.Sprintf("replace(%s, 'a', %s)", sub(aText), sub(aText))
		}
		return two("coalesce(%s, %s)", aText)
	case aBool:
		switch g.r.IntN(9) {
		case 0, 1:
			return two("(%s "+pick(g, []string{"=", "<>", "<", ">", "<=", ">=", "IS"})+" %s)", kind(g.r.IntN(3)))
		case 2:
			return two("(%s "+pick(g, []string{"AND", "OR"})+" %s)", aBool)
		case 3:
			return "(NOT " + sub(aBool) + ")"
		case 4:
			return "(" + sub(kind(g.r.IntN(4))) + pick(g, []string{" IS NULL)", " IS NOT NULL)"})
		case 5:
			return fmt.Sprintf("(%s BETWEEN %s AND %s)", sub(anInt), sub(anInt), sub(anInt))
		case 6:
			return fmt.Sprintf("(%s LIKE %s)", sub(aText), g.value(pick(g, []string{"a%", "%b%", "_", "%"})))
		case 7:
			t := g.anyTable()
			k := kind(g.r.IntN(3))
			return fmt.Sprintf("(%s %s (SELECT %s FROM %s))", sub(k), pick(g, []string{"IN", "NOT IN"}), g.column([]table{t}, k), t.name)
		}
		t := g.anyTable()
		return fmt.Sprintf("EXISTS (SELECT 1 FROM %s WHERE %s)", t.name, g.expr(aBool, []table{t}, depth-1))
	}
	return g.column(from, k)
}

// literal is a value, as a parameter now and then.
func (g *Gen) literal(k kind) string {
	if g.ext && g.one(2) {
		switch k {
		case anInt:
			return g.value(int64(g.r.IntN(100) - 20))
		case aReal:
			return g.value(float64(g.r.IntN(80)-20) / 4)
		case aText:
			return g.value(pick(g, words))
		case aBlob:
			return g.value([]byte(pick(g, words) + "\x00\xff"))
		}
	}
	return g.constant(k)
}

var words = []string{"", "a", "b", "ab", "abc", "Äpfel", "it's", "%", "x y", "A", "10", "-3", "日本"}

func (g *Gen) constant(k kind) string {
	switch k {
	case anInt:
		return strconv.Itoa(g.r.IntN(100) - 20)
	case aReal:
		return strconv.FormatFloat(float64(g.r.IntN(80)-20)/4, 'f', 2, 64)
	case aText:
		return "'" + strings.ReplaceAll(pick(g, words), "'", "''") + "'"
	case aBool:
		return pick(g, []string{"true", "false"})
	}
	return "X'" + hex.EncodeToString([]byte(pick(g, words)+"\xff")) + "'"
}

// value is a parameter when the statement may have some.
func (g *Gen) value(v any) string {
	if g.ext && len(g.args) < 20 {
		g.args = append(g.args, v)
		return fmt.Sprintf("$%d", len(g.args))
	}
	switch v := v.(type) {
	case string:
		return "'" + strings.ReplaceAll(v, "'", "''") + "'"
	case []byte:
		return "X'" + hex.EncodeToString(v) + "'"
	}
	return fmt.Sprint(v)
}
