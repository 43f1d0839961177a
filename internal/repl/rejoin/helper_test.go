package rejoin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/storage/engine"
	"datawatch/internal/storage/page"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

const (
	testPS   = 1024
	testPmnt = base.Magic(0x1234)
	ctlPath  = "/db/dm.ctl"
	surplus  = "/db/surplus"
)

func config(fs vfs.FS, name string) engine.Config {
	return engine.Config{FS: fs, Dir: "/db", CtlPath: ctlPath, LogPaths: []string{"/db/1.log", "/db/2.log"}, InstName: name, BufferBytes: -1,
		CheckpointInterval: time.Hour, RetryInterval: time.Millisecond, PartBytes: 2000, SpillBytes: 6 * testPS, VersionBytes: 40 * testPS,
		Arch: &engine.ArchConfig{Dir: "/arch", Name: "A", FileSize: 32 << 10}}
}

// db is one database of the tests.
type db struct {
	t     testing.TB
	name  string
	fs    *vfs.Mem
	e     *engine.Engine
	rnd   *rand.Rand
	seq   uint64
	to    *db  // gets every package before it is in the log, unless full
	left  int  // packages that still go to it; negative: all
	part  bool // none any more after one that ends within a large transaction
	chain base.LSN
}

func newDB(t testing.TB, name string, m base.Mode, seed uint64) *db {
	t.Helper()
	d := &db{t: t, name: name, fs: vfs.NewMem(), rnd: rand.New(rand.NewPCG(seed, uint64(m))), left: -1}
	err := engine.Create(engine.CreateConfig{FS: d.fs, Dir: "/db", CtlPath: ctlPath, LogPaths: []string{"/db/1.log", "/db/2.log"}, LogSize: 96 << 10,
		DBName: "T", PageSize: testPS, Mode: m, PmntMagic: testPmnt})
	if err != nil {
		t.Fatal(err)
	}
	d.start()
	return d
}

// start opens the engine, in Mount.
func (d *db) start() {
	d.t.Helper()
	e, err := engine.Open(context.Background(), config(d.fs, d.name))
	if err != nil {
		d.t.Fatal(err)
	}
	e.SetShipper(d)
	d.e = e
	d.t.Cleanup(e.Abort)
}

func (d *db) open() {
	d.t.Helper()
	if err := d.e.OpenDatabase(context.Background()); err != nil {
		d.t.Fatal(err)
	}
}

// become makes a standby the primary.
func (d *db) become() {
	d.t.Helper()
	if err := errors.Join(d.e.MountDatabase(context.Background()), d.e.SetMode(context.Background(), base.ModePrimary), d.e.OpenDatabase(context.Background())); err != nil {
		d.t.Fatal(err)
	}
}

func (d *db) Ship(_ context.Context, p *redo.Package) error {
	if d.to == nil || d.left == 0 {
		return nil
	}
	d.left--
	for x, err := range p.PTXs() {
		if err != nil {
			return err
		}
		if d.chain, err = redo.ChainAfter(d.chain, x.Kind, x.LSN); err != nil {
			return err
		}
	}
	if d.part && d.chain != 0 {
		d.left = 0
	}
	return d.to.e.AppendForeign(context.Background(), []*redo.Package{p})
}
func (d *db) ShipTimely(context.Context, *redo.Package) error { return nil }
func (d *db) Release(context.Context, *redo.Package) (time.Time, error) {
	return time.Time{}, nil
}
func (d *db) Hardened(base.Position) {}

// work commits n random transactions: most small, some large enough for parts,
// some that make the file shorter.
func (d *db) work(n int) {
	d.t.Helper()
	for range n {
		if err := d.commit(); err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *db) commit() error {
	ctx := context.Background()
	s := d.e.Store()
	h := s.NewHandle(false)
	defer h.Close()
	if err := s.LockWrite(ctx, h); err != nil {
		return err
	}
	defer s.UnlockWrite(h)
	defer h.Unlock(pagestore.LockNone)
	if err := errors.Join(h.Lock(pagestore.LockShared), h.Lock(pagestore.LockExclusive)); err != nil {
		return err
	}
	size, err := h.Size()
	if err != nil {
		return err
	}
	pages := int(size / testPS)
	if d.rnd.IntN(8) == 0 && pages > 6 {
		pages -= d.rnd.IntN(pages / 2)
		if err := h.Truncate(int64(pages) * testPS); err != nil {
			return err
		}
	}
	n := 1 + d.rnd.IntN(3)
	if d.rnd.IntN(6) == 0 {
		n = 20 + d.rnd.IntN(30)
	}
	for range n {
		p := d.rnd.IntN(min(pages+3, 60))
		b := make([]byte, testPS)
		if p < pages {
			if _, err := h.ReadAt(b, int64(p)*testPS); err != nil && !errors.Is(err, pagestore.ErrShortRead) {
				return err
			}
		} else {
			pages = p + 1
		}
		d.seq++
		for i := range 1 + d.rnd.IntN(60) {
			binary.BigEndian.PutUint64(b[d.rnd.IntN(100)*8:], d.seq<<16|uint64(i))
		}
		if _, err := h.WriteAt(b, int64(p)*testPS); err != nil {
			return err
		}
	}
	if err := h.Sync(); err != nil {
		return err
	}
	h.CommitPhaseTwo()
	if err := h.Unlock(pagestore.LockShared); err != nil {
		return err
	}
	return d.e.WaitHardened(ctx, h.LastCommit())
}

// link is the transport to a donor in the same process.
type link struct {
	d     *Donor
	from  string
	after func(op mal.RejoinOp) // before each request
	alter func(op mal.RejoinOp, answer []byte) []byte
}

func (l *link) Call(ctx context.Context, inst string, typ uint16, parts ...[]byte) ([]byte, error) {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	op := mal.RejoinOp(b[1])
	if l.after != nil {
		l.after(op)
	}
	type result struct {
		b   []byte
		err error
	}
	ch := make(chan result, 1)
	l.d.Serve(mal.NewRequest(l.from, typ, b, func(b []byte, err error) { ch <- result{b, err} }))
	select {
	case r := <-ch:
		if r.err == nil && l.alter != nil {
			r.b = l.alter(op, r.b)
		}
		return r.b, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// rejoin runs Run against the donor p and opens the database anew.
func (d *db) rejoin(l *link) (Result, error) {
	res, err := Run(context.Background(), Config{Engine: d.e, Transport: l, Primary: "B", FS: d.fs, Dir: surplus, Name: d.name})
	if err != nil {
		return res, err
	}
	if err := d.e.OpenDatabase(context.Background()); !errors.Is(err, engine.ErrRejoin) {
		return res, fmt.Errorf("the engine goes on after the rejoin: %v", err)
	}
	d.e.Abort()
	d.start()
	return res, nil
}

// follow sends d the redo of p's archive in batches; between is called after each.
func (d *db) follow(p *db, between func()) error {
	var batch []*redo.Package
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := d.e.AppendForeign(context.Background(), batch)
		batch = nil
		if err == nil && between != nil {
			between()
		}
		return err
	}
	err := p.e.Archive().Read(context.Background(), d.e.Positions().File.Seq+1, func(x *redo.Package) error {
		if batch = append(batch, x); len(batch) >= 3 {
			return flush()
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	return err
}

// readable says whether a client could read.
func (d *db) readable() error {
	h := d.e.Store().NewHandle(true)
	defer h.Close()
	if err := h.Lock(pagestore.LockShared); err != nil {
		return err
	}
	return h.Unlock(pagestore.LockNone)
}

// same compares two databases page by page.
func same(a, b *engine.Engine) error {
	sa, sb := a.Store().Snapshot(), b.Store().Snapshot()
	defer sa.Close()
	defer sb.Close()
	if sa.LSN() != sb.LSN() || sa.Pages() != sb.Pages() {
		return fmt.Errorf("LSN %d, %d pages against LSN %d, %d pages", sa.LSN(), sa.Pages(), sb.LSN(), sb.Pages())
	}
	x, y := make([]byte, testPS), make([]byte, testPS)
	for p := uint32(1); p <= sa.Pages(); p++ {
		if err := errors.Join(sa.ReadPage(p, x), sb.ReadPage(p, y)); err != nil {
			return err
		}
		if string(x[:testPS-page.TrailerSize]) != string(y[:testPS-page.TrailerSize]) {
			return fmt.Errorf("page %d differs: LSN %d and %d", p, page.LSN(x), page.LSN(y))
		}
	}
	return nil
}

// fork makes an old primary A with redo that the new primary B is without.
func fork(t testing.TB, seed uint64) (a, b *db) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 99))
	a, b = newDB(t, "A", base.ModePrimary, seed), newDB(t, "B", base.ModeStandby, seed)
	b.open()
	a.to = b
	a.open()
	a.work(10 + rnd.IntN(40))
	if rnd.IntN(3) == 0 {
		if err := a.e.Checkpoint(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	// B falls silent at any package, also within a large transaction.
	if a.left = rnd.IntN(12); rnd.IntN(2) == 0 {
		a.part, a.left = true, 1000
	}
	a.work(4 + rnd.IntN(40))
	for a.left > 0 || !b.e.Positions().File.Less(a.e.Positions().File) {
		a.work(1)
	}
	if rnd.IntN(3) == 0 { // and opens once more alone
		a.e.Abort()
		a.start()
		a.open()
		a.work(rnd.IntN(10))
	}
	b.become()
	b.work(rnd.IntN(30))
	if rnd.IntN(2) == 0 {
		a.e.Abort()
	} else if err := a.e.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	a.start()
	a.rnd, b.rnd = rand.New(rand.NewPCG(seed, 7)), rand.New(rand.NewPCG(seed, 8))
	return a, b
}
