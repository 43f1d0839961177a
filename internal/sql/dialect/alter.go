package dialect

import (
	"fmt"
	"strings"
)

// AlterSpec is one change of ALTER TABLE that SQLite does not make itself.
type AlterSpec struct {
	Kind   AlterKind
	Column string
	Text   string // the new type or default
	Using  string // AlterType: the expression, "" the column
	Name   string // DropConstraint
	SQL    string // AddIfNotExists, DropIfExists: the statement without the condition
}

// AlterKind says which.
type AlterKind uint8

const (
	AlterType AlterKind = iota
	SetDefault
	DropDefault
	SetNotNull
	DropNotNull
	DropConstraint
	AddIfNotExists
	DropIfExists
)

// alterColumn parses ALTER [COLUMN] c ..., after ALTER, and MODIFY [COLUMN] c type.
func (p *parser) alterColumn(modify bool) (*AlterSpec, string) {
	p.accept("COLUMN")
	n, err := p.name()
	if err != nil {
		return nil, ""
	}
	a := &AlterSpec{Column: n}
	rest := func() string {
		if !p.more() {
			return ""
		}
		s := p.s[p.peek().start:p.toks[len(p.toks)-1].end]
		p.i = len(p.toks)
		return s
	}
	switch {
	case modify || p.accept("TYPE") || p.accept("SET", "DATA", "TYPE"):
		from := p.i
		_, next := parseType(p.toks, p.i)
		if next < 0 {
			return nil, ""
		}
		a.Text, p.i = p.s[p.toks[from].start:p.toks[next-1].end], next
		if p.accept("COLLATE") {
			return nil, "ALTER TABLE ... ALTER COLUMN ... COLLATE"
		}
		if p.accept("USING") {
			a.Using = rest()
		}
	case p.accept("SET", "DEFAULT"):
		a.Kind, a.Text = SetDefault, rest()
		if a.Text == "" {
			return nil, ""
		}
	case p.accept("DROP", "DEFAULT"):
		a.Kind = DropDefault
	case p.accept("SET", "NOT", "NULL"):
		a.Kind = SetNotNull
	case p.accept("DROP", "NOT", "NULL"):
		a.Kind = DropNotNull
	case p.peek().in("SET", "RESET", "ADD", "DROP", "RESTART"):
		return nil, "ALTER TABLE ... ALTER COLUMN ... " + p.peek().up
	}
	if p.more() {
		return nil, ""
	}
	return a, ""
}

// actions cuts ALTER TABLE t a, b into one statement for each action; nil when
// there is one only. The parser stands after the name of the table.
func (p *parser) actions() []string {
	head := p.s[p.toks[0].start:p.toks[p.i-1].end] + " "
	var out []string
	commas(p.toks, p.i, len(p.toks), func(_, lo, hi int) {
		if lo < hi {
			out = append(out, head+p.s[p.toks[lo].start:p.toks[hi-1].end])
		}
	})
	if len(out) < 2 {
		return nil
	}
	return out
}

// conditional recognises ADD [COLUMN] IF NOT EXISTS and DROP [COLUMN] IF EXISTS.
func (p *parser) conditional() *AlterSpec {
	start := p.i
	defer func() { p.i = start }()
	add := p.accept("ADD")
	if !add && !p.accept("DROP") {
		return nil
	}
	p.accept("COLUMN")
	from := p.i
	if add && !p.accept("IF", "NOT", "EXISTS") || !add && !p.accept("IF", "EXISTS") {
		return nil
	}
	n, err := p.name()
	if err != nil {
		return nil
	}
	a := &AlterSpec{Kind: AddIfNotExists, Column: n, SQL: p.s[:p.toks[from].start] + p.s[p.toks[p.i-1].start:]}
	if !add {
		a.Kind = DropIfExists
	}
	return a
}

// columnParts are the type, the DEFAULT and the check of the type of a column
// as SQLite gets them.
func columnParts(name, definition string) (typ, def, check string, err error) {
	st, err := Parse("CREATE TABLE dw_x(" + QuoteName(name) + " " + definition + ")")
	if err != nil {
		return "", "", "", err
	}
	d := ParseTable(st.SQL)
	if d == nil || len(d.Columns) != 1 {
		return "", "", "", &SyntaxError{"syntax error in the definition of the column", 0}
	}
	c := &d.Columns[0]
	text := func(lo, hi int) string {
		if lo >= hi {
			return ""
		}
		return st.SQL[d.toks[lo].start:d.toks[hi-1].end]
	}
	typ = text(c.typ, c.rest)
	lo, hi := d.part(c, "DEFAULT")
	def = text(lo, hi)
	lo, hi = d.typeCheckAt(c)
	return typ, def, text(lo, hi), nil
}

// part finds a constraint of a column by its first word: tokens lo to hi, equal
// when there is none.
func (d *TableDef) part(c *ColumnDef, word string) (lo, hi int) {
	t := d.toks
	for i, depth := c.rest, 0; i < c.end; i++ {
		depth += nest(t[i])
		if depth != 0 || !t[i].is(word) {
			continue
		}
		switch word {
		case "DEFAULT":
			return i, defaultEnd(t, min(i+1, c.end-1), c.end)
		case "NOT":
			if i+1 < c.end && t[i+1].is("NULL") {
				return i, i + 2
			}
		}
	}
	return c.rest, c.rest
}

// typeCheckAt finds the check of the declared type.
func (d *TableDef) typeCheckAt(c *ColumnDef) (lo, hi int) {
	t := d.toks
	for i := c.rest; i+2 < c.end; i++ {
		if t[i].is("CONSTRAINT") && strings.HasPrefix(t[i+1].val, TypeChecked) && t[i+2].is("CHECK") {
			return i, closing(t, i+3) + 1
		}
	}
	return c.rest, c.rest
}

// Altered is the CREATE TABLE of a table under another name with a change made;
// values is what the column's values become, "" as they are. missing is what the
// change is about when the table has no such thing.
func Altered(create, name string, a *AlterSpec) (sql, values, missing string, err error) {
	d := ParseTable(create)
	if d == nil {
		return "", "", "", fmt.Errorf("the table was made by CREATE TABLE ... AS")
	}
	t := d.toks
	st := &Statement{Text: create, toks: t}
	st.edits = append(st.edits, edit{t[0].start, t[d.open].start, "CREATE TABLE " + QuoteName(name) + " "})
	remove := func(lo, hi int) {
		if lo < hi {
			st.edits = append(st.edits, edit{t[lo].start, t[hi-1].end, ""})
		}
	}
	if a.Kind == DropConstraint {
		lo, hi := d.named(a.Name)
		if lo == hi {
			return "", "", fmt.Sprintf("constraint %q", a.Name), nil
		}
		remove(lo, hi)
		st.apply()
		return st.SQL, "", "", nil
	}
	var c *ColumnDef
	for i := range d.Columns {
		if strings.EqualFold(d.Columns[i].Name, a.Column) {
			c = &d.Columns[i]
		}
	}
	if c == nil {
		return "", "", fmt.Sprintf("column %q", a.Column), nil
	}
	after := func(s string) {
		at := t[max(c.name, c.rest-1)].end
		st.edits = append(st.edits, edit{at, at, " " + s})
	}
	switch a.Kind {
	case AlterType:
		typ, _, check, err := columnParts(c.Name, a.Text)
		if err != nil {
			return "", "", "", err
		}
		remove(d.typeCheckAt(c))
		if c.rest > c.typ {
			st.edits = append(st.edits, edit{t[c.typ].start, t[c.rest-1].end, typ})
		} else {
			after(typ)
		}
		if check != "" { // last, as CREATE TABLE puts it
			at := t[c.end-1].end
			st.edits = append(st.edits, edit{at, at, " " + check})
		}
		nt := TypeOf(typ)
		if values = a.Using; values == "" {
			values = QuoteName(c.Name)
		} else {
			u, err := Parse("SELECT " + a.Using)
			if err != nil || u.Kind != SQL {
				return "", "", "", &SyntaxError{"syntax error in USING", 0}
			}
			values = u.SQL[len("SELECT "):]
		}
		if nt.OID == Text || nt.OID == VarChar && nt.Mod < 4 {
			values = "CAST(" + values + " AS TEXT)"
		} else if nt.OID != 0 {
			values = fmt.Sprintf("dw_assign(%d,%d,%s)", nt.OID, nt.Mod, values)
		}
	case SetDefault:
		decl := c.Decl
		_, def, _, err := columnParts(c.Name, decl+" DEFAULT "+a.Text)
		if err != nil {
			return "", "", "", err
		}
		if def == "" {
			return "", "", "", &SyntaxError{"syntax error in the default", 0}
		}
		remove(d.part(c, "DEFAULT"))
		after(def)
	case DropDefault:
		remove(d.part(c, "DEFAULT"))
	case SetNotNull:
		if lo, hi := d.part(c, "NOT"); lo == hi {
			after("NOT NULL")
		}
	case DropNotNull:
		remove(d.part(c, "NOT"))
	}
	st.apply()
	return st.SQL, values, "", nil
}

// named finds the constraint with a name, with what separates it from others.
func (d *TableDef) named(name string) (lo, hi int) {
	t := d.toks
	for i := d.open + 1; i+2 < d.shut; i++ {
		if t[i].is("(") {
			i = closing(t, i)
			continue
		}
		if !t[i].is("CONSTRAINT") || !t[i+1].isName() || !strings.EqualFold(t[i+1].val, name) {
			continue
		}
		end, table := i+2, t[i-1].is(",") || i == d.open+1
		for depth := 0; end < d.shut; end++ {
			depth += nest(t[end])
			if depth == 0 && (t[end].is(",") || !table && end > i+2 && t[end].kind == tIdent && startsConstraint[t[end].up] &&
				!t[end].in("KEY", "ON", "DEFERRABLE", "INITIALLY", "NULL") && !(t[end].is("NOT") && end+1 < d.shut && t[end+1].is("DEFERRABLE")) && !t[end-1].in("SET", "NOT")) {
				break
			}
		}
		if table && t[i-1].is(",") {
			return i - 1, end
		}
		return i, end
	}
	return 0, 0
}
