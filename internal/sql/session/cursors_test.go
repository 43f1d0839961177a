package session

import "testing"

// script runs statements in one session; a want that begins with ! is a SQLSTATE.
func script(t *testing.T, c *client, steps [][2]string) {
	t.Helper()
	for _, x := range steps {
		rows, tag, err := c.simpleQ(x[0])
		if err != nil {
			rows = "!" + codeOf(t, err)
		} else if rows == "" {
			rows = tag
		}
		if rows != x[1] {
			t.Errorf("%s: %s, want %s (%v)", x[0], rows, x[1], err)
		}
	}
}

func TestPrepareExecute(t *testing.T) {
	e := newEnv(t)
	c := e.client()
	script(t, c, [][2]string{
		{"create table t(id int primary key, b boolean, d date)", "CREATE TABLE"},
		{"prepare ins(int, boolean, date) as insert into t values($1, $2, $3) returning id", "PREPARE"},
		{"execute ins(1, 't', '2024-2-9')", "1"}, {"execute ins(1 + 1, null, date '2024-02-10')", "2"},
		{"execute ins(1, true, null)", "!23505"}, {"execute ins(3)", "!42601"}, {"execute ins('x', true, null)", "!22P02"}, {"execute INS(3, 'maybe', null)", "!22P02"},
		{"prepare q as select id from t where d >= $1 order by id", "PREPARE"}, {"execute q('2024-2-10')", "2"}, {"prepare q as select 1", "!42P05"},
		{"prepare n as select count(*) from t", "PREPARE"}, {"begin; execute n; delete from t where id = 2; execute n; rollback; execute n", "2 1 2"},
		{"prepare x as create table z(a int)", "!42601"}, {"prepare x as select nosuch from t", "!42703"}, {"execute x", "!26000"}, {"prepare transaction 'x'", "!0A000"},
		{"deallocate n", "DEALLOCATE"}, {"execute n", "!26000"}, {"deallocate prepare n", "!26000"}, {"deallocate all", "DEALLOCATE ALL"}, {"execute q('2024-2-10')", "!26000"},
		{"prepare p as select 1", "PREPARE"}, {"discard all", "DISCARD ALL"}, {"execute p", "!26000"},
	})
	other := e.client()
	c.exec("prepare mine as select 1")
	other.fails("execute mine", "26000")
	if got, err := c.ext("execute mine"); got != "1" || err != nil {
		t.Errorf("%q %v", got, err)
	}
}

func TestCursors(t *testing.T) {
	e := newEnv(t)
	c, other := e.client(), e.client()
	script(t, c, [][2]string{
		{"create table t(id int primary key); insert into t select i from generate_series(1, 5) g(i)", "INSERT 0 5"},
		{"declare a cursor for select id from t", "!25P01"}, {"begin", "BEGIN"}, {"declare a no scroll cursor for select id from t order by id", "DECLARE CURSOR"},
		{"fetch a", "1"}, {"fetch 2 from a", "2 3"}, {"move a", "MOVE 1"}, {"fetch forward all in a", "5"}, {"fetch next from a", "FETCH 0"}, {"close a", "CLOSE CURSOR"},
		{"savepoint s", "SAVEPOINT"}, {"fetch a", "!34000"}, {"rollback to s", "ROLLBACK"}, {"fetch prior from a", "!0A000"}, {"rollback to s", "ROLLBACK"},
		{"declare a cursor without hold for select id from t", "DECLARE CURSOR"}, {"declare A cursor for select 1", "!42P03"}, {"rollback to s", "ROLLBACK"}, {"fetch a", "!34000"}, {"rollback", "ROLLBACK"},
		{"begin; declare h cursor with hold for select 1", "!0A000"}, {"rollback", "ROLLBACK"},
		{"begin; declare w cursor for delete from t", "!42601"}, {"rollback", "ROLLBACK"},
	})
	// What a cursor shows is what there was when it was declared; it stands in
	// nobody's way.
	c.exec("begin; declare r cursor for select id from t order by id")
	c.is("fetch r", "1")
	other.exec("delete from t where id > 3")
	c.is("fetch all from r", "2 3 4 5")
	c.exec("insert into t values(9); declare w cursor for select id from t order by id")
	c.is("fetch 2 from w", "1 2")
	c.exec("delete from t where id = 3")
	c.is("fetch all from w", "3 9")
	c.exec("commit")
	c.fails("fetch w", "34000")
	c.exec("begin; declare f cursor for select id from t for update")
	other.exec("set lock_timeout = 30")
	other.fails("delete from t", "55P03")
	c.is("fetch f; close all", "1")
	c.exec("rollback")
}
