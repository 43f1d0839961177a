package engine

import (
	"context"
	"errors"
	"runtime"
	"syscall"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/vfs"
)

// TestModeWaitsForLog: packages that are being logged when the mode is to change are
// logged and replayed as a standby's; none gets into the log of a primary (G3, G5).
func TestModeWaitsForLog(t *testing.T) {
	d, pkgs := primaryPackages(t, 30)
	e, fs := newStandby(t)
	if err := e.MountDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	heal := fs.Inject(vfs.Fault{Kind: vfs.OpWrite, Path: "/db/T0*.log", Err: syscall.ENOSPC})
	logged := make(chan error, 1)
	go func() {
		wait, err := e.LogForeign(context.Background(), pkgs)
		if err == nil {
			err = wait()
		}
		logged <- err
	}()
	await(t, e, "tried to write the log", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.suspends > 0
	})
	changed := make(chan error, 1)
	go func() { changed <- e.SetMode(context.Background(), base.ModePrimary) }()
	for range 1000 {
		runtime.Gosched()
	}
	if m := e.Mode(); m != base.ModeStandby {
		t.Errorf("the mode is %v while packages are logged", m)
	}
	heal()
	if err := errors.Join(<-logged, <-changed); err != nil {
		t.Fatal(err)
	}
	if p := e.Positions(); e.Mode() != base.ModePrimary || p.Replay != p.File || p.File != pkgs[len(pkgs)-1].Pos() {
		t.Errorf("mode %v, %+v", e.Mode(), p)
	}
	samePages(t, d.e, e)
}

// TestLineageFollowsReplay: of two open records in the log a standby vouches for
// those that it has replayed (G5).
func TestLineageFollowsReplay(t *testing.T) {
	s := &spy{}
	d := newDB(t, nil, s)
	d.commit(1)
	first := len(s.packages())
	if err := errors.Join(d.e.MountDatabase(t.Context()), d.openDatabase()); err != nil {
		t.Fatal(err)
	}
	d.commit(1)
	pkgs := s.packages()
	e, fs := newStandby(t)
	heal := fs.Inject(vfs.Fault{Kind: vfs.OpWrite, Path: "STANDBY_ARCHIVE_*.log", Err: syscall.ENOSPC})
	one, err := e.LogForeign(t.Context(), pkgs[:first])
	if err != nil {
		t.Fatal(err)
	}
	two, err := e.LogForeign(t.Context(), pkgs[first:])
	if err != nil {
		t.Fatal(err)
	}
	check := func(hard, log uint64) {
		t.Helper()
		_, l := e.State()
		if _, seen := e.HardState(); seen.Last().ID != hard || l.Last().ID != log {
			t.Errorf("lineage of what is replayed ends with %d, of the log with %d; want %d, %d", seen.Last().ID, l.Last().ID, hard, log)
		}
	}
	check(0, 2)
	between := 0
	e.OnChange(func() { // called between the two replays, too
		pos, seen := e.HardState()
		want := uint64(2)
		switch {
		case pos.Seq == 0:
			want = 0
		case pos.Seq <= pkgs[first-1].GSEQ:
			want, between = 1, between+1
		}
		if seen.Last().ID != want {
			t.Errorf("replayed up to %v, and the lineage ends with %d", pos, seen.Last().ID)
		}
	})
	heal()
	if err := errors.Join(one(), two()); err != nil {
		t.Fatal(err)
	}
	if between == 0 {
		t.Error("nobody looked between the two replays")
	}
	check(2, 2)
	samePages(t, d.e, e)
}

// TestCloseBesideChangeOfMode: a change of mode waits for a log that is full behind a
// replay that waits for room in the archive; the end of the database ends all three.
func TestCloseBesideChangeOfMode(t *testing.T) {
	_, pkgs := primaryPackages(t, 500)
	e, fs := newStandby(t)
	if err := e.MountDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	fs.Inject(vfs.Fault{Kind: vfs.OpWrite, Path: "STANDBY_ARCHIVE_*.log", Err: syscall.ENOSPC})
	logged, changed := make(chan error, 1), make(chan error, 1)
	go func() { logged <- e.AppendForeign(context.Background(), pkgs) }()
	await(t, e, "full", func() bool {
		free, total := e.log.Space()
		return free < total/4
	})
	go func() { changed <- e.SetMode(context.Background(), base.ModePrimary) }()
	for e.opMu.TryLock() { // until it has begun
		e.opMu.Unlock()
		runtime.Gosched()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- e.Close(ctx) }()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Error("it does not end")
		e.stop()
		<-closed
	}
	if err := <-logged; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := <-changed; err == nil || e.Mode() != base.ModeStandby {
		t.Errorf("mode %v: %v", e.Mode(), err)
	}
}
