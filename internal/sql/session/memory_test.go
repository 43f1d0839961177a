package session

import (
	"strings"
	"testing"
	"time"

	"datawatch/internal/sql/sqlitevfs"
	"datawatch/internal/vfs"
)

// TestStatementMemory: a statement that needs more than its share gets a clear
// error, changes nothing, and the server goes on.
func TestStatementMemory(t *testing.T) {
	e := newEnv(t)
	e.b.SetLimits(Limits{Lock: time.Second, IdleInWrite: time.Minute, Memory: 24 << 20})
	c := e.client()
	c.exec("create table t(id integer primary key, v text); insert into t values(1,'kept')")
	const many = "with recursive s(i) as (select 1 union all select i+1 from s where i<100000) "
	for _, q := range []string{
		"select group_concat(hex(zeroblob(1000000))) from (" + many + "select i from s limit 40)", // one value
		"update t set v = hex(zeroblob(40000000))",
		"insert into t(v) select hex(zeroblob(40000000))",
		"insert into t select i+10, hex(zeroblob(10000)) from (" + many + "select i from s limit 1500) returning id, v", // rows kept
		"begin; insert into t values(2, 'x'); insert into t select i+10, hex(zeroblob(10000)) from (" + many + "select i from s limit 1500) returning id, v; commit",
	} {
		_, _, err := c.simpleQ(q)
		if err == nil || codeOf(t, err) != "53200" || !strings.Contains(errOf(t, err).Hint, "STMT_MEM_LIMIT") {
			t.Errorf("%.60s: %v", q, err)
		}
		c.exec("rollback")
		c.is("select count(*), min(v) from t", "1|kept")
		c.exec("update t set v='kept'")
	}
	// Statements that run in a transaction with others: only theirs is undone.
	done := make(chan error, 2)
	hold := e.client()
	hold.exec("begin; insert into t values(3,'x')")
	go func() { _, err := e.client().ext("insert into t values(100, 'small')"); done <- err }()
	until(t, "it waits", func() bool { return len(e.b.Locks()) == 2 })
	go func() {
		_, err := e.client().ext("insert into t select i+1000, hex(zeroblob(10000)) from (" + many + "select i from s limit 1500) returning id, v")
		done <- err
	}()
	until(t, "both wait", func() bool { return len(e.b.Locks()) == 3 })
	hold.exec("rollback")
	failed := 0
	for range 2 {
		if err := <-done; err != nil {
			failed++
			if codeOf(t, err) != "53200" {
				t.Error(err)
			}
		}
	}
	if failed != 1 {
		t.Errorf("%d of two failed", failed)
	}
	c.is("select group_concat(id) from t", "1,100")
	// A session's own connection, with temporary tables, lives on.
	c.exec("create temp table x(v text); insert into x values('tmp')")
	c.fails("select group_concat(hex(zeroblob(1000000))) from ("+many+"select i from s limit 40)", "53200")
	c.is("select * from x", "tmp")
	if n := e.b.Stats().OutOfMemory; n != 7 {
		t.Errorf("%d counted, want 7", n)
	}
	e.b.SetLimits(Limits{Lock: time.Second, IdleInWrite: time.Minute})
	c.is("select length(hex(zeroblob(20000000)))", "40000000")
	c.is("pragma integrity_check", "ok")
}

// TestSuspendedResultIsBounded: rows that must be kept because the connection is
// needed for something else.
func TestSuspendedResultIsBounded(t *testing.T) {
	k := keeper{max: 1000}
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		err = k.add(textRow("ten bytes.", "ten bytes."))
	}
	if err == nil || codeOf(t, err) != "53200" || n < 3 || n > 12 || k.rows != nil {
		t.Errorf("after %d rows: %v", n, err)
	}
}

// TestTempSpace: sorts beyond the limit of temporary files fail, and leave
// nothing behind.
func TestTempSpace(t *testing.T) {
	files, err := sqlitevfs.New(vfs.OS{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	e := newEnv(t, func(c *Config) { c.Files = files })
	c := e.client()
	c.exec("create table t(v text)")
	c.exec("insert into t with recursive s(i) as (select 1 union all select i+1 from s where i<2600) select hex(randomblob(5000)) from s")
	e.b.SetLimits(Limits{TempSpace: 1 << 20, IdleInWrite: time.Minute})
	const q = "select count(*) from (select v from t order by v limit -1 offset 1)"
	c.fails(q, "53400")
	if mem, disk := files.TempBytes(); disk != 0 || mem > 1<<20 {
		t.Errorf("left behind: %d in memory, %d on disk", mem, disk)
	}
	e.b.SetLimits(Limits{IdleInWrite: time.Minute})
	c.is(q, "2599")
	if _, disk := files.TempBytes(); disk != 0 {
		t.Errorf("left behind: %d on disk", disk)
	}
}
