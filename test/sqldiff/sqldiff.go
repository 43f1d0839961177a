// Package sqldiff makes random SQL from a seed and compares what two databases
// answer: plain SQLite in this process, and a server over the PostgreSQL protocol.
//
// It owns the statements (gen.go), what the server is documented to add to
// SQLite (reference.go: failed transactions, implicit transactions, enforced
// types), the comparison, and the shortening of a failing list. It shows G2
// and G6 only in passing; systems and standbys are the caller's.
package sqldiff

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Way is how a statement is sent.
type Way int

// Ways: as a simple query; as Parse, Bind, Execute with results as text, or in
// binary.
const (
	Simple Way = iota
	Text
	Binary
)

func (w Way) String() string { return [...]string{"simple", "text", "binary"}[w] }

// Stmt is one message, or series of messages, to a database.
type Stmt struct {
	SQL     []string // more than one: one simple query, an implicit transaction
	Ref     string   // what SQLite gets instead of SQL[0]; "" the same
	Args    []any    // of $1...: nil, int64, float64, string, []byte
	Way     Way
	Ordered bool // the order of the rows is fixed
}

// String is how a failure shows it.
func (s Stmt) String() string {
	out := strings.Join(s.SQL, "; ")
	if len(s.Args) > 0 {
		out += fmt.Sprintf(" -- %#v", s.Args)
	}
	return out + " -- " + s.Way.String()
}

// Kind is SQLite's type of a value.
type Kind byte

// Kinds; Boolean and Number are what only a server says of a value, when
// its type is boolean, or one whose text is a number.
const (
	Null Kind = iota
	Integer
	Float
	TextKind
	Blob
)

// Cell is one value. A server's has only Null or TextKind, and its type.
type Cell struct {
	Kind Kind
	Text string
	OID  uint32
}

// Answer is what a database says to a Stmt.
type Answer struct {
	Code string // SQLSTATE; "" when it worked; "*" an error without a known state
	Rows [][]Cell
	Tag  string // what the server says was done; "" unknown
}

// DB runs statements.
type DB interface {
	Run(ctx context.Context, s Stmt) (Answer, error)
	Reset(ctx context.Context) error // back to an empty database
}

// Difference is the first statement with different answers.
type Difference struct {
	Index     int
	Stmt      Stmt
	Ref, Got  Answer
	Statement []Stmt // all statements up to it, or a shorter list that differs as well
}

func (d *Difference) String() string {
	var b strings.Builder
	for _, s := range d.Statement {
		fmt.Fprintf(&b, "    %s\n", s)
	}
	return fmt.Sprintf("%s\n  SQLite: %s\n  server: %s\n  after these statements:\n%s", d.Stmt, d.Ref, d.Got, b.String())
}

func (a Answer) String() string {
	if a.Code != "" {
		return "error " + a.Code
	}
	var rows []string
	for _, r := range a.Rows[:min(len(a.Rows), 8)] {
		var cells []string
		for _, c := range r {
			if c.Kind == Null {
				cells = append(cells, "NULL")
			} else {
				cells = append(cells, fmt.Sprintf("%.200q", c.Text))
			}
		}
		rows = append(rows, strings.Join(cells, " "))
	}
	return fmt.Sprintf("%s, %d rows: %s", a.Tag, len(a.Rows), strings.Join(rows, " | "))
}

// Compare runs the statements on both databases, which it empties first, and
// returns the first difference, nil when there is none.
func Compare(ctx context.Context, ref, db DB, stmts []Stmt) (*Difference, error) {
	if err := ref.Reset(ctx); err != nil {
		return nil, err
	}
	if err := db.Reset(ctx); err != nil {
		return nil, err
	}
	for i, s := range stmts {
		want, err := ref.Run(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
		got, err := db.Run(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
		if !Equal(want, got, s.Ordered) {
			return &Difference{i, s, want, got, stmts[:i+1]}, nil
		}
	}
	return nil, nil
}

// Shrink leaves out statements as long as the rest still differs, at most
// tries times.
func Shrink(ctx context.Context, ref, db DB, d *Difference, tries int) (*Difference, error) {
	for size := len(d.Statement) / 2; size > 0; {
		shorter := false
		for from := 0; from < len(d.Statement)-1 && tries > 0; {
			to := min(from+size, len(d.Statement)-1)
			tries--
			n, err := Compare(ctx, ref, db, slices.Concat(d.Statement[:from], d.Statement[to:]))
			if err != nil {
				return d, err
			}
			if n != nil {
				d, shorter = n, true
			} else {
				from = to
			}
		}
		if !shorter || size > 1 {
			size /= 2
		}
	}
	return d, nil
}

// Equal compares answers; without an order of their own, rows may come in any.
func Equal(ref, got Answer, ordered bool) bool {
	// A value that its column cannot hold is refused before anything else is
	// checked, in SQLite with the column's other constraints; a literal that is none
	// of its type also before a table that is not there.
	early := got.Code == "22001" || got.Code == "22003" || got.Code == "22P02" && ref.Code == "42P01"
	if ref.Code != got.Code && !(ref.Code == "*" && got.Code != "" || ref.Code != "" && early) || len(ref.Rows) != len(got.Rows) {
		return false
	}
	if ref.Tag != "" && got.Tag != "" && ref.Tag != got.Tag {
		return false
	}
	if ordered {
		return slices.EqualFunc(ref.Rows, got.Rows, equalRows)
	}
	// Each row of one has its own of the other.
	rest := slices.Clone(got.Rows)
	for _, r := range ref.Rows {
		i := slices.IndexFunc(rest, func(g []Cell) bool { return equalRows(r, g) })
		if i < 0 {
			return false
		}
		rest[i] = rest[len(rest)-1]
		rest = rest[:len(rest)-1]
	}
	return true
}

func equalRows(a, b []Cell) bool { return slices.EqualFunc(a, b, equalCells) }
