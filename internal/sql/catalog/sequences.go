package catalog

import (
	"regexp"
	"strings"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/dialect"
)

const (
	// SequenceTable keeps the sequences; the session package says how.
	SequenceTable = "SYSSEQUENCES"
	// SequenceOID is what the ID of a sequence is counted from in pg_class.
	SequenceOID = 5 << 27

	classOID = 1000 // pg_class, as regclass gives it
)

// sequence is what pg_sequence shows of a relation of kind S.
type sequence struct {
	typ                         uint32
	start, inc, min, max, cache int64
	cycle                       bool
	last                        any // nil: not used yet
	table, column               string
}

// loadSequences reads the sequences; a database without any has no table.
func (s *snapshot) loadSequences(db *sqlite3.Conn) error {
	have := false
	err := each(db, "SELECT 1 FROM main.sqlite_schema WHERE name = '"+SequenceTable+"'", func(*sqlite3.Stmt) { have = true })
	if err != nil || !have {
		return err
	}
	return each(db, "SELECT ID, NAME, TYPE, START, INC, MIN, MAX, CACHE, CYCLE, NEXT, CALLED, OWNER_TABLE, OWNER_COLUMN FROM main."+SequenceTable+" ORDER BY ID", func(st *sqlite3.Stmt) {
		q := &sequence{typ: uint32(st.ColumnInt64(2)), start: st.ColumnInt64(3), inc: st.ColumnInt64(4), min: st.ColumnInt64(5), max: st.ColumnInt64(6),
			cache: st.ColumnInt64(7), cycle: st.ColumnBool(8), table: st.ColumnText(11), column: st.ColumnText(12)}
		switch {
		case !st.ColumnBool(10):
		case st.ColumnType(9) == sqlite3.NULL && q.inc > 0:
			q.last = q.max
		case st.ColumnType(9) == sqlite3.NULL:
			q.last = q.min
		default:
			q.last = st.ColumnInt64(9) - q.inc
		}
		long := dialect.Type{OID: dialect.Int8, Mod: -1}
		r := &relation{oid: SequenceOID + st.ColumnInt64(0), name: st.ColumnText(1), schema: "main", kind: "S", seq: q, columns: []column{
			{name: "last_value", typ: long, notNull: true}, {name: "log_cnt", typ: long, notNull: true}, {name: "is_called", typ: dialect.Type{OID: dialect.Bool, Mod: -1}, notNull: true}}}
		s.rels = append(s.rels, r)
		s.byOID[r.oid] = r
	})
}

func pgSequence(s *snapshot) (out [][]any) {
	for _, r := range s.kind("S") {
		q := r.seq
		out = append(out, row(r.oid, q.typ, q.start, q.inc, q.max, q.min, q.cache, q.cycle))
	}
	return out
}

func pgSequences(s *snapshot) (out [][]any) {
	for _, r := range s.kind("S") {
		q := r.seq
		out = append(out, row("public", r.name, s.ownerName(r), dialect.FormatType(dialect.Type{OID: q.typ, Mod: -1}), q.start, q.min, q.max, q.inc, q.cycle, q.cache, q.last))
	}
	return out
}

func infoSequences(s *snapshot) (out [][]any) {
	for _, r := range s.kind("S") {
		if !s.visible(r) {
			continue
		}
		q := r.seq
		bits := map[uint32]int{dialect.Int2: 16, dialect.Int4: 32}[q.typ]
		if bits == 0 {
			bits = 64
		}
		out = append(out, row(s.database, "public", r.name, dialect.FormatType(dialect.Type{OID: q.typ, Mod: -1}), bits, 2, 0, q.start, q.min, q.max, q.inc, yes(q.cycle)))
	}
	return out
}

// pgDepend shows which column a sequence belongs to, and which default asks it.
func pgDepend(s *snapshot) (out [][]any) {
	for _, r := range s.kind("S") {
		for _, t := range s.kind("r") {
			if n := t.number(r.seq.column); n > 0 && strings.EqualFold(t.name, r.seq.table) {
				out = append(out, row(classOID, r.oid, 0, classOID, t.oid, n, "a"))
			}
		}
	}
	return out
}

// serialSequence is pg_get_serial_sequence.
func (s *state) serialSequence(table, column string) any {
	snap, err := s.get()
	if err != nil {
		return nil
	}
	if i := strings.LastIndexByte(table, '.'); i >= 0 {
		table = table[i+1:]
	}
	for _, r := range snap.kind("S") {
		if strings.EqualFold(r.seq.table, strings.Trim(table, `"`)) && strings.EqualFold(r.seq.column, column) {
			return "public." + QuoteIdent(r.name)
		}
	}
	return nil
}

var assigned = regexp.MustCompile(`(?s)^dw_(?:assign|cast)\(\d+,-?\d+,(.*)\)$`)

// plainDefault is a default as it was written, without the conversion to the
// column's type that the server adds.
func plainDefault(def string) string {
	if m := assigned.FindStringSubmatch(def); m != nil {
		return strings.TrimSpace(m[1])
	}
	return def
}
