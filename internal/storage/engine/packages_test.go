package engine

import (
	"bytes"
	"context"
	"runtime"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/storage/redo"
)

// TestLogPackages: what is not hardened is shown as the packages that it becomes,
// and counted when it has become them.
func TestLogPackages(t *testing.T) {
	s := &spy{}
	d := newDB(t, nil, s)
	d.commit(1)
	if p := d.e.LogPackages(); len(p) != 0 {
		t.Fatalf("nothing waits: %+v", p)
	}
	before := d.e.LogStats()
	if before.Waiting != 0 || before.Taken < 2 || before.Written.Packages != before.Taken || before.NextGSEQ != d.e.Positions().File.Seq+1 || before.NextLSEQ != d.e.LogInfo().NextLSEQ {
		t.Fatalf("%+v", before)
	}
	gate, flown := make(chan struct{}), make(chan *redo.Package, 1)
	s.hook = func(p *redo.Package) {
		select {
		case flown <- p:
			<-gate
		default:
		}
	}
	first := d.publish(2, false)
	made := <-flown
	d.publish(2, false)
	last := d.publish(3, false)
	if err := d.e.Reserve(t.Context(), d.e.NextLSN(), 1); err != nil { // one that is about to commit
		t.Fatal(err)
	}
	p, st := d.e.LogPackages(), d.e.LogStats()
	if len(p) != 2 || st.Waiting != 2 || st.Taken != before.Taken+1 || st.Requests != before.Requests+3 || st.Written != before.Written {
		t.Fatalf("%+v, %+v", p, st)
	}
	if !p[0].Full || p[0].Header != made.Header || p[0].MaxLSN != first || p[0].Reserved != 0 {
		t.Errorf("under way: %+v", p[0])
	}
	if p[1].Full || p[1].Reserved != 1 || p[1].GSEQ != made.GSEQ+1 || p[1].LSEQ != made.LSEQ+1 || p[1].MinLSN != first+1 || p[1].MaxLSN != last || p[1].PrevLSN != first ||
		p[1].NPTX != 2 || p[1].DBMagic != made.DBMagic || p[1].RawLen == 0 || p[1].Kind != PackageCommits {
		t.Errorf("being filled: %+v", p[1])
	}
	d.e.Cancel()
	waited := make(chan error, 1)
	go func() { waited <- d.e.WaitHardened(t.Context(), last) }()
	for d.e.LogStats().Waits == before.Waits {
		runtime.Gosched()
	}
	close(gate)
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	all := s.packages()
	if got := all[len(all)-1]; got.GSEQ != p[1].GSEQ || got.LSEQ != p[1].LSEQ || got.PrevLSN != p[1].PrevLSN || got.MinLSN != p[1].MinLSN || got.MaxLSN != p[1].MaxLSN ||
		got.NPTX != p[1].NPTX || got.RawLen != p[1].RawLen {
		t.Errorf("it became %+v, was shown as %+v", got.Header, p[1])
	}
	bytes, ptx := int64(0), int64(0)
	for _, x := range all[len(all)-2:] {
		bytes, ptx = bytes+int64(x.EncodedLen()), ptx+int64(x.NPTX)
	}
	if st = d.e.LogStats(); st.Waiting != 0 || st.Waits != before.Waits+1 || st.Taken != before.Taken+2 || st.Written.Packages != before.Written.Packages+2 || st.Written.Bytes != before.Written.Bytes+bytes ||
		st.Written.PTX != before.Written.PTX+ptx || ptx != 3 || st.NextGSEQ != before.NextGSEQ+2 || st.NextLSEQ != before.NextLSEQ+2 {
		t.Errorf("before %+v, after %+v; %d bytes, %d PTXs", before, st, bytes, ptx)
	}
}

// TestLogPackagesSuspended: a package that could not be sent is shown until it is,
// and what has no room is counted.
func TestLogPackagesSuspended(t *testing.T) {
	s := &spy{}
	d := newDB(t, func(c *Config) { c.RedoBuffer = 4000 }, s)
	s.set(errLink, nil)
	lsn := d.publish(1, false)
	await(t, d.e, "suspended", func() bool { return d.e.Status() == base.StatusSuspend })
	if p := d.e.LogPackages(); len(p) != 1 || !p[0].Full || p[0].MaxLSN != lsn || p[0].GSEQ != d.e.Positions().Cur.Seq {
		t.Fatalf("%+v", p)
	}
	for _, c := range []struct {
		pages int
		count func(LogStats) int64
	}{{2, func(s LogStats) int64 { return s.Alloc }}, {60, func(s LogStats) int64 { return s.Parts }}} {
		d.bulk = c.pages > 2
		ctx, cancel := context.WithCancel(t.Context())
		d.h.SetContext(ctx)
		done := make(chan struct{})
		before := c.count(d.e.LogStats())
		go func() {
			defer close(done)
			for {
				if _, err := d.tryPublish(c.pages, false); err != nil {
					return
				}
			}
		}()
		for c.count(d.e.LogStats()) == before {
			runtime.Gosched()
		}
		cancel()
		<-done
		if n := c.count(d.e.LogStats()); n != before+1 {
			t.Errorf("%d waits for room, there was one", n-before)
		}
	}
	d.h.SetContext(context.Background())
	delete(d.at, d.e.NextLSN())
	s.set(nil, nil)
	if err := d.e.OpenDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.commit(2)
	if p := d.e.LogPackages(); len(p) != 0 {
		t.Fatalf("nothing waits: %+v", p)
	}
}

// TestLogPackagesOfLarge: the kinds of packages.
func TestLogPackagesOfLarge(t *testing.T) {
	s := &spy{}
	kinds := map[int]bool{}
	d := newDB(t, nil, s)
	s.hook = func(*redo.Package) {
		for _, p := range d.e.LogPackages() {
			kinds[p.Kind] = true
		}
	}
	d.bulk = true
	for range 12 { // the database grows until one is more than a package holds
		d.commit(200)
	}
	if err := d.e.MountDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.openDatabase(); err != nil {
		t.Fatal(err)
	}
	if !kinds[PackageCommits] || !kinds[PackagePart] || !kinds[PackageOpen] {
		t.Errorf("kinds seen: %v", kinds)
	}
}

// TestLogPackageCompressed: a package under way is shown as it has been made.
func TestLogPackageCompressed(t *testing.T) {
	s := &spy{}
	d := newDB(t, func(c *Config) { c.Compress = true }, s)
	shown := make(chan []LogPackage, 1)
	s.hook = func(*redo.Package) { shown <- d.e.LogPackages() }
	err := d.e.Store().LockWrite(t.Context(), d.h)
	for _, f := range []func() error{
		func() error { return d.h.Lock(pagestore.LockShared) },
		func() error { return d.h.Lock(pagestore.LockExclusive) },
		func() error { _, err := d.h.WriteAt(bytes.Repeat([]byte("x"), testPS), testPS); return err },
		d.h.Sync,
		func() error { d.h.CommitPhaseTwo(); return d.h.Unlock(pagestore.LockShared) },
	} {
		if err == nil {
			err = f()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if p := <-shown; len(p) != 1 || p[0].Flags&redo.FlagS2 == 0 || p[0].DataLen >= p[0].RawLen {
		t.Errorf("%+v", p)
	}
}
