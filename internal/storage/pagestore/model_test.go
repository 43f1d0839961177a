package pagestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"datawatch/internal/base"
	"datawatch/internal/storage/page"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

const testPS = 512

// memLog is a Committer that keeps PTXs in memory.
type memLog struct {
	last     base.LSN
	ptx      map[base.LSN][]byte
	reserved int

	partBytes                int // Options
	spillBytes, versionBytes int64

	fail error
	deaf bool // Abandon is refused
	// hard, unless nil, is called as soon as the log has something.
	hard  func(base.LSN)
	parts int // so many calls of Part until one fails; 0 or less: none does
}

func (l *memLog) Reserve(context.Context, base.LSN, int) error {
	if l.fail != nil {
		return l.fail
	}
	l.reserved++
	return nil
}
func (l *memLog) Cancel()           { l.reserved-- }
func (l *memLog) NextLSN() base.LSN { return l.last + 1 }
func (l *memLog) Commit(ptx []byte, lsn base.LSN) {
	l.reserved--
	l.last = lsn
	l.ptx[lsn] = bytes.Clone(ptx)
}

func (l *memLog) Part(_ context.Context, ptx []byte, lsn base.LSN, first bool) error {
	if l.parts--; l.fail != nil || l.parts == 0 {
		return errors.Join(l.fail, errParts)
	}
	l.last = lsn
	l.ptx[lsn] = bytes.Clone(ptx)
	l.quick(lsn)
	return nil
}

func (l *memLog) quick(lsn base.LSN) {
	if l.hard != nil {
		l.hard(lsn)
	}
}

var errParts = errors.New("no more parts")

func (l *memLog) Abandon(ptx []byte, lsn base.LSN) bool {
	if l.deaf {
		return false
	}
	l.last = lsn
	l.ptx[lsn] = bytes.Clone(ptx)
	l.quick(lsn)
	return true
}

// decode returns the stored PTX as replay gets it.
func (l *memLog) decode(t testing.TB, lsn base.LSN) redo.PTX {
	pkg, err := redo.NewPackage(redo.Header{MinLSN: lsn, MaxLSN: lsn, PrevLSN: lsn - 1, NPTX: 1}, l.ptx[lsn], false)
	if err != nil {
		t.Fatal(err)
	}
	for p, err := range pkg.PTXs() {
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	t.Fatalf("no PTX %d", lsn)
	panic("unreachable")
}

type fataler interface {
	Fatal(...any)
	Fatalf(string, ...any)
	Helper()
}

func newFile(t fataler, fs vfs.FS, path string) {
	t.Helper()
	f, err := fs.Create(path, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(page.NewDatabase(testPS), 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close(), fs.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
}

func openStore(t fataler, fs vfs.FS, l *memLog, lsn base.LSN, buffer int64) *Store {
	t.Helper()
	s, err := Open(fs, "/db", Options{PageSize: testPS, BufferBytes: buffer, LSN: lsn, Committer: l, Now: func() int64 { return 1 },
		PartBytes: l.partBytes, SpillBytes: l.spillBytes, VersionBytes: l.versionBytes})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newStore(t fataler, buffer int64) (*Store, *memLog, *vfs.Mem) {
	fs := vfs.NewMem()
	newFile(t, fs, "/db")
	l := &memLog{ptx: map[base.LSN][]byte{}}
	return openStore(t, fs, l, 0, buffer), l, fs
}

// model is the database at every LSN, as whole copies.
type model struct {
	at map[base.LSN][]string // bodies of pages, without trailer
}

func body(b []byte) string { return string(b[:testPS-page.TrailerSize]) }

func check(t fataler, h *Handle, want []string, what string) {
	t.Helper()
	size, err := h.Size()
	if err != nil || size != int64(len(want)*testPS) {
		t.Fatalf("%s: size %d pages, want %d, %v", what, size/testPS, len(want), err)
	}
	b := make([]byte, testPS)
	for i, w := range want {
		if _, err := h.ReadAt(b, int64(i*testPS)); err != nil {
			t.Fatalf("%s: page %d: %v", what, i+1, err)
		}
		if body(b) != w {
			t.Fatalf("%s: page %d differs: %q..., want %q...", what, i+1, b[:8], w[:8])
		}
	}
	if n, err := h.ReadAt(b[:16], size); n != 0 || !errors.Is(err, ErrShortRead) {
		t.Fatalf("%s: read beyond the end: %d, %v", what, n, err)
	}
	// A view shows the same to several goroutines, unless the handle writes.
	v, err := h.View()
	if err != nil {
		return
	}
	defer v.Close()
	if int(v.Pages()) != len(want) {
		t.Fatalf("%s: a view of %d pages, want %d", what, v.Pages(), len(want))
	}
	for i, w := range want {
		got, err := v.Page(uint32(i+1), b)
		if err != nil || body(got) != w {
			t.Fatalf("%s: page %d in a view differs, %v", what, i+1, err)
		}
	}
}

// TestModel runs random operations on a store and on a model that copies the
// whole database at every commit, and compares every pinned snapshot with it
// (G2, G6); now and then the machine crashes and the log is replayed.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		buffer := rapid.SampledFrom([]int64{-1, 16 * testPS, 1 << 20}).Draw(rt, "buffer")
		s, l, fs := newStore(rt, buffer)
		if rapid.Bool().Draw(rt, "large") { // everything goes to disk early, redo in parts
			l.partBytes = rapid.SampledFrom([]int{40, 120, 400}).Draw(rt, "part bytes")
			l.spillBytes = rapid.SampledFrom([]int64{0, 1, 3}).Draw(rt, "spill") * testPS
			l.versionBytes = rapid.SampledFrom([]int64{0, 8, 12}).Draw(rt, "versions") * testPS
			s.Close()
			s = openStore(rt, fs, l, 0, buffer)
		}
		first := make([]byte, testPS)
		copy(first, page.NewDatabase(testPS))
		m := model{at: map[base.LSN][]string{0: {body(first)}}}
		hard, ckpt := base.LSN(0), base.LSN(0)
		ahead := false // a checkpoint was cut off: only the end of replay is a state to show
		type pinned struct {
			h   *Handle
			lsn base.LSN
		}
		var pins []pinned
		seq := uint64(0)
		w := s.NewHandle(false)
		write := func(commit bool) {
			if err := s.LockWrite(context.Background(), w); err != nil {
				rt.Fatal(err)
			}
			if err := w.Lock(LockShared); err != nil {
				rt.Fatal(err)
			}
			if err := w.Lock(LockReserved); err != nil {
				rt.Fatal(err)
			}
			before := l.last
			db := append([]string(nil), m.at[l.last]...)
			for range rapid.IntRange(1, 6).Draw(rt, "writes") {
				if rapid.IntRange(0, 7).Draw(rt, "trunc") == 0 && len(db) > 1 {
					n := rapid.IntRange(1, len(db)-1).Draw(rt, "to")
					db = db[:n]
					if err := w.Truncate(int64(n * testPS)); err != nil {
						rt.Fatal(err)
					}
					continue
				}
				p := rapid.IntRange(1, len(db)+3).Draw(rt, "page")
				for len(db) < p {
					db = append(db, string(make([]byte, testPS-page.TrailerSize)))
				}
				b := make([]byte, testPS)
				copy(b, db[p-1])
				seq++
				binary.BigEndian.PutUint64(b, seq)
				b[8+rapid.IntRange(0, 400).Draw(rt, "off")] ^= byte(seq)
				db[p-1] = body(b)
				if _, err := w.WriteAt(b, int64(p-1)*testPS); err != nil {
					rt.Fatal(err)
				}
			}
			check(rt, w, db, "own transaction")
			if commit {
				// Some commits fail in the middle, and not always can the log be told.
				l.parts, l.deaf = rapid.IntRange(0, 4).Draw(rt, "parts"), rapid.Bool().Draw(rt, "deaf")
				if err := w.Sync(); errors.Is(err, errParts) {
					commit = false
				} else if err != nil {
					rt.Fatal(err)
				} else {
					w.CommitPhaseTwo()
				}
			}
			if err := w.Unlock(LockShared); err != nil {
				rt.Fatal(err)
			}
			for lsn := before + 1; lsn <= l.last; lsn++ { // parts change nothing that can be seen
				m.at[lsn] = m.at[before]
			}
			if commit {
				if w.LastCommit() == 0 { // nothing changed in the end
					db = m.at[l.last]
				}
				m.at[l.last] = db
				if w.LastCommit() != 0 && w.LastCommit() != l.last {
					rt.Fatalf("LastCommit %d, log %d", w.LastCommit(), l.last)
				}
			}
			check(rt, w, m.at[l.last], "writer after its end")
			if err := w.Unlock(LockNone); err != nil {
				rt.Fatal(err)
			}
			s.UnlockWrite(w)
			if l.reserved != 0 {
				rt.Fatalf("%d reservations left", l.reserved)
			}
		}
		harden := func(to base.LSN) {
			if to > hard {
				hard = to
			}
			s.SetHardened(to)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"commit":   func(*rapid.T) { write(true) },
			"commit2":  func(*rapid.T) { write(true); write(true) },
			"rollback": func(*rapid.T) { write(false) },
			"harden": func(*rapid.T) {
				harden(base.LSN(rapid.IntRange(int(hard), int(l.last)).Draw(rt, "lsn")))
			},
			"pin": func(*rapid.T) {
				h := s.NewHandle(true)
				if err := h.Lock(LockShared); err != nil {
					rt.Fatal(err)
				}
				pins = append(pins, pinned{h, hard})
			},
			"unpin": func(*rapid.T) {
				if len(pins) == 0 {
					return
				}
				i := rapid.IntRange(0, len(pins)-1).Draw(rt, "i")
				if err := pins[i].h.Close(); err != nil {
					rt.Fatal(err)
				}
				pins = append(pins[:i], pins[i+1:]...)
			},
			"checkpoint": func(*rapid.T) {
				done, err := s.Checkpoint(context.Background(), hard)
				if err != nil || done < hard {
					rt.Fatalf("checkpoint: %d, want %d, %v", done, hard, err)
				}
				ckpt, ahead = done, false
			},
			"crash": func(*rapid.T) {
				// A checkpoint may stop anywhere; redo up to the hardened LSN survives.
				rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
				stop := fs.Count() + int64(rapid.IntRange(0, 8).Draw(rt, "stop"))
				clone := fs
				fs.SetHook(func(op vfs.Op) error {
					if op.Kind.Changes() && !op.After && op.N >= stop {
						if clone == fs {
							clone = fs.CrashClone(rnd)
							fs.PowerOff()
						}
					}
					return nil
				})
				if rapid.Bool().Draw(rt, "in checkpoint") {
					ahead = true
					if done, err := s.Checkpoint(context.Background(), hard); err == nil {
						ckpt = done
					}
				}
				if clone == fs {
					clone = fs.CrashClone(rnd)
				}
				fs = clone
				for lsn := range l.ptx {
					if lsn > hard {
						delete(l.ptx, lsn)
						delete(m.at, lsn)
					}
				}
				l.last, l.reserved, pins = hard, 0, nil
				s = openStore(rt, fs, l, ckpt, buffer)
				w = s.NewHandle(false)
				open := base.LSN(0)
				for lsn := base.LSN(1); lsn <= ckpt; lsn++ { // the transaction that the checkpoint is in
					open, _ = redo.ChainAfter(open, l.decode(t, lsn).Kind, lsn)
				}
				for lsn := open; lsn != 0 && lsn <= ckpt; lsn++ {
					if err := s.Resume(l.decode(t, lsn)); err != nil {
						rt.Fatal(err)
					}
				}
				// One by one, or a package at a time by one or more replayers, which
				// may also be given what is in the data file already.
				s.opt.Replayers, s.perTurn = rapid.IntRange(1, 3).Draw(rt, "replayers"), 1
				batch, written := s.NewBatch(), false
				begin := ckpt + 1
				if ckpt > 0 && rapid.Bool().Draw(rt, "again") {
					begin = base.LSN(max(int(ckpt)-2, 1))
				}
				for lsn := begin; lsn <= hard; lsn++ {
					if err := batch.Add(l.decode(t, lsn), nil); err != nil {
						rt.Fatal(err)
					}
				}
				for lsn := begin; lsn <= hard; lsn++ {
					from := lsn
					// While a standby replays, what it has replayed before is written.
					apply := func() {
						if rapid.Bool().Draw(rt, "batch") {
							lsn = base.LSN(rapid.IntRange(int(lsn), int(hard)).Draw(rt, "package"))
							if err := s.ApplyBatch(batch, int(lsn-from)+1); err != nil {
								rt.Fatal(err)
							}
						} else if err := s.Apply(l.decode(t, lsn)); err != nil {
							rt.Fatal(err)
						} else {
							batch.done++
						}
					}
					write := func() {
						if _, err := s.Checkpoint(context.Background(), math.MaxUint64); err != nil {
							rt.Fatal(err)
						}
					}
					if lsn > ckpt+1 && rapid.IntRange(0, 1).Draw(rt, "checkpoint beside") == 0 {
						// One of them at some operation of the other.
						s.SetHardened(lsn - 1)
						written = true
						outer, inner := write, apply
						if rapid.Bool().Draw(rt, "within replay") {
							outer, inner = apply, write
						}
						k, done, limit := rapid.IntRange(1, 10).Draw(rt, "operation"), false, s.maxMem
						s.maxMem, s.opt.Replayers = math.MaxInt, 1 // or replay would wait for the checkpoint
						fs.SetHook(func(op vfs.Op) error {
							if op.Path == "/db"+spillSuffix { // given back under the lock
								return nil
							}
							if k--; k <= 0 && !done {
								done = true
								inner()
							}
							return nil
						})
						outer()
						fs.SetHook(nil)
						s.maxMem = limit
						if !done {
							inner()
						}
					} else {
						apply()
					}
					for ; from <= lsn; from++ {
						if from > ckpt {
							open, _ = redo.ChainAfter(open, l.decode(t, from).Kind, from)
						}
					}
					// A recovery that has no memory left, and a standby, write what they have
					// replayed, wherever that ends.
					if lsn > ckpt && rapid.IntRange(0, 5).Draw(rt, "checkpoint in replay") == 0 {
						s.SetHardened(lsn)
						if _, err := s.Checkpoint(context.Background(), lsn); err != nil {
							rt.Fatal(err)
						}
						written = true
					}
					if !ahead && lsn > ckpt && rapid.IntRange(0, 3).Draw(rt, "harden in replay") == 0 { // as a standby does
						s.SetHardened(lsn)
						h := s.NewHandle(false)
						if err := h.Lock(LockShared); err != nil {
							rt.Fatal(err)
						}
						check(rt, h, m.at[lsn], fmt.Sprintf("replay at LSN %d", lsn))
						if err := h.Close(); err != nil {
							rt.Fatal(err)
						}
					}
				}
				ahead = ahead || written
				s.SetHardened(hard)
				if open != 0 { // the primary opens: its open record ends the transaction
					var b redo.Builder
					b.Begin(redo.PTXHeader{LSN: hard + 1, Kind: redo.KindCommit})
					l.last = hard + 1
					l.ptx[l.last], m.at[l.last] = bytes.Clone(b.Finish()), m.at[hard]
					if err := s.Apply(l.decode(t, l.last)); err != nil {
						rt.Fatal(err)
					}
				}
			},
			"": func(rt *rapid.T) {
				for i, p := range pins {
					check(rt, p.h, m.at[p.lsn], fmt.Sprintf("pin %d at LSN %d (hardened %d, newest %d)", i, p.lsn, hard, l.last))
				}
				h := s.NewHandle(false)
				if err := h.Lock(LockShared); err != nil {
					rt.Fatal(err)
				}
				check(rt, h, m.at[hard], fmt.Sprintf("new reader at hardened LSN %d (newest %d)", hard, l.last))
				if err := h.Close(); err != nil {
					rt.Fatal(err)
				}
				sn, b := s.Snapshot(), make([]byte, testPS)
				defer sn.Close()
				for p := uint32(1); p <= sn.Pages(); p++ {
					if err := sn.ReadPage(p, b); err != nil {
						rt.Fatal(err)
					}
					lsn, err := page.Verify(b)
					changed := body(b) != body(first) && body(b) != body(make([]byte, testPS))
					if err != nil || lsn > hard || changed && lsn == 0 {
						rt.Fatalf("page %d at hardened LSN %d: sealed with LSN %d, %v", p, hard, lsn, err)
					}
				}
			},
		})
		// Nothing leaks: without pins, and all hardened and in the file, no version is left.
		for _, p := range pins {
			if err := p.h.Close(); err != nil {
				rt.Fatal(err)
			}
		}
		harden(l.last)
		if _, err := s.Checkpoint(context.Background(), hard); err != nil {
			rt.Fatal(err)
		}
		if st := s.Stats(); st.Versions != 0 || st.Dirty != 0 || st.Snapshots != 0 || st.VersionBytes != 0 || st.SpillBytes != 0 {
			rt.Fatalf("left over: %+v", st)
		}
		for i := range *s.root.Load() {
			if (*s.root.Load())[i].Load() != nil {
				rt.Fatalf("segment %d is left", i)
			}
		}
	})
}
