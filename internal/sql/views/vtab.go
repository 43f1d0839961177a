package views

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/base"
)

// Register makes every view and every stand-in for PostgreSQL's catalog a table of the connection. The tables are
// eponymous: they need no CREATE, are in no schema on disk, and SQLite
// connects to one only when a statement names it, so that a connection that
// uses none pays for the names only.
func Register(db *sqlite3.Conn, src Source) error {
	for _, v := range slices.Concat(all, catalog) {
		//lint:ignore SA1019 the method it points to needs a newer language version
		err := sqlite3.CreateModule(db, v.Name, nil,
			func(db *sqlite3.Conn, _, _, _ string, _ ...string) (*table, error) {
				if err := db.DeclareVTab(v.decl); err != nil {
					return nil, err
				}
				// Reading a view changes nothing and reveals nothing a
				// statement could not read by itself: usable inside views.
				return &table{v, src}, db.VTabConfig(sqlite3.VTAB_INNOCUOUS)
			})
		if err != nil {
			return fmt.Errorf("register view %s: %w", v.Name, err)
		}
	}
	return nil
}

// table is a view on one connection.
type table struct {
	view *View
	src  Source
}

// BestIndex offers a full scan; views have a few hundred rows at most.
func (t *table) BestIndex(idx *sqlite3.IndexInfo) error {
	idx.EstimatedCost, idx.EstimatedRows = 100, 20
	return nil
}

// Open makes a cursor.
func (t *table) Open() (sqlite3.VTabCursor, error) { return &cursor{table: t}, nil }

// cursor walks one snapshot of the rows.
type cursor struct {
	*table
	rows reflect.Value
	n, i int
}

func (c *cursor) Filter(int, string, ...sqlite3.Value) error {
	c.rows = c.view.rows(c.src)
	c.n, c.i = c.rows.Len(), 0
	return nil
}

func (c *cursor) Next() error           { c.i++; return nil }
func (c *cursor) EOF() bool             { return c.i >= c.n }
func (c *cursor) RowID() (int64, error) { return int64(c.i) + 1, nil }

func (c *cursor) Column(ctx sqlite3.Context, n int) error {
	f := c.view.fields[n]
	switch x := value(c.rows.Index(c.i).Field(f.index), f.zeroNull).(type) {
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

// Rows returns the rows of a view as SQL values: nil, int64, float64 or string.
func (v *View) Rows(src Source) [][]any {
	rows := v.rows(src)
	out := make([][]any, rows.Len())
	for i := range out {
		out[i] = make([]any, len(v.fields))
		for j, f := range v.fields {
			out[i][j] = value(rows.Index(i).Field(f.index), f.zeroNull)
		}
	}
	return out
}

// timeLayout is how SQLite's date functions, and the session layer, read times.
const timeLayout = "2006-01-02 15:04:05.000000"

// value turns a field of a row into an SQL value.
func value(v reflect.Value, zeroNull bool) any {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil
		}
		v = v.Elem()
	} else if zeroNull && v.IsZero() {
		return nil
	}
	switch x := v.Interface().(type) {
	case time.Time:
		return x.Local().Format(timeLayout)
	case base.Status:
		return strings.ToUpper(x.String())
	case base.Mode:
		return strings.ToUpper(x.String())
	case base.Magic:
		return int64(x)
	case base.LSN:
		return int64(x)
	case base.Seq:
		return int64(x)
	case []base.Seq:
		return array(x)
	case []base.LSN:
		return array(x)
	case bool:
		return strings.ToUpper(strconv.FormatBool(x))
	case fmt.Stringer:
		return x.String()
	}
	switch {
	case v.CanInt():
		return v.Int()
	case v.CanUint():
		return int64(v.Uint())
	case v.CanFloat():
		return v.Float()
	}
	return v.String()
}

// array is the manual's form of an array by node: (4426) or (4426,17).
func array[T ~uint64](a []T) string {
	b := []byte{'('}
	for i, x := range a {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(x), 10)
	}
	return string(append(b, ')'))
}
