package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/storage/page"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

const (
	testPS   = 1024 // two sectors: pages can tear
	testLog  = 64 << 10
	testPmnt = base.Magic(0x1234)
)

var testLogs = []string{"/db/T01.log", "/db/T02.log"}

func testConfig(fs vfs.FS, archive bool) Config {
	c := Config{FS: fs, Dir: "/db", CtlPath: "/db/dm.ctl", LogPaths: testLogs, InstName: "T", BufferBytes: -1,
		CheckpointInterval: time.Hour, RetryInterval: time.Millisecond,
		// A transaction of a few pages is a large one here.
		Replayers: 3, PartBytes: 2000, SpillBytes: 6 * testPS, VersionBytes: 40 * testPS}
	if archive {
		c.Arch = &ArchConfig{Dir: "/arch", Name: "A", FileSize: 64 << 10}
	}
	return c
}

func create(t testing.TB, fs vfs.FS, mode base.Mode) {
	t.Helper()
	err := Create(CreateConfig{FS: fs, Dir: "/db", CtlPath: "/db/dm.ctl", LogPaths: testLogs, LogSize: testLog,
		DBName: "T", PageSize: testPS, Mode: mode, PmntMagic: testPmnt})
	if err != nil {
		t.Fatal(err)
	}
}

// db is an engine with a model of every state it published.
type db struct {
	t   testing.TB
	e   *Engine
	fs  *vfs.Mem
	rnd *rand.Rand
	h   *pagestore.Handle

	mu    sync.Mutex
	at    map[base.LSN][]string // bodies of all pages after each LSN
	acked atomic.Uint64
	seq   uint64
	// recoveries that ended, and that began, within a large transaction
	unfinished, within atomic.Int64

	bulk bool // transactions fill whole pages, of more of them
}

func emptyBody() string { return body(page.NewDatabase(testPS)) }
func body(b []byte) string {
	return string(b[:testPS-page.TrailerSize])
}

// newDB creates and opens a database.
func newDB(t testing.TB, cfg func(*Config), ship Shipper) *db {
	t.Helper()
	d := &db{t: t, fs: vfs.NewMem(), rnd: rand.New(rand.NewPCG(1, 2)), at: map[base.LSN][]string{0: {emptyBody()}}}
	create(t, d.fs, base.ModePrimary)
	d.open(cfg, ship)
	t.Cleanup(d.e.Abort)
	if err := d.openDatabase(); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *db) open(cfg func(*Config), ship Shipper) {
	d.t.Helper()
	c := testConfig(d.fs, true)
	if cfg != nil {
		cfg(&c)
	}
	e, err := Open(d.t.Context(), c)
	if err != nil {
		d.t.Fatal(err)
	}
	e.SetShipper(ship)
	d.e, d.h = e, e.Store().NewHandle(false)
}

// openDatabase opens; the open record is an LSN without changes.
func (d *db) openDatabase() error {
	lsn := d.e.buf.lastLSN()
	if d.e.Status() == base.StatusMount && d.e.Mode() != base.ModeStandby {
		d.mu.Lock()
		d.at[lsn+1] = d.at[lsn]
		d.mu.Unlock()
	}
	return d.e.OpenDatabase(d.t.Context())
}

// publish runs a random transaction of up to n pages and returns its LSN, 0 for a rollback.
func (d *db) publish(n int, rollback bool) base.LSN {
	d.t.Helper()
	lsn, err := d.tryPublish(n, rollback)
	if err != nil {
		d.t.Fatal(err)
	}
	return lsn
}

func (d *db) tryPublish(n int, rollback bool) (base.LSN, error) {
	h, s := d.h, d.e.Store()
	if err := s.LockWrite(context.Background(), h); err != nil {
		return 0, err
	}
	defer s.UnlockWrite(h)
	defer h.Unlock(pagestore.LockNone)
	if err := h.Lock(pagestore.LockShared); err != nil {
		return 0, err
	}
	if err := h.Lock(pagestore.LockExclusive); err != nil {
		return 0, err
	}
	first := d.e.NextLSN()
	d.mu.Lock()
	before := d.at[first-1]
	d.mu.Unlock()
	pages := append([]string(nil), before...)
	if len(pages) == 0 {
		return 0, fmt.Errorf("no model of LSN %d", first-1)
	}
	if d.rnd.IntN(12) == 0 && len(pages) > 4 {
		pages = pages[:len(pages)-d.rnd.IntN(3)]
		if err := h.Truncate(int64(len(pages) * testPS)); err != nil {
			return 0, err
		}
	}
	span := 80
	if d.bulk {
		span = 200
	}
	for range n {
		p := d.rnd.IntN(min(len(pages)+2, span))
		for len(pages) <= p {
			pages = append(pages, string(make([]byte, testPS-page.TrailerSize)))
		}
		b := make([]byte, testPS)
		copy(b, pages[p])
		d.seq++
		binary.BigEndian.PutUint64(b[d.rnd.IntN(50)*8:], d.seq)
		for i := 400; d.bulk && i < 1000; i += 8 {
			binary.BigEndian.PutUint64(b[i:], d.rnd.Uint64())
		}
		pages[p] = body(b)
		if _, err := h.WriteAt(b, int64(p*testPS)); err != nil {
			return 0, err
		}
	}
	if rollback {
		return 0, nil
	}
	// Parts of a large transaction, and giving it up, change nothing that is seen.
	const most = 1000
	d.fill(first, first+most, before)
	err := h.Sync()
	lsn := d.e.NextLSN()
	if err != nil {
		d.fill(lsn+1, first+most, nil)
		return 0, err
	}
	h.CommitPhaseTwo()
	d.fill(lsn, lsn, pages)
	d.fill(lsn+1, first+most, nil)
	if err := h.Unlock(pagestore.LockShared); err != nil {
		return 0, err
	}
	if h.LastCommit() != lsn {
		return 0, fmt.Errorf("LastCommit %d, want %d", h.LastCommit(), lsn)
	}
	return lsn, nil
}

// fill sets the model of LSNs; nil: there are no such LSNs.
func (d *db) fill(from, to base.LSN, pages []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for lsn := from; lsn <= to; lsn++ {
		if d.at[lsn] = pages; pages == nil {
			delete(d.at, lsn)
		}
	}
}

// commit publishes and waits until it is acknowledged.
func (d *db) commit(n int) base.LSN {
	d.t.Helper()
	lsn := d.publish(n, false)
	if err := d.e.WaitHardened(d.t.Context(), lsn); err != nil {
		d.t.Fatal(err)
	}
	d.acked.Store(uint64(lsn))
	return lsn
}

// contents returns what a reader of e sees.
func contents(t testing.TB, e *Engine) []string {
	t.Helper()
	out, err := tryContents(e)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tryContents(e *Engine) ([]string, error) {
	h := e.Store().NewHandle(true)
	defer h.Close()
	if err := h.Lock(pagestore.LockShared); err != nil {
		return nil, err
	}
	size, err := h.Size()
	if err != nil {
		return nil, err
	}
	var out []string
	b := make([]byte, testPS)
	for off := int64(0); off < size; off += testPS {
		if _, err := h.ReadAt(b, off); err != nil {
			return nil, err
		}
		out = append(out, body(b))
	}
	return out, nil
}

func diff(got, want []string) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d pages, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Errorf("page %d differs", i+1)
		}
	}
	return nil
}

// check compares what readers see with the model of the hardened LSN.
func (d *db) check() {
	d.t.Helper()
	d.mu.Lock()
	want := d.at[d.e.Hardened()]
	d.mu.Unlock()
	if err := diff(contents(d.t, d.e), want); err != nil {
		d.t.Fatalf("at LSN %d: %v", d.e.Hardened(), err)
	}
}

// samePages compares two databases page by page, trailers included.
func samePages(t testing.TB, a, b *Engine) {
	t.Helper()
	sa, sb := a.Store().Snapshot(), b.Store().Snapshot()
	defer sa.Close()
	defer sb.Close()
	if sa.LSN() != sb.LSN() || sa.Pages() != sb.Pages() {
		t.Fatalf("LSN %d, %d pages against LSN %d, %d pages", sa.LSN(), sa.Pages(), sb.LSN(), sb.Pages())
	}
	x, y := make([]byte, testPS), make([]byte, testPS)
	for p := uint32(1); p <= sa.Pages(); p++ {
		if err := errors.Join(sa.ReadPage(p, x), sb.ReadPage(p, y)); err != nil {
			t.Fatal(err)
		}
		// A page of zeros after a truncation may have been written as such.
		if body(x) != body(y) || page.LSN(x) != page.LSN(y) {
			t.Fatalf("page %d differs: LSN %d and %d", p, page.LSN(x), page.LSN(y))
		}
	}
}

// spy is a Shipper that records, and fails or blocks on demand.
type spy struct {
	mu       sync.Mutex
	pkgs     []*redo.Package
	fail     error // Ship answers it
	failT    error // ShipTimely
	failR    error // Release
	until    time.Time
	released int
	hook     func(pkg *redo.Package)
	hardened base.Position
	ships    int
}

func (s *spy) Ship(_ context.Context, p *redo.Package) error {
	s.mu.Lock()
	s.ships++
	err, hook := s.fail, s.hook
	if err == nil && (len(s.pkgs) == 0 || s.pkgs[len(s.pkgs)-1].GSEQ < p.GSEQ) {
		s.pkgs = append(s.pkgs, p)
	}
	s.mu.Unlock()
	if hook != nil {
		hook(p)
	}
	return err
}
func (s *spy) ShipTimely(context.Context, *redo.Package) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failT
}
func (s *spy) Release(context.Context, *redo.Package) (time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.released++
	return s.until, s.failR
}
func (s *spy) Hardened(p base.Position) {
	s.mu.Lock()
	s.hardened = p
	s.mu.Unlock()
}
func (s *spy) set(fail, failT error) {
	s.mu.Lock()
	s.fail, s.failT = fail, failT
	s.mu.Unlock()
}
func (s *spy) packages() []*redo.Package {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*redo.Package(nil), s.pkgs...)
}

// await polls the engine's change notifications until cond holds.
func await(t testing.TB, e *Engine, what string, cond func() bool) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		e.mu.Lock()
		ch := e.changed
		e.mu.Unlock()
		if cond() {
			return
		}
		select {
		case <-ch:
		case <-limit:
			t.Fatalf("never: %s (status %v)", what, e.Status())
		}
	}
}
