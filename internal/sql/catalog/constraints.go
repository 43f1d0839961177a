package catalog

import (
	"strconv"
	"strings"

	"datawatch/internal/sql/dialect"
)

// constraints makes pg_constraint of indexes, foreign keys and the text of
// CREATE TABLE, and numbers them.
func (s *snapshot) constraints() {
	foreign := s.cons
	s.cons = nil
	for _, r := range s.rels {
		if r.kind != "r" {
			continue
		}
		for _, i := range r.indexes {
			kind := map[string]string{"pk": "p", "u": "u"}[i.origin]
			if kind == "" {
				continue
			}
			c := &constraint{kind: kind, rel: r, index: i, name: i.name}
			for _, k := range i.keys {
				c.cols = append(c.cols, k.att)
			}
			word := "UNIQUE"
			if kind == "p" {
				word = "PRIMARY KEY"
			}
			c.def = word + " (" + r.names(c.cols) + ")"
			s.cons = append(s.cons, c)
		}
		if r.def == nil {
			continue
		}
		n := 0
		for _, d := range r.def.Constraints {
			if d.Kind != 'c' || strings.HasPrefix(d.Name, dialect.TypeChecked) {
				continue
			}
			c := &constraint{kind: "c", rel: r, name: d.Name, def: "CHECK " + d.Text}
			for _, name := range d.Columns {
				c.cols = append(c.cols, r.number(name))
			}
			if c.name == "" {
				c.name = r.name + "_check"
				if len(d.Columns) == 1 {
					c.name = r.name + "_" + d.Columns[0] + "_check"
				} else if n++; n > 1 {
					c.name += strconv.Itoa(n - 1)
				}
			}
			s.cons = append(s.cons, c)
		}
	}
	for _, c := range foreign {
		names := make([]string, len(c.cols))
		for i, n := range c.cols {
			if n > 0 {
				names[i] = c.rel.columns[n-1].name
			}
		}
		c.name = c.rel.name + "_" + strings.Join(names, "_") + "_fkey"
		if c.rel.def != nil {
			if d, ok := c.rel.def.Key('f', names); ok && d.Name != "" {
				c.name = d.Name
			}
		}
		c.def = "FOREIGN KEY (" + c.rel.names(c.cols) + ") REFERENCES " + QuoteIdent(c.ref.name) + "(" + c.ref.names(c.refCols) + ")"
		if a := c.onUpd; a != "" && a != "NO ACTION" {
			c.def += " ON UPDATE " + a
		}
		if a := c.onDel; a != "" && a != "NO ACTION" {
			c.def += " ON DELETE " + a
		}
		for _, i := range c.ref.indexes {
			if i.unique && sameKeys(i.keys, c.refCols) {
				c.index = i
				break
			}
		}
		s.cons = append(s.cons, c)
	}
	for i, c := range s.cons {
		c.oid = conOID + int64(i)
		s.conByOID[c.oid] = c
	}
}

func sameKeys(k []key, cols []int64) bool {
	if len(k) != len(cols) {
		return false
	}
	for i := range k {
		if k[i].att != cols[i] {
			return false
		}
	}
	return true
}

// names lists columns by number.
func (r *relation) names(cols []int64) string {
	var out []string
	for _, n := range cols {
		if n > 0 && int(n) <= len(r.columns) {
			out = append(out, QuoteIdent(r.columns[n-1].name))
		}
	}
	return strings.Join(out, ", ")
}

// QuoteIdent quotes a name where PostgreSQL would.
func QuoteIdent(s string) string {
	for i, c := range s {
		if c != '_' && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return dialect.QuoteName(s)
		}
	}
	if s == "" {
		return `""`
	}
	return s
}

// indexDef is CREATE INDEX as PostgreSQL prints it.
func (i *relation) indexDef() string {
	u := ""
	if i.unique {
		u = "UNIQUE "
	}
	head := "CREATE " + u + "INDEX " + QuoteIdent(i.name) + " ON " + schemaName(i.schema) + "." + QuoteIdent(i.parent.name) + " USING btree "
	if i.sql != "" {
		if at := strings.IndexByte(i.sql, '('); at > 0 {
			return head + i.sql[at:]
		}
	}
	var cols []string
	for n, k := range i.keys {
		c := QuoteIdent(i.keyNames()[n])
		if k.desc {
			c += " DESC"
		}
		cols = append(cols, c)
	}
	return head + "(" + strings.Join(cols, ", ") + ")"
}

func schemaName(s string) string {
	if s == "temp" {
		return "pg_temp"
	}
	return "public"
}

func namespace(s string) int64 {
	if s == "temp" {
		return nsTemp
	}
	return nsPublic
}

// viewDef is the query of a view.
func (r *relation) viewDef() string {
	up := strings.ToUpper(r.sql)
	for _, sep := range []string{" AS ", "\nAS ", " AS\n", "\nAS\n", "\tAS ", ") AS("} {
		if at := strings.Index(up, sep); at > 0 {
			return " " + strings.TrimSpace(r.sql[at+len(sep):]) + ";"
		}
	}
	return r.sql
}

// vector is an int2vector: numbers with blanks between.
func vector(n []int64) string {
	var out []string
	for _, x := range n {
		out = append(out, strconv.FormatInt(x, 10))
	}
	return strings.Join(out, " ")
}

// array is an array of numbers.
func array(n []int64) any {
	if n == nil {
		return nil
	}
	return "{" + strings.ReplaceAll(vector(n), " ", ",") + "}"
}
