package arch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

func cancelled(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// model is what the archive promises: everything up to must, and at most all.
type model struct {
	all  []*redo.Package
	must int
}

func (m *model) check(t testing.TB, fsys vfs.FS, cfg Config) (*Archive, error) {
	a, err := Open(fsys, cfg)
	if err != nil {
		return nil, err
	}
	n := int(a.End().Seq)
	if n < m.must || n > len(m.all) {
		return nil, fmt.Errorf("%d packages, at least %d were synced, %d appended", n, m.must, len(m.all))
	}
	if n == 0 {
		return a, nil
	}
	got, err := read(t, a, 1)
	if err == nil {
		err = same(got, m.all[:n])
	}
	return a, err
}

// TestPowerCut cuts the power at every operation of a workload of appends,
// syncs, new files, changes of roles, truncations and reopenings.
func TestPowerCut(t *testing.T) {
	cuts := 0
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		fsys, cfg := vfs.NewMem(), config()
		cfg.FlushBuf = []int{0, 2500}[seed%2]
		a := open(t, fsys, cfg)
		mk := newMaker(seed)
		m := &model{}
		hook := func(op vfs.Op) error {
			if !op.Kind.Changes() {
				return nil
			}
			for i := range 2 {
				cuts++
				c := fsys.CrashClone(rnd)
				b, err := m.check(t, c, cfg)
				if err == nil && i == 0 {
					err = goOn(t, b, c, cfg, m, rnd)
				}
				if err != nil {
					t.Fatalf("seed %d, power cut at %v of %s, offset %d, operation %d (after: %v): %v", seed, op.Kind, op.Path, op.Off, op.N, op.After, err)
				}
			}
			return nil
		}
		fsys.SetHook(hook)
		for i := range 80 {
			switch {
			case i%10 == 9:
				mk.src = []base.Magic{self, other}[rnd.IntN(2)]
			case i%25 == 20:
				keep := rnd.IntN(len(m.all))
				pos := base.Position{}
				if keep > 0 {
					pos = m.all[keep-1].Pos()
				}
				m.must = min(m.must, keep)
				if err := a.TruncateAfter(pos); err != nil {
					t.Fatal(err)
				}
				m.all, mk.pos = m.all[:keep:keep], pos
			case i == 50:
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
				m.must = len(m.all)
				a = open(t, fsys, cfg)
			}
			p := mk.pkg(t, rnd.IntN(2500))
			m.all = append(m.all, p)
			if err := a.Append(p, mk.src != self); err != nil {
				t.Fatal(err)
			}
			if rnd.IntN(3) == 0 {
				if err := a.Sync(); err != nil {
					t.Fatal(err)
				}
				m.must = len(m.all)
			}
		}
	}
	t.Logf("%d power cuts", cuts)
	if cuts < 2000 {
		t.Fatalf("only %d power cuts", cuts)
	}
}

// goOn adds to a recovered archive, cuts the power again and checks again.
func goOn(t testing.TB, a *Archive, fsys *vfs.Mem, cfg Config, m *model, rnd *rand.Rand) error {
	n := int(a.End().Seq)
	mk := &maker{pos: a.End(), src: self, rnd: rnd}
	cfg.Clock = &testClock{now: cfg.Clock.Now().Add(time.Minute)}
	next := &model{all: append([]*redo.Package(nil), m.all[:n]...)}
	for range 3 {
		p := mk.pkg(t, rnd.IntN(1500))
		if err := a.Append(p, false); err != nil {
			return err
		}
		next.all = append(next.all, p)
	}
	if err := a.Sync(); err != nil {
		return err
	}
	next.must = len(next.all)
	_, err := next.check(t, fsys.CrashClone(rnd), cfg)
	return err
}

// The check must be able to fail.
func TestPowerCutCheckCanFail(t *testing.T) {
	fsys, cfg := vfs.NewMem(), config()
	a := open(t, fsys, cfg)
	mk := newMaker(1)
	all := fill(t, a, mk, 3, 100)
	if err := a.Sync(); err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]*model{
		"lost":     {all: append(all[:3:3], mk.pkg(t, 1)), must: 4},
		"invented": {all: all[:2], must: 2},
		"changed":  {all: []*redo.Package{all[1], all[0], all[2]}, must: 3},
	} {
		if _, err := m.check(t, fsys.Clone(), cfg); err == nil {
			t.Errorf("an archive with a %s package passes", name)
		}
	}
}
