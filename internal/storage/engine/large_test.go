package engine

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

// middle is a primary that stands in the middle of a large commit: some of its
// parts are hardened, its flusher waits to be let go.
type middle struct {
	*db
	s       *spy
	before  []string
	pkgs    []*redo.Package // shipped so far
	release chan struct{}
	done    chan error // of the commit
}

func newMiddle(t *testing.T, packages int) *middle {
	t.Helper()
	s := &spy{}
	d := newDB(t, func(c *Config) { c.MaxPackage = 6000 }, s)
	for range 5 {
		d.commit(20)
	}
	m := &middle{db: d, s: s, before: contents(t, d.e), release: make(chan struct{}), done: make(chan error, 1)}
	at, reached := len(s.packages())+packages, make(chan struct{})
	s.mu.Lock()
	s.hook = func(p *redo.Package) {
		if int(p.GSEQ) == at {
			close(reached)
			<-m.release
		}
	}
	s.mu.Unlock()
	d.bulk = true
	go func() {
		lsn, err := d.tryPublish(1500, false)
		if err == nil {
			err = d.e.WaitHardened(context.Background(), lsn)
		}
		m.done <- err
	}()
	select {
	case <-reached:
	case err := <-m.done:
		t.Fatalf("the commit ended before package %d: %v", at, err)
	}
	m.pkgs = s.packages()[:at-1] // the last one is not hardened
	return m
}

// finish lets the commit end and returns all packages.
func (m *middle) finish() []*redo.Package {
	m.t.Helper()
	close(m.release)
	if err := <-m.done; err != nil {
		m.t.Fatal(err)
	}
	m.check()
	if slices.Equal(contents(m.t, m.e), m.before) {
		m.t.Fatal("the commit changed nothing")
	}
	return m.s.packages()
}

func (m *middle) unchanged(e *Engine, what string) {
	m.t.Helper()
	if err := diff(contents(m.t, e), m.before); err != nil {
		m.t.Fatalf("G6: %s: %v", what, err)
	}
}

// TestLargeIsAtomic: in the middle of a large commit readers of the primary and
// of a standby see nothing of it (G6), whatever is checkpointed and restarted
// meanwhile; at its end both see all of it.
func TestLargeIsAtomic(t *testing.T) {
	m := newMiddle(t, 12)
	m.unchanged(m.e, "the primary")
	b := &m.e.buf
	b.mu.Lock()
	if b.bytes > b.partLimit+4000 || b.partLimit > 2*6000 { // the last part is reserved like any commit
		t.Errorf("%d bytes of parts wait: whoever commits next stands behind them", b.bytes)
	}
	b.mu.Unlock()
	if err := m.e.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m.e.chain.first == 0 || m.e.ckptChain != m.e.chain.seq || m.e.LogInfo().CkptLSN <= m.e.chain.first {
		t.Fatalf("the checkpoint is not within the transaction: %+v, %+v", m.e.chain, m.e.LogInfo())
	}
	backup, err := m.e.BeginBackup()
	if err != nil {
		t.Fatal(err)
	}
	defer backup.Close()
	if backup.Position != m.e.chain.prev {
		t.Fatalf("a backup in the middle says %v, the transaction begins behind %v", backup.Position, m.e.chain.prev)
	}
	st, fs := newStandby(t)
	for i, p := range m.pkgs {
		if err := st.AppendForeign(t.Context(), []*redo.Package{p}); err != nil {
			t.Fatal(err)
		}
		if i == len(m.pkgs)-3 {
			if err := st.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.unchanged(st, "the standby")
	if err := st.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err = Open(t.Context(), testConfig(fs, true)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Abort)
	if err := st.OpenDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.unchanged(st, "the standby after a restart")
	all := m.finish()
	if err := st.AppendForeign(t.Context(), all[len(m.pkgs):]); err != nil {
		t.Fatal(err)
	}
	samePages(t, m.e, st)
	restored := restore(t, backup)
	m.unchanged(restored, "a database restored from a backup in the middle")
	if err := restored.AppendForeign(t.Context(), all[backup.Position.Seq:]); err != nil {
		t.Fatal(err)
	}
	samePages(t, m.e, restored)
	if st.chain.first != 0 || m.e.chain.first != 0 || st.held != st.ckptChain {
		t.Fatalf("still open: %+v, %+v", st.chain, m.e.chain)
	}
	if err := errors.Join(st.Checkpoint(t.Context()), m.e.Checkpoint(t.Context())); err != nil {
		t.Fatal(err)
	}
	if st.held != 0 || m.e.held != 0 || st.Store().Stats().SpillBytes != 0 {
		t.Fatalf("the archive is held from %d, %d; spill file %d bytes", st.held, m.e.held, st.Store().Stats().SpillBytes)
	}
}

// restore makes a standby of a backup.
func restore(t *testing.T, b *Backup) *Engine {
	t.Helper()
	fs := vfs.NewMem()
	err := Create(CreateConfig{FS: fs, Dir: "/db", CtlPath: "/db/dm.ctl", LogPaths: testLogs, LogSize: testLog, DBName: "T", PageSize: testPS,
		Mode: base.ModeStandby, PmntMagic: testPmnt, Base: b.Position, Lineage: b.Control.Lineage, Fill: func(f vfs.File) error {
			buf := make([]byte, testPS)
			for p := uint32(1); p <= b.Pages(); p++ {
				if err := b.ReadPage(p, buf); err != nil {
					return err
				}
				if _, err := f.WriteAt(buf, int64(p-1)*testPS); err != nil {
					return err
				}
			}
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(t.Context(), testConfig(fs, true))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Abort)
	if err := e.OpenDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}

// TestLargeTakeover: a standby that takes over in the middle of a large commit
// has nothing of it, goes on, and the old primary's parts are not taken any more.
func TestLargeTakeover(t *testing.T) {
	m := newMiddle(t, 12)
	st, fs := newStandby(t)
	if err := st.AppendForeign(t.Context(), m.pkgs); err != nil {
		t.Fatal(err)
	}
	if st.Store().Stats().SpillBytes == 0 {
		t.Fatal("the standby keeps a large transaction in memory")
	}
	if err := errors.Join(st.MountDatabase(t.Context()), st.SetMode(t.Context(), base.ModePrimary), st.OpenDatabase(t.Context())); err != nil {
		t.Fatal(err)
	}
	m.unchanged(st, "the new primary")
	if st.Store().Stats().SpillBytes != 0 || st.chain.first != 0 {
		t.Fatalf("left of the transaction: %d bytes, %+v", st.Store().Stats().SpillBytes, st.chain)
	}
	n := &db{t: t, e: st, fs: fs, rnd: m.rnd, h: st.Store().NewHandle(false),
		at: map[base.LSN][]string{st.Hardened(): m.before}, seq: 1 << 40}
	n.commit(3)
	n.check()
	all := m.finish()
	if err := errors.Join(st.MountDatabase(t.Context()), st.SetMode(t.Context(), base.ModeStandby), st.OpenDatabase(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := st.AppendForeign(t.Context(), all[len(m.pkgs):len(m.pkgs)+1]); err == nil {
		t.Fatal("G5: a part of the old primary's transaction was taken")
	}
	n.check()
}

// TestLargeMounted: the database is mounted while a large commit is between two
// parts: the commit fails, and nothing of it is in the next reign.
func TestLargeMounted(t *testing.T) {
	m := newMiddle(t, 4)
	mounted := make(chan error, 1)
	go func() { mounted <- m.e.MountDatabase(context.Background()) }()
	for refused := false; !refused; runtime.Gosched() {
		m.e.buf.mu.Lock()
		refused = m.e.buf.refusal != nil
		m.e.buf.mu.Unlock()
	}
	close(m.release)
	if err := <-m.done; !errors.Is(err, ErrNotOpen) {
		t.Fatalf("commit: %v", err)
	}
	if err := <-mounted; err != nil {
		t.Fatal(err)
	}
	m.unchanged(m.e, "mounted")
	m.bulk = false
	m.fill(m.e.buf.lastLSN(), m.e.buf.lastLSN(), m.before)
	if err := m.openDatabase(); err != nil {
		t.Fatal(err)
	}
	m.commit(3)
	m.check()
}

// TestPartOutOfPlace: parts that do not continue a large transaction are refused
// before anything changes.
func TestPartOutOfPlace(t *testing.T) {
	st, _ := newStandby(t)
	_, pkgs := primaryPackages(t, 1)
	if err := st.AppendForeign(t.Context(), pkgs[:1]); err != nil {
		t.Fatal(err)
	}
	pos := st.Positions().File
	make := func(kinds ...redo.PTXKind) *redo.Package {
		t.Helper()
		var raw []byte
		var b redo.Builder
		for i, k := range kinds {
			b.Begin(redo.PTXHeader{LSN: pos.LSN + 1 + base.LSN(i), Kind: k, PrevLSN: pos.LSN + base.LSN(i)})
			raw = append(raw, b.Finish()...)
		}
		h := pkgs[0].Header
		h.GSEQ, h.PrevLSN, h.MinLSN, h.MaxLSN, h.NPTX = pos.Seq+1, pos.LSN, pos.LSN+1, pos.LSN+base.LSN(len(kinds)), uint32(len(kinds))
		p, err := redo.NewPackage(h, raw, false)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, kinds := range map[string][]redo.PTXKind{
		"a next part": {redo.KindNext}, "a last part": {redo.KindLast}, "a last part after a commit": {redo.KindCommit, redo.KindLast},
		"a first part in the middle of a package":  {redo.KindCommit, redo.KindFirst},
		"a next part after the last":               {redo.KindFirst, redo.KindLast, redo.KindNext},
		"a next part after the one that ended all": {redo.KindFirst, redo.KindCommit, redo.KindNext},
	} {
		before := st.Positions()
		if err := st.AppendForeign(t.Context(), []*redo.Package{make(kinds...)}); err == nil || st.Positions() != before {
			t.Fatalf("%s: %v, %+v", name, err, st.Positions())
		}
	}
	if err := st.AppendForeign(t.Context(), []*redo.Package{make(redo.KindFirst, redo.KindNext, redo.KindLast)}); err != nil {
		t.Fatal(err)
	}
}

// TestOldSnapshotMemory: an old reader, a writer that changes everything over and
// over and checkpoints do not make memory grow beyond the limit; the reader still
// sees its snapshot.
func TestOldSnapshotMemory(t *testing.T) {
	d := newDB(t, nil, nil)
	for len(contents(t, d.e)) < 75 {
		d.commit(60)
	}
	want := contents(t, d.e)
	old := d.e.Store().NewHandle(true)
	if err := old.Lock(pagestore.LockShared); err != nil {
		t.Fatal(err)
	}
	const limit = 40 * testPS // VersionBytes of testConfig
	for i := range 60 {
		d.commit(40)
		if i%5 == 0 {
			if err := d.e.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		d.commit(1)
		if st := d.e.Store().Stats(); st.VersionBytes > limit+10*testPS {
			t.Fatalf("round %d: %d bytes of versions in memory, limit %d; %+v", i, st.VersionBytes, limit, st)
		}
	}
	if d.e.Store().Stats().SpillMax == 0 {
		t.Fatal("nothing was moved to the spill file: the test is too small")
	}
	b := make([]byte, testPS)
	for i, w := range want {
		if _, err := old.ReadAt(b, int64(i*testPS)); err != nil || body(b) != w {
			t.Fatalf("page %d of the old snapshot: %v", i+1, err)
		}
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.e.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := d.e.Store().Stats(); st.Versions != 0 || st.SpillBytes != 0 {
		t.Fatalf("left over: %+v", st)
	}
	d.check()
}

// TestSpillFull: no room for the spill file fails the transaction that needs it
// and nothing else.
func TestSpillFull(t *testing.T) {
	d := newDB(t, nil, nil)
	d.commit(10)
	full := errors.New("no space")
	d.fs.SetHook(func(op vfs.Op) error {
		if op.Path == "/db/"+DataFileName+".spl" && op.Kind.Changes() {
			return full
		}
		return nil
	})
	d.bulk = true
	if _, err := d.tryPublish(100, false); !errors.Is(err, full) {
		t.Fatalf("commit without room: %v", err)
	}
	d.bulk = false
	d.commit(3)
	d.fs.SetHook(nil)
	d.check()
	d.bulk = true
	d.commit(100)
	d.check()
}
