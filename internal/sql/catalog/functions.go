package catalog

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/dialect"
)

// functions registers what queries on the catalog call, the operators ~ and
// = ANY (as the session's dialect writes them), and arrays as text.
func (s *state) functions() error {
	const inn, det = sqlite3.INNOCUOUS, sqlite3.INNOCUOUS | sqlite3.DETERMINISTIC
	type fn = sqlite3.ScalarFunction
	value := func(v any) fn {
		return func(ctx sqlite3.Context, _ ...sqlite3.Value) { result(ctx, v) }
	}
	// lookup answers from the snapshot for the first argument, a number.
	lookup := func(get func(n *snapshot, oid int64, a []sqlite3.Value) any) fn {
		return func(ctx sqlite3.Context, a ...sqlite3.Value) {
			if len(a) > 0 && a[0].Type() == sqlite3.NULL {
				return
			}
			snap, err := s.get()
			if err != nil {
				ctx.ResultError(err)
				return
			}
			oid := int64(0)
			if len(a) > 0 {
				oid = a[0].Int64()
			}
			result(ctx, get(snap, oid, a))
		}
	}
	text := func(get func(a []string) any) fn { // strict: NULL for NULL
		return func(ctx sqlite3.Context, a ...sqlite3.Value) {
			args := make([]string, len(a))
			for i := range a {
				if a[i].Type() == sqlite3.NULL {
					return
				}
				args[i] = a[i].Text()
			}
			result(ctx, get(args))
		}
	}
	indexDef := lookup(func(n *snapshot, oid int64, a []sqlite3.Value) any {
		r := n.byOID[oid]
		if r == nil || r.kind != "i" {
			return nil
		}
		if len(a) > 1 {
			if k := a[1].Int(); k > 0 {
				if k > len(r.keys) {
					return ""
				}
				return QuoteIdent(r.keyNames()[k-1])
			}
		}
		return r.indexDef()
	})
	conDef := lookup(func(n *snapshot, oid int64, _ []sqlite3.Value) any {
		if c := n.conByOID[oid]; c != nil {
			return c.def
		}
		return nil
	})
	viewDef := lookup(func(n *snapshot, oid int64, _ []sqlite3.Value) any {
		if r := n.byOID[oid]; r != nil && r.kind == "v" {
			return r.viewDef()
		}
		return nil
	})
	trigDef := lookup(func(n *snapshot, oid int64, _ []sqlite3.Value) any {
		for _, t := range n.triggers {
			if t.oid == oid {
				return t.sql
			}
		}
		return nil
	})
	comment := lookup(func(n *snapshot, oid int64, a []sqlite3.Value) any { // of a table, or of its column with that number
		if len(a) > 1 && a[1].Type() == sqlite3.INTEGER {
			return n.comment(n.byOID[oid], a[1].Int64())
		}
		return n.comment(n.byOID[oid], 0)
	})
	expr := text(func(a []string) any { return a[0] })
	yes := value(true)
	null := value(nil)
	arrayText := func(ctx sqlite3.Context, a ...sqlite3.Value) {
		if a[0].Type() == sqlite3.NULL || a[1].Type() == sqlite3.NULL {
			return
		}
		var out []string
		for _, e := range Elements(a[0].Text()) {
			if e == nil {
				if len(a) > 2 {
					out = append(out, a[2].Text())
				}
				continue
			}
			out = append(out, *e)
		}
		ctx.ResultText(strings.Join(out, a[1].Text()))
	}
	for _, d := range []struct {
		name string
		n    int
		flag sqlite3.FunctionFlag
		fn   fn
	}{
		{"format_type", 2, det, formatType},
		{"pg_get_userbyid", 1, inn, lookup(func(n *snapshot, oid int64, _ []sqlite3.Value) any {
			return n.roleName(oid)
		})},
		{"pg_get_indexdef", 1, inn, indexDef}, {"pg_get_indexdef", 3, inn, indexDef},
		{"pg_get_constraintdef", 1, inn, conDef}, {"pg_get_constraintdef", 2, inn, conDef},
		{"pg_get_viewdef", 1, inn, viewDef}, {"pg_get_viewdef", 2, inn, viewDef},
		{"pg_get_triggerdef", 1, inn, trigDef}, {"pg_get_triggerdef", 2, inn, trigDef},
		{"pg_get_expr", 2, inn, expr}, {"pg_get_expr", 3, inn, expr},
		{"pg_partition_ancestors", 1, inn, lookup(func(_ *snapshot, oid int64, _ []sqlite3.Value) any { return oid })},
		{"pg_partition_root", 1, inn, null}, {"pg_get_partition_constraintdef", 1, inn, null},
		{"pg_get_ruledef", 2, inn, null}, {"pg_get_serial_sequence", 2, inn, text(func(a []string) any { return s.serialSequence(a[0], a[1]) })},
		{"pg_get_function_result", 1, inn, null}, {"pg_get_function_arguments", 1, inn, null},
		{"pg_get_function_identity_arguments", 1, inn, null}, {"pg_get_partkeydef", 1, inn, null},
		{"pg_get_statisticsobjdef_columns", 1, inn, null}, {"pg_relation_is_publishable", 1, inn, value(false)},
		{"pg_table_is_visible", 1, inn, yes}, {"pg_type_is_visible", 1, inn, yes}, {"pg_function_is_visible", 1, inn, yes},
		{"obj_description", 1, inn, comment}, {"obj_description", 2, inn, comment}, {"col_description", 2, inn, comment}, {"shobj_description", 2, inn, null},
		{"pg_encoding_to_char", 1, det, value("UTF8")}, {"pg_tablespace_location", 1, inn, value("")},
		{"pg_table_size", 1, inn, null}, {"pg_relation_size", 1, inn, null}, {"pg_total_relation_size", 1, inn, null},
		{"pg_indexes_size", 1, inn, null}, {"pg_database_size", 1, inn, null}, {"pg_size_pretty", 1, det, sizePretty},
		{"pg_my_temp_schema", 0, inn, value(nsTemp)}, {"pg_is_other_temp_schema", 1, inn, value(false)},
		{"current_schemas", 1, inn, value("{pg_catalog,public}")},
		{"quote_ident", 1, det, text(func(a []string) any { return QuoteIdent(a[0]) })},
		{"quote_literal", 1, det, text(func(a []string) any { return "'" + strings.ReplaceAll(a[0], "'", "''") + "'" })},
		{"regexp", 2, det, match},
		{"dw_json", 1, det, func(ctx sqlite3.Context, a ...sqlite3.Value) {
			if a[0].Type() != sqlite3.NULL {
				ctx.ResultText(toJSON(a[0].Text()))
			}
		}},
		{"dw_array", -1, det, makeArray},
		{"dw_element", 2, det, func(ctx sqlite3.Context, a ...sqlite3.Value) {
			e, n := Elements(a[0].Text()), a[1].Int()
			if !strings.HasPrefix(a[0].Text(), "{") { // an int2vector counts from 0
				n++
			}
			if n > 0 && n <= len(e) && e[n-1] != nil {
				ctx.ResultText(*e[n-1])
			}
		}},
		{"array_to_string", 2, det, arrayText}, {"array_to_string", 3, det, arrayText},
		{"array_length", 2, det, text(func(a []string) any { return len(Elements(a[0])) })},
		{"array_upper", 2, det, text(func(a []string) any { return len(Elements(a[0])) })},
		{"array_lower", 2, det, value(1)}, {"cardinality", 1, det, text(func(a []string) any { return len(Elements(a[0])) })},
		{"array_position", 2, det, text(func(a []string) any {
			for i, e := range Elements(a[0]) {
				if e != nil && *e == a[1] {
					return i + 1
				}
			}
			return nil
		})},
		{"to_regclass", 1, inn, s.regclass(false)}, {"dw_regclass", 1, inn, s.regclass(true)},
		{"dw_regtype", 1, inn, regtype}, {"dw_regproc", 1, inn, expr},
		{"dw_regnamespace", 1, inn, regName(map[string]int64{"pg_catalog": nsCatalog, "public": nsPublic, "information_schema": nsInfo, "pg_temp": nsTemp})},
	} {
		if err := s.db.CreateFunction(d.name, d.n, d.flag, d.fn); err != nil {
			return fmt.Errorf("register function %s: %w", d.name, err)
		}
	}
	for name, f := range s.privilegeFunctions() {
		if err := s.db.CreateFunction(name, -1, inn, f); err != nil {
			return fmt.Errorf("register function %s: %w", name, err)
		}
	}
	if err := s.db.CreateWindowFunction("dw_array_agg", 1, det, func() sqlite3.AggregateFunction { return &arrayAgg{} }); err != nil {
		return fmt.Errorf("register dw_array_agg: %w", err)
	}
	if err := s.db.CreateWindowFunction("array_agg", 1, det, func() sqlite3.AggregateFunction { return &arrayAgg{} }); err != nil {
		return fmt.Errorf("register array_agg: %w", err)
	}
	return nil
}

func result(ctx sqlite3.Context, v any) {
	switch x := plain(v).(type) {
	case int64:
		ctx.ResultInt64(x)
	case string:
		ctx.ResultText(x)
	case float64:
		ctx.ResultFloat(x)
	default:
		ctx.ResultNull()
	}
}

func formatType(ctx sqlite3.Context, a ...sqlite3.Value) {
	if a[0].Type() == sqlite3.NULL {
		return
	}
	oid, mod := uint32(a[0].Int64()), int32(-1)
	if a[1].Type() != sqlite3.NULL {
		mod = int32(a[1].Int64())
	}
	if elem, ok := arrays[oid]; ok {
		ctx.ResultText(dialect.FormatType(dialect.Type{OID: elem, Mod: mod}) + "[]")
		return
	}
	ctx.ResultText(dialect.FormatType(dialect.Type{OID: oid, Mod: mod}))
}

// arrays maps array types to those of their elements.
var arrays = map[uint32]uint32{1000: dialect.Bool, 1001: dialect.Bytea, 1005: dialect.Int2, 1007: dialect.Int4, 1016: dialect.Int8,
	1009: dialect.Text, 1015: dialect.VarChar, 1014: dialect.BPChar, 1021: dialect.Float4, 1022: dialect.Float8, 1231: dialect.Numeric,
	1115: dialect.Timestamp, 1182: dialect.Date, 2951: dialect.UUID}

func sizePretty(ctx sqlite3.Context, a ...sqlite3.Value) {
	if a[0].Type() == sqlite3.NULL {
		return
	}
	n, unit := a[0].Int64(), []string{"bytes", "kB", "MB", "GB", "TB"}
	i := 0
	for ; (n >= 10240 || n <= -10240) && i < len(unit)-1; i++ {
		n /= 1024
	}
	ctx.ResultText(strconv.FormatInt(n, 10) + " " + unit[i])
}

// match is x REGEXP pattern, which SQLite calls with the pattern first.
func match(ctx sqlite3.Context, a ...sqlite3.Value) {
	if a[0].Type() == sqlite3.NULL || a[1].Type() == sqlite3.NULL {
		return
	}
	re, _ := ctx.GetAuxData(0).(*regexp.Regexp)
	if re == nil {
		var err error
		if re, err = regexp.Compile(a[0].Text()); err != nil {
			ctx.ResultError(fmt.Errorf("invalid regular expression: %w", err))
			return
		}
		ctx.SetAuxData(0, re)
	}
	ctx.ResultBool(re.MatchString(a[1].Text()))
}

// regclass turns the name of a relation into its number, and a number into the
// name: the first is for comparisons, the second for showing.
func (s *state) regclass(must bool) sqlite3.ScalarFunction {
	return func(ctx sqlite3.Context, a ...sqlite3.Value) {
		if a[0].Type() == sqlite3.NULL {
			return
		}
		snap, err := s.get()
		if err != nil {
			ctx.ResultError(err)
			return
		}
		if a[0].Type() == sqlite3.INTEGER {
			if r := snap.byOID[a[0].Int64()]; r != nil {
				ctx.ResultText(QuoteIdent(r.name))
			} else if a[0].Int64() == 0 {
				ctx.ResultText("-")
			} else {
				ctx.ResultText(strconv.FormatInt(a[0].Int64(), 10))
			}
			return
		}
		name := a[0].Text()
		if n, err := strconv.ParseInt(name, 10, 64); err == nil {
			ctx.ResultInt64(n)
			return
		}
		for _, prefix := range []string{"pg_catalog.", "public.", "pg_temp.", `"public".`, "main."} {
			name = strings.TrimPrefix(name, prefix)
		}
		if len(name) > 1 && name[0] == '"' && name[len(name)-1] == '"' {
			name = strings.ReplaceAll(name[1:len(name)-1], `""`, `"`)
		}
		for _, r := range snap.rels {
			if strings.EqualFold(r.name, name) {
				ctx.ResultInt64(r.oid)
				return
			}
		}
		for i, t := range tables {
			if t.name == name { // the catalog itself
				ctx.ResultInt(1000 + i)
				return
			}
		}
		if must {
			ctx.ResultError(fmt.Errorf("no such table: %s", name))
		}
	}
}

func regtype(ctx sqlite3.Context, a ...sqlite3.Value) {
	switch a[0].Type() {
	case sqlite3.NULL:
	case sqlite3.INTEGER:
		if a[0].Int64() == 0 {
			ctx.ResultText("-")
			return
		}
		ctx.ResultText(dialect.FormatType(dialect.Type{OID: uint32(a[0].Int64()), Mod: -1}))
	default:
		name := strings.TrimPrefix(a[0].Text(), "pg_catalog.")
		if strings.EqualFold(name, "integer") {
			name = "int4"
		}
		if t := dialect.TypeOf(name); t.OID != 0 {
			ctx.ResultInt64(int64(t.OID))
			return
		}
		ctx.ResultError(fmt.Errorf("type %q does not exist", name))
	}
}

func regName(names map[string]int64) sqlite3.ScalarFunction {
	return func(ctx sqlite3.Context, a ...sqlite3.Value) {
		switch a[0].Type() {
		case sqlite3.NULL:
		case sqlite3.INTEGER:
			for n, oid := range names {
				if oid == a[0].Int64() {
					ctx.ResultText(n)
				}
			}
		default:
			if oid, ok := names[strings.ToLower(a[0].Text())]; ok {
				ctx.ResultInt64(oid)
			}
		}
	}
}
