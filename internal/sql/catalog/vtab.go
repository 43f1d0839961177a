package catalog

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ncruces/go-sqlite3"
)

// Register makes the catalog's tables and functions known to a connection.
func Register(db *sqlite3.Conn, host Host) error {
	s := &state{db: db, host: host}
	for i := range tables {
		t := &tables[i]
		//lint:ignore SA1019 the method it points to needs a newer language version
		err := sqlite3.CreateModule(db, t.name, nil, func(db *sqlite3.Conn, _, _, _ string, _ ...string) (*vtab, error) {
			if err := db.DeclareVTab("CREATE TABLE x(" + t.columns + ")"); err != nil {
				return nil, err
			}
			return &vtab{s, t, strings.Count(t.columns, ",") + 1}, db.VTabConfig(sqlite3.VTAB_INNOCUOUS)
		})
		if err != nil {
			return fmt.Errorf("register %s: %w", t.name, err)
		}
	}
	return s.functions()
}

type vtab struct {
	s *state
	t *table
	n int // columns
}

// BestIndex offers a look-up by any one column: catalogs are joined by number.
func (v *vtab) BestIndex(idx *sqlite3.IndexInfo) error {
	idx.EstimatedCost, idx.EstimatedRows = 10000, 1000
	for i, c := range idx.Constraint {
		if c.Usable && c.Op == sqlite3.INDEX_CONSTRAINT_EQ && c.Column >= 0 {
			idx.ConstraintUsage[i].ArgvIndex = 1
			idx.IdxNum = c.Column + 1
			idx.EstimatedCost, idx.EstimatedRows = 10, 5
			break
		}
	}
	return nil
}

// Open makes a cursor.
func (v *vtab) Open() (sqlite3.VTabCursor, error) { return &cursor{vtab: v}, nil }

type cursor struct {
	*vtab
	rows [][]any
	i    int
}

// Filter finds the rows; num is the column to look up, from 1, or 0.
func (c *cursor) Filter(num int, _ string, arg ...sqlite3.Value) error {
	c.rows, c.i = nil, 0
	if c.t.rows == nil {
		return nil
	}
	snap, err := c.s.get()
	if err != nil {
		return err
	}
	all, ok := snap.rows[c.t.name]
	if !ok {
		all = c.t.rows(snap)
		for _, r := range all {
			if len(r) != c.n {
				return fmt.Errorf("catalog table %s has %d columns, its row %d", c.t.name, c.n, len(r))
			}
		}
		snap.rows[c.t.name] = all
	}
	if num == 0 {
		c.rows = all
		return nil
	}
	name := c.t.name + "." + strconv.Itoa(num)
	index := snap.index[name]
	if index == nil {
		index = map[any][][]any{}
		for _, r := range all {
			if k := lookup(r[num-1]); k != nil {
				index[k] = append(index[k], r)
			}
		}
		snap.index[name] = index
	}
	switch a := arg[0]; a.Type() {
	case sqlite3.INTEGER, sqlite3.FLOAT:
		c.rows = index[strconv.FormatInt(a.Int64(), 10)]
	case sqlite3.TEXT:
		c.rows = index[strings.ToLower(a.Text())]
	}
	return nil
}

// lookup is the key of a value: numbers and text alike, as a comparison
// converts one to the other. SQLite checks what is found.
func lookup(v any) any {
	switch x := plain(v).(type) {
	case int64:
		return strconv.FormatInt(x, 10)
	case float64:
		return strconv.FormatInt(int64(x), 10)
	case string:
		return strings.ToLower(x)
	}
	return nil
}

// plain is the SQL value of a field.
func plain(v any) any {
	switch x := v.(type) {
	case int:
		return int64(x)
	case int32:
		return int64(x)
	case uint32:
		return int64(x)
	case bool:
		if x {
			return int64(1)
		}
		return int64(0)
	}
	return v
}

func (c *cursor) Next() error           { c.i++; return nil }
func (c *cursor) EOF() bool             { return c.i >= len(c.rows) }
func (c *cursor) RowID() (int64, error) { return int64(c.i) + 1, nil }

func (c *cursor) Column(ctx sqlite3.Context, n int) error {
	switch x := plain(c.rows[c.i][n]).(type) {
	case nil:
		ctx.ResultNull()
	case int64:
		ctx.ResultInt64(x)
	case float64:
		ctx.ResultFloat(x)
	case string:
		ctx.ResultText(x)
	}
	return nil
}
