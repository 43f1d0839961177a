package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

func newStandby(t *testing.T) (*Engine, *vfs.Mem) {
	t.Helper()
	fs := vfs.NewMem()
	create(t, fs, base.ModeStandby)
	e, err := Open(t.Context(), testConfig(fs, true))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Abort)
	if err := e.OpenDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e, fs
}

// primaryPackages runs a workload and returns the database and what it shipped.
func primaryPackages(t *testing.T, commits int) (*db, []*redo.Package) {
	t.Helper()
	s := &spy{}
	d := newDB(t, nil, s)
	d.workload(func() bool { return int(d.acked.Load()) >= commits })
	return d, s.packages()
}

// TestStandby: a standby fed by AppendForeign is the primary, page by page, after
// every package (G6), and refuses what does not continue it (G5).
func TestStandby(t *testing.T) {
	d, pkgs := primaryPackages(t, 150)
	e, _ := newStandby(t)
	for i, p := range pkgs {
		bad := map[string]*redo.Package{}
		if i%10 == 3 {
			bad["the package before"] = pkgs[i-1]
			h := p.Header
			h.PmntMagic++
			bad["another database"] = &redo.Package{Header: h, Data: p.Data}
			h = p.Header
			h.OpenID++
			bad["another lineage"] = &redo.Package{Header: h, Data: p.Data}
			h = p.Header
			h.PrevLSN--
			bad["another LSN"] = &redo.Package{Header: h, Data: p.Data}
			bad["damaged"] = &redo.Package{Header: p.Header, Data: p.Data[:len(p.Data)-1]}
			if i+1 < len(pkgs) {
				bad["a gap"] = pkgs[i+1]
			}
		}
		before := e.Positions()
		for name, b := range bad {
			if err := e.AppendForeign(t.Context(), []*redo.Package{b}); err == nil {
				t.Fatalf("G5: %s was taken", name)
			}
			after := e.Positions()
			if after.Ckpt = before.Ckpt; after != before { // checkpoints go on by themselves
				t.Fatalf("G5: %s changed something: %+v", name, after)
			}
		}
		if err := e.AppendForeign(t.Context(), []*redo.Package{p}); err != nil {
			t.Fatal(err)
		}
		if err := diff(contents(t, e), d.at[p.MaxLSN]); err != nil {
			t.Fatalf("G6: after package %d: %v", p.GSEQ, err)
		}
	}
	samePages(t, d.e, e)
	if a, b := d.e.Lineage(), e.Lineage(); len(b) != 1 || a[0].TGUID != b[0].TGUID {
		t.Fatalf("lineage %+v, primary %+v", b, a)
	}
	// Takeover: it opens as primary, with an open record that follows the old one.
	if err := errors.Join(e.MountDatabase(t.Context()), e.SetMode(t.Context(), base.ModePrimary), e.OpenDatabase(t.Context())); err != nil {
		t.Fatal(err)
	}
	last := d.e.Positions().File
	if l := e.Lineage(); len(l) != 2 || l[1].Apply[0] != last || l[1].SrcDBMagic != d.e.Control().DBMagic {
		t.Fatalf("lineage %+v", l)
	}
	if p := e.Positions().File; p.Seq != last.Seq+1 || p.LSN != last.LSN+1 {
		t.Fatalf("position %v after %v", p, last)
	}
}

// TestParallelReplay: while several goroutines replay batches of packages and the
// data file is brought up to them, every snapshot that a reader takes is the state
// at the end of a package, all of it (G6).
func TestParallelReplay(t *testing.T) {
	d, pkgs := primaryPackages(t, 200)
	ends := map[base.LSN]bool{0: true}
	for _, p := range pkgs {
		ends[p.MaxLSN] = true
	}
	e, _ := newStandby(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var seen atomic.Int64
	for range 3 {
		wg.Go(func() {
			for last := base.LSN(0); ; {
				select {
				case <-stop:
					return
				default:
				}
				sn := e.Store().Snapshot()
				lsn, got := sn.LSN(), []string(nil)
				b := make([]byte, testPS)
				for p := uint32(1); p <= sn.Pages(); p++ {
					if err := sn.ReadPage(p, b); err != nil {
						t.Error(err)
						sn.Close()
						return
					}
					got = append(got, body(b))
				}
				sn.Close()
				if err := diff(got, d.at[lsn]); err != nil || !ends[lsn] || lsn < last {
					t.Errorf("G6: snapshot at LSN %d after %d, end of a package %v: %v", lsn, last, ends[lsn], err)
					return
				}
				if lsn != last {
					seen.Add(1)
				}
				last = lsn
			}
		})
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	before := func() error { return nil }
	for rest := pkgs; len(rest) > 0; {
		n := min(1+rnd.IntN(8), len(rest))
		wait, err := e.LogForeign(t.Context(), rest[:n])
		if err := errors.Join(err, before()); err != nil {
			t.Fatal(err)
		}
		before = wait
		if rest = rest[n:]; rnd.IntN(4) == 0 {
			if err := e.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		runtime.Gosched()
	}
	if err := before(); err != nil {
		t.Fatal(err)
	}
	close(stop)
	wg.Wait()
	samePages(t, d.e, e)
	t.Logf("%d packages, %d states seen", len(pkgs), seen.Load())
}

// TestStandbyPowerCuts cuts the power of a standby around every change of its
// disk, also while it replays one batch and logs the next; what it had logged is
// there, the rest continues it.
func TestStandbyPowerCuts(t *testing.T) {
	d, pkgs := primaryPackages(t, 120)
	e, fs := newStandby(t)
	var failed error
	n := 0
	var logged atomic.Uint64 // what a primary would be told is in the log
	acked := func() base.LSN { return base.LSN(logged.Load()) }
	cutter(fs, rand.New(rand.NewPCG(5, 6)), *cuts/4, acked, func(c cut) {
		if n++; failed != nil {
			return
		}
		failed = func() error {
			s, err := Open(t.Context(), testConfig(c.fs, true))
			if err != nil {
				return err
			}
			defer s.Abort()
			pos := s.Positions().File
			if pos.LSN < c.acked {
				return fmt.Errorf("lost packages: at %v, had taken LSN %d", pos, c.acked)
			}
			got, err := tryContents(s)
			if err == nil {
				err = diff(got, d.at[pos.LSN])
			}
			if err != nil || n%10 != 0 {
				return err
			}
			if err := errors.Join(s.OpenDatabase(t.Context()), s.AppendForeign(t.Context(), pkgs[pos.Seq:])); err != nil {
				return err
			}
			got, err = tryContents(s)
			if err != nil {
				return err
			}
			return diff(got, d.at[d.e.Hardened()])
		}()
		if failed != nil {
			failed = fmt.Errorf("cut %d (%s): %w", n, c.op, failed)
		}
	})
	before := func() error { return nil }
	for i := 0; i < len(pkgs); i += 3 {
		n := min(i+3, len(pkgs))
		wait, err := e.LogForeign(t.Context(), pkgs[i:n])
		if err != nil {
			t.Fatal(err)
		}
		logged.Store(uint64(pkgs[n-1].MaxLSN))
		if err := before(); err != nil {
			t.Fatal(err)
		}
		before = wait
		if i%30 == 0 {
			if err := e.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := before(); err != nil {
		t.Fatal(err)
	}
	fs.SetHook(nil)
	if failed != nil {
		t.Fatal(failed)
	}
	samePages(t, d.e, e)
	t.Logf("%d power cuts, %d packages", n, len(pkgs))
}

// TestStandbySuspended: what a standby had accepted before it was suspended, or
// went to Mount, gets into its log.
func TestStandbySuspended(t *testing.T) {
	_, pkgs := primaryPackages(t, 5)
	e, _ := newStandby(t)
	e.Suspend("asked")
	if err := e.AppendForeign(t.Context(), pkgs[:2]); err != nil {
		t.Fatalf("in Suspend: %v", err)
	}
	if err := errors.Join(e.OpenDatabase(t.Context()), e.MountDatabase(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := e.AppendForeign(t.Context(), pkgs[2:3]); err != nil {
		t.Fatalf("in Mount: %v", err)
	}
	if got, want := e.Positions().Replay, pkgs[2].Pos(); got != want {
		t.Fatalf("at %v, want %v", got, want)
	}
}

// TestStandbyArchiveFull: a standby whose archive has no room waits with what it
// has accepted, says so (DW_ARCH_SPACE_CHECK), and goes on by itself.
func TestStandbyArchiveFull(t *testing.T) {
	d, pkgs := primaryPackages(t, 30)
	e, fs := newStandby(t)
	if err := e.AppendForeign(t.Context(), pkgs[:2]); err != nil {
		t.Fatal(err)
	}
	heal := fs.Inject(vfs.Fault{Kind: vfs.OpWrite, Path: "STANDBY_ARCHIVE_*.log", Err: syscall.ENOSPC})
	done := make(chan error, 1)
	go func() { done <- e.AppendForeign(context.Background(), pkgs[2:]) }()
	await(t, e, "suspended", func() bool { return e.Status() == base.StatusSuspend })
	if why := e.ArchiveFull(); !strings.Contains(why, "/arch/") {
		t.Errorf("it says %q", why)
	}
	heal()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if why := e.ArchiveFull(); why != "" || e.Status() != base.StatusOpen {
		t.Errorf("with room again: %q, %v", why, e.Status())
	}
	samePages(t, d.e, e)
}

// TestLogWhileReplaying: packages are logged while those before them wait for
// room in the archive, and only where they continue what is logged (G5); nobody
// sees them, nor their open record, before they are replayed in order (G6), and
// until then the database neither goes to Mount nor changes its mode.
func TestLogWhileReplaying(t *testing.T) {
	d, pkgs := primaryPackages(t, 30)
	e, fs := newStandby(t)
	heal := fs.Inject(vfs.Fault{Kind: vfs.OpWrite, Path: "STANDBY_ARCHIVE_*.log", Err: syscall.ENOSPC})
	one, err := e.LogForeign(t.Context(), pkgs[:2])
	if err != nil {
		t.Fatal(err)
	}
	two, err := e.LogForeign(t.Context(), pkgs[2:5])
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range [][]*redo.Package{pkgs[2:3], pkgs[6:7]} {
		if _, err := e.LogForeign(t.Context(), wrong); !errors.Is(err, ErrPosition) {
			t.Errorf("G5: package %d after %v: %v", wrong[0].GSEQ, e.Positions().File, err)
		}
	}
	pos, lineage := e.State()
	hard, seen := e.HardState()
	if pos.File != pkgs[4].Pos() || pos.Replay != (base.Position{}) || hard != pos.Replay || e.Hardened() != 0 {
		t.Errorf("G6: logged and not replayed: %+v, hardened %v", pos, hard)
	}
	if lineage.Last().ID != 1 || seen.Last().ID != 0 {
		t.Errorf("lineage of the log %v, of what is replayed %v", lineage, seen)
	}
	await(t, e, "suspended", func() bool { return e.Status() == base.StatusSuspend })
	if err := e.OpenDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.MountDatabase(short); err == nil || e.Status() == base.StatusMount {
		t.Errorf("to Mount with packages not replayed: %v", err)
	}
	if err := e.Reserve(t.Context(), 1, 1); !errors.Is(err, ErrReadOnly) {
		t.Errorf("a write to a standby that stayed Open: %v", err)
	}
	heal()
	if err := errors.Join(two(), one()); err != nil {
		t.Fatal(err)
	}
	if got := e.Positions().Replay; got != pkgs[4].Pos() {
		t.Errorf("replayed up to %v", got)
	}
	if err := e.AppendForeign(t.Context(), pkgs[5:]); err != nil {
		t.Fatal(err)
	}
	if _, seen := e.HardState(); seen.Last().ID != 1 {
		t.Errorf("lineage %v", seen)
	}
	samePages(t, d.e, e)
}

// TestMountWhileReplaying: in Mount, packages that are logged and not replayed do
// not keep the group from being set; what changes what follows them waits.
func TestMountWhileReplaying(t *testing.T) {
	d, pkgs := primaryPackages(t, 30)
	e, fs := newStandby(t)
	heal := fs.Inject(vfs.Fault{Kind: vfs.OpWrite, Path: "STANDBY_ARCHIVE_*.log", Err: syscall.ENOSPC})
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.MountDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait, err := e.LogForeign(t.Context(), pkgs[:4])
	if err != nil {
		t.Fatal(err)
	}
	if err := e.SetOGUID(7); err != nil {
		t.Error(err)
	}
	if err := e.SetMode(short, base.ModePrimary); !errors.Is(err, context.Canceled) {
		t.Errorf("the mode changes with packages not replayed: %v", err)
	}
	if r, err := e.BeginRejoin(short); err == nil {
		r.Close()
		t.Errorf("a rejoin begins at %v, the log ends at %v", r.End, e.Positions().File)
	}
	heal()
	r, err := e.BeginRejoin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	more := make(chan error, 1)
	go func() { more <- e.AppendForeign(context.Background(), pkgs[4:8]) }()
	for range 100 {
		runtime.Gosched()
	}
	if end := e.Positions().File; r.End != pkgs[3].Pos() || end != r.End {
		t.Errorf("the rejoin begins at %v, the log ends at %v", r.End, end)
	}
	r.Close()
	if err := errors.Join(wait(), <-more); err != nil {
		t.Fatal(err)
	}
	// Where the mode cannot be changed, that is said at once.
	if err := e.OpenDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	heal = fs.Inject(vfs.Fault{Kind: vfs.OpWrite, Path: "STANDBY_ARCHIVE_*.log", Err: syscall.ENOSPC})
	if wait, err = e.LogForeign(t.Context(), pkgs[8:]); err != nil {
		t.Fatal(err)
	}
	if err := e.SetMode(short, base.ModePrimary); !errors.Is(err, ErrStatus) {
		t.Errorf("the mode of an open database: %v", err)
	}
	heal()
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	samePages(t, d.e, e)
}

// TestEndWhileReplaying: a standby that ends, or halts, while packages are logged and
// not replayed says so to all who wait, takes nothing more, and has them at its next
// start, from where they go on (G1, G9).
func TestEndWhileReplaying(t *testing.T) {
	for name, end := range map[string]func(*Engine) error{
		"closed":  func(e *Engine) error { return e.Close(context.Background()) },
		"aborted": func(e *Engine) error { e.Abort(); return nil },
		"halted":  nil, // the archive's disk is broken, not full
	} {
		t.Run(name, func(t *testing.T) {
			d, pkgs := primaryPackages(t, 30)
			e, fs := newStandby(t)
			if err := e.AppendForeign(t.Context(), pkgs[:2]); err != nil {
				t.Fatal(err)
			}
			fault, want := vfs.Fault{Kind: vfs.OpWrite, Path: "STANDBY_ARCHIVE_*.log", Err: syscall.ENOSPC}, ErrClosed
			if end == nil {
				fault.Err, want = syscall.EIO, ErrHalted
			}
			heal := fs.Inject(fault)
			var waits []func() error
			for _, p := range [][]*redo.Package{pkgs[2:4], pkgs[4:7]} {
				wait, err := e.LogForeign(t.Context(), p)
				if err != nil && end != nil {
					t.Fatal(err)
				}
				if err == nil {
					waits = append(waits, wait)
				}
			}
			logged := pkgs[[]int{1, 3, 6}[len(waits)]].Pos()
			if end != nil {
				if err := end(e); err != nil && !errors.Is(err, syscall.ENOSPC) {
					t.Error(err)
				}
			}
			for _, wait := range waits {
				if err := wait(); !errors.Is(err, want) && (end != nil || !errors.Is(err, syscall.EIO)) {
					t.Errorf("the replay ends with %v", err)
				}
			}
			if _, err := e.LogForeign(t.Context(), pkgs[7:]); !errors.Is(err, want) {
				t.Errorf("more packages: %v", err)
			}
			if p := e.Positions(); p.Replay != pkgs[1].Pos() || p.File != logged {
				t.Errorf("%+v, logged %v", p, logged)
			}
			e.Abort()
			heal()
			s, err := Open(t.Context(), testConfig(fs, true))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Abort()
			if p := s.Positions(); p.File != logged || p.Replay != logged {
				t.Errorf("after the start %+v, logged %v", p, logged)
			}
			if err := errors.Join(s.OpenDatabase(t.Context()), s.AppendForeign(t.Context(), pkgs[logged.Seq:])); err != nil {
				t.Fatal(err)
			}
			samePages(t, d.e, s)
		})
	}
}

// TestLogFullWhileReplaying: when the online log is full, a standby waits for the
// replay of what is in it, which may wait for room in the archive, and goes on by
// itself; or it ends, and has all of the log at its next start.
func TestLogFullWhileReplaying(t *testing.T) {
	d, pkgs := primaryPackages(t, 500)
	for _, ends := range []bool{false, true} {
		e, fs := newStandby(t)
		heal := fs.Inject(vfs.Fault{Kind: vfs.OpWrite, Path: "STANDBY_ARCHIVE_*.log", Err: syscall.ENOSPC})
		done := make(chan error, 1)
		go func() { done <- e.AppendForeign(context.Background(), pkgs) }()
		await(t, e, "full", func() bool {
			free, total := e.log.Space()
			return e.Status() == base.StatusSuspend && free < total/4
		})
		if p := e.Positions(); p.Ckpt != 0 || p.Replay.LSN != 0 || p.File.Seq == 0 || p.File == pkgs[len(pkgs)-1].Pos() {
			t.Fatalf("%+v", p)
		}
		if ends {
			if err := e.Close(t.Context()); err != nil && !errors.Is(err, syscall.ENOSPC) {
				t.Error(err)
			}
			if err := <-done; !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
			at := e.Positions().File
			e.Abort()
			heal()
			s, err := Open(t.Context(), testConfig(fs, true))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Abort()
			if p := s.Positions(); p.Replay != at {
				t.Errorf("after the start at %+v, logged %v", p, at)
			}
			if e = s; e.OpenDatabase(t.Context()) != nil {
				t.Fatal("not opened")
			}
			go func() { done <- e.AppendForeign(context.Background(), pkgs[at.Seq:]) }()
		}
		heal()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		samePages(t, d.e, e)
	}
}
