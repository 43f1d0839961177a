package arch

import (
	"context"
	"errors"
	"syscall"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/storage/redo"
	"datawatch/internal/storage/twin"
	"datawatch/internal/vfs"
)

// TestAppendAll: packages of a batch go to the file together, in one write where
// one file takes them; where a write fails, what was added and what was not is as
// the answer says.
func TestAppendAll(t *testing.T) {
	fsys, cfg := vfs.NewMem(), config()
	cfg.FileSize = twin.Size + 100000
	a := open(t, fsys, cfg)
	m := newMaker(1)
	all := fill(t, a, m, 1, 100)
	batch := func(n, size int) (out []*redo.Package) {
		for range n {
			out = append(out, m.pkg(t, size))
		}
		all = append(all, out...)
		return out
	}
	writes := 0
	fsys.SetHook(func(op vfs.Op) error {
		if op.Kind == vfs.OpWrite {
			writes++
		}
		return nil
	})
	if n, err := a.AppendAll(batch(50, 700), true); n != 50 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if writes > 8 { // the header of the file before and of its own, twice each, and the packages
		t.Errorf("%d writes for 50 packages", writes)
	}
	fsys.SetHook(nil)
	mustSame(t, a, 1, all)
	for skip := range 6 {
		pkgs := batch(400, 700) // several files
		remove := fsys.Inject(vfs.Fault{Kind: vfs.OpWrite, Path: "STANDBY_ARCHIVE_*.log", Skip: 3 * skip, Times: 1, Err: syscall.ENOSPC, Short: 300})
		n, err := a.AppendAll(pkgs, true)
		if n == len(pkgs) || !errors.Is(err, syscall.ENOSPC) || a.End() != pkgs[n].Pos() && (n == 0 || a.End() != pkgs[n-1].Pos()) {
			t.Fatalf("skip %d: %d, %v, end %v", skip, n, err, a.End())
		}
		mustSame(t, a, 1, all[:len(all)-len(pkgs)+n])
		if rest, err := a.AppendAll(pkgs[n:], true); rest != len(pkgs)-n || err != nil {
			t.Fatalf("skip %d, again: %d, %v", skip, rest, err)
		}
		remove()
		mustSame(t, a, 1, all)
	}
	if err := a.Sync(); err != nil {
		t.Fatal(err)
	}
	b := open(t, fsys.Clone(), cfg)
	mustSame(t, b, 1, all)
}

// readFS counts the bytes that are read.
type readFS struct {
	*vfs.Mem
	bytes int64
}

type readFile struct {
	vfs.File
	fs *readFS
}

func (r *readFS) Open(path string) (vfs.File, error) {
	f, err := r.Mem.Open(path)
	if err != nil {
		return nil, err
	}
	return readFile{f, r}, nil
}

func (f readFile) ReadAt(b []byte, off int64) (int, error) {
	f.fs.bytes += int64(len(b))
	return f.File.ReadAt(b, off)
}

// TestReadOnce: no byte of an archive is read twice, whatever the size of its
// packages.
func TestReadOnce(t *testing.T) {
	for _, size := range []int{700, 60_000, readChunk - 200, readChunk + 5000, 3 * readChunk} {
		fsys, cfg := &readFS{Mem: vfs.NewMem()}, config()
		cfg.FileSize = 1 << 30
		a := open(t, fsys, cfg)
		all := fill(t, a, newMaker(1), 5*readChunk/size+3, size)
		bytes := a.Files()[0].Free
		for name, read := range map[string]func(context.Context, base.Seq, func(*redo.Package) error) error{"Read": a.Read, "Scan": a.Scan} {
			fsys.bytes = 0
			n := 0
			if err := read(t.Context(), 1, func(p *redo.Package) error {
				if !p.SameRedo(all[n]) {
					t.Errorf("%s, packages of %d bytes: %d where %d should be", name, size, p.GSEQ, all[n].GSEQ)
				}
				n++
				return nil
			}); err != nil || n != len(all) {
				t.Fatalf("%s, packages of %d bytes: %d of %d, %v", name, size, n, len(all), err)
			}
			if fsys.bytes > bytes {
				t.Errorf("%s, packages of %d bytes: %d bytes read of a file of %d", name, size, fsys.bytes, bytes)
			}
		}
	}
}
