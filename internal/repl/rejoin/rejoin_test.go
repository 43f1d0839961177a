package rejoin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/repl/mal"
	"datawatch/internal/storage/arch"
	"datawatch/internal/storage/backup"
	"datawatch/internal/storage/engine"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

// donor of a database.
func donor(t testing.TB, p *db) *Donor {
	d := NewDonor(DonorConfig{Engine: p.e})
	t.Cleanup(d.Close)
	return d
}

// TestModel: whatever an old primary and the new one did since they parted, after
// the rejoin and the catch-up both are the same, page for page, at the same LSN;
// up to the position the pages were taken at nobody reads (G6). Restarts and
// checkpoints fall anywhere in between (G9).
func TestModel(t *testing.T) {
	within := 0
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			a, b := fork(t, seed)
			rnd := rand.New(rand.NewPCG(seed, 3))
			old := a.e.Positions().File
			l := &link{d: donor(t, b), from: "A", after: func(op mal.RejoinOp) {
				if op == mal.RejoinPages || op == mal.RejoinPackages {
					b.work(rnd.IntN(5)) // the primary goes on meanwhile
				}
			}}
			res, err := a.rejoin(l)
			if err != nil {
				t.Fatal(err)
			}
			if res.End != old || res.Packages != int(old.Seq-res.Fork.Seq) {
				t.Fatalf("given up: %d packages from %v to %v, the database was at %v", res.Packages, res.Fork, res.End, old)
			}
			checkSurplus(t, a, res)
			if at := a.e.Positions().File; at != res.Fork || a.e.Mode() != base.ModeStandby {
				t.Fatalf("it is at %v in mode %v, the fork is at %v", at, a.e.Mode(), res.Fork)
			}
			a.open()
			check := func() {
				t.Helper()
				at := a.e.Positions().File
				err := a.readable()
				if whole := !at.Less(res.Whole); whole != (err == nil) || !whole && !errors.Is(err, pagestore.ErrNotWhole) {
					t.Fatalf("G6: at %v, pages as of %v: reading answers %v", at, res.Whole, err)
				}
				if at.Less(res.Whole) {
					if _, err := a.e.BeginBackup(); err == nil {
						t.Fatal("a backup of a database that is not whole")
					}
				}
			}
			check()
			err = a.follow(b, func() {
				switch rnd.IntN(4) {
				case 0:
					if err := a.e.Checkpoint(context.Background()); err != nil {
						t.Fatal(err)
					}
				case 1:
					a.e.Abort()
					a.start()
					a.open()
				}
				check()
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := same(a.e, b.e); err != nil {
				t.Fatal(err)
			}
			if x, y := a.e.Lineage().Last(), b.e.Lineage().Last(); x.TGUID != y.TGUID {
				t.Fatalf("lineage ends with %+v, that of the primary with %+v", x, y)
			}
			// Then it can lead, as any standby, and its control file forgets.
			if err := a.e.Checkpoint(context.Background()); err != nil {
				t.Fatal(err)
			}
			if a.e.Control().Rejoin != nil {
				t.Fatal("the control file still speaks of the rejoin")
			}
			a.become()
			a.work(3)
			if chainAt(t, b, res.Fork) {
				within++
			}
		})
	}
	if within == 0 {
		t.Error("no fork fell within a large transaction: the model covers less than it says")
	}
}

// chainAt tells whether a large transaction was open at pos in the archive.
func chainAt(t *testing.T, d *db, pos base.Position) bool {
	chain := base.LSN(0)
	open := false
	err := d.e.Archive().Read(context.Background(), 1, func(p *redo.Package) error {
		for x, err := range p.PTXs() {
			if err != nil {
				return err
			}
			if chain, err = redo.ChainAfter(chain, x.Kind, x.LSN); err != nil {
				return err
			}
			if x.LSN == pos.LSN {
				open = chain != 0
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return open
}

// checkSurplus: the files hold exactly the packages given up.
func checkSurplus(t *testing.T, d *db, res Result) {
	t.Helper()
	next := res.Fork.Seq + 1
	for _, path := range res.Surplus {
		f, err := d.fs.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		h, bad, err := arch.Inspect(f, path, func(_ int64, p *redo.Package) error {
			if p.GSEQ != next {
				return fmt.Errorf("package %d, want %d", p.GSEQ, next)
			}
			next++
			return nil
		})
		if err != nil || len(bad) > 0 || !h.Closed {
			t.Fatalf("%s: closed %v, damage %v: %v", path, h.Closed, bad, err)
		}
	}
	if next != res.End.Seq+1 {
		t.Fatalf("the files end with package %d, the redo with %d", next-1, res.End.Seq)
	}
}

// TestPowerCuts: the power fails before and after every change of the disk, from
// the first byte of the rejoin until the database is whole. A restart finds the
// database as it was, or at the fork; either way it comes to be the primary's
// equal, and what was given up is in a whole file by then (G9).
func TestPowerCuts(t *testing.T) {
	limit := 700
	if testing.Short() {
		limit = 150
	}
	for _, seed := range []uint64{2, 5, 11} {
		a, b := fork(t, seed)
		d := donor(t, b)
		rnd := rand.New(rand.NewPCG(seed, 4))
		old := a.e.Positions().File
		n, before, after := 0, 0, 0
		var failed error
		live := a.fs
		try := func(op vfs.Op, fs *vfs.Mem) error {
			c := &db{t: t, name: "A", fs: fs, rnd: rand.New(rand.NewPCG(1, 2)), left: -1}
			e, err := engine.Open(context.Background(), config(fs, "A"))
			if err != nil {
				return err
			}
			defer func() { c.e.Abort() }()
			c.e = e
			switch at := e.Positions().File; {
			case at == old && e.Mode() == base.ModePrimary:
				before++
				if err := c.readable(); err != nil {
					return fmt.Errorf("as it was, but: %w", err)
				}
				if n%4 != 0 {
					return nil
				}
				e.SetShipper(c)
				if _, err := c.rejoin(&link{d: d, from: fmt.Sprint("A", n)}); err != nil {
					return err
				}
			case e.Mode() == base.ModeStandby && (at.Less(old) || !at.Less(e.Control().Position)):
				after++
				names, err := fs.ReadDir(surplus)
				if err != nil || len(names) == 0 || strings.HasSuffix(names[0], ".part") {
					return fmt.Errorf("redo was given up and is in no file: %v, %v", names, err)
				}
			default:
				return fmt.Errorf("it is at %v in mode %v; it was at %v", at, e.Mode(), old)
			}
			if err := c.e.OpenDatabase(context.Background()); err != nil {
				return err
			}
			if err := c.follow(b, nil); err != nil {
				return err
			}
			return same(c.e, b.e)
		}
		live.SetHook(func(op vfs.Op) error {
			if !op.Kind.Changes() || strings.HasSuffix(op.Path, ".spl") || n >= limit || failed != nil {
				return nil
			}
			n++
			if err := try(op, live.CrashClone(rnd)); err != nil {
				failed = fmt.Errorf("cut %d, op %d: %v %s at %d, %d bytes, after=%v: %w", n, op.N, op.Kind, op.Path, op.Off, op.Len, op.After, err)
			}
			return nil
		})
		if _, err := a.rejoin(&link{d: d, from: "A"}); err != nil {
			t.Fatal(err)
		}
		a.open()
		err := a.follow(b, func() { _ = a.e.Checkpoint(context.Background()) })
		live.SetHook(nil)
		if failed != nil {
			t.Fatalf("seed %d: %v", seed, failed)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := same(a.e, b.e); err != nil {
			t.Fatal(err)
		}
		if before == 0 || after == 0 {
			t.Errorf("seed %d: %d cuts found the database as it was, %d given up: one side was not tried", seed, before, after)
		}
		t.Logf("seed %d: %d cuts, %d before and %d after the control file", seed, n, before, after)
	}
}

// TestSurplusIsUsable: a backup from before the fork, the archive up to the fork
// and the file of what was given up make the old primary again, as it was: what
// the runbook does to look at it.
func TestSurplusIsUsable(t *testing.T) {
	a, b := newDB(t, "A", base.ModePrimary, 21), newDB(t, "B", base.ModeStandby, 21)
	b.open()
	a.to = b
	a.open()
	a.work(20)
	if _, err := backup.Online(t.Context(), a.fs, a.e, backup.Options{Dir: "/set"}); err != nil {
		t.Fatal(err)
	}
	a.work(10)
	a.left = 0
	a.work(30)
	b.become()
	b.work(10)
	a.e.Abort()
	a.start()
	old := a.fs.Clone() // as it was
	res, err := a.rejoin(&link{d: donor(t, b), from: "A"})
	if err != nil {
		t.Fatal(err)
	}
	a.open()
	if err := a.follow(b, nil); err != nil {
		t.Fatal(err)
	}
	dir := "/look"
	put := func(path string) {
		t.Helper()
		from, err := a.fs.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close()
		to, err := a.fs.Create(filepath.Join(dir, filepath.Base(path)), true)
		if err != nil {
			t.Fatal(err)
		}
		defer to.Close()
		n, _ := from.Size()
		buf := make([]byte, n)
		if _, err := from.ReadAt(buf, 0); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if _, err := to.WriteAt(buf, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.fs.MkdirAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := a.e.Archive().Sync(); err != nil {
		t.Fatal(err)
	}
	for _, f := range a.e.Archive().Files() {
		if f.LastSeq <= res.Fork.Seq {
			put(f.Path)
		}
	}
	for _, f := range res.Surplus {
		put(f)
	}
	target := backup.Target{Dir: "/x", CtlPath: "/x/dm.ctl", LogPaths: []string{"/x/1.log"}, ArchDir: "/x/arch"}
	if _, err := backup.Restore(t.Context(), a.fs, "/set", target, time.Unix(1, 0), nil); err != nil {
		t.Fatal(err)
	}
	_, pos, err := backup.RecoverWithArchive(t.Context(), a.fs, dir, target, clock.Real{})
	if err != nil || pos != res.End {
		t.Fatalf("recovered to %v, it was at %v: %v", pos, res.End, err)
	}
	if _, err := backup.UpdateMagic(t.Context(), a.fs, target); err != nil {
		t.Fatal(err)
	}
	c := config(a.fs, "X")
	c.Dir, c.CtlPath, c.LogPaths, c.Arch = "/x", "/x/dm.ctl", []string{"/x/1.log"}, nil
	x, err := engine.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Abort()
	was := &db{t: t, name: "A", fs: old}
	a.e.Abort()
	was.start()
	if err := same(x, was.e); err != nil {
		t.Fatal(err)
	}
}
