package session

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"datawatch/internal/sql/catalog"
	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/sql/value"
)

// Values meet the types of columns in three places. Parameters have been read
// as the column's type by the protocol, and Bind brings them to its length or
// scale. Literals, and expressions whose value may not be of the type, are
// changed in the text before SQLite compiles it (adapt). What is left, such as
// rows of a SELECT *, meets the column's CHECK constraint, which converts
// nothing.

// tableInfo is what adapt needs of a table.
type tableInfo struct {
	cols   []columnInfo
	byName map[string]int
	oid    uint32            // in pg_class; 0 for what is not there
	number map[string]uint16 // of the columns in pg_attribute
}

type columnInfo struct {
	typ dialect.Type
	def string // its default as an expression, "" none
	key bool   // the row number: given by SQLite when NULL
}

// table describes a table, from the cache of the connection; nil when there is
// none of that name. Flush forgets it with the schema.
func (c *conn) table(name string) *tableInfo {
	key := fold(name)
	if ti, ok := c.tables[key]; ok {
		return ti
	}
	var ti *tableInfo
	rec, was := c.rec, c.internal
	c.internal = true
	defer func() { c.rec, c.internal = rec, was }()
	cs, err := c.prepare("SELECT name, type, dflt_value, pk, hidden, (SELECT rowid FROM main.sqlite_schema WHERE type = 'table' AND name = $1 COLLATE NOCASE) FROM pragma_table_xinfo($1)")
	if err != nil {
		return nil
	}
	defer c.done(cs)
	if err := cs.bind([]sqlapi.Value{{Kind: sqlapi.Text, Bytes: []byte(name)}}); err != nil {
		return nil
	}
	keys := 0
	for {
		more, err := c.step(cs)
		if err != nil {
			return nil
		}
		if !more {
			break
		}
		if ti == nil {
			ti = &tableInfo{byName: map[string]int{}, number: map[string]uint16{}}
			if n := cs.s.ColumnInt64(5); n > 0 {
				ti.oid = uint32(catalog.FirstOID + n)
			}
		}
		if cs.s.ColumnInt(4) != 1 {
			ti.number[fold(cs.s.ColumnText(0))] = uint16(len(ti.number) + 1)
		}
		if cs.s.ColumnInt(4) != 0 { // hidden or generated: not assigned by position
			ti.byName[fold(cs.s.ColumnText(0))] = -1
			continue
		}
		ti.byName[fold(cs.s.ColumnText(0))] = len(ti.cols)
		t := dialect.TypeOf(cs.s.ColumnText(1))
		pk := cs.s.ColumnInt(3)
		keys = max(keys, pk)
		ti.cols = append(ti.cols, columnInfo{typ: t, def: cs.s.ColumnText(2), key: pk == 1 && fold(cs.s.ColumnText(1)) == "integer"})
	}
	for i := range ti.columns() {
		ti.cols[i].key = ti.cols[i].key && keys == 1
	}
	if c.tables == nil || len(c.tables) > 1000 {
		c.tables = map[string]*tableInfo{}
	}
	c.tables[key] = ti
	return ti
}

// fold is a name without its case.
func fold(s string) string { return strings.ToLower(s) }

func (ti *tableInfo) columns() []columnInfo {
	if ti == nil {
		return nil
	}
	return ti.cols
}

// column finds a column by name, or by position from 1.
func (ti *tableInfo) column(name string, pos int) *columnInfo {
	if ti == nil {
		return nil
	}
	if name != "" {
		i, ok := ti.byName[fold(name)]
		if !ok || i < 0 {
			return nil
		}
		return &ti.cols[i]
	}
	if pos < 1 || pos > len(ti.cols) {
		return nil
	}
	return &ti.cols[pos-1]
}

// adapt brings literals and expressions to the types of the columns they are
// for. targets are the types that Bind brings parameters to, by number from 0.
func (c *conn) adapt(p *parsed) (out *parsed, targets []value.Type, err error) {
	if len(p.places) == 0 {
		return p, nil, nil
	}
	names := p.TableNames()
	changes := c.timeMath(p, names)
	for _, pl := range p.places {
		if pl.Kind == dialect.PlaceMath {
			continue
		}
		col := c.placeColumn(names, pl)
		if col == nil {
			continue
		}
		t := value.Type(col.typ)
		switch {
		case pl.Kind == dialect.PlaceDefault:
			def := col.def
			if def == "" || col.key {
				def = "NULL"
			}
			changes = append(changes, dialect.Change{Place: pl, Text: "(" + def + ")"})
		case !t.Converts():
		case pl.Kind == dialect.PlaceParam:
			if _, _, ok := t.Decimal(); ok || t.Length() > 0 {
				for len(targets) < pl.Param {
					targets = append(targets, value.Type{})
				}
				targets[pl.Param-1] = t
			}
		case pl.Kind == dialect.PlaceExpr:
			if c.mayDiffer(p, names, pl, t) {
				changes = append(changes, dialect.Change{Place: pl, Open: fmt.Sprintf("dw_assign(%d,%d,", t.OID, t.Mod), Shut: ")"})
			}
		case pl.Compared && !comparable(t):
		default:
			if pl.Compared {
				t.Mod = -1
			}
			if strings.HasPrefix(pl.Text, "0x") { // SQLite's own
				continue
			}
			v, err := pl.Value(t)
			if err != nil {
				return p, nil, literalError(err, p, pl)
			}
			changes = append(changes, dialect.Change{Place: pl, Text: value.SQL(v)})
		}
	}
	if len(changes) == 0 {
		return p, targets, nil
	}
	q := *p
	q.Statement = p.With(changes)
	return &q, targets, nil
}

// comparable types have one text or number for each value, whatever the literal
// looks like. The others compare by SQLite's affinity.
func comparable(t value.Type) bool {
	switch t.OID {
	case value.Bool, value.Date, value.Time, value.Timestamp, value.TimestampTZ, value.UUID, value.Bytea:
		return true
	}
	return false
}

// placeColumn is the column of a place; nil when it is not known for certain.
func (c *conn) placeColumn(names []string, pl dialect.Place) *columnInfo {
	if pl.Table != "" {
		return c.table(pl.Table).column(pl.Column, pl.Pos)
	}
	var found *columnInfo
	for _, n := range names {
		col := c.table(n).column(pl.Column, 0)
		switch {
		case col == nil:
		case found == nil:
			found = col
		case found.typ != col.typ:
			return nil
		}
	}
	return found
}

// resolver finds the types of columns for guesses about expressions.
func (c *conn) resolver(names []string) dialect.Resolve {
	return func(table, name string) dialect.Type {
		if table != "" && c.table(table) == nil { // an alias
			table = ""
		}
		if col := c.placeColumn(names, dialect.Place{Table: table, Column: name}); col != nil {
			return col.typ
		}
		return dialect.Type{Mod: -1}
	}
}

// timeMath turns + and - with dates, times and intervals into calls.
func (c *conn) timeMath(p *parsed, names []string) (changes []dialect.Change) {
	for _, pl := range p.places {
		if pl.Kind != dialect.PlaceMath {
			continue
		}
		op, left, right := p.Math(pl, c.resolver(names))
		if dialect.TimeOperator(op, left, right) {
			fn := map[string]string{"+": "dw_time_plus", "-": "dw_time_minus", "*": "dw_interval_mul"}[op]
			changes = append(changes, p.MathChange(pl, fn, left, right)...)
		}
	}
	return changes
}

// mayDiffer reports whether the value of an expression may be of another form
// than the column stores. It may say so too often: that costs a call.
func (c *conn) mayDiffer(p *parsed, names []string, pl dialect.Place, t value.Type) bool {
	guess := p.TypeAt(pl, c.resolver(names))
	whole := guess.OID == value.Int2 || guess.OID == value.Int4 || guess.OID == value.Int8
	switch t.OID {
	case value.Int2, value.Int4, value.Int8:
		return !whole
	case value.Bool:
		return !whole && guess.OID != value.Bool
	case value.Numeric:
		_, _, scaled := t.Decimal()
		return scaled && !whole
	case value.Timestamp, value.TimestampTZ:
		return guess.OID != value.Timestamp && guess.OID != value.TimestampTZ
	case value.Date, value.Time:
		return guess.OID != t.OID
	}
	return false
}

// literalError puts the position of the literal into the error.
func literalError(err error, p *parsed, pl dialect.Place) error {
	var e *sqlapi.Error
	if !errors.As(err, &e) {
		return err
	}
	x := *e
	x.Position = utf8.RuneCountInString(p.Text[:min(pl.At, len(p.Text))]) + 1
	return &x
}

// fit brings parameters to the length or scale of the columns they are for.
func fit(targets []value.Type, params []sqlapi.Value) error {
	for i := range min(len(targets), len(params)) {
		if targets[i].OID == 0 {
			continue
		}
		v, err := value.Assign(targets[i], params[i])
		if err != nil {
			var e *sqlapi.Error
			if errors.As(err, &e) && e.Detail == "" {
				x := *e
				x.Detail = fmt.Sprintf("Parameter $%d.", i+1)
				err = &x
			}
			return err
		}
		params[i] = v
	}
	return nil
}
