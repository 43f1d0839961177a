package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"datawatch/internal/app/dw"
)

// level is how the transactions of a test begin. Readers only are asked the
// anomalies that reading can show: session 1, or 3, reads.
type level struct {
	title, begin string
	reads        bool
	standby      bool
}

var levels = []level{
	{"READ COMMITTED (the default)", "BEGIN ISOLATION LEVEL READ COMMITTED", false, false},
	{"REPEATABLE READ", "BEGIN ISOLATION LEVEL REPEATABLE READ", false, false},
	{"SERIALIZABLE", "BEGIN ISOLATION LEVEL SERIALIZABLE", false, false},
	{"CONCURRENT", "BEGIN CONCURRENT", false, false},
	{"SERIALIZABLE, READ ONLY", "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", true, false},
	{"standby, READ COMMITTED", "BEGIN ISOLATION LEVEL READ COMMITTED", true, true},
	{"standby, SERIALIZABLE", "BEGIN ISOLATION LEVEL SERIALIZABLE", true, true},
}

// anomaly is a history of sessions 1 to 3 on test(id, value) with (1, 10) and
// (2, 20), and what of its answers shows that it happened: by the number of the
// step from 0, rows as "a|b c|d", or the table at the end.
type anomaly struct {
	name, what string
	reader     int // the session that only reads; 0: none
	steps      []string
	happened   func(r []string, end string) bool
}

func isIn(s string, all ...string) bool {
	for _, x := range all {
		if strings.Contains(s, x) {
			return true
		}
	}
	return false
}

var anomalies = []anomaly{
	{"G0", "dirty write: the writes of two transactions mixed", 0,
		[]string{"1 UPDATE test SET value = 11 WHERE id = 1", "2 UPDATE test SET value = 12 WHERE id = 1", "1 UPDATE test SET value = 21 WHERE id = 2", "1 COMMIT",
			"2 UPDATE test SET value = 22 WHERE id = 2", "2 COMMIT"},
		func(_ []string, end string) bool { return end != "1|12 2|22" }},
	{"G1a", "aborted read: what is rolled back later is read", 1,
		[]string{"2 UPDATE test SET value = 101 WHERE id = 1", "1 SELECT value FROM test WHERE id = 1", "2 ROLLBACK", "1 SELECT value FROM test WHERE id = 1", "1 COMMIT"},
		func(r []string, _ string) bool { return r[1] == "101" || r[3] == "101" }},
	{"G1b", "intermediate read: what its transaction overwrites later is read", 1,
		[]string{"2 UPDATE test SET value = 101 WHERE id = 1", "1 SELECT value FROM test WHERE id = 1", "2 UPDATE test SET value = 11 WHERE id = 1", "2 COMMIT",
			"1 SELECT value FROM test WHERE id = 1", "1 COMMIT"},
		func(r []string, _ string) bool { return r[1] == "101" || r[4] == "101" }},
	{"G1c", "circular information flow: two transactions read each other's writes", 0,
		[]string{"1 UPDATE test SET value = 11 WHERE id = 1", "2 UPDATE test SET value = 22 WHERE id = 2", "1 SELECT value FROM test WHERE id = 2", "1 COMMIT",
			"2 SELECT value FROM test WHERE id = 1", "2 COMMIT"},
		func(r []string, _ string) bool { return r[2] == "22" && r[4] == "11" }},
	{"OTV", "observed transaction vanishes: after a later transaction's write an earlier one's is read", 3,
		[]string{"1 UPDATE test SET value = 11 WHERE id = 1", "1 UPDATE test SET value = 19 WHERE id = 2", "2 UPDATE test SET value = 12 WHERE id = 1", "1 COMMIT",
			"3 SELECT value FROM test WHERE id = 1", "2 UPDATE test SET value = 18 WHERE id = 2", "3 SELECT value FROM test WHERE id = 2", "2 COMMIT",
			"3 SELECT value FROM test WHERE id = 2", "3 SELECT value FROM test WHERE id = 1", "3 COMMIT"},
		func(r []string, _ string) bool {
			second := map[string]bool{"12": true, "18": true}
			seen := false
			for _, i := range []int{4, 6, 8, 9} {
				if seen && !second[r[i]] {
					return true
				}
				seen = seen || second[r[i]]
			}
			return false
		}},
	{"PMP", "predicate-many-preceders: a condition finds rows that were not there before", 1,
		[]string{"1 SELECT id FROM test WHERE value = 30", "2 INSERT INTO test VALUES (3, 30)", "2 COMMIT", "1 SELECT id FROM test WHERE value % 3 = 0", "1 COMMIT"},
		func(r []string, _ string) bool { return r[0] != r[3] }},
	{"PMP, write", "a waiting DELETE does not look at the rows as they are when it goes on", 0,
		[]string{"1 UPDATE test SET value = value + 10", "2 DELETE FROM test WHERE value = 20", "1 COMMIT", "2 COMMIT"},
		func(_ []string, end string) bool { return end != "2|30" }},
	{"P4", "lost update: both write what they make of the value read before", 0,
		[]string{"1 SELECT value FROM test WHERE id = 1", "2 SELECT value FROM test WHERE id = 1", "1 UPDATE test SET value = 11 WHERE id = 1", "2 UPDATE test SET value = 12 WHERE id = 1", "1 COMMIT", "2 COMMIT"},
		func(r []string, _ string) bool { return r[0] == "10" && r[1] == "10" && strings.Join(r[2:], "") == "" }},
	{"P4, value = value + 1", "lost update by UPDATE alone", 0,
		[]string{"1 UPDATE test SET value = value + 1 WHERE id = 1", "2 UPDATE test SET value = value + 1 WHERE id = 1", "1 COMMIT", "2 COMMIT"},
		func(_ []string, end string) bool { return end != "1|12 2|20" }},
	{"P4, SELECT FOR UPDATE", "lost update although the rows were locked for it", 0,
		[]string{"1 SELECT value FROM test WHERE id = 1 FOR UPDATE", "2 SELECT value FROM test WHERE id = 1 FOR UPDATE", "1 UPDATE test SET value = 11 WHERE id = 1", "1 COMMIT", "2 COMMIT"},
		func(r []string, _ string) bool { return r[1] != "11" }},
	{"G-single", "read skew: one row before, the other after a transaction", 1,
		[]string{"1 SELECT value FROM test WHERE id = 1", "2 UPDATE test SET value = 12 WHERE id = 1", "2 UPDATE test SET value = 18 WHERE id = 2", "2 COMMIT", "1 SELECT value FROM test WHERE id = 2", "1 COMMIT"},
		func(r []string, _ string) bool { return r[0] == "10" && r[4] == "18" }},
	{"G-single, predicate", "read skew between two conditions", 1,
		[]string{"1 SELECT id FROM test WHERE value % 5 = 0", "2 UPDATE test SET value = 12 WHERE value = 10", "2 COMMIT", "1 SELECT id FROM test WHERE value % 3 = 0", "1 COMMIT"},
		func(r []string, _ string) bool { return r[0] == "1 2" && r[3] == "1" }},
	{"G-single, write", "a value is read, and a row is written after another changed both", 0,
		[]string{"1 SELECT value FROM test WHERE id = 1", "2 UPDATE test SET value = 12 WHERE id = 1", "2 UPDATE test SET value = 18 WHERE id = 2", "2 COMMIT", "1 DELETE FROM test WHERE value = 20", "1 COMMIT"},
		func(r []string, end string) bool { return r[0] == "10" && end == "1|12 2|18" && r[5] == "" }},
	{"G2-item", "write skew: both read both rows, each writes another", 0,
		[]string{"1 SELECT value FROM test ORDER BY id", "2 SELECT value FROM test ORDER BY id", "1 UPDATE test SET value = 11 WHERE id = 1", "2 UPDATE test SET value = 21 WHERE id = 2", "1 COMMIT", "2 COMMIT"},
		func(r []string, _ string) bool {
			return r[0] == "10 20" && r[1] == "10 20" && strings.Join(r[2:], "") == ""
		}},
	{"G2", "write skew with conditions: each inserts what the other looked for", 0,
		[]string{"1 SELECT id FROM test WHERE value % 3 = 0", "2 SELECT id FROM test WHERE value % 3 = 0", "1 INSERT INTO test VALUES (3, 30)", "2 INSERT INTO test VALUES (4, 42)", "1 COMMIT", "2 COMMIT"},
		func(r []string, end string) bool { return r[0]+r[1] == "" && isIn(end, "3|30 4|42") }},
	{"G2, two edges", "a reader between two writers sees an order that the writers do not have", 0,
		[]string{"1 SELECT value FROM test ORDER BY id", "2 UPDATE test SET value = value + 5 WHERE id = 2", "2 COMMIT", "3 SELECT value FROM test ORDER BY id", "3 COMMIT", "1 UPDATE test SET value = 0 WHERE id = 1", "1 COMMIT"},
		func(r []string, end string) bool { return r[0] == "10 20" && r[3] == "10 25" && r[5]+r[6] == "" }},
}

// isolation runs every anomaly at every level and compares the table with
// docs/isolation.md, which DW_UPDATE=1 writes.
func isolation(t *testing.T, sys *dw.System) {
	mustExec(t, sys, "CREATE TABLE test(id INT PRIMARY KEY, value INT)")
	var b strings.Builder
	b.WriteString("| anomaly | what it would be |")
	for _, l := range levels {
		b.WriteString(" " + l.title + " |")
	}
	b.WriteString("\n|---|---" + strings.Repeat("|---", len(levels)) + "|\n")
	for _, a := range anomalies {
		fmt.Fprintf(&b, "| %s | %s |", a.name, a.what)
		for _, l := range levels {
			cell := "does not write"
			if !l.reads || a.reader != 0 {
				cell = runAnomaly(t, sys, a, l)
			}
			b.WriteString(" " + cell + " |")
		}
		b.WriteString("\n")
	}
	readersDoNotWrite(t, sys)
	path := filepath.Join("..", "..", "docs", "isolation.md")
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(doc), "| anomaly |")
	_, tail, ok2 := strings.Cut(rest, "|\n\n")
	if !ok || !ok2 {
		t.Fatalf("%s has no table of anomalies", path)
	}
	want := head + b.String() + "\n" + tail
	if want == string(doc) {
		return
	}
	if os.Getenv("DW_UPDATE") != "" {
		write(t, path, want)
		return
	}
	t.Errorf("docs/isolation.md says otherwise (DW_UPDATE=1 writes it):\n%s", firstDifference(want, string(doc)))
}

// stage is where a history is played: sessions that run their steps one after
// the other, each in a goroutine, as one may wait for another.
type stage struct {
	watch    *pgconn.PgConn
	sessions [4]*player
	standby  *pgconn.PgConn
}

type player struct {
	c    *pgconn.PgConn
	do   chan func()
	busy chan struct{} // closed when the last step has ended
}

func (p *player) run(f func()) {
	p.busy = make(chan struct{})
	busy := p.busy
	p.do <- func() { f(); close(busy) }
}

func runAnomaly(t *testing.T, sys *dw.System, a anomaly, l level) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	mustExec(t, sys, "DELETE FROM test; INSERT INTO test VALUES (1, 10), (2, 20)")
	s := &stage{watch: rawConn(t, sys.DBs[0].Port), standby: rawConn(t, sys.DBs[1].Port)}
	s.catchUp(ctx, t)
	results := make([]string, len(a.steps))
	for i := 1; i <= 3; i++ {
		begin, port := l.begin, sys.DBs[0].Port
		if l.reads && i != a.reader { // the writers beside a reader are ordinary
			begin = "BEGIN"
		} else if l.standby {
			port = sys.DBs[1].Port
		}
		p := &player{c: rawConn(t, port), do: make(chan func(), len(a.steps))}
		s.sessions[i] = p
		go func() {
			for f := range p.do {
				f()
			}
		}()
		defer close(p.do)
		if _, err := p.c.Exec(ctx, begin).ReadAll(); err != nil {
			t.Fatalf("%s: %v", begin, err)
		}
	}
	for i, step := range a.steps {
		p := s.sessions[step[0]-'0']
		p.run(func() { results[i] = answer(ctx, p.c, step[2:]) })
		s.settle(ctx, t, p)
		if isIn(step, "COMMIT", "ROLLBACK") {
			for _, q := range s.sessions[1:] { // whoever waited for it goes on
				s.settle(ctx, t, q)
			}
			s.catchUp(ctx, t)
		}
	}
	for _, p := range s.sessions[1:] {
		if p.busy != nil {
			<-p.busy
		}
		p.c.Close(ctx)
	}
	end := answer(ctx, s.watch, "SELECT id, value FROM test ORDER BY id")
	if ctx.Err() != nil {
		t.Fatalf("%s at %s took too long: %q", a.name, l.title, results)
	}
	for i, r := range results {
		if isIn(r, "error") && !isIn(r, "40001", "25P02") {
			t.Errorf("%s at %s, step %q: %s", a.name, l.title, a.steps[i], r)
		}
	}
	if a.happened(results, end) {
		return "**possible**"
	}
	return "prevented"
}

// settle returns when the session has ended its step, or waits for another's.
func (s *stage) settle(ctx context.Context, t *testing.T, p *player) {
	t.Helper()
	for p.busy != nil && ctx.Err() == nil {
		select {
		case <-p.busy:
			return
		case <-time.After(2 * time.Millisecond):
		}
		if isIn(answer(ctx, s.watch, fmt.Sprintf("SELECT pg_blocking_pids(%d)", p.c.PID())), "1", "2", "3", "4", "5", "6", "7", "8", "9") {
			return
		}
	}
}

// catchUp waits until the standby shows all that is committed, unless a
// transaction that is still open holds the write lock.
func (s *stage) catchUp(ctx context.Context, t *testing.T) {
	t.Helper()
	want := answer(ctx, s.watch, "SELECT id, value FROM test ORDER BY id")
	for answer(ctx, s.standby, "SELECT id, value FROM test ORDER BY id") != want {
		if pause(ctx, time.Millisecond); ctx.Err() != nil {
			t.Fatalf("the standby does not show %s", want)
		}
	}
}

// answer is what a statement answers: its rows, or its error.
func answer(ctx context.Context, c *pgconn.PgConn, sql string) string {
	res, err := c.Exec(ctx, sql).ReadAll()
	var pe *pgconn.PgError
	switch {
	case errors.As(err, &pe):
		return "error " + pe.Code
	case err != nil:
		return "error " + err.Error()
	}
	var rows []string
	for _, r := range res {
		for _, row := range r.Rows {
			var cells []string
			for _, v := range row {
				cells = append(cells, string(v))
			}
			rows = append(rows, strings.Join(cells, "|"))
		}
	}
	return strings.Join(rows, " ")
}

// readersDoNotWrite: the cells "does not write" are true.
func readersDoNotWrite(t *testing.T, sys *dw.System) {
	for _, l := range levels {
		if !l.reads {
			continue
		}
		port := sys.DBs[0].Port
		if l.standby {
			port = sys.DBs[1].Port
		}
		c := rawConn(t, port)
		for _, sql := range []string{"UPDATE test SET value = 1", "DELETE FROM test", "INSERT INTO test VALUES (9, 9)", "SELECT * FROM test FOR UPDATE"} {
			if got := answer(t.Context(), c, l.begin); got != "" {
				t.Errorf("%s: %s", l.begin, got)
			}
			if got := answer(t.Context(), c, sql); got != "error 25006" {
				t.Errorf("%s, %s: %q, want 25006", l.title, sql, got)
			}
			answer(t.Context(), c, "ROLLBACK")
		}
	}
}
