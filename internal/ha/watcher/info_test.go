package watcher

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// TestInstanceIsToldOfItsWatcher: at every change, and every second; one that does
// not know the order hears it once.
func TestInstanceIsToldOfItsWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{all: map[string]*listener{}}
		ps := &procs{alive: map[int]bool{11: true, 12: true}}
		a, b := startInst(t, n, "A", 11, base.ModePrimary), startInst(t, n, "B", 12, base.ModeStandby)
		b.old = true
		var all atomic.Int64 // of the program
		all.Store(5)
		ga := startGuard(t, n, ps, "A", func(c *Config) { c.Groups, c.Switches = 3, &all })
		until(t, "A is told", func() bool { i, _ := a.told(); return i.State != "" })
		if i, _ := a.told(); i.Groups != 3 || i.Group != "G" || i.Type != "GLOBAL" || i.Mode != "AUTO" || !i.AutoRestart || i.ErrorTime != 5 || i.State != proto.DWStartup ||
			i.Switches != 5 || i.Ctls != 0 || i.Insts != 0 || i.MaxConns != 1 {
			t.Errorf("alone: %+v", i)
		}
		gb := startGuard(t, n, ps, "B", nil)
		until(t, "A is open", func() bool { i, _ := a.told(); return i.State == proto.DWOpen })
		if i, _ := a.told(); i.Ctls != 1 || i.Insts != 1 || i.MaxConns != 2 || i.Switches != 5 {
			t.Errorf("together: %+v", i)
		}
		_, before := a.told()
		time.Sleep(10 * time.Second)
		if _, after := a.told(); after < before+9 || after > before+12 {
			t.Errorf("told %d times in 10 s in which nothing changed", after-before)
		}
		if _, times := b.told(); times != 1 {
			t.Errorf("an instance that does not know the order heard it %d times", times)
		}
		a.mu.Lock()
		a.st.Lineage = append(a.st.Lineage[:1:1], base.OpenRecord{ID: 2, SysMode: base.ModePrimary, CurInst: "B"}, base.OpenRecord{ID: 3, SysMode: base.ModePrimary, CurInst: "B"},
			base.OpenRecord{ID: 4, SysMode: base.ModePrimary, CurInst: "A"})
		a.mu.Unlock()
		until(t, "changes of primary are counted", func() bool { i, _ := a.told(); return i.Switches == 7 })
		gb.stop(t)
		time.Sleep(2 * time.Second)
		if i, _ := a.told(); i.MaxConns != 2 {
			t.Errorf("the most connections: %+v", i)
		}
		ga.stop(t)
		a.stop()
		b.stop()
	})
}

func TestSwitches(t *testing.T) {
	open := func(id uint64, inst string, m base.Mode) base.OpenRecord {
		return base.OpenRecord{ID: id, CurInst: inst, SysMode: m}
	}
	var i info
	for n, c := range []struct {
		l    base.Lineage
		want int64
	}{
		{nil, 0},
		{base.Lineage{open(1, "A", base.ModeNormal), open(2, "B", base.ModePrimary), open(3, "A", base.ModePrimary)}, 0}, // as it was when the watcher came
		{base.Lineage{open(3, "A", base.ModePrimary), open(4, "a", base.ModePrimary)}, 0},                                // opened once more
		{base.Lineage{open(3, "A", base.ModePrimary), open(4, "A", base.ModePrimary), open(5, "B", base.ModePrimary)}, 1},
		{base.Lineage{open(3, "A", base.ModePrimary)}, 0},                                 // of one that is behind
		{base.Lineage{open(6, "A", base.ModePrimary), open(7, "B", base.ModePrimary)}, 2}, // there and back
	} {
		if got := i.switches(c.l); got != c.want {
			t.Errorf("%d: %d, want %d", n, got, c.want)
		}
	}
}
