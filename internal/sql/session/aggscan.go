package session

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/scan"
	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/storage/pagestore"
)

// Aggregates over a whole table are executed by package scan, when it can. The
// statement has been prepared by SQLite, with everything that belongs to that,
// and is run by SQLite after all whenever the executor gives up.

// scanPages is the size of a database, in pages, from which on it is worth asking
// whether the executor can do a statement: SQLite is quick with small tables.
const scanPages = 256

// folds finds statements that may be for the executor, in their text.
var folds = regexp.MustCompile(`(?i)\b(?:count|sum|total|avg|min|max)\s*\(`)

func mayFold(st *dialect.Statement) bool {
	return (st.Tag == "SELECT" || st.Tag == "EXPLAIN") && !st.ForUpdate && folds.MatchString(st.SQL)
}

// scanPlan is what is known of a prepared statement.
type scanPlan struct {
	asked    bool
	prog     *scan.Program // nil: SQLite runs it
	defaults []scan.Value  // of prog.Columns, once a row has needed one
}

// scans counts statements for the executor.
type scans struct {
	done, left atomic.Int64 // run to the end; begun and left to SQLite
	busy       atomic.Int32 // goroutines beside those of the sessions
}

// helpers takes as many goroutines as processors are left, at most, so that
// sessions that scan at the same time share them.
func (n *scans) helpers() int {
	want := int32(runtime.GOMAXPROCS(0)) - 1
	for {
		now := n.busy.Load()
		more := max(0, want-now)
		if n.busy.CompareAndSwap(now, now+more) {
			return int(more)
		}
	}
}

// leastScan is the size of the database, in pages, from which on the session uses
// the executor.
func (s *Session) leastScan() uint32 {
	switch s.vars.get("enable_aggscan") {
	case "off":
		return math.MaxUint32
	case "always":
		return 0
	}
	return scanPages
}

// viewer is a handle whose snapshot can be read by several goroutines.
type viewer interface {
	View() (*pagestore.View, error)
}

// scan executes a statement that is bound, if the executor can. ok is false when
// SQLite has to; nothing has happened then.
func (p *Portal) scan(c *conn, cs *cstmt) (rows []valueRow, ok bool) {
	s := p.s
	if !p.st.p.fold || p.st.p.Tag != "SELECT" || s.tx.locked || s.tx.rec != nil {
		return nil, false
	}
	least := s.leastScan()
	h, is := c.h.(viewer)
	if !is || cs.plan.asked && cs.plan.prog == nil {
		return nil, false
	}
	view, err := h.View()
	if err != nil {
		return nil, false
	}
	defer view.Close()
	if view.Pages() < least {
		return nil, false
	}
	if !cs.plan.asked {
		cs.plan.asked = true
		cs.plan.prog, _ = c.program(cs.sql)
	}
	// What may be executed was decided with the schema of cs; SQLite asks again.
	if cs.plan.prog == nil || cs.plan.prog.Cookie != cs.cookie {
		return nil, false
	}
	out, err := p.fold(c, cs, view)
	if err == nil {
		rows, err = c.shown(out)
	}
	if err != nil {
		s.b.scans.left.Add(1)
		if errors.Is(err, scan.ErrUnsupported) && !errors.Is(err, scan.ErrStale) {
			cs.plan.prog = nil // it would give up again
		}
		return nil, false
	}
	s.b.scans.done.Add(1)
	return rows, true
}

// queryPlan is how a statement begins that EXPLAIN has made one about another.
var queryPlan = regexp.MustCompile(`(?i)^\s*EXPLAIN\s+QUERY\s+PLAN\s+`)

// explainScan adds a line to a query plan when the executor would run the
// statement.
func (p *Portal) explainScan(c *conn, cur *cursor) error {
	s := p.s
	at := queryPlan.FindStringIndex(p.st.p.SQL)
	if at == nil || !p.st.p.fold || p.st.p.Tag != "EXPLAIN" || s.tx.locked || s.tx.rec != nil {
		return nil
	}
	h, is := c.h.(viewer)
	if !is {
		return nil
	}
	view, err := h.View()
	if err != nil {
		return nil
	}
	small := view.Pages() < s.leastScan()
	view.Close()
	if small {
		return nil
	}
	if _, err := c.program(p.st.p.SQL[at[1]:]); err != nil {
		return nil
	}
	if err := cur.materialise(); err != nil {
		return err
	}
	if len(cur.rows) > 0 && len(cur.rows[0]) == 4 {
		zero := sqlapi.Value{Kind: sqlapi.Integer}
		text := fmt.Sprintf("AGGREGATE SCAN BY THE SERVER'S OWN EXECUTOR, UP TO %d AT A TIME", runtime.GOMAXPROCS(0))
		cur.rows = append(cur.rows, valueRow{zero, zero, zero, {Kind: sqlapi.Text, Bytes: []byte(text)}})
	}
	return nil
}

// fold runs the program.
func (p *Portal) fold(c *conn, cs *cstmt, view *pagestore.View) ([][]scan.Value, error) {
	b := p.s.b
	opt := scan.Options{Memory: b.limits.Load().Memory, Defaults: cs.plan.defaults, Call: c.call}
	for _, k := range cs.params {
		if k > len(p.params) {
			return nil, scan.ErrUnsupported
		}
		opt.Params = append(opt.Params, scanValue(p.params[k-1]))
	}
	n := b.scans.helpers()
	defer b.scans.busy.Add(int32(-n))
	opt.Workers = n + 1
	out, err := cs.plan.prog.Run(p.s.ctx, view, opt)
	if errors.Is(err, scan.ErrShort) && opt.Defaults == nil {
		if cs.plan.defaults, err = c.defaults(cs.plan.prog); err != nil {
			return nil, err
		}
		opt.Defaults = cs.plan.defaults
		out, err = cs.plan.prog.Run(p.s.ctx, view, opt)
	}
	return out, err
}

// aside runs fn without the authorizer, and without its taking notes.
func (c *conn) aside(fn func() error) error {
	rec, was := c.rec, c.internal
	c.internal = true
	defer func() { c.rec, c.internal = rec, was }()
	return guard(fn)
}

// program asks SQLite for its program of a statement. The error says why the
// executor cannot run it.
func (c *conn) program(sql string) (prog *scan.Program, err error) {
	err = c.aside(func() error {
		st, _, err := c.db.Prepare("EXPLAIN " + sql)
		if err != nil {
			return err
		}
		defer st.Close()
		var list []scan.Instr
		for st.Step() {
			list = append(list, scan.Instr{Op: st.ColumnText(1), P1: st.ColumnInt(2), P2: st.ColumnInt(3), P3: st.ColumnInt(4), P4: st.ColumnText(5), HasP4: st.ColumnType(5) != sqlite3.NULL, P5: st.ColumnInt(6)})
		}
		if err := st.Err(); err != nil {
			return err
		}
		prog, err = scan.Compile(list)
		return err
	})
	return prog, err
}

// call calls a function of SQLite.
func (c *conn) call(name string, args []scan.Value) (out scan.Value, err error) {
	err = c.aside(func() error {
		marks := strings.TrimSuffix(strings.Repeat("?,", len(args)), ",")
		cs, err := c.prepare("SELECT " + dialect.QuoteName(name) + "(" + marks + ")")
		if err != nil {
			return err
		}
		defer c.done(cs)
		params := make([]sqlapi.Value, len(args))
		for i := range args {
			params[i] = apiValue(args[i])
		}
		if err := cs.bind(params); err != nil {
			return err
		}
		more, err := c.step(cs)
		if err != nil {
			return err
		}
		if more {
			out = scanValue(copyRow(cs.s, 1)[0])
		}
		return nil
	})
	return out, err
}

// shown makes rows of results. A double has the text that SQLite makes of it.
func (c *conn) shown(out [][]scan.Value) (rows []valueRow, err error) {
	var cs *cstmt
	err = c.aside(func() error {
		defer func() {
			if cs != nil {
				c.done(cs)
			}
		}()
		for _, r := range out {
			row := make(valueRow, len(r))
			for i := range r {
				row[i] = apiValue(r[i])
				if row[i].Kind != sqlapi.Float {
					continue
				}
				if cs == nil {
					if cs, err = c.prepare("SELECT ?"); err != nil {
						return err
					}
				}
				if err := cs.bind(row[i : i+1]); err != nil {
					return err
				}
				if _, err := c.step(cs); err != nil {
					return err
				}
				row[i].Bytes = append([]byte(nil), cs.s.ColumnRawText(0)...)
				if err := cs.s.Reset(); err != nil {
					return err
				}
			}
			rows = append(rows, row)
		}
		return nil
	})
	return rows, err
}

func apiValue(v scan.Value) sqlapi.Value {
	switch v.Kind {
	case scan.Int:
		return sqlapi.Value{Kind: sqlapi.Integer, Int: v.Int64()}
	case scan.Real:
		return sqlapi.Value{Kind: sqlapi.Float, Float: v.Float64()}
	case scan.Text:
		return sqlapi.Value{Kind: sqlapi.Text, Bytes: append([]byte{}, v.Bytes...)}
	case scan.Blob:
		return sqlapi.Value{Kind: sqlapi.Blob, Bytes: append([]byte{}, v.Bytes...)}
	}
	return sqlapi.Value{}
}

func scanValue(v sqlapi.Value) scan.Value {
	switch v.Kind {
	case sqlapi.Integer:
		return scan.IntValue(v.Int)
	case sqlapi.Float:
		return scan.RealValue(v.Float)
	case sqlapi.Text:
		return scan.TextValue(v.Bytes)
	case sqlapi.Blob:
		return scan.BlobValue(v.Bytes)
	}
	return scan.Value{}
}

// literal is a default that stands for itself; others are not evaluated.
var literal = regexp.MustCompile(`^(?i:null|true|false|[+-]?[0-9.]+(?:e[+-]?[0-9]+)?|'(?:[^']|'')*'|x'[0-9a-f]*')$`)

// defaults are those that rows have which are older than a column.
func (c *conn) defaults(prog *scan.Program) (out []scan.Value, err error) {
	out = make([]scan.Value, len(prog.Columns))
	err = c.aside(func() error {
		tables, err := c.rows("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage = $1", sqlapi.Value{Kind: sqlapi.Integer, Int: int64(prog.Root)})
		if err != nil || len(tables) != 1 {
			return errors.Join(err, scan.ErrUnsupported)
		}
		cols, err := c.rows("SELECT type, dflt_value FROM pragma_table_xinfo($1) WHERE hidden <> 2 ORDER BY cid", tables[0][0]) // 2: not stored
		if err != nil {
			return err
		}
		for i, field := range prog.Columns {
			if !prog.Default[i] {
				continue
			}
			if field >= len(cols) || !literal.Match(cols[field][1].Bytes) {
				return scan.ErrUnsupported
			}
			v, err := c.rows("SELECT " + string(cols[field][1].Bytes))
			if err != nil {
				return err
			}
			out[i] = scanValue(v[0][0])
			if err := scan.Affinity(&out[i], declared(string(cols[field][0].Bytes))); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

// rows runs an internal statement to its end.
func (c *conn) rows(sql string, args ...sqlapi.Value) (out []valueRow, err error) {
	cs, err := c.prepare(sql)
	if err != nil {
		return nil, err
	}
	defer c.done(cs)
	if err := cs.bind(args); err != nil {
		return nil, err
	}
	for {
		more, err := c.step(cs)
		if err != nil || !more {
			return out, err
		}
		out = append(out, copyRow(cs.s, cs.ncols))
	}
}

// declared is the affinity of a declared type, by SQLite's rules.
func declared(t string) byte {
	t = strings.ToUpper(t)
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(t, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("INT"):
		return 'D'
	case has("CHAR", "CLOB", "TEXT"):
		return 'B'
	case t == "", has("BLOB"):
		return 'A'
	case has("REAL", "FLOA", "DOUB"):
		return 'E'
	}
	return 'C'
}
