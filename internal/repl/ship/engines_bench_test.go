package ship_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/pprof"
	"syscall"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/repltest"
	"datawatch/internal/repl/ship"
	"datawatch/internal/repl/standby"
	"datawatch/internal/storage/engine"
	"datawatch/internal/storage/pagestore"
)

// BenchmarkCatchUpEngines is a whole recovery of a standby (manual 3.1.9) but for its
// last, suspended part: archive file, TCP, log, archive and replay of real engines on
// real files. rows: 40 rows of 100 bytes in a transaction; pages: 500 whole pages.
func BenchmarkCatchUpEngines(b *testing.B) {
	const want = 64 << 20
	for _, kind := range []string{"rows", "pages"} {
		b.Run(kind, func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				eng, hs, files := filePair(b)
				fill(b, eng[0], kind, want)
				size := int64(0)
				for _, f := range eng[0].Archive().Files() {
					size += f.Free
				}
				b.SetBytes(size)
				stop := profile(b, kind)
				for _, f := range files {
					f.reset()
				}
				before := cpuTime()
				b.StartTimer()
				if err := hs[0].s.CatchUp(b.Context(), "B"); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				stop()
				if os.Getenv("DW_CATCHUP_FILES") != "" {
					b.Logf("of the standby's files, for each byte of redo:\n%s", files[1].table(size))
				}
				b.ReportMetric(float64(size)/1e6/(cpuTime()-before).Seconds(), "MB/cpu-s")
				if a, s := eng[0].Positions().Replay, eng[1].Positions().Replay; a != s {
					b.Fatalf("primary at %v, standby at %v", a, s)
				}
				for i, h := range hs {
					h.s.Close()
					h.r.Close()
					eng[i].Abort()
				}
				b.StartTimer()
			}
		})
	}
}

// profile writes a profile of the recovery alone, without what made the redo, to
// the file that DW_CATCHUP_PROFILE and the kind of redo name.
func profile(b *testing.B, kind string) (stop func()) {
	b.Helper()
	name := os.Getenv("DW_CATCHUP_PROFILE")
	if name == "" {
		return func() {}
	}
	f, err := os.Create(name + "." + kind)
	if err != nil {
		b.Fatal(err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		b.Fatal(err)
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // zero then, which shows
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// filePair is an Open primary A, whose archive to the Open standby B is Invalid.
func filePair(b *testing.B) (engines []*engine.Engine, handlers []*realHandler, files []*countedFS) {
	b.Helper()
	ctx := b.Context()
	var entries []mal.Entry
	for _, n := range []string{"A", "B"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		entries = append(entries, mal.Entry{Inst: n, Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port})
		l.Close()
	}
	for i, e := range entries {
		dir, fsys := b.TempDir(), &countedFS{}
		files = append(files, fsys)
		ctl, logs := filepath.Join(dir, "dm.ctl"), []string{filepath.Join(dir, "1.log"), filepath.Join(dir, "2.log")}
		if err := engine.Create(engine.CreateConfig{FS: fsys, Dir: dir, CtlPath: ctl, LogPaths: logs, LogSize: 128 << 20,
			DBName: "T", PageSize: 4096, Mode: []base.Mode{base.ModePrimary, base.ModeStandby}[i], OGUID: 7, PmntMagic: repltest.Magic}); err != nil {
			b.Fatal(err)
		}
		eng, err := engine.Open(ctx, engine.Config{FS: fsys, Dir: dir, CtlPath: ctl, LogPaths: logs, InstName: e.Inst, BufferBytes: 64 << 20,
			Arch: &engine.ArchConfig{Dir: filepath.Join(dir, "arch"), Name: "A", FileSize: 1 << 30}})
		if err != nil {
			b.Fatal(err)
		}
		h := &realHandler{r: standby.New(standby.Config{Engine: real{eng}, PmntMagic: repltest.Magic, BufBytes: 1 << 30, BufNum: 4096, Log: repltest.Quiet})}
		node, err := mal.New(mal.Config{Self: e.Inst, Entries: entries, CheckInterval: 5 * time.Second, Log: repltest.Quiet, Identity: func() mal.Identity {
			return mal.Identity{PmntMagic: repltest.Magic, OGUID: 7, Mode: eng.Mode(), Status: eng.Status(), Lineage: eng.Lineage()}
		}}, h)
		if err != nil {
			b.Fatal(err)
		}
		h.s = ship.New(ship.Config{Targets: []ship.Target{{Inst: entries[1-i].Inst, Type: base.ArchRealtime}}, Engine: real{eng}, Transport: node, Log: repltest.Quiet})
		eng.SetShipper(h.s)
		eng.OnChange(func() { node.IdentityChanged(); h.s.EngineChanged() })
		if err := node.Start(ctx); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { node.Close() })
		engines, handlers = append(engines, eng), append(handlers, h)
	}
	if err := engines[1].OpenDatabase(ctx); err != nil {
		b.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := handlers[0].tell(ctx); err == nil {
			break
		} else if time.Now().After(end) {
			b.Fatal(err)
		}
	}
	if err := handlers[0].s.SetState(ctx, "B", base.ArchInvalid); err != nil {
		b.Fatal(err)
	}
	if err := engines[0].OpenDatabase(ctx); err != nil {
		b.Fatal(err)
	}
	return engines, handlers, files
}

// fill commits until the archive has so many bytes.
func fill(b *testing.B, e *engine.Engine, kind string, want int64) {
	b.Helper()
	s := e.Store()
	h := s.NewHandle(false)
	page := make([]byte, 4096)
	for n := 0; ; n++ {
		if f := e.Archive().Files(); len(f) > 0 && f[len(f)-1].Free >= want {
			return
		}
		if err := s.LockWrite(b.Context(), h); err != nil {
			b.Fatal(err)
		}
		_ = h.Lock(pagestore.LockExclusive) // errors show in WriteAt
		write := func(p, off, size int) {
			if _, err := h.ReadAt(page, int64(p)*4096); err != nil {
				clear(page) // beyond the end
			}
			for i := off; i < off+size; i += 8 {
				binary.BigEndian.PutUint64(page[i:], uint64(n)*0x9E3779B97F4A7C15+uint64(i)*0xBF58476D1CE4E5B9)
			}
			if _, err := h.WriteAt(page, int64(p)*4096); err != nil {
				b.Error(err)
			}
		}
		if kind == "rows" {
			write(5000+n, 0, 4000) // at the end of the file, as a table grows
			for i := range 8 {     // leaves of an index
				write(1+(n*2654435761+i*40503)%4000, i*400, 80)
			}
		} else {
			for i := range 500 {
				write(1+n*500+i, 0, 4000)
			}
		}
		if err := h.Sync(); err != nil {
			b.Fatal(err)
		}
		h.CommitPhaseTwo()
		_ = h.Unlock(pagestore.LockNone)
		s.UnlockWrite(h)
		if err := e.WaitHardened(b.Context(), h.LastCommit()); err != nil {
			b.Fatal(fmt.Errorf("commit %d: %w", n, err))
		}
	}
}
