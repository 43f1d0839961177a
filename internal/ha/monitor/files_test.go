package monitor

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"datawatch/internal/ha/confirm"
	"datawatch/internal/vfs"
)

func contextTimeout(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

// After a power cut at any operation the record is the old or the new one, and
// the new one once save has returned.
func TestRecordSurvivesPowerCuts(t *testing.T) {
	old, next := confirm.Record{Term: 1}, confirm.Record{Term: 2, Taken: &confirm.Taken{Reign: 5, Candidate: "B"}}
	for cut := int64(1); ; cut++ {
		mem := vfs.NewMem()
		s, err := openStore(mem, "/d")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.save("G", 7, old); err != nil {
			t.Fatal(err)
		}
		base := mem.Count()
		var clone *vfs.Mem
		mem.SetHook(func(op vfs.Op) error {
			if clone == nil && mem.Count()-base >= cut {
				clone = mem.CrashClone(rand.New(rand.NewPCG(1, uint64(cut))))
			}
			return nil
		})
		if err := s.save("G", 7, next); err != nil {
			t.Fatal(err)
		}
		mem.SetHook(nil)
		done := clone == nil
		if done {
			clone = mem.CrashClone(rand.New(rand.NewPCG(1, 1)))
		}
		r, err := (&store{fs: clone, dir: "/d"}).load("G", 7)
		if err != nil || r.Term != 1 && r.Term != 2 || done && r.Term != 2 {
			t.Fatalf("cut at operation %d: %+v, %v", cut, r, err)
		}
		if done {
			if cut < 3 {
				t.Fatal("nothing was cut")
			}
			return
		}
	}
}

func TestStoreRefuses(t *testing.T) {
	mem := vfs.NewMem()
	s, err := openStore(mem, "/d")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(mem, "/d"); err == nil || !strings.Contains(err.Error(), "another confirm monitor") {
		t.Fatalf("second lock: %v", err)
	}
	if r, err := s.load("G", 7); err != nil || r.Term != 0 {
		t.Fatalf("no file: %+v %v", r, err)
	}
	if err := s.write("/d/dmmonitor_G.ctl", []byte("rubbish")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.load("G", 7); err == nil || !strings.Contains(err.Error(), "/d/dmmonitor_G.ctl") {
		t.Fatalf("damaged: %v", err)
	}
}

func TestLogFiles(t *testing.T) {
	mem := vfs.NewMem()
	now := time.Date(2016, 4, 18, 23, 5, 23, 0, time.UTC)
	cfg := LogConfig{Dir: "/log", FileSize: 200, SpaceLimit: 600}
	l, err := openLog(mem, cfg, now)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		l.line(Message{now.Add(time.Duration(i) * time.Second), "monitor", "a line of some length\nand a second one"})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := l.files()
	if err != nil || len(files) == 0 || len(files) > 3 || files[0] == "dmmonitor_20160418230523.log" {
		t.Fatalf("files %v %v", files, err)
	}
	last := files[len(files)-1]
	l, err = openLog(mem, cfg, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if f, _ := l.files(); f[len(f)-1] != last && l.size == 0 {
		t.Fatalf("did not go on with %s: %v", last, f)
	}
	l.renew() // SIGHUP: the next line is in a new file
	before, _ := l.files()
	l.line(Message{now.Add(2 * time.Hour), "monitor", "later"})
	if after, _ := l.files(); after[len(after)-1] == before[len(before)-1] {
		t.Errorf("no new file: %v", after)
	}
	b := make([]byte, 300)
	f, err := mem.Open("/log/" + last)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, _ := f.ReadAt(b, 0)
	if !strings.Contains(string(b[:n]), "[monitor] a line of some length and a second one\n") {
		t.Fatalf("content %q", b[:n])
	}
}
