package sqldiff

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestGenerate: the statements of a seed are always the same, cover what they
// are meant to, and most of them work.
func TestGenerate(t *testing.T) {
	ref := &Reference{}
	defer ref.Close()
	if err := ref.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	codes, words, rows := map[string]int{}, map[string]int{}, 0
	for seed := range uint64(20) {
		stmts := Generate(seed, 200)
		if fmt.Sprint(stmts) != fmt.Sprint(Generate(seed, 200)) {
			t.Fatalf("seed %d is not repeatable", seed)
		}
		if err := ref.Reset(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, s := range stmts {
			a, err := ref.Run(t.Context(), s)
			if err != nil {
				t.Fatalf("%s: %v", s, err)
			}
			codes[a.Code]++
			words[strings.Fields(s.SQL[0])[0]]++
			rows += len(a.Rows)
		}
	}
	t.Log(codes, words, rows)
	for _, w := range []string{"CREATE", "DROP", "ALTER", "INSERT", "UPDATE", "DELETE", "SELECT", "WITH", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"} {
		if words[w] == 0 {
			t.Errorf("no %s", w)
		}
	}
	for _, c := range []string{"23505", "23502", "23503", "23514", "22003", "22001", "25P02", "42P01", "42703"} {
		if codes[c] == 0 {
			t.Errorf("nothing fails with %s", c)
		}
	}
	if codes[""] < 2000 || rows < 2000 {
		t.Errorf("only %d of 4000 statements work, %d rows", codes[""], rows)
	}
}

// broken is SQLite with a fault.
type broken struct {
	Reference
	fault func(s Stmt, a Answer) Answer
}

func (b *broken) Run(ctx context.Context, s Stmt) (Answer, error) {
	a, err := b.Reference.Run(ctx, s)
	return b.fault(s, a), err
}

// TestCompare: SQLite is equal to itself, and every fault is found and
// shortened to the statements that matter.
func TestCompare(t *testing.T) {
	ref := &Reference{}
	defer ref.Close()
	stmts := Generate(1, 300)
	for _, x := range []struct {
		name  string
		fault func(s Stmt, a Answer) Answer
		most  int // statements after shortening
	}{
		{"none", func(_ Stmt, a Answer) Answer { return a }, 0},
		{"a row less", func(_ Stmt, a Answer) Answer {
			if len(a.Rows) > 2 {
				a.Rows = a.Rows[1:]
			}
			return a
		}, 12},
		{"order", func(s Stmt, a Answer) Answer {
			if a.Rows = slices.Clone(a.Rows); s.Ordered {
				slices.Reverse(a.Rows)
			}
			return a
		}, 6},
		{"accepts duplicates", func(_ Stmt, a Answer) Answer {
			if a.Code == "23505" {
				a.Code = ""
			}
			return a
		}, 6},
		{"empty text is NULL", func(_ Stmt, a Answer) Answer {
			for _, r := range a.Rows {
				for i := range r {
					if r[i].Text == "" {
						r[i] = Cell{}
					}
				}
			}
			return a
		}, 8},
		{"counts", func(s Stmt, a Answer) Answer {
			if strings.HasPrefix(a.Tag, "DELETE") {
				a.Tag += "0"
			}
			return a
		}, 3},
	} {
		t.Run(x.name, func(t *testing.T) {
			db := &broken{fault: x.fault}
			defer db.Close()
			d, err := Compare(t.Context(), ref, db, stmts)
			if err != nil {
				t.Fatal(err)
			}
			if (d == nil) != (x.most == 0) {
				t.Fatalf("difference: %v", d)
			}
			if d == nil {
				return
			}
			if d, err = Shrink(t.Context(), ref, db, d, 300); err != nil {
				t.Fatal(err)
			}
			if len(d.Statement) > x.most {
				t.Errorf("%d statements are left, want at most %d:\n%s", len(d.Statement), x.most, d)
			}
		})
	}
}

func TestEqualCells(t *testing.T) {
	for _, x := range []struct {
		ref, got Cell
		want     bool
	}{
		{Cell{Integer, "5", 0}, Cell{TextKind, "5", 23}, true}, {Cell{Integer, "5", 0}, Cell{TextKind, "6", 23}, false},
		{Cell{Integer, "1", 0}, Cell{TextKind, "t", 16}, true}, {Cell{Integer, "0", 0}, Cell{TextKind, "t", 16}, false},
		{Cell{Float, "0.5", 0}, Cell{TextKind, "0.50", 1700}, true}, {Cell{Float, "0.5", 0}, Cell{TextKind, "0.51", 1700}, false},
		{Cell{Float, "2", 0}, Cell{TextKind, "2.0", 25}, true}, {Cell{Integer, "9007199254740993", 0}, Cell{TextKind, "9007199254740992", 20}, false},
		{Cell{}, Cell{}, true}, {Cell{}, Cell{TextKind, "", 25}, false}, {Cell{TextKind, "", 0}, Cell{}, false},
		{Cell{TextKind, "a", 0}, Cell{TextKind, "a", 25}, true}, {Cell{TextKind, "5", 0}, Cell{TextKind, "5.0", 25}, false},
		{Cell{Blob, "\xff", 0}, Cell{TextKind, `\xff`, 17}, true}, {Cell{Blob, "a", 0}, Cell{TextKind, "a", 17}, false},
	} {
		if equalCells(x.ref, x.got) != x.want {
			t.Errorf("%v and %v: want %v", x.ref, x.got, x.want)
		}
	}
}
