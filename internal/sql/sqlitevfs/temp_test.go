package sqlitevfs

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/vfs"
)

// TestTemp: a sort larger than the limit goes to disk, gives the right order,
// leaves nothing behind, and a full disk is an error that says so.
func TestTemp(t *testing.T) {
	mem := vfs.NewMem()
	if err := mem.MkdirAll("/tmp"); err != nil {
		t.Fatal(err)
	}
	left, err := mem.Create("/tmp/1"+tempExt, true)
	if err == nil {
		err = left.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(mem, "/tmp")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if names, _ := mem.ReadDir("/tmp"); len(names) != 0 {
		t.Fatalf("left from the last run: %v", names)
	}
	s.fileMemory = 100 << 10
	most := int64(0)
	var full error
	mem.SetHook(func(op vfs.Op) error {
		if !strings.HasSuffix(op.Path, tempExt) {
			return nil
		}
		_, disk := s.TempBytes()
		most = max(most, disk)
		return full
	})
	c, _, err := s.Open(t.Context(), &memHandle{}, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const setUp = "pragma journal_mode=memory; pragma temp_store=file; pragma cache_size=-200; create table t(a, b);" +
		"with recursive n(i) as (select 1 union all select i+1 from n where i<20000) insert into t select (i*7919)%20011, hex(zeroblob(30)) from n"
	if err := c.Exec(setUp); err != nil {
		t.Fatal(err)
	}
	sorted := func() (rows int, err error) {
		st, _, err := c.Prepare("select a, b from t order by a")
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, st.Close()) }()
		for last := -1; st.Step(); rows++ {
			if a := st.ColumnInt(0); a < last {
				t.Fatalf("row %d: %d after %d", rows, a, last)
			} else {
				last = a
			}
		}
		return rows, st.Err()
	}
	if n, err := sorted(); err != nil || n != 20000 || most < 1<<20 {
		t.Fatalf("%d rows, %v, %d bytes on disk", n, err, most)
	}
	if inMem, disk := s.TempBytes(); inMem != 0 || disk != 0 {
		t.Fatalf("left: %d bytes in memory, %d on disk", inMem, disk)
	}
	if names, _ := mem.ReadDir("/tmp"); len(names) != 0 {
		t.Fatalf("left: %v", names)
	}
	full = syscall.ENOSPC
	if _, err := sorted(); !errors.Is(err, sqlite3.FULL) {
		t.Fatalf("full disk: %v", err)
	}
	full = nil
	if n, err := sorted(); err != nil || n != 20000 {
		t.Fatalf("with room again: %d rows, %v", n, err)
	}
	// Files together have a limit, too.
	s.fileMemory, s.memory = 1<<30, 0
	most = 0
	if _, err := sorted(); err != nil || most == 0 {
		t.Fatalf("%v, %d bytes on disk", err, most)
	}
}

// TestJournal: a transaction whose rollback journal does not fit memory is undone
// from disk, to a savepoint and whole, and the next small one is in memory again.
func TestJournal(t *testing.T) {
	mem := vfs.NewMem()
	s, err := New(mem, "/tmp")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.fileMemory = 64 << 10
	c, _, err := s.Open(t.Context(), &memHandle{}, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	exec := func(sql string) {
		t.Helper()
		if err := c.Exec(sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	sum := func(want int64) {
		t.Helper()
		st, _, err := c.Prepare("select sum(a) from t")
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		if !st.Step() || st.ColumnInt64(0) != want {
			t.Fatalf("sum is %d, want %d (%v)", st.ColumnInt64(0), want, st.Err())
		}
	}
	exec("pragma journal_mode=truncate; pragma temp_store=file; pragma cache_size=-100; create table t(a, b);" +
		"with recursive n(i) as (select 1 union all select i+1 from n where i<20000) insert into t select 1, hex(zeroblob(30)) from n")
	exec("begin; update t set a=2; savepoint p; update t set a=3")
	if _, disk := s.TempBytes(); disk < 1<<20 {
		t.Fatalf("%d bytes of journal on disk", disk)
	}
	sum(60000)
	exec("rollback to p")
	sum(40000)
	exec("rollback")
	sum(20000)
	exec("update t set a=5")
	exec("update t set a=6 where rowid=1")
	sum(100001)
	if inMem, disk := s.TempBytes(); disk != 0 || inMem > 64<<10 {
		t.Fatalf("left: %d bytes in memory, %d on disk", inMem, disk)
	}
}
