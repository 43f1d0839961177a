package engine

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

var cuts = flag.Int("cuts", 1500/raceFactor, "power cuts that the crash tests try, each before and after a change of the disk")

// cut is a disk as a restart finds it after a power cut, and what was promised before it.
type cut struct {
	fs    *vfs.Mem
	acked base.LSN // acknowledged, or gone to a timely standby, before the cut
	op    string
}

// cutter clones the disk at every change, before and after it.
func cutter(fs *vfs.Mem, rnd *rand.Rand, limit int, acked func() base.LSN, try func(cut)) {
	var mu sync.Mutex
	n := 0
	fs.SetHook(func(op vfs.Op) error {
		if !op.Kind.Changes() || strings.HasSuffix(op.Path, ".spl") { // a restart removes the spill file unread
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if n >= limit {
			return nil
		}
		n++
		a := acked()
		try(cut{fs.CrashClone(rnd), a, fmt.Sprintf("op %d: %v %s at %d, %d bytes, after=%v", op.N, op.Kind, op.Path, op.Off, op.Len, op.After)})
		return nil
	})
}

// verify opens what a power cut left and compares it with the model: everything
// acknowledged is there, and nothing half (G1, G4, G6, G9).
func (d *db) verify(c cut, i int) error {
	fail := func(err error) error { return fmt.Errorf("cut %d (%s): %w", i, c.op, err) }
	if i%5 == 0 { // and again during the recovery
		rnd := rand.New(rand.NewPCG(uint64(i), 7))
		stop := c.fs.Count() + 1 + rnd.Int64N(12)
		first, second := c.fs, c.fs
		var once sync.Once
		first.SetHook(func(op vfs.Op) error {
			if op.Kind.Changes() && !op.After && op.N >= stop {
				once.Do(func() { second = first.CrashClone(rnd); first.PowerOff() })
			}
			return nil
		})
		e, err := Open(context.Background(), testConfig(first, true))
		if err == nil {
			e.Checkpoint(context.Background())
			e.Abort()
		}
		first.SetHook(nil)
		if second == first {
			second = first.CrashClone(rnd)
		}
		c.fs = second
	}
	e, err := Open(context.Background(), testConfig(c.fs, true))
	if err != nil {
		return fail(err)
	}
	defer func() { e.Abort() }()
	if e.ckptChain != 0 {
		d.within.Add(1)
	}
	if e.chain.first != 0 {
		d.unfinished.Add(1)
	}
	lsn := e.Hardened()
	if lsn < c.acked {
		return fail(fmt.Errorf("lost a commit that was acknowledged or is on a timely standby: recovered to LSN %d, it was %d", lsn, c.acked))
	}
	d.mu.Lock()
	want, ok := d.at[lsn]
	d.mu.Unlock()
	if !ok {
		return fail(fmt.Errorf("recovered to LSN %d, which nobody committed", lsn))
	}
	got, err := tryContents(e)
	if err == nil {
		err = diff(got, want)
	}
	if err != nil {
		return fail(fmt.Errorf("recovered to LSN %d: %w", lsn, err))
	}
	if end := e.Archive().End(); end.LSN != lsn {
		return fail(fmt.Errorf("archive ends at %v, the database at LSN %d", end, lsn))
	}
	next := base.Seq(1)
	err = e.Archive().Read(context.Background(), 1, func(p *redo.Package) error {
		if p.GSEQ != next {
			return fmt.Errorf("archive: package %d, want %d", p.GSEQ, next)
		}
		next++
		return nil
	})
	if err != nil {
		return fail(err)
	}
	if i%3 != 0 {
		return nil
	}
	// Life goes on: one more commit, a checkpoint, a normal end, a new start.
	n := &db{t: d.t, e: e, fs: c.fs, rnd: rand.New(rand.NewPCG(uint64(i), 1)), h: e.Store().NewHandle(false),
		at: map[base.LSN][]string{lsn: want}, seq: 1 << 40}
	if err := n.openDatabase(); err != nil {
		return fail(err)
	}
	last, err := n.tryPublish(3, false)
	if err == nil {
		err = e.WaitHardened(context.Background(), last)
	}
	if err == nil {
		err = e.Close(context.Background())
	}
	if err != nil {
		return fail(fmt.Errorf("after recovery: %w", err))
	}
	if e, err = Open(context.Background(), testConfig(c.fs, true)); err != nil {
		return fail(fmt.Errorf("after recovery and close: %w", err))
	}
	if got, err = tryContents(e); err == nil {
		err = diff(got, n.at[last])
	}
	if err != nil || e.Hardened() != last {
		return fail(fmt.Errorf("after recovery and close: LSN %d, want %d: %w", e.Hardened(), last, err))
	}
	return nil
}

// workload is a mix of small and large commits, rollbacks, checkpoints and
// enough redo to lap the log and change archive files.
func (d *db) workload(stop func() bool) {
	for i := 0; !stop(); i++ {
		switch {
		case i%17 == 16:
			if err := d.e.Checkpoint(d.t.Context()); err != nil {
				d.t.Fatal(err)
			}
		case i%13 == 5: // more redo than the online log holds
			d.bulk = true
			d.commit(400)
			d.bulk = false
		case i%13 == 12:
			d.giveUp(60, 2+d.rnd.IntN(10))
		case i%11 == 10:
			d.publish(5, true)
		case i%7 == 6:
			d.commit(60)
		case i%5 == 4: // several commits in one package
			d.publish(2, false)
			d.publish(3, false)
			d.commit(1)
		default:
			d.commit(1 + d.rnd.IntN(4))
		}
	}
}

// giveUp begins a large commit of n pages that is cancelled after some parts.
func (d *db) giveUp(n, parts int) {
	d.t.Helper()
	d.bulk = true
	d.h.SetContext(&cancelledAfter{Context: context.Background(), n: parts})
	lsn, err := d.tryPublish(n, false)
	d.h.SetContext(context.Background())
	d.bulk = false
	if err == nil {
		err = d.e.WaitHardened(d.t.Context(), lsn)
		d.acked.Store(uint64(lsn))
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		d.t.Fatal(err)
	}
}

// cancelledAfter is cancelled after it was looked at n times.
type cancelledAfter struct {
	context.Context
	n int
}

func (c *cancelledAfter) Err() error {
	if c.n--; c.n < 0 {
		return context.Canceled
	}
	return nil
}

// powerCuts runs the workload on a database whose disk access goes through wrap
// (nil: none), cuts the power limit times, and returns the first loss found.
func powerCuts(t *testing.T, limit int, wrap func(vfs.FS) vfs.FS) error {
	standby := &timelyStandby{}
	d := newDB(t, func(c *Config) {
		c.MaxPackage = 6000
		if wrap != nil {
			c.FS = wrap(c.FS)
		}
	}, standby)
	todo := make(chan cut, 8)
	var mu sync.Mutex
	var failed error
	n := 0
	over := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return failed != nil || n >= limit
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for c := range todo {
				if over() {
					continue
				}
				mu.Lock()
				n++
				i := n
				mu.Unlock()
				if err := d.verify(c, i); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
				}
			}
		})
	}
	cutter(d.fs, rand.New(rand.NewPCG(3, 4)), limit, func() base.LSN { return base.LSN(max(d.acked.Load(), standby.has.Load())) }, func(c cut) { todo <- c })
	d.workload(over)
	d.fs.SetHook(nil)
	_ = d.e.Checkpoint(t.Context()) // one that is under way, and may be in the hook, ends first
	close(todo)
	wg.Wait()
	if failed == nil {
		t.Logf("%d power cuts, LSN %d acknowledged, log at LSEQ %d; recovered into a large transaction %d times, %d from a checkpoint within one",
			n, d.acked.Load(), d.e.LogInfo().NextLSEQ, d.unfinished.Load(), d.within.Load())
		d.check()
		if d.unfinished.Load() == 0 || d.within.Load() == 0 {
			t.Error("the workload had no large transactions at the cuts")
		}
	}
	return failed
}

// timelyStandby has what was sent to it, and replays it at once: the primary must
// not lose that (G7).
type timelyStandby struct {
	noShipper
	has atomic.Uint64
}

func (s *timelyStandby) ShipTimely(_ context.Context, p *redo.Package) error {
	s.has.Store(uint64(p.MaxLSN))
	return nil
}

// TestPowerCuts is G1, G4, G6, G7 and G9 at every change of the disk: the power is
// cut before and after it, unsynced data is lost or torn, the database opened
// again and compared.
func TestPowerCuts(t *testing.T) {
	if err := powerCuts(t, *cuts, nil); err != nil {
		t.Fatal(err)
	}
}

// TestPowerCutsDetect shows that TestPowerCuts can fail: a disk that forgets to
// sync one of the files that must be synced is found out.
func TestPowerCutsDetect(t *testing.T) {
	for _, c := range []struct{ name, suffix string }{
		{"online log", ".log"},
		{"data file", DataFileName},
		{"doublewrite area", ".dwb"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := powerCuts(t, 20*1000, func(fs vfs.FS) vfs.FS { return noSync{fs, c.suffix} })
			if err == nil {
				t.Fatal("not noticed")
			}
			t.Log(err)
		})
	}
}

// noSync is a file system that does not sync files of one kind.
type noSync struct {
	vfs.FS
	suffix string
}

type noSyncFile struct{ vfs.File }

func (noSyncFile) Sync() error { return nil }

func (n noSync) wrap(path string, f vfs.File, err error) (vfs.File, error) {
	if err == nil && strings.HasSuffix(path, n.suffix) {
		return noSyncFile{f}, nil
	}
	return f, err
}

func (n noSync) Open(path string) (vfs.File, error) {
	f, err := n.FS.Open(path)
	return n.wrap(path, f, err)
}

func (n noSync) Create(path string, trunc bool) (vfs.File, error) {
	f, err := n.FS.Create(path, trunc)
	return n.wrap(path, f, err)
}
