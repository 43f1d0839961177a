package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/storage/page"
)

const pageSize = 4096

// checkpoint brings everything to the data file.
func (d *testDB) checkpoint(t *testing.T) {
	t.Helper()
	if _, err := d.store.Checkpoint(t.Context(), d.store.Hardened()); err != nil {
		t.Fatal(err)
	}
}

// edit changes page n of the data file behind the store's back.
func (d *testDB) edit(t *testing.T, n int64, change func(p []byte)) {
	t.Helper()
	f, err := d.fs.Open("/data")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, pageSize)
	if _, err := f.ReadAt(b, (n-1)*pageSize); err != nil {
		t.Fatal(err)
	}
	change(b)
	if _, err := f.WriteAt(b, (n-1)*pageSize); err != nil {
		t.Fatal(err)
	}
}

// pageWith is a page, other than those of the schema, that holds the text.
func (d *testDB) pageWith(t *testing.T, text string, kind byte) int64 {
	t.Helper()
	for n := int64(2); n <= int64(d.store.Pages()); n++ {
		found := false
		d.edit(t, n, func(p []byte) { found = p[0] == kind && bytes.Contains(p, []byte(text)) })
		if found {
			return n
		}
	}
	t.Fatalf("no page with %q", text)
	return 0
}

func checked(t *testing.T) *env {
	t.Helper()
	e := newEnv(t)
	c := e.client()
	c.exec("create table a(id integer primary key, v text, n int not null); create index a_v on a(v)")
	c.exec("with recursive s(i) as (select 1 union all select i+1 from s where i<3000) insert into a select i, 'value ' || i, i from s")
	c.exec("create table b(v text); insert into b values('only')")
	e.db.checkpoint(t)
	return e
}

func TestCheckSound(t *testing.T) {
	e := checked(t)
	c := e.client()
	out := c.exec("check database")
	if !strings.HasPrefix(out, "result|NULL|NULL|NULL|no damage found") {
		t.Errorf("%s", out)
	}
	st := e.b.LastCheck()
	if st.State != "OK" || st.Total != e.db.store.Pages() || st.LSN != e.db.store.Hardened() || st.Session != c.ID() || st.Phase != "structure" {
		t.Errorf("%+v", st)
	}
	c.is("select SP_DB_CHECK()", "0")
	c.is("call SP_DB_CHECK()", "0")
	c.exec("check database pages")
	c.exec("check database indexes")
	c.fails("check table a", "42601")
	u := e.client()
	u.info.User = "U"
	u.fails("check database", "42501")
	// On a standby, and beside a writer that is in the middle of a transaction.
	w := e.client()
	w.exec("begin; update a set v='changed'")
	if out := c.exec("check database"); !strings.Contains(out, "no damage") {
		t.Errorf("beside a writer: %s", out)
	}
	w.exec("rollback")
	e.db.mode.Store(uint32(base.ModeStandby))
	if out := c.exec("check database"); !strings.Contains(out, "no damage") {
		t.Errorf("on a standby: %s", out)
	}
	e.db.status.Store(uint32(base.StatusMount))
	c.exec("check database pages")
	c.fails("check database", "57P03")
	if st := e.b.LastCheck(); st.State != "FAILED" || st.Error == "" {
		t.Errorf("in Mount: %+v", st)
	}
}

// TestCheckDamagedPages: pages with a wrong checksum are named with their place,
// and the tables they belong to; the others are checked all the same.
func TestCheckDamagedPages(t *testing.T) {
	e := checked(t)
	n := e.db.pageWith(t, "value 77", 13)
	e.db.edit(t, n, func(p []byte) { p[2000] ^= 1 })
	if err := e.db.fs.Remove("/data.dwb"); err != nil { // it would mend a page that a power failure tore
		t.Fatal(err)
	}
	fresh := openTestDB(t, e.db.fs, e.db.store.Hardened()) // nothing of it in a cache
	b := New(Config{DB: FromEngine(fresh), Admin: e.admin})
	defer b.Close(context.Background(), "done")
	e.b, e.db = b, fresh
	c := e.client()
	out := c.exec("check database")
	st := b.LastCheck()
	if st.State != "DAMAGED" || len(st.Problems) < 2 {
		t.Fatalf("%s\n%+v", out, st)
	}
	p := st.Problems[0]
	if p.What != "page" || int64(p.Page) != n || p.Offset != (n-1)*pageSize || !strings.Contains(p.Text, "checksum") || !strings.Contains(p.Text, "/data") {
		t.Errorf("%+v", p)
	}
	if !strings.Contains(out, fmt.Sprintf("page|NULL|%d|%d|", n, (n-1)*pageSize)) || !strings.Contains(out, "problems") {
		t.Errorf("%s", out)
	}
	objects := map[string]bool{}
	for _, x := range st.Problems[1:] {
		if x.What == "structure" {
			objects[x.Object] = true
		}
	}
	if !objects["a"] || objects["b"] {
		t.Errorf("damaged tables: %v\n%+v", objects, st.Problems)
	}
	c.fails("select * from a", "XX001")
	if c.exec("select SP_DB_CHECK()") == "0" {
		t.Error("SP_DB_CHECK says 0")
	}
	// Nothing was repaired.
	again := c.exec("check database pages")
	if !strings.Contains(again, fmt.Sprintf("|%d|", n)) {
		t.Errorf("the damage is gone: %s", again)
	}
}

// TestCheckStructure: an index that lacks what its table has, under checksums
// that are right, is found.
func TestCheckStructure(t *testing.T) {
	e := checked(t)
	n := e.db.pageWith(t, "value 77", 13)
	e.db.edit(t, n, func(p []byte) {
		i := bytes.Index(p, []byte("value 77"))
		p[i] = 'V'
		page.Seal(p, page.LSN(p), page.Node(p))
	})
	fresh := openTestDB(t, e.db.fs, e.db.store.Hardened())
	b := New(Config{DB: FromEngine(fresh), Admin: e.admin})
	defer b.Close(context.Background(), "done")
	e.b, e.db = b, fresh
	c := e.client()
	if out := c.exec("check database pages"); !strings.Contains(out, "no damage") {
		t.Errorf("the checksums are right: %s", out)
	}
	out := c.exec("check database indexes")
	if st := b.LastCheck(); st.State != "DAMAGED" || st.Problems[0].Object != "a_v" || !strings.Contains(out, "missing from index a_v") {
		t.Errorf("%s\n%+v", out, st)
	}
}

// slowPages is a database whose check of pages stops at each until it is let on.
type slowPages struct {
	Database
	at, on chan struct{}
}

func (d slowPages) CheckPages(ctx context.Context, progress func(done, total uint32), bad func(page uint32, offset int64, err error)) error {
	progress(10, 100)
	bad(7, 6*pageSize, errors.New("seen before the end"))
	d.at <- struct{}{}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-d.on:
		return nil
	}
}

func TestCheckCancelled(t *testing.T) {
	d := slowPages{at: make(chan struct{}), on: make(chan struct{})}
	e := newEnv(t, func(c *Config) { d.Database = c.DB; c.DB = d })
	a, b := e.client(), e.client()
	done := make(chan error, 1)
	go func() { _, _, err := a.simpleQ("check database"); done <- err }()
	<-d.at
	if st := e.b.LastCheck(); st.State != "RUNNING" || st.Done != 10 || st.Total != 100 || st.Phase != "pages" || st.Count() != 1 {
		t.Errorf("%+v", st)
	}
	b.fails("check database", "55006")
	b.exec("select pg_cancel_backend(" + utoa(a.ID()) + ")")
	if err := <-done; codeOf(t, err) != "57014" {
		t.Errorf("%v", err)
	}
	if st := e.b.LastCheck(); st.State != "CANCELLED" || st.End.IsZero() || st.Count() != 1 || st.End.Sub(st.Start) > time.Minute {
		t.Errorf("%+v", st)
	}
	go func() { d.on <- struct{}{} }()
	go func() { <-d.at }()
	b.exec("check database") // the next one can run
}
