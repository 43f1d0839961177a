package dialect

import (
	"fmt"
	"strconv"
	"strings"

	"datawatch/internal/sql/value"
)

// CREATE TABLE, CREATE INDEX and ALTER TABLE: SQLite keeps declared types but
// does not enforce them, so columns get CHECK constraints that do; what only
// concerns PostgreSQL's storage is dropped.

// createTable rewrites a CREATE TABLE; refused is the feature that is not
// supported.
func (st *Statement) createTable(t []token) (refused string, err error) {
	if i := storageTail(t); i > 0 {
		if refused := st.dropTail(t, i); refused != "" {
			return refused, nil
		}
	}
	for i := 1; i < 4 && i < len(t); i++ {
		if t[i].is("UNLOGGED") {
			st.replace(t[i], "")
		}
	}
	d := parseTable(st.Text, t)
	if d == nil {
		for i, x := range t {
			if x.is("(") && i+1 < len(t) && t[i+1].is("LIKE") || x.is(",") && i+1 < len(t) && t[i+1].is("LIKE") {
				return "CREATE TABLE ... LIKE", nil
			}
			if x.is("EXCLUDE") {
				return "an EXCLUDE constraint", nil
			}
			if x.in("OF", "PARTITION") && i < 6 && i > 2 {
				return "CREATE TABLE ... " + x.up, nil
			}
		}
		return "", nil
	}
	for i := range d.Columns {
		c := &d.Columns[i]
		if c.identity > 0 || c.serial {
			own, refused, err := st.numbered(d, c)
			if err != nil || refused != "" {
				return refused, err
			}
			if !own {
				continue
			}
		}
		if check := st.typeCheck(c, d.keyOf(c)); check != "" {
			// Last: SQLite gives constraints without a name that of the one before.
			at := t[c.end-1].end
			st.edits = append(st.edits, edit{at, at, " " + check})
		}
		if err := st.defaultOf(t, c); err != nil {
			return "", err
		}
	}
	return "", nil
}

// addColumn gives the column of ALTER TABLE ... ADD COLUMN its check.
func (st *Statement) addColumn(t []token) error {
	i := 2
	for i < len(t) && !t[i].is("ADD") {
		i++
	}
	if i++; i < len(t) && t[i].is("COLUMN") {
		i++
	}
	d := &TableDef{toks: t, src: st.Text}
	if i >= len(t) || !d.item(i, len(t)) || len(d.Columns) == 0 {
		return nil
	}
	for k, depth := i, 0; k < len(t); k++ {
		if t[k].is("(") {
			depth++
		} else if t[k].is(")") {
			depth--
		} else if depth == 0 && t[k].is(",") {
			st.refused = "ALTER TABLE with several actions"
			return nil
		}
	}
	if c := &d.Columns[0]; c.identity > 0 || c.serial {
		st.refused = "ALTER TABLE ... ADD COLUMN of an identity column"
	} else {
		if check := st.typeCheck(c, false); check != "" {
			at := t[len(t)-1].end
			st.edits = append(st.edits, edit{at, at, " " + check})
		}
		return st.defaultOf(t, c)
	}
	return nil
}

// typeCheck is the CHECK constraint that enforces a declared type; "" when
// there is nothing to enforce, or SQLite's affinity does it. What nearly every
// value passes comes first and is SQLite's own and cheap; dw_check decides about
// the others and words the error.
func (st *Statement) typeCheck(c *ColumnDef, key bool) string {
	if c.typ == c.rest {
		return ""
	}
	q := QuoteName(c.Name)
	check := func(cond string) string {
		return fmt.Sprintf(`CONSTRAINT "%stype" CHECK (%s OR %s IS NULL OR dw_check(%d,%d,%s))`, TypeChecked, cond, q, c.Type.OID, c.Type.Mod, q)
	}
	whole := q + " = " + q + "|0"
	switch c.Type.OID {
	case Int2:
		return check(q + " BETWEEN -32768 AND 32767 AND " + whole)
	case Int4:
		return check(q + " BETWEEN -2147483648 AND 2147483647 AND " + whole)
	case Int8:
		if key && strings.EqualFold(c.Decl, "INTEGER") { // the row number: SQLite checks it
			return ""
		}
		return check(whole)
	case VarChar, BPChar:
		if c.Type.Mod > 4 {
			return check(fmt.Sprintf("length(%s) <= %d", q, c.Type.Mod-4))
		}
	case Numeric:
		if p, s, ok := value.Type(c.Type).Decimal(); ok {
			return check(fmt.Sprintf("%s > -1e%d AND %s < 1e%d", q, p-s, q, p-s))
		}
		return check(q + " <= 9e999")
	case Float4, Float8:
		return check(q + " <= 9e999")
	case Bool:
		return check(q + " IN (0, 1)")
	case Date, Time, Timestamp, TimestampTZ, UUID:
		return fmt.Sprintf(`CONSTRAINT "%stype" CHECK (dw_check(%d,-1,%s))`, TypeChecked, c.Type.OID, q)
	case JSON, JSONB:
		return check("json_valid(" + q + ")")
	}
	return ""
}

// storageTail finds what follows the column list, or the whole key of an index.
func storageTail(t []token) int {
	for i := range t {
		if t[i].is("(") {
			end := closing(t, i)
			if end < 0 {
				return 0
			}
			return end + 1
		}
		if t[i].is("AS") {
			return 0
		}
	}
	return 0
}

// dropTail drops WITH (...), TABLESPACE x, ON COMMIT PRESERVE ROWS.
func (st *Statement) dropTail(t []token, i int) (refused string) {
	for i < len(t) {
		from, to := i, 0
		switch {
		case t[i].is("WITH") && i+1 < len(t) && t[i+1].is("("):
			to = closing(t, i+1)
		case t[i].is("WITHOUT") && i+1 < len(t) && t[i+1].is("OIDS"), t[i].in("TABLESPACE", "STORAGE") && i+1 < len(t) && t[i+1].isName():
			to = i + 1
		case t[i].is("STORAGE") && i+1 < len(t) && t[i+1].is("("):
			to = closing(t, i+1)
		case t[i].is("ON") && i+2 < len(t) && t[i+1].is("COMMIT"):
			if !t[i+2].is("PRESERVE") {
				return "ON COMMIT " + t[i+2].up
			}
			to = min(i+3, len(t)-1)
		case t[i].is("INHERITS"), t[i].is("PARTITION"):
			return t[i].up
		default:
			i++
			continue
		}
		if to < from {
			return ""
		}
		st.edits = append(st.edits, edit{t[from].start, t[to].end, ""})
		i = to + 1
	}
	return ""
}

// FormatType is PostgreSQL's name of a type with its modifier.
func FormatType(t Type) string {
	name := map[uint32]string{Bool: "boolean", Bytea: "bytea", Int8: "bigint", Int2: "smallint", Int4: "integer", Float4: "real",
		Float8: "double precision", BPChar: "character", VarChar: "character varying", Time: "time without time zone",
		Timestamp: "timestamp without time zone", TimestampTZ: "timestamp with time zone", Numeric: "numeric", Name: "name"}[t.OID]
	if name == "" {
		name = NameOf(t.OID)
	}
	if t.Mod > 4 {
		switch t.OID {
		case BPChar, VarChar:
			name += "(" + strconv.Itoa(int(t.Mod-4)) + ")"
		case Numeric:
			name += "(" + strconv.Itoa(int(t.Mod-4)>>16) + "," + strconv.Itoa(int(t.Mod-4)&0xffff) + ")"
		}
	}
	return name
}

// alterTable recognises what SQLite cannot do in an ALTER TABLE; nil: SQLite's.
func (p *parser) alterTable() *Statement {
	st := &Statement{Kind: AlterTable, Tag: "ALTER TABLE"}
	if p.accept("IF", "EXISTS") {
		st.IfExists = true
	}
	p.accept("ONLY")
	n, err := p.name()
	if err != nil {
		return nil
	}
	if p.accept(".") {
		if n, err = p.name(); err != nil {
			return nil
		}
	}
	st.Name = n
	p.accept("*")
	if l := p.actions(); l != nil {
		return &Statement{Kind: Batch, Tag: "ALTER TABLE", Tables: l}
	}
	if st.Alter = p.conditional(); st.Alter != nil {
		return st
	}
	switch {
	case p.accept("ADD"):
		from := p.peek().start
		if p.accept("CONSTRAINT") {
			if st.Verb, err = p.name(); err != nil {
				return nil
			}
		}
		switch x := p.peek(); {
		case x.is("PRIMARY"), x.is("UNIQUE"), x.is("CHECK"), x.is("FOREIGN"):
			if p.i+1 < len(p.toks) && p.toks[p.i+1].is("USING") || p.i+2 < len(p.toks) && p.toks[p.i+2].is("USING") {
				return unsupported("ALTER TABLE ... ADD " + x.up + " USING INDEX")
			}
			for _, y := range p.toks[p.i:] {
				if y.is("VALID") {
					return unsupported("ALTER TABLE ... ADD CONSTRAINT ... NOT VALID")
				}
			}
			st.Value = p.s[from:p.toks[len(p.toks)-1].end]
			if x.is("PRIMARY") {
				p.i += 2
				if !p.accept("(") {
					return nil
				}
				if st.Tables, err = p.nameList(); err != nil {
					return nil
				}
				if p.accept("WITH") || p.accept("USING") { // storage
					st.Value = p.s[from:p.toks[p.i-2].end]
				}
			}
			return st
		case x.is("EXCLUDE"):
			return unsupported("ALTER TABLE ... ADD EXCLUDE")
		}
		return nil
	case p.accept("OWNER", "TO"):
		return p.alterOwner(n, st.IfExists)
	case p.accept("CLUSTER", "ON"), p.accept("SET", "("), p.accept("RESET", "("), p.accept("SET", "LOGGED"), p.accept("REPLICA", "IDENTITY"):
		return &Statement{Kind: NoOp, Tag: "ALTER TABLE"}
	case p.peek().in("ALTER", "MODIFY"):
		p.i++
		a, refused := p.alterColumn(p.toks[p.i-1].is("MODIFY"))
		if a == nil {
			if refused == "" {
				return nil
			}
			return unsupported(refused)
		}
		st.Alter = a
		return st
	case p.accept("DROP", "CONSTRAINT"):
		exists := p.accept("IF", "EXISTS")
		if st.Alter = (&AlterSpec{Kind: DropConstraint}); exists {
			st.Alter.Using = "IF EXISTS"
		}
		if st.Alter.Name, err = p.name(); err != nil {
			return nil
		}
		p.any("CASCADE", "RESTRICT")
		if p.more() {
			return nil
		}
		return st
	case p.peek().in("SET", "INHERIT", "NO", "ENABLE", "DISABLE", "FORCE", "ATTACH", "DETACH", "VALIDATE", "OF"):
		return unsupported("ALTER TABLE ... " + p.peek().up)
	}
	return nil
}

// WithConstraint is the CREATE TABLE of a table under another name and with one
// more constraint. The columns of a primary key become NOT NULL, and one of an
// integer type becomes the row number.
func WithConstraint(create, name, constraint string, key []string) (string, bool) {
	d := ParseTable(create)
	if d == nil {
		return "", false
	}
	st := &Statement{Text: create}
	t := d.toks
	st.edits = append(st.edits, edit{t[0].start, t[d.open].start, "CREATE TABLE " + QuoteName(name) + " "})
	for i := range d.Columns {
		c := &d.Columns[i]
		for _, k := range key {
			if !strings.EqualFold(k, c.Name) || c.rest == c.typ {
				continue
			}
			at := t[c.rest-1].end
			st.edits = append(st.edits, edit{at, at, " NOT NULL"})
			if oid := c.Type.OID; len(key) == 1 && (oid == Int8 || oid == Int4 || oid == Int2) {
				st.edits = append(st.edits, edit{t[c.typ].start, at, "INTEGER"})
			}
		}
	}
	at := t[d.shut].start
	st.edits = append(st.edits, edit{at, at, ", " + constraint})
	st.apply()
	return st.SQL, true
}
