package dialect

import "strings"

// TableDef is the text of a CREATE TABLE taken apart, as far as the catalog and
// the rewriting of types need it. Positions are tokens.
type TableDef struct {
	Name        string
	Columns     []ColumnDef
	Constraints []ConstraintDef // of the table and of its columns, in order
	toks        []token
	src         string
	name, open  int // the table's name; the bracket that opens the list
	shut        int // the bracket that closes it
}

// ColumnDef is one column.
type ColumnDef struct {
	Name string
	Type Type
	Decl string // the type as written

	name, typ, rest int // its name, its type, what follows; typ == rest: no type
	end             int
	identity        int // IDENTITY or GENERATED ... AS IDENTITY from here to identityEnd, 0: none
	identityEnd     int
	serial          bool
	primary         bool
}

// ConstraintDef is one constraint. Name is empty when it was given none.
type ConstraintDef struct {
	Name    string
	Kind    byte     // p, u, c, f as in pg_constraint
	Columns []string // of the key
	Text    string   // CHECK: the condition with its brackets
}

// TypeChecked begins the names of the CHECK constraints that stand for a
// declared type.
const TypeChecked = "dw:"

var startsConstraint = map[string]bool{"CONSTRAINT": true, "PRIMARY": true, "NOT": true, "NULL": true, "UNIQUE": true, "CHECK": true,
	"DEFAULT": true, "COLLATE": true, "REFERENCES": true, "GENERATED": true, "AS": true, "IDENTITY": true, "AUTO_INCREMENT": true,
	"AUTOINCREMENT": true, "ON": true, "DEFERRABLE": true, "INITIALLY": true}

// ParseTable takes a CREATE TABLE apart; nil for anything else, such as CREATE
// TABLE ... AS SELECT.
func ParseTable(sql string) *TableDef {
	toks, err := lex(sql)
	if err != nil {
		return nil
	}
	return parseTable(sql, toks)
}

func parseTable(sql string, t []token) *TableDef {
	i := 0
	word := func(w ...string) bool {
		if i < len(t) && t[i].in(w...) {
			i++
			return true
		}
		return false
	}
	if !word("CREATE") {
		return nil
	}
	for word("TEMP", "TEMPORARY", "LOCAL", "GLOBAL", "UNLOGGED") {
	}
	if !word("TABLE") {
		return nil
	}
	if word("IF") {
		word("NOT")
		word("EXISTS")
	}
	if i+2 < len(t) && t[i+1].is(".") {
		i += 2
	}
	if i+1 >= len(t) || !t[i].isName() && t[i].kind != tString || !t[i+1].is("(") {
		return nil
	}
	d := &TableDef{Name: t[i].val, toks: t, src: sql, name: i, open: i + 1}
	if d.shut = closing(t, d.open); d.shut < 0 {
		return nil
	}
	for from := d.open + 1; from < d.shut; {
		end := from
		for depth := 0; end < d.shut && (depth > 0 || !t[end].is(",")); end++ {
			switch {
			case t[end].is("("):
				depth++
			case t[end].is(")"):
				depth--
			}
		}
		if end > from && !d.item(from, end) {
			return nil
		}
		from = end + 1
	}
	return d
}

// item reads a column or a constraint of the table.
func (d *TableDef) item(from, end int) bool {
	t := d.toks
	if t[from].in("CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN") && t[from].kind == tIdent {
		d.constraints(from, end, "")
		return true
	}
	if t[from].in("EXCLUDE", "LIKE") || !t[from].isName() && t[from].kind != tString {
		return false
	}
	c := ColumnDef{Name: t[from].val, name: from, typ: from + 1, end: end}
	i := from + 1
	for depth := 0; i < end; i++ {
		if depth == 0 && t[i].kind == tIdent && startsConstraint[t[i].up] {
			break
		}
		if t[i].is("(") {
			depth++
		} else if t[i].is(")") {
			depth--
		}
	}
	c.rest = i
	if c.typ < c.rest {
		c.Decl = d.src[t[c.typ].start:t[c.rest-1].end]
		c.Type = TypeOf(c.Decl)
		c.serial = c.rest == c.typ+1 && t[c.typ].in("SERIAL", "BIGSERIAL", "SERIAL4", "SERIAL8", "SMALLSERIAL", "SERIAL2")
	}
	for depth := 0; i < end; i++ {
		x := t[i]
		switch {
		case x.is("("):
			depth++
		case x.is(")"):
			depth--
		case depth > 0 || x.kind != tIdent:
		case x.is("IDENTITY"), x.is("AUTO_INCREMENT"):
			if c.identity == 0 {
				c.identity = i
			}
			c.identityEnd = i + 1
			if i+1 < end && t[i+1].is("(") {
				c.identityEnd = closing(t, i+1) + 1
			}
		case x.is("GENERATED"):
			for k := i + 1; k < end && k < i+5; k++ {
				if t[k].is("IDENTITY") {
					c.identity = i
				}
			}
		case x.is("PRIMARY"):
			c.primary = true
		}
	}
	d.Columns = append(d.Columns, c)
	d.constraints(c.rest, end, c.Name)
	return true
}

// constraints reads the constraints in a range; col is the column they stand at.
func (d *TableDef) constraints(i, end int, col string) {
	t := d.toks
	name := ""
	for ; i < end; i++ {
		x := t[i]
		c := ConstraintDef{Name: name}
		if col != "" {
			c.Columns = []string{col}
		}
		list := func() { // the columns in brackets after token i
			if i+1 < end && t[i+1].is("(") && col == "" {
				shut := closing(t, i+1)
				for k := i + 2; k < shut; k++ {
					if t[k].isName() && (t[k-1].is(",") || k == i+2) {
						c.Columns = append(c.Columns, t[k].val)
					}
				}
				i = shut
			}
		}
		switch {
		case x.is("("):
			if i = closing(t, i); i < 0 {
				return
			}
			continue
		case x.kind != tIdent:
			continue
		case x.is("CONSTRAINT") && i+1 < end:
			i++
			name = t[i].val
			continue
		case x.is("PRIMARY"):
			c.Kind = 'p'
			i++
			list()
		case x.is("UNIQUE"):
			c.Kind = 'u'
			list()
		case x.is("CHECK"):
			c.Kind = 'c'
			if i+1 < end && t[i+1].is("(") {
				shut := closing(t, i+1)
				c.Text = d.src[t[i+1].start:t[shut].end]
				i = shut
			}
		case x.is("FOREIGN"):
			c.Kind = 'f'
			i++
			list()
		case x.is("REFERENCES"):
			if col == "" {
				continue
			}
			c.Kind = 'f'
		default:
			continue
		}
		d.Constraints = append(d.Constraints, c)
		name = ""
	}
}

// Key returns the first constraint of a kind over exactly these columns.
func (d *TableDef) Key(kind byte, cols []string) (ConstraintDef, bool) {
	for _, c := range d.Constraints {
		if c.Kind == kind && strings.EqualFold(strings.Join(c.Columns, "\x00"), strings.Join(cols, "\x00")) {
			return c, true
		}
	}
	return ConstraintDef{}, false
}

// keyOf reports whether the column is the whole primary key.
func (d *TableDef) keyOf(c *ColumnDef) bool {
	if c.primary {
		return true
	}
	for _, k := range d.Constraints {
		if k.Kind == 'p' && len(k.Columns) == 1 && strings.EqualFold(k.Columns[0], c.Name) {
			return true
		}
	}
	return false
}
