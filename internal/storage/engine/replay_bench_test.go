package engine

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

const benchPS = 4096

func benchConfig(dir string) Config {
	return Config{FS: vfs.OS{}, Dir: dir, CtlPath: filepath.Join(dir, "dm.ctl"), BufferBytes: 64 << 20,
		LogPaths: []string{filepath.Join(dir, "1.log"), filepath.Join(dir, "2.log")},
		Arch:     &ArchConfig{Dir: filepath.Join(dir, "arch"), Name: "A", FileSize: 1 << 30}}
}

func benchOpen(b *testing.B, mode base.Mode, logSize int64, ship Shipper, change func(*Config)) (*Engine, Config) {
	b.Helper()
	c := benchConfig(b.TempDir())
	err := Create(CreateConfig{FS: c.FS, Dir: c.Dir, CtlPath: c.CtlPath, LogPaths: c.LogPaths,
		LogSize: logSize, DBName: "B", PageSize: benchPS, Mode: mode, PmntMagic: testPmnt})
	if err != nil {
		b.Fatal(err)
	}
	if change != nil {
		change(&c)
	}
	e, err := Open(b.Context(), c)
	if err != nil {
		b.Fatal(err)
	}
	e.SetShipper(ship)
	if err := e.OpenDatabase(b.Context()); err != nil {
		b.Fatal(err)
	}
	return e, c
}

// load makes redo of one kind on a primary until it has so many bytes: rows
// appended to a table with one index (leaves in order), small changes of pages
// anywhere among 40,000, or whole pages by the thousand.
func load(b *testing.B, e *Engine, kind string, want int64, done func() int64) {
	b.Helper()
	s, rnd := e.Store(), rand.New(rand.NewPCG(1, 1))
	h := s.NewHandle(false)
	buf := make([]byte, benchPS)
	last := base.LSN(0)
	for n := uint64(1); ; n++ {
		if n%256 == 0 || kind == "bulk" {
			if err := e.WaitHardened(context.Background(), last); err != nil {
				b.Fatal(err)
			}
			if done() >= want {
				return
			}
		}
		if err := s.LockWrite(context.Background(), h); err != nil {
			b.Fatal(err)
		}
		_ = h.Lock(pagestore.LockExclusive) // errors show in WriteAt
		change := func(p int64, off, size int) {
			if _, err := h.ReadAt(buf, p*benchPS); err != nil {
				clear(buf) // beyond the end
			}
			for i := off; i < off+size; i += 8 {
				binary.BigEndian.PutUint64(buf[i:], rnd.Uint64())
			}
			if _, err := h.WriteAt(buf, p*benchPS); err != nil {
				b.Error(err)
			}
		}
		binary.BigEndian.PutUint64(buf, n)
		switch kind {
		case "insert":
			change(int64(1+n/30), int(n%30)*128, 112)
			change(int64(200000+rnd.IntN(4000)), rnd.IntN(250)*16, 16)
		case "update":
			for range 4 {
				change(int64(1+rnd.IntN(40000)), rnd.IntN(60)*64, 24)
			}
		case "bulk":
			for i := range 3000 {
				change(int64(n*3000)+int64(i), 0, 4000)
			}
		}
		if err := h.Sync(); err != nil {
			b.Fatal(err)
		}
		h.CommitPhaseTwo()
		_ = h.Unlock(pagestore.LockNone)
		s.UnlockWrite(h)
		last = h.LastCommit()
	}
}

// cpuTime is what this process has used: on a machine with other work the time
// that passes says little.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func used(e *Engine) int64 {
	i := e.LogInfo()
	return i.Total - i.Free
}

func size(pkgs []*redo.Package) (n int64) {
	for _, p := range pkgs {
		n += int64(p.EncodedLen())
	}
	return n
}

// BenchmarkReplay is what a standby does with packages it has: check, online log,
// local archive, replay.
func BenchmarkReplay(b *testing.B) {
	for _, kind := range []string{"insert", "update", "bulk"} {
		want := int64(48 << 20)
		if kind == "bulk" {
			want = 160 << 20
		}
		var pkgs []*redo.Package
		for _, workers := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/workers=%d", kind, workers), func(b *testing.B) {
				if pkgs == nil {
					sp := &spy{}
					p, _ := benchOpen(b, base.ModePrimary, 256<<20, sp, nil)
					load(b, p, kind, want, func() int64 { return size(sp.packages()) })
					p.Abort()
					pkgs = sp.packages()
				}
				total, ptx := size(pkgs), 0
				for _, p := range pkgs {
					ptx += int(p.NPTX)
				}
				b.SetBytes(total)
				b.ResetTimer()
				var cpu time.Duration
				for range b.N {
					b.StopTimer()
					e, _ := benchOpen(b, base.ModeStandby, 256<<20, nil, func(c *Config) { c.Replayers = workers })
					before := cpuTime()
					b.StartTimer()
					for rest := pkgs; len(rest) > 0; {
						n, bytes := 0, 0
						for n < len(rest) && n < 4096 && bytes < 16<<20 {
							bytes += rest[n].EncodedLen()
							n++
						}
						if err := e.AppendForeign(b.Context(), rest[:n]); err != nil {
							b.Fatal(err)
						}
						rest = rest[n:]
					}
					b.StopTimer()
					cpu += cpuTime() - before
					e.Abort()
					b.StartTimer()
				}
				b.ReportMetric(float64(total)*float64(b.N)/1e6/cpu.Seconds(), "MB/cpu-s")
				b.ReportMetric(float64(ptx*b.N)/b.Elapsed().Seconds(), "ptx/s")
				b.ReportMetric(float64(total)/float64(len(pkgs)), "B/pkg")
			})
		}
	}
}

// BenchmarkRecovery is the restart of a database whose online log is full of redo
// behind the checkpoint.
func BenchmarkRecovery(b *testing.B) {
	for _, kind := range []string{"insert", "update", "bulk"} {
		for _, workers := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/workers=%d", kind, workers), func(b *testing.B) {
				const log, want = 256 << 20, 64 << 20
				var cpu time.Duration
				var total int64
				for range b.N {
					b.StopTimer()
					e, c := benchOpen(b, base.ModePrimary, log, nil, func(c *Config) {
						c.CheckpointInterval, c.DirtyBytes, c.Replayers = 1<<62, 1<<62, workers
					})
					load(b, e, kind, want, func() int64 { return used(e) })
					b.SetBytes(used(e))
					total += used(e)
					e.Abort()
					c.DirtyBytes = 0
					before := cpuTime()
					b.StartTimer()
					e, err := Open(b.Context(), c)
					if err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					cpu += cpuTime() - before
					e.Abort()
					b.StartTimer()
				}
				b.ReportMetric(float64(total)/1e6/cpu.Seconds(), "MB/cpu-s")
			})
		}
	}
}
