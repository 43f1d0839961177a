package engine

import (
	"context"
	"errors"
	"io/fs"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

var errLink = errors.New("link is down")

// TestG1 checks the order of a commit: shipped, then in the online log, then
// acknowledged; and that a failed send acknowledges nothing, writes nothing, and
// is repeated by OpenDatabase with the same package.
func TestG1(t *testing.T) {
	s := &spy{}
	d := newDB(t, nil, s)
	s.hook = func(p *redo.Package) {
		if f := d.e.LogInfo().FileLSN; f >= p.MinLSN {
			t.Errorf("package %d was in the log (LSN %d) before it was shipped", p.GSEQ, f)
		}
		if h := d.e.Hardened(); h >= p.MinLSN {
			t.Errorf("package %d was hardened before it was shipped", p.GSEQ)
		}
	}
	for range 5 {
		lsn := d.commit(2)
		if f := d.e.LogInfo().FileLSN; f < lsn {
			t.Fatalf("acknowledged LSN %d, log has %d", lsn, f)
		}
	}
	before := d.e.Positions()
	s.set(errLink, nil)
	lsn := d.publish(2, false)
	await(t, d.e, "suspended", func() bool { return d.e.Status() == base.StatusSuspend })
	later := d.publish(2, false) // changing goes on, in vain
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.e.WaitHardened(ctx, lsn); !errors.Is(err, context.Canceled) {
		t.Fatalf("a commit was acknowledged in Suspend: %v", err)
	}
	if p := d.e.Positions(); p.File != before.File || p.Replay != before.Replay || p.Cur.Seq != before.Cur.Seq+1 {
		t.Fatalf("positions moved: %+v", p)
	}
	if err := d.e.OpenDatabase(t.Context()); !errors.Is(err, ErrSuspended) {
		t.Fatalf("OpenDatabase with the link still down: %v", err)
	}
	if err := d.e.MountDatabase(t.Context()); !errors.Is(err, ErrStatus) {
		t.Fatalf("Suspend to Mount: %v", err)
	}
	d.check() // reads go on
	s.set(nil, nil)
	if err := d.e.OpenDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.e.WaitHardened(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	d.check()
	for i, p := range s.packages() {
		if p.GSEQ != base.Seq(i+1) {
			t.Fatalf("package %d shipped as number %d", p.GSEQ, i+1)
		}
	}
	if s.hardened != d.e.Positions().File {
		t.Fatalf("shipper heard of %v, log has %v", s.hardened, d.e.Positions().File)
	}
}

// TestFlight: commits learn when the package under way is shipped and when it is
// hardened; the first is not the second (G1).
func TestFlight(t *testing.T) {
	s := &spy{}
	d := newDB(t, nil, s)
	if d.e.Flight() != nil {
		t.Fatal("a package is under way in an idle database")
	}
	ship, flown := make(chan struct{}), make(chan struct{})
	s.hook = func(*redo.Package) { close(flown); <-ship }
	lsn := d.publish(2, false)
	<-flown
	shipped := d.e.Flight()
	select {
	case <-shipped:
		t.Fatal("shipped before the shipper says so")
	default:
	}
	close(ship)
	<-shipped
	for ch := d.e.Flight(); ch != nil; ch = d.e.Flight() { // in the log's hands, or past it
		<-ch
	}
	if h := d.e.Hardened(); h < lsn {
		t.Fatalf("hardened up to %d when the package of %d has landed", h, lsn)
	}
}

// TestTimelyFailure: the package is in the log, but not acknowledged until the
// timely archives have it.
func TestTimelyFailure(t *testing.T) {
	s := &spy{}
	d := newDB(t, nil, s)
	s.set(nil, errLink)
	lsn := d.publish(1, false)
	await(t, d.e, "suspended", func() bool { return d.e.Status() == base.StatusSuspend })
	if d.e.Hardened() >= lsn || d.e.LogInfo().FileLSN != lsn {
		t.Fatalf("hardened %d, log %d, commit %d", d.e.Hardened(), d.e.LogInfo().FileLSN, lsn)
	}
	s.set(nil, nil)
	n := s.ships
	if err := d.e.OpenDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.ships != n || d.e.Hardened() != lsn {
		t.Fatalf("realtime sends %d, want %d; hardened %d, want %d", s.ships, n, d.e.Hardened(), lsn)
	}
}

// TestRelease: a package that is everywhere is not acknowledged while the lease
// does not allow it (G3), and then without being sent or written again.
func TestRelease(t *testing.T) {
	s := &spy{failR: errLink}
	d := newDB(t, nil, nil)
	d.e.SetShipper(s)
	lsn := d.publish(1, false)
	await(t, d.e, "suspended", func() bool { return d.e.Status() == base.StatusSuspend })
	if d.e.Hardened() >= lsn || d.e.LogInfo().FileLSN != lsn || s.ships != 1 {
		t.Fatalf("hardened %d, log %d, commit %d, sends %d", d.e.Hardened(), d.e.LogInfo().FileLSN, lsn, s.ships)
	}
	if err := d.e.OpenDatabase(t.Context()); !errors.Is(err, ErrSuspended) {
		t.Fatalf("opened without a lease: %v", err)
	}
	if d.e.LeaseOver() {
		t.Fatal("a lease that was not given is over")
	}
	s.mu.Lock()
	s.failR, s.until = nil, time.Now().Add(time.Hour)
	s.mu.Unlock()
	if err := d.e.OpenDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d.e.Hardened() != lsn || s.ships != 1 || s.released != 3 {
		t.Fatalf("hardened %d of %d, sends %d, asked %d times", d.e.Hardened(), lsn, s.ships, s.released)
	}
	if d.e.LeaseOver() {
		t.Fatal("the lease is over at once")
	}
	s.mu.Lock()
	s.until = time.Now().Add(-time.Millisecond)
	s.mu.Unlock()
	d.commit(1)
	if !d.e.LeaseOver() {
		t.Fatal("the lease is never over")
	}
}

// TestG2: while a package is under way, only its writer sees it.
func TestG2(t *testing.T) {
	s := &spy{}
	d := newDB(t, nil, s)
	d.commit(1)
	reached, release := make(chan struct{}), make(chan struct{})
	s.mu.Lock()
	s.hook = func(*redo.Package) { close(reached); <-release }
	s.mu.Unlock()
	lsn := d.publish(3, false)
	<-reached
	st := d.e.Store()
	if st.Newest() != lsn || st.Hardened() != lsn-1 {
		t.Fatalf("newest %d, hardened %d", st.Newest(), st.Hardened())
	}
	d.check() // at the hardened LSN
	w := st.NewHandle(false)
	defer w.Close()
	if err := errors.Join(st.LockWrite(t.Context(), w), w.Lock(pagestore.LockShared)); err != nil {
		t.Fatal(err)
	}
	if size, _ := w.Size(); size != int64(len(d.at[lsn])*testPS) {
		t.Fatalf("the owner of the write lock sees %d bytes", size)
	}
	st.UnlockWrite(w)
	if _, err := w.ReadAt(make([]byte, 16), 24); !errors.Is(err, pagestore.ErrNotOwner) {
		t.Fatalf("unhardened read without the write lock: %v", err)
	}
	s.mu.Lock()
	s.hook = nil
	s.mu.Unlock()
	close(release)
	if err := d.e.WaitHardened(t.Context(), lsn); err != nil {
		t.Fatal(err)
	}
	d.check()
}

// TestG4: a checkpoint while redo is under way writes none of its pages.
func TestG4(t *testing.T) {
	s := &spy{}
	d := newDB(t, nil, s)
	d.commit(5)
	s.set(errLink, nil)
	d.publish(30, false)
	await(t, d.e, "suspended", func() bool { return d.e.Status() == base.StatusSuspend })
	if err := d.e.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	disk := d.fs.Clone()
	d.e.Abort()
	d.fs = disk
	d.open(nil, nil)
	t.Cleanup(d.e.Abort)
	if d.e.Hardened() != base.LSN(d.acked.Load()) {
		t.Fatalf("recovered to LSN %d, hardened was %d", d.e.Hardened(), d.acked.Load())
	}
	d.check()
}

// TestStatus walks the status changes of manual 2.2.4 and those it forbids.
func TestStatus(t *testing.T) {
	d := newDB(t, nil, nil)
	e := d.e
	var mu sync.Mutex
	var seen []base.Status
	e.OnChange(func() { mu.Lock(); seen = append(seen, e.Status()); mu.Unlock() })
	d.commit(1)
	if err := e.SetMode(t.Context(), base.ModeStandby); !errors.Is(err, ErrStatus) {
		t.Fatalf("SetMode in Open: %v", err)
	}
	e.Suspend("asked")
	if err := e.Quiesce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r, at := e.SuspendReason(); r != "asked" || at.IsZero() {
		t.Fatalf("reason %q at %v", r, at)
	}
	lsn := d.publish(1, false)
	if err := e.OpenDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.WaitHardened(t.Context(), lsn); err != nil {
		t.Fatal(err)
	}
	if err := e.MountDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.Suspend("from Mount: nothing happens")
	if e.Status() != base.StatusMount {
		t.Fatalf("Mount to Suspend: %v", e.Status())
	}
	if _, err := d.tryPublish(1, false); !errors.Is(err, ErrNotOpen) {
		t.Fatalf("commit in Mount: %v", err)
	}
	if err := errors.Join(e.SetMode(t.Context(), base.ModeStandby), e.SetOGUID(7)); err != nil {
		t.Fatal(err)
	}
	n := len(e.Lineage())
	if err := e.OpenDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e.Positions().Cur.LSN != lsn || len(e.Lineage()) != n {
		t.Fatal("opening as Standby wrote something")
	}
	if _, err := d.tryPublish(1, false); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("commit on a standby: %v", err)
	}
	if err := errors.Join(e.MountDatabase(t.Context()), e.SetMode(t.Context(), base.ModeNormal), d.openDatabase()); err != nil {
		t.Fatal(err)
	}
	d.commit(2)
	mu.Lock()
	want := []base.Status{base.StatusSuspend, base.StatusSuspend, base.StatusOpen, base.StatusMount}
	for i, w := range want {
		if seen[i] != w {
			t.Fatalf("status changes %v, want first %v", seen, want)
		}
	}
	mu.Unlock()
	lin := e.Lineage()
	if len(lin) != 2 || lin[1].ID != 2 || lin[1].SysMode != base.ModeNormal || lin[1].Apply[0].LSN != lsn {
		t.Fatalf("lineage %+v", lin)
	}
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.WaitHardened(t.Context(), 1<<40); !errors.Is(err, ErrClosed) {
		t.Fatalf("wait on a closed database: %v", err)
	}
	d.open(nil, nil)
	t.Cleanup(d.e.Abort)
	if c := d.e.Control(); c.OGUID != 7 || c.Mode != base.ModeNormal || len(c.Lineage) != 2 || c.Clean {
		t.Fatalf("control file %+v", c)
	}
	d.check()
}

// TestDiskFull: the online log or the archive has no room for a while; the
// database is suspended, nothing is lost, and it goes on by itself.
func TestDiskFull(t *testing.T) {
	for _, path := range []string{"/db/T0*.log", "A_*.log"} {
		t.Run(path, func(t *testing.T) {
			d := newDB(t, nil, nil)
			d.commit(1)
			heal := d.fs.Inject(vfs.Fault{Kind: vfs.OpWrite, Path: path, Err: syscall.ENOSPC, Short: 100})
			lsn := d.publish(3, false)
			await(t, d.e, "suspended", func() bool { return d.e.Status() == base.StatusSuspend })
			if d.e.Hardened() >= lsn {
				t.Fatal("acknowledged without room for it")
			}
			heal()
			await(t, d.e, "open again", func() bool { return d.e.Status() == base.StatusOpen })
			if err := d.e.WaitHardened(t.Context(), lsn); err != nil {
				t.Fatal(err)
			}
			d.commit(2)
			if err := d.e.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			d.open(nil, nil)
			t.Cleanup(d.e.Abort)
			d.check()
		})
	}
}

// TestDiskBroken: any other write error halts, and every waiter hears it.
func TestDiskBroken(t *testing.T) {
	halted := make(chan error, 1)
	d := newDB(t, func(c *Config) { c.OnHalt = func(err error) { halted <- err } }, nil)
	last := d.commit(1)
	d.fs.Inject(vfs.Fault{Kind: vfs.OpSync, Path: "/db/T0*.log", Err: syscall.EIO})
	lsn := d.publish(1, false)
	if err := d.e.WaitHardened(t.Context(), lsn); !errors.Is(err, ErrHalted) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("commit on a broken disk: %v", err)
	}
	if err := <-halted; !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if _, err := d.tryPublish(1, false); !errors.Is(err, ErrHalted) {
		t.Fatalf("next commit: %v", err)
	}
	if d.e.Hardened() != last {
		t.Fatalf("hardened %d, want %d", d.e.Hardened(), last)
	}
}

// TestG9 damages files one by one; Open names the file.
func TestG9(t *testing.T) {
	for _, c := range []struct {
		name, path string
		do         func(f vfs.File) error
	}{
		{"control file and its copy", "/db/dm.ctl", nil},
		{"online log header", "/db/T01.log", func(f vfs.File) error { return overwrite(f, 0, 8192) }},
		{"second log file missing", "/db/T02.log", nil},
		{"data file missing", "/db/" + DataFileName, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDB(t, nil, nil)
			for range 5 {
				d.commit(3)
			}
			if err := d.e.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if c.do == nil {
				if err := d.fs.Remove(c.path); err != nil {
					t.Fatal(err)
				}
				if err := d.fs.Remove(c.path + ".bak"); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
			} else {
				f, err := d.fs.Open(c.path)
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(c.do(f), f.Close()); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Open(t.Context(), testConfig(d.fs, true))
			if err == nil || !contains(err.Error(), c.path) {
				t.Fatalf("error does not name %s: %v", c.path, err)
			}
		})
	}
	t.Run("page", func(t *testing.T) {
		d := newDB(t, nil, nil)
		for range 5 {
			d.commit(3)
		}
		if err := d.e.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		f, err := d.fs.Open("/db/" + DataFileName)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(overwrite(f, testPS+50, 3), f.Close(), d.fs.Remove("/db/"+DataFileName+".dwb")); err != nil {
			t.Fatal(err)
		}
		d.open(nil, nil)
		t.Cleanup(d.e.Abort)
		_, err = tryContents(d.e)
		if !errors.Is(err, pagestore.ErrDamaged) || !contains(err.Error(), "/db/"+DataFileName+": page 2") {
			t.Fatalf("reading a damaged page: %v", err)
		}
	})
}

func overwrite(f vfs.File, off int64, n int) error {
	b := make([]byte, n)
	for i := range b {
		b[i] = 0xA5
	}
	_, err := f.WriteAt(b, off)
	return err
}

func contains(s, sub string) bool {
	for i := 0; i+len(sub) <= len(s); i++ {
		if s[i:i+len(sub)] == sub {
			return true
		}
	}
	return false
}

// TestSecondProcess: the lock file keeps it away.
func TestSecondProcess(t *testing.T) {
	d := newDB(t, nil, nil)
	if _, err := Open(t.Context(), testConfig(d.fs, true)); !errors.Is(err, vfs.ErrLocked) {
		t.Fatalf("second Open: %v", err)
	}
	if err := Create(CreateConfig{FS: d.fs, Dir: "/db", CtlPath: "/db/dm.ctl", PageSize: testPS}); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("Create over a database: %v", err)
	}
}

// TestLargerThanMemory: a database far larger than its cache and its log, with
// a reader that keeps an old snapshot.
func TestLargerThanMemory(t *testing.T) {
	d := newDB(t, func(c *Config) { c.BufferBytes, c.DirtyBytes = 16*testPS, 32*testPS }, nil)
	d.commit(40)
	old := d.e.Hardened()
	b, err := d.e.BeginBackup()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	const pages = 4000
	h, s := d.h, d.e.Store()
	for p := 100; p < pages; p += 50 {
		if err := errors.Join(s.LockWrite(t.Context(), h), h.Lock(pagestore.LockReserved)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, testPS)
		for i := range 50 {
			for j := range buf {
				buf[j] = byte(p + i + j)
			}
			if _, err := h.WriteAt(buf, int64(p+i)*testPS); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.Sync(); err != nil {
			t.Fatal(err)
		}
		h.CommitPhaseTwo()
		if err := h.Unlock(pagestore.LockNone); err != nil {
			t.Fatal(err)
		}
		s.UnlockWrite(h)
		if err := d.e.WaitHardened(t.Context(), h.LastCommit()); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.e.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Versions > 200 || st.CachePages > 16 {
		t.Fatalf("too much in memory: %+v", st)
	}
	got := contents(t, d.e)
	for p := 100; p < pages; p++ {
		for j := 0; j < testPS-16; j += 37 {
			if got[p][j] != byte(p+j) {
				t.Fatalf("page %d byte %d", p, j)
			}
		}
	}
	if b.LSN() != old || b.Position.LSN != old || int(b.Pages()) != len(d.at[old]) {
		t.Fatalf("backup at LSN %d, position %v, %d pages", b.LSN(), b.Position, b.Pages())
	}
	buf := make([]byte, testPS)
	for p, want := range d.at[old] {
		if err := b.ReadPage(uint32(p+1), buf); err != nil || body(buf) != want {
			t.Fatalf("backup page %d: %v", p+1, err)
		}
	}
	if _, err := d.tryPublish(1, false); err == nil {
		t.Fatal("the model knows nothing of these pages")
	}
}

// TestTooLarge: a transaction that the log cannot hold fails, where there is no
// archive, at its commit, changes nothing and leaves a database that works.
func TestTooLarge(t *testing.T) {
	d := newDB(t, func(c *Config) { c.Arch = nil }, nil)
	d.commit(1)
	for range 4 {
		d.bulk = true
		if _, err := d.tryPublish(2000, false); !errors.Is(err, ErrTooLarge) {
			t.Fatalf("a transaction of several logs: %v", err)
		}
		d.bulk = false
		d.commit(2)
		d.check()
	}
	d.e.Abort()
	d.open(func(c *Config) { c.Arch = nil }, nil)
	d.check()
}

// TestBackpressure: writers wait in Reserve while the buffer is full, and a
// cancelled one gives up.
func TestBackpressure(t *testing.T) {
	s := &spy{}
	d := newDB(t, func(c *Config) { c.RedoBuffer = 4000 }, s)
	s.set(errLink, nil)
	d.publish(1, false)
	await(t, d.e, "suspended", func() bool { return d.e.Status() == base.StatusSuspend })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	d.h.SetContext(ctx)
	n := 0
	for {
		if _, err := d.tryPublish(2, false); errors.Is(err, context.DeadlineExceeded) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if n++; n > 1000 {
			t.Fatal("the buffer never filled")
		}
	}
	delete(d.at, d.e.NextLSN())
	d.h.SetContext(context.Background())
	s.set(nil, nil)
	if err := d.e.OpenDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.commit(2)
	d.check()
}

// TestMountMeetsFullDisk: a disk that is full and has room again while the
// database goes to Mount lets commits in: it must not be Mount then, with redo
// that nobody flushes.
func TestMountMeetsFullDisk(t *testing.T) {
	d := newDB(t, nil, nil)
	if err := d.e.Reserve(t.Context(), d.e.NextLSN(), 1); err != nil { // a commit between Sync and its end
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- d.e.MountDatabase(t.Context()) }()
	for waits := false; !waits; {
		d.e.buf.mu.Lock()
		waits = d.e.buf.refusal != nil && d.e.buf.freed != nil
		d.e.buf.mu.Unlock()
		runtime.Gosched()
	}
	d.e.suspend("disk is full", causeDiskFull)
	d.e.spaceBack()
	d.e.Cancel()
	if err := <-done; !errors.Is(err, ErrSuspended) || d.e.Status() != base.StatusOpen {
		t.Fatalf("mount: %v, status %v", err, d.e.Status())
	}
	d.commit(3)
	if err := d.e.MountDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
}
