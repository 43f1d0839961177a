// Package catalog shows SQLite's schema as PostgreSQL's system catalog: pg_class,
// pg_attribute, pg_index, pg_constraint ... and information_schema, with the
// functions that queries on them call (format_type, pg_get_indexdef ...). That
// is what psql's backslash commands, drivers and object mappers ask.
//
// The tables are eponymous virtual tables. A connection pays for their names;
// rows are made of the schema when a statement asks for them, once per
// statement. Numbers of objects come from sqlite_schema's row numbers: they are
// the same on a primary and its standbys, and hold until VACUUM FULL.
//
// It keeps the part of G8 that concerns it: nothing a statement does to the
// catalog changes anything. Types of the protocol (pg_type) and settings
// (pg_settings) are the views package's, as they do not depend on the schema.
package catalog

import (
	"fmt"
	"sort"
	"strings"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/dialect"
)

// Host is what the catalog asks of the session layer.
type Host struct {
	// Stamp changes with every statement of a connection; 0: unknown. Rows
	// are made once per stamp.
	Stamp func() uint64
	// Internal runs fn with the permissions of the server itself.
	Internal func(fn func() error) error
	// Database is the name of the database.
	Database func() string
	// Access is who may do what; it is asked for inside Internal.
	Access func() (*Access, error)
	// Hidden reports tables that are the server's own.
	Hidden func(table string) bool
}

const (
	nsCatalog = 11
	nsPublic  = 2200
	nsInfo    = 13000
	nsTemp    = 13001

	// FirstOID and the row number in sqlite_schema are the number of a table.
	FirstOID = 16384
	tempOID  = 1 << 29 // of temporary objects
	keyOID   = 1 << 28 // + table: the index that a row number is
	conOID   = 3 << 28 // + running number: constraints, defaults
	ownerOID = 10
	amHeap   = 2
	amBtree  = 403
)

// relation is a table, view or index.
type relation struct {
	oid     int64
	name    string
	schema  string // main, temp
	kind    string // r, v, i, S
	sql     string
	parent  *relation // of an index: its table
	columns []column
	indexes []*relation
	def     *dialect.TableDef // of a table, if it could be taken apart
	trigger int
	seq     *sequence // of a sequence

	// Indexes.
	stored  string // SQLite's name
	unique  bool
	primary bool
	origin  string
	partial bool
	keys    []key
}

type column struct {
	name, decl string
	typ        dialect.Type
	notNull    bool
	def        *string
	pk         int
	generated  bool
}

// key is a column of an index: its number from 1, 0 for an expression.
type key struct {
	att  int64
	desc bool
}

type constraint struct {
	oid     int64
	name    string
	kind    string // p, u, c, f
	rel     *relation
	index   *relation
	cols    []int64
	ref     *relation
	refCols []int64
	onUpd   string
	onDel   string
	def     string
}

type trigger struct {
	oid  int64
	name string
	rel  *relation
	sql  string
}

// snapshot is the catalog at one moment.
type snapshot struct {
	rels     []*relation
	byOID    map[int64]*relation
	cons     []*constraint
	conByOID map[int64]*constraint
	triggers []trigger
	acc      *Access
	database string
	comments map[relCol]string
	rows     map[string][][]any         // by table
	index    map[string]map[any][][]any // by table and column
}

// state is the catalog of one connection.
type state struct {
	db    *sqlite3.Conn
	host  Host
	stamp uint64
	snap  *snapshot
}

// get returns the snapshot of the running statement.
func (s *state) get() (*snapshot, error) {
	stamp := s.host.Stamp()
	if s.snap != nil && stamp != 0 && stamp == s.stamp {
		return s.snap, nil
	}
	snap := &snapshot{byOID: map[int64]*relation{}, conByOID: map[int64]*constraint{}, rows: map[string][][]any{},
		index: map[string]map[any][][]any{}, database: s.host.Database()}
	err := s.host.Internal(func() error {
		var err error
		if snap.acc, err = s.host.Access(); err != nil {
			return err
		}
		for _, schema := range []string{"main", "temp"} {
			if err := snap.load(s.db, schema, s.host.Hidden); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	snap.constraints()
	s.snap, s.stamp = snap, stamp
	return snap, nil
}

// each runs a query and calls fn for its rows.
func each(db *sqlite3.Conn, sql string, fn func(st *sqlite3.Stmt), args ...string) error {
	st, _, err := db.Prepare(sql)
	if err != nil {
		return err
	}
	defer st.Close()
	for i, a := range args {
		if err := st.BindText(i+1, a); err != nil {
			return err
		}
	}
	for st.Step() {
		fn(st)
	}
	return st.Err()
}

// load reads one of SQLite's schemas.
func (s *snapshot) load(db *sqlite3.Conn, schema string, hidden func(string) bool) error {
	base := int64(FirstOID)
	table := "main.sqlite_schema"
	if schema == "temp" {
		base, table = tempOID, "temp.sqlite_temp_schema"
	}
	tables := map[string]*relation{}
	var indexes []*relation
	owner := map[*relation]string{}
	var triggers []trigger
	trigOn := map[int]string{}
	err := each(db, "SELECT rowid, type, name, tbl_name, sql FROM "+table+" ORDER BY rowid", func(st *sqlite3.Stmt) {
		name, tbl := st.ColumnText(2), st.ColumnText(3)
		if strings.HasPrefix(tbl, "sqlite_") || hidden(tbl) {
			return
		}
		r := &relation{oid: base + st.ColumnInt64(0), name: name, stored: name, schema: schema, sql: st.ColumnText(4)}
		switch st.ColumnText(1) {
		case "table":
			r.kind, r.def = "r", dialect.ParseTable(r.sql)
			tables[strings.ToLower(name)] = r
		case "view":
			r.kind = "v"
			tables[strings.ToLower(name)] = r
		case "index":
			r.kind = "i"
			indexes = append(indexes, r)
			owner[r] = tbl
			return
		case "trigger":
			trigOn[len(triggers)] = tbl
			triggers = append(triggers, trigger{oid: r.oid, name: name, sql: r.sql})
			return
		default:
			return
		}
		s.rels = append(s.rels, r)
	})
	if err != nil {
		return err
	}
	for _, r := range s.rels {
		if r.schema != schema {
			continue
		}
		// A view over something that is gone has no columns, and that is all.
		err := each(db, `SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?1, ?2) WHERE hidden <> 1`, func(st *sqlite3.Stmt) {
			c := column{name: st.ColumnText(0), decl: st.ColumnText(1), notNull: st.ColumnBool(2), pk: st.ColumnInt(4), generated: st.ColumnInt(5) > 1}
			if st.ColumnType(3) != sqlite3.NULL {
				d := plainDefault(st.ColumnText(3))
				c.def = &d
			}
			c.typ = dialect.TypeOf(c.decl)
			if c.typ.OID == 0 {
				c.typ.OID = dialect.Text
			}
			c.notNull = c.notNull || c.pk > 0
			r.columns = append(r.columns, c)
		}, r.stored, schema)
		if err != nil && r.kind == "r" {
			return err
		}
	}
	for _, i := range indexes {
		t := tables[strings.ToLower(owner[i])]
		if t == nil {
			continue
		}
		i.parent = t
		t.indexes = append(t.indexes, i)
		if err := i.loadIndex(db); err != nil {
			return err
		}
		s.rels = append(s.rels, i)
	}
	for _, r := range tables {
		if r.kind == "r" && r.rowKey() {
			i := &relation{oid: r.oid + keyOID, name: r.name + "_pkey", kind: "i", schema: schema, parent: r, unique: true, primary: true, origin: "pk"}
			for n, c := range r.columns {
				if c.pk > 0 {
					i.keys = append(i.keys, key{att: int64(n + 1)})
				}
			}
			sort.Slice(i.keys, func(a, b int) bool { return r.columns[i.keys[a].att-1].pk < r.columns[i.keys[b].att-1].pk })
			r.indexes = append([]*relation{i}, r.indexes...)
			s.rels = append(s.rels, i)
		}
	}
	if schema == "main" {
		if err := s.loadSequences(db); err != nil {
			return err
		}
		if err := s.loadComments(db); err != nil {
			return err
		}
	}
	for k, t := range triggers {
		if t.rel = tables[strings.ToLower(trigOn[k])]; t.rel != nil {
			t.rel.trigger++
			s.triggers = append(s.triggers, t)
		}
	}
	sort.Slice(s.rels, func(i, j int) bool { return s.rels[i].oid < s.rels[j].oid })
	for _, r := range s.rels {
		s.byOID[r.oid] = r
		if r.schema == schema && r.kind == "r" {
			if err := s.loadForeign(db, r, tables); err != nil {
				return err
			}
		}
	}
	return nil
}

// rowKey reports a primary key that has no index of its own: the row number,
// or the key that a WITHOUT ROWID table is ordered by.
func (r *relation) rowKey() bool {
	has := false
	for _, c := range r.columns {
		has = has || c.pk > 0
	}
	for _, i := range r.indexes {
		if i.primary && !strings.HasPrefix(i.stored, "sqlite_autoindex") {
			return false
		}
		if i.origin == "pk" {
			return false
		}
	}
	return has
}

func (i *relation) loadIndex(db *sqlite3.Conn) error {
	err := each(db, `SELECT "unique", origin, partial FROM pragma_index_list(?1, ?2) WHERE name = ?3`, func(st *sqlite3.Stmt) {
		i.unique, i.origin, i.partial = st.ColumnBool(0), st.ColumnText(1), st.ColumnBool(2)
		i.primary = i.origin == "pk"
	}, i.parent.stored, i.schema, i.stored)
	if err != nil {
		return err
	}
	err = each(db, `SELECT cid, "desc" FROM pragma_index_xinfo(?1, ?2) WHERE key ORDER BY seqno`, func(st *sqlite3.Stmt) {
		i.keys = append(i.keys, key{att: max(st.ColumnInt64(0)+1, 0), desc: st.ColumnBool(1)})
	}, i.stored, i.schema)
	if strings.HasPrefix(i.stored, "sqlite_autoindex_") {
		suffix := "_pkey"
		kind := byte('p')
		if !i.primary {
			suffix, kind = "_"+strings.Join(i.keyNames(), "_")+"_key", 'u'
		}
		i.name = i.parent.name + suffix
		if d := i.parent.def; d != nil {
			if c, ok := d.Key(kind, i.keyNames()); ok && c.Name != "" {
				i.name = c.Name
			}
		}
	}
	return err
}

func (i *relation) keyNames() []string {
	var out []string
	for _, k := range i.keys {
		if k.att > 0 && int(k.att) <= len(i.parent.columns) {
			out = append(out, i.parent.columns[k.att-1].name)
		} else {
			out = append(out, "expr")
		}
	}
	return out
}

// number of a column by name, 0 when there is none.
func (r *relation) number(name string) int64 {
	for i, c := range r.columns {
		if strings.EqualFold(c.name, name) {
			return int64(i + 1)
		}
	}
	return 0
}

func (s *snapshot) loadForeign(db *sqlite3.Conn, r *relation, tables map[string]*relation) error {
	byID := map[int64]*constraint{}
	return each(db, `SELECT id, "table", "from", "to", on_update, on_delete FROM pragma_foreign_key_list(?1, ?2) ORDER BY id DESC, seq`, func(st *sqlite3.Stmt) {
		id := st.ColumnInt64(0)
		c := byID[id]
		if c == nil {
			c = &constraint{kind: "f", rel: r, ref: tables[strings.ToLower(st.ColumnText(1))], onUpd: st.ColumnText(4), onDel: st.ColumnText(5)}
			byID[id] = c
			if c.ref != nil {
				s.cons = append(s.cons, c)
			}
		}
		if c.ref == nil {
			return
		}
		c.cols = append(c.cols, r.number(st.ColumnText(2)))
		to := st.ColumnText(3)
		if to == "" { // the primary key
			for n, col := range c.ref.columns {
				if col.pk == len(c.cols) {
					c.refCols = append(c.refCols, int64(n+1))
				}
			}
			return
		}
		c.refCols = append(c.refCols, c.ref.number(to))
	}, r.stored, r.schema)
}
