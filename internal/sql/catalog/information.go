package catalog

import (
	"strings"

	"datawatch/internal/sql/dialect"
)

// The information_schema of the SQL standard.

func yes(b bool) string {
	if b {
		return "YES"
	}
	return "NO"
}

func infoTables(s *snapshot) (out [][]any) {
	for _, r := range s.rels {
		kind := map[string]string{"r": "BASE TABLE", "v": "VIEW"}[r.kind]
		if kind == "" || !s.visible(r) {
			continue
		}
		if r.schema == "temp" {
			kind = "LOCAL TEMPORARY"
		}
		out = append(out, row(s.database, schemaName(r.schema), r.name, kind, nil, nil, nil, nil, nil, yes(r.kind == "r"), "NO", nil))
	}
	return out
}

func infoColumns(s *snapshot) (out [][]any) {
	for _, r := range s.rels {
		if r.kind == "i" || r.kind == "S" || !s.visible(r) {
			continue
		}
		for n, c := range r.columns {
			var length, prec, radix, scale, dt, def, gen any
			switch c.typ.OID {
			case dialect.VarChar, dialect.BPChar:
				if c.typ.Mod > 4 {
					length = c.typ.Mod - 4
				}
			case dialect.Int2:
				prec, radix, scale = 16, 2, 0
			case dialect.Int4:
				prec, radix, scale = 32, 2, 0
			case dialect.Int8:
				prec, radix, scale = 64, 2, 0
			case dialect.Float4:
				prec, radix = 24, 2
			case dialect.Float8:
				prec, radix = 53, 2
			case dialect.Numeric:
				radix = 10
				if c.typ.Mod > 4 {
					prec, scale = int(c.typ.Mod-4)>>16, int(c.typ.Mod-4)&0xffff
				}
			case dialect.Time, dialect.Timestamp, dialect.TimestampTZ:
				dt = 6
			case dialect.Date:
				dt = 0
			}
			if c.def != nil {
				def = *c.def
			}
			id := r.kind == "r" && r.identity(n)
			if id {
				gen = "BY DEFAULT"
			}
			generated := "NEVER"
			if c.generated {
				generated = "ALWAYS"
			}
			out = append(out, row(s.database, schemaName(r.schema), r.name, c.name, n+1, def, yes(!c.notNull), dialect.FormatType(dialect.Type{OID: c.typ.OID, Mod: -1}),
				length, nil, prec, radix, scale, dt, s.database, "pg_catalog", dialect.NameOf(c.typ.OID), yes(id), gen, generated, nil, yes(r.kind == "r")))
		}
	}
	return out
}

func infoConstraints(s *snapshot) (out [][]any) {
	for _, c := range s.cons {
		kind := map[string]string{"p": "PRIMARY KEY", "u": "UNIQUE", "f": "FOREIGN KEY", "c": "CHECK"}[c.kind]
		sch := schemaName(c.rel.schema)
		out = append(out, row(s.database, sch, c.name, s.database, sch, c.rel.name, kind, "NO", "NO", "YES"))
	}
	return out
}

func infoKeys(s *snapshot) (out [][]any) {
	for _, c := range s.cons {
		if c.kind == "c" {
			continue
		}
		sch := schemaName(c.rel.schema)
		for n, att := range c.cols {
			if att == 0 {
				continue
			}
			var pos any
			if c.kind == "f" {
				pos = n + 1
			}
			out = append(out, row(s.database, sch, c.name, s.database, sch, c.rel.name, c.rel.columns[att-1].name, n+1, pos))
		}
	}
	return out
}

func infoReferences(s *snapshot) (out [][]any) {
	rule := func(a string) string {
		if a = strings.TrimSpace(a); a == "" {
			return "NO ACTION"
		}
		return a
	}
	for _, c := range s.cons {
		if c.kind != "f" {
			continue
		}
		sch := schemaName(c.rel.schema)
		var name any
		if c.index != nil {
			name = c.index.name
		}
		out = append(out, row(s.database, sch, c.name, s.database, sch, name, "NONE", rule(c.onUpd), rule(c.onDel)))
	}
	return out
}
