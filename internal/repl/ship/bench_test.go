package ship_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/repltest"
	"datawatch/internal/repl/ship"
)

// tcpCluster is a primary and standbys over loopback.
func tcpCluster(b *testing.B, standbys int) (*repltest.Instance, []*repltest.Instance) {
	b.Helper()
	var entries []mal.Entry
	for i := range standbys + 1 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		entries = append(entries, mal.Entry{Inst: string(rune('A' + i)), Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port})
		l.Close()
	}
	var all []*repltest.Instance
	for i, e := range entries {
		mode := base.ModeStandby
		var targets []ship.Target
		if i == 0 {
			mode = base.ModePrimary
			for _, o := range entries[1:] {
				targets = append(targets, ship.Target{Inst: o.Inst, Type: base.ArchRealtime})
			}
		}
		eng := repltest.NewEngine(e.Inst, mode)
		if i > 0 {
			eng.Set(mode, base.StatusOpen)
		}
		inst, err := repltest.Start(eng, repltest.Options{Targets: targets, Entries: entries, OGUID: 1, CheckInterval: 5 * time.Second})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(inst.Stop)
		all = append(all, inst)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		up := 0
		for _, l := range all[0].Node.LinkStates() {
			if l.Data {
				up++
			}
		}
		if up == standbys {
			break
		}
		if time.Now().After(end) {
			b.Fatal("links do not come up")
		}
	}
	if err := all[0].Open(context.Background(), all[0].Ship); err != nil {
		b.Fatal(err)
	}
	return all[0], all[1:]
}

// BenchmarkShip is one package in flight, as the flusher does it: the time of a
// round trip, its median and 99th percentile.
func BenchmarkShip(b *testing.B) {
	for _, n := range []int{1, 2, 4} {
		for _, size := range []int{200, 16 << 10} {
			b.Run(fmt.Sprintf("standbys=%d/bytes=%d", n, size), func(b *testing.B) {
				a, _ := tcpCluster(b, n)
				var times []time.Duration
				b.ResetTimer()
				for range b.N {
					b.StopTimer()
					p := repltest.Package(a.LogEnd(), a.Lineage().Last().ID, 1, nil, size)
					b.StartTimer()
					t := time.Now()
					if err := a.Deliver(context.Background(), a.Ship, p); err != nil {
						b.Fatal(err)
					}
					times = append(times, time.Since(t))
				}
				slices.Sort(times)
				b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1e3, "p50-us")
				b.ReportMetric(float64(times[len(times)*99/100].Nanoseconds())/1e3, "p99-us")
			})
		}
	}
}

// BenchmarkCatchUp streams an archive of small and of large packages.
func BenchmarkCatchUp(b *testing.B) {
	for _, size := range []int{500, 64 << 10} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			a, bs := tcpCluster(b, 1)
			ctx := context.Background()
			if err := a.Ship.SetState(ctx, "B", base.ArchInvalid); err != nil {
				b.Fatal(err)
			}
			var total int64
			start := a.LogEnd()
			for total < 256<<20 {
				p, err := a.Commit(ctx, a.Ship, size)
				if err != nil {
					b.Fatal(err)
				}
				total += int64(p.EncodedLen())
				if size < 1000 && total > 32<<20 {
					break
				}
			}
			b.SetBytes(total)
			b.ResetTimer()
			for range b.N {
				if err := a.Ship.CatchUp(ctx, "B"); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				bs[0].Truncate(start.Seq)
				b.StartTimer()
			}
		})
	}
}
