package rejoin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/storage/engine"
	"datawatch/internal/storage/graft"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/storage/redo"
)

// TestG5WrongFork: open histories that name another fork than the one there is,
// or packages that are not the same up to it, are noticed before anything is
// fetched or given up, and refused for good. The database is as it was.
func TestG5WrongFork(t *testing.T) {
	a, b := fork(t, 4)
	d := donor(t, b)
	f, err := a.e.Lineage().Fork(a.e.Positions().File, b.e.Lineage(), b.e.Positions().File)
	if err != nil {
		t.Fatal(err)
	}
	lineage := func(change func(l base.Lineage)) func(mal.RejoinOp, []byte) []byte {
		return func(op mal.RejoinOp, ans []byte) []byte {
			if op != mal.RejoinBegin {
				return ans
			}
			var o mal.RejoinOffer
			if err := mal.DecodeJSON(ans, &o); err != nil {
				t.Error(err)
			}
			change(o.Lineage)
			out, _ := mal.EncodeJSON(o)
			return out
		}
	}
	at := func(seq int64, lsn int64) func(l base.Lineage) {
		return func(l base.Lineage) {
			last := &l[len(l)-1].Apply[0]
			last.Seq, last.LSN = base.Seq(int64(last.Seq)+seq), base.LSN(int64(last.LSN)+lsn)
		}
	}
	digests := func(change func(b []byte)) func(mal.RejoinOp, []byte) []byte {
		return func(op mal.RejoinOp, ans []byte) []byte {
			if op == mal.RejoinPackages {
				change(ans)
			}
			return ans
		}
	}
	tests := []struct {
		name, text string
		alter      func(mal.RejoinOp, []byte) []byte
	}{
		{"a package too late", "is another at the primary", lineage(at(1, 1))},
		{"a package too early", "the fork is not known", lineage(at(-1, -1))},
		{"far too early", "the fork is not known", lineage(at(-3, -5))},
		{"another LSN", "the fork is not known", lineage(at(0, 1))},
		{"before the reign", "the histories would part", lineage(func(l base.Lineage) { l[len(l)-1].Apply[0] = base.Position{} })},
		{"another group's history", "no record in common", lineage(func(l base.Lineage) {
			for i := range l {
				l[i].TGUID = "x"
			}
		})},
		{"no position in the record", "does not say where", lineage(func(l base.Lineage) { l[len(l)-1].Apply = nil })},
		{"other redo in a common package", "is another at the primary", digests(func(b []byte) { b[mal.DigestSize+60]++ })},
		{"the same package after the fork", "the fork is not known", digests(func(b []byte) {
			last := len(b) - mal.DigestSize
			p, err := packageAfter(a.e, f)
			if err != nil {
				t.Error(err)
				return
			}
			g, err := digest(p)
			if err != nil {
				t.Error(err)
			}
			copy(b[last:], mal.AppendDigest(nil, g))
		})},
	}
	before := a.e.Positions()
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := a.rejoin(&link{d: d, from: fmt.Sprint("A", i), alter: tt.alter})
			if base.CodeOf(err, 0) != mal.CodeRejoin || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("error %v, want code %d with %q", err, mal.CodeRejoin, tt.text)
			}
			untouched(t, a, before)
		})
	}
	if _, err := a.rejoin(&link{d: d, from: "A"}); err != nil { // and then it works
		t.Fatal(err)
	}
}

func packageAfter(e *engine.Engine, pos base.Position) (p *redo.Package, err error) {
	err = e.Archive().Read(context.Background(), pos.Seq+1, func(x *redo.Package) error {
		p = x
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return p, err
}

// untouched: nothing of the database was changed, and no file is left.
func untouched(t *testing.T, d *db, before engine.Positions) {
	t.Helper()
	if p := d.e.Positions(); p.File != before.File || d.e.Control().Rejoin != nil || d.e.Mode() != base.ModePrimary {
		t.Fatalf("it changed: %+v, mode %v", p, d.e.Mode())
	}
	if _, err := d.fs.Stat(ctlPath + graft.Suffix); err == nil {
		t.Fatal("a graft file is left")
	}
	if names, _ := d.fs.ReadDir(surplus); len(names) > 0 {
		t.Fatalf("left: %v", names)
	}
}

// TestBadPages: pages that are not what was offered are refused.
func TestBadPages(t *testing.T) {
	a, b := fork(t, 6)
	d := donor(t, b)
	before := a.e.Positions()
	for name, alter := range map[string]func([]byte) []byte{
		"damaged": func(b []byte) []byte { b[100]++; return b },
		"short":   func(b []byte) []byte { return b[:len(b)-1] },
		"none":    func([]byte) []byte { return nil },
	} {
		_, err := a.rejoin(&link{d: d, from: name, alter: func(op mal.RejoinOp, ans []byte) []byte {
			if op == mal.RejoinPages {
				return alter(ans)
			}
			return ans
		}})
		if err == nil || base.CodeOf(err, 0) == mal.CodeRejoin {
			t.Fatalf("%s: error %v, want one that allows another attempt", name, err)
		}
		untouched(t, a, before)
	}
	// The link breaks in the middle.
	_, err := Run(t.Context(), Config{Engine: a.e, Transport: broken{&link{d: d, from: "A"}}, Primary: "B", FS: a.fs, Dir: surplus, Name: "A"})
	if !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	untouched(t, a, before)
}

type broken struct{ *link }

var errBroken = errors.New("link lost")

func (l broken) Call(ctx context.Context, inst string, typ uint16, parts ...[]byte) ([]byte, error) {
	if mal.RejoinOp(parts[0][1]) == mal.RejoinPages {
		return nil, errBroken
	}
	return l.link.Call(ctx, inst, typ, parts...)
}

// TestOneHistory: a database that has rejoined has pages of one history from
// above its redo: up to there it follows no other, though its log could go on
// with it, is no primary and is in no backup (G5, G6).
func TestOneHistory(t *testing.T) {
	a, b := fork(t, 9)
	b.work(20)
	res, err := a.rejoin(&link{d: donor(t, b), from: "A"})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.e.SetMode(t.Context(), base.ModePrimary); !errors.Is(err, engine.ErrStatus) {
		t.Fatalf("it became primary at %v, whole at %v: %v", a.e.Positions().File, res.Whole, err)
	}
	a.open()
	// Half of the way, then a third database goes on from there as primary.
	half := base.Seq((uint64(res.Fork.Seq) + uint64(res.Whole.Seq)) / 2)
	var packages []*redo.Package
	err = b.e.Archive().Read(t.Context(), res.Fork.Seq+1, func(p *redo.Package) error {
		if packages = append(packages, p); p.GSEQ == half {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	if err := a.e.AppendForeign(t.Context(), packages); err != nil {
		t.Fatal(err)
	}
	at := a.e.Positions().File
	rec := base.OpenRecord{ID: a.e.Lineage().Last().ID + 1, TGUID: "another", Apply: []base.Position{at}}
	j, err := json.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	var pb redo.Builder
	pb.Begin(redo.PTXHeader{LSN: at.LSN + 1, Kind: redo.KindCommit, PrevLSN: at.LSN})
	pb.Logical(redo.LogicalOpenRecord, j)
	p, err := redo.NewPackage(redo.Header{PmntMagic: testPmnt, DBMagic: 7, SrcDBMagic: 7, GSEQ: at.Seq + 1, LSEQ: 1, PrevLSN: at.LSN,
		MinLSN: at.LSN + 1, MaxLSN: at.LSN + 1, OpenID: rec.ID, NPTX: 1}, append([]byte(nil), pb.Finish()...), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.e.AppendForeign(t.Context(), []*redo.Package{p}); !errors.Is(err, engine.ErrLineage) {
		t.Fatalf("G5: it follows another history at %v, with pages of %v: %v", at, res.Whole, err)
	}
	if _, err := a.e.BeginRejoin(t.Context()); err == nil {
		t.Fatal("it rejoins while it is not whole")
	}
	if err := a.follow(b, nil); err != nil {
		t.Fatal(err)
	}
	if err := same(a.e, b.e); err != nil {
		t.Fatal(err)
	}
}

// TestDonor: what is asked for is checked, a snapshot is released when nobody
// asks for anything, and another begin replaces it.
func TestDonor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, b := fork(t, 1)
		d := NewDonor(DonorConfig{Engine: b.e})
		defer d.Close()
		l := &link{d: d, from: "A"}
		ask := func(r mal.RejoinRequest) ([]byte, error) {
			return l.Call(t.Context(), "B", mal.TypeRejoin, r.Append(nil))
		}
		begin := func(a mal.RejoinAsk) (mal.RejoinOffer, error) {
			body, _ := mal.EncodeJSON(a)
			ans, err := ask(mal.RejoinRequest{Op: mal.RejoinBegin, Body: body})
			var o mal.RejoinOffer
			if err == nil {
				err = mal.DecodeJSON(ans, &o)
			}
			return o, err
		}
		if _, err := begin(mal.RejoinAsk{PmntMagic: 5, PageSize: testPS}); base.CodeOf(err, 0) != mal.CodeRejoin {
			t.Fatalf("another database: %v", err)
		}
		if _, err := begin(mal.RejoinAsk{PmntMagic: testPmnt, PageSize: 4096}); base.CodeOf(err, 0) != mal.CodeRejoin {
			t.Fatalf("another page size: %v", err)
		}
		good := mal.RejoinAsk{PmntMagic: testPmnt, PageSize: testPS}
		first, err := begin(good)
		if err != nil {
			t.Fatal(err)
		}
		o, err := begin(good)
		if err != nil {
			t.Fatal(err)
		}
		pages := func(token uint64, p ...uint32) error {
			_, err := ask(mal.RejoinRequest{Op: mal.RejoinPages, Token: token, Pages: p})
			return err
		}
		if err := pages(first.Token, 1); err == nil {
			t.Fatal("the first snapshot is still served")
		}
		if err := pages(o.Token, o.Pages+1); err == nil {
			t.Fatal("a page beyond the end")
		}
		for range 5 { // asked for now and then it stays
			time.Sleep(Idle - time.Second)
			synctest.Wait()
			if err := pages(o.Token, 1, 2); err != nil {
				t.Fatal(err)
			}
		}
		if n := b.e.Store().Stats().Snapshots; n != 1 {
			t.Fatalf("%d snapshots pinned", n)
		}
		time.Sleep(Idle + time.Second)
		synctest.Wait()
		if err := pages(o.Token, 1); err == nil {
			t.Fatal("served after a minute of silence")
		}
		if n := b.e.Store().Stats().Snapshots; n != 0 {
			t.Fatalf("%d snapshots pinned", n)
		}
		if err := b.e.MountDatabase(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := begin(good); base.CodeOf(err, 0) != codeState {
			t.Fatalf("a primary in Mount: %v", err)
		}
		b.e.Abort()
	})
}

// TestNotWhole: the error is one that clients are told to wait with.
func TestNotWhole(t *testing.T) {
	a, b := fork(t, 3)
	b.work(5)
	if _, err := a.rejoin(&link{d: donor(t, b), from: "A"}); err != nil {
		t.Fatal(err)
	}
	h := a.e.Store().NewHandle(true)
	defer h.Close()
	if _, err := h.ReadAt(make([]byte, 16), 24); !errors.Is(err, pagestore.ErrNotWhole) {
		t.Fatalf("reading the header without a lock: %v", err)
	}
}
