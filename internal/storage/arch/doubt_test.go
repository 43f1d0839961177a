package arch

import (
	"math/rand/v2"
	"syscall"
	"testing"

	"datawatch/internal/vfs"
)

// TestInDoubt: packages whose sync has failed are in the system's cache and perhaps
// never on disk. A later sync that succeeds, of the same process or of the next one,
// makes them safe from a power failure all the same.
func TestInDoubt(t *testing.T) {
	for _, restart := range []bool{false, true} {
		for seed := range uint64(20) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			fsys, cfg := vfs.NewMem(), config()
			a := open(t, fsys, cfg)
			m := newMaker(seed)
			all := fill(t, a, m, 3, 700)
			heal := fsys.Inject(vfs.Fault{Kind: vfs.OpSync, Err: syscall.EIO})
			for range 3 {
				p := m.pkg(t, 700)
				all = append(all, p)
				if err := a.Append(p, false); err != nil {
					t.Fatal(err)
				}
			}
			if a.Sync() == nil {
				t.Fatal("a sync that fails is no error")
			}
			heal()
			if restart {
				a = open(t, fsys, cfg)
			}
			for range 2 { // the second one lets the header vouch for the first
				p := m.pkg(t, 700)
				all = append(all, p)
				if err := a.Append(p, false); err != nil {
					t.Fatal(err)
				}
				if err := a.Sync(); err != nil {
					t.Fatal(err)
				}
			}
			mustSame(t, open(t, fsys.CrashClone(rnd), cfg), 1, all)
		}
	}
}
