package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"datawatch/internal/app/dw"
)

// cgroup is a control group of version 1 that bounds what processes may use.
type cgroup struct{ dir string }

// newCgroup makes a group under a controller, for this test and what runs it.
func newCgroup(t *testing.T, controller, name string) cgroup {
	t.Helper()
	c := cgroup{filepath.Join("/sys/fs/cgroup", controller, fmt.Sprintf("%s-%s", os.Getenv(labCgroup), name))}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		t.Skipf("no control group %s here: %v", controller, err)
	}
	return c
}

func (c cgroup) set(t *testing.T, key, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, key), []byte(value), 0); err != nil {
		t.Fatalf("%s = %s: %v", key, value, err)
	}
}

// take moves running processes into the group; what they start later is in it
// too.
func (c cgroup) take(t *testing.T, pids ...int) {
	t.Helper()
	for _, p := range pids {
		if err := os.WriteFile(filepath.Join(c.dir, "cgroup.procs"), []byte(strconv.Itoa(p)), 0); err != nil && !errors.Is(err, unix.ESRCH) {
			t.Fatalf("process %d into %s: %v", p, c.dir, err)
		}
	}
}

// TestSlowDisk lets the disk of one database do a few writes a second only, and
// then everything again. Commits are as slow as the primary's disk, or not slower;
// nobody takes over, nothing is lost, nothing is restarted.
func TestSlowDisk(t *testing.T) {
	if os.Getenv(labEnv) == "" {
		t.Parallel()
	}
	if !inLab(t) {
		return
	}
	l, ld := labUnderLoad(t, labOptions{Options: dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true}})
	ld.setPatience(30 * time.Second)
	var st unix.Stat_t
	if err := unix.Stat(l.sys.Dir, &st); err != nil {
		t.Fatal(err)
	}
	dev := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	for _, who := range []string{"primary", "standby"} {
		t.Run(who, func(t *testing.T) {
			c := newCgroup(t, "blkio", who)
			prim := primary(t, l.sys)
			victim := prim
			if who == "standby" {
				victim = standbyOf(l.sys, prim)
			}
			pid := l.sys.PID(victim)
			c.take(t, pid)
			fast := ld.rate(t, 2*time.Second)
			c.set(t, "blkio.throttle.write_iops_device", dev+" 4")
			at := time.Now()
			slow := ld.rate(t, envSeconds("DW_SLOW_SECONDS", 8))
			gap := ld.longestGap(at, time.Now())
			c.set(t, "blkio.throttle.write_iops_device", dev+" 0")
			t.Logf("%.0f commits a second, with 4 writes a second of the disk %.1f; the longest time without one was %v", fast, slow, gap.Round(time.Millisecond))
			// A realtime standby acknowledges what it has in memory, until its queue is full.
			if who == "primary" && slow > fast/2 {
				t.Errorf("the disk was not slow: this shows nothing")
			}
			ld.flows(t, 30*time.Second)
			healthy(t, l.sys)
			if now := primary(t, l.sys); now != prim {
				t.Errorf("%s is primary, it was %s\n%s", now, prim, timeline(l.sys, at, time.Now()))
			}
			if now := l.sys.PID(victim); now != pid {
				t.Errorf("%s was restarted\n%s", victim, timeline(l.sys, at, time.Now()))
			}
		})
	}
	ld.stop()
	ld.check(t, 0)
}

// rate is the number of commits acknowledged per second from now on.
func (l *load) rate(t *testing.T, d time.Duration) float64 {
	count := func() int { l.mu.Lock(); defer l.mu.Unlock(); return len(l.acked) }
	n, at := count(), time.Now()
	pause(t.Context(), d)
	return float64(count()-n) / time.Since(at).Seconds()
}

func envSeconds(name string, def int) time.Duration {
	return time.Duration(envInt(name, def)) * time.Second
}

// disturbance makes something bad for a while that is no failure.
type disturbance struct {
	name string
	do   func(t *testing.T, l *lab, rnd *rand.Rand) (end func())
	last time.Duration
}

func (l *lab) cards() (all []*card) {
	for _, n := range []*network{l.inner, l.outer} {
		all = append(all, n.cards...)
	}
	return all
}

var disturbances = []disturbance{
	{"a process stands still", func(t *testing.T, l *lab, rnd *rand.Rand) func() {
		n := l.sys.Names()
		return freeze(t, l.sys, n[rnd.IntN(len(n))])
	}, 2 * time.Second},
	{"a machine stands still", func(t *testing.T, l *lab, rnd *rand.Rand) func() {
		d := l.sys.DBs[rnd.IntN(len(l.sys.DBs))].Name
		return freeze(t, l.sys, d, "W_"+d)
	}, 2 * time.Second},
	{"everything stands still", func(t *testing.T, l *lab, _ *rand.Rand) func() {
		return freeze(t, l.sys, l.sys.Names()...)
	}, 2 * time.Second},
	{"1 s latency everywhere", func(_ *testing.T, l *lab, _ *rand.Rand) func() {
		return slowCards(time.Second/2, l.cards()...) // the sender's and the receiver's cable
	}, 15 * time.Second},
	{"5 s latency of one inner link", func(_ *testing.T, l *lab, rnd *rand.Rand) func() {
		return slowCards(5*time.Second, l.inner.cards[rnd.IntN(len(l.inner.cards))])
	}, 25 * time.Second},
	{"5% of one link's frames lost", func(_ *testing.T, l *lab, rnd *rand.Rand) func() {
		return losing(50, l.inner.cards[rnd.IntN(len(l.inner.cards))])
	}, 10 * time.Second},
	{"2% of all frames lost", func(_ *testing.T, l *lab, _ *rand.Rand) func() {
		return losing(10, l.cards()...)
	}, 10 * time.Second},
	{"processors starved", func(t *testing.T, l *lab, _ *rand.Rand) func() {
		c := newCgroup(t, "cpu", "starved")
		for _, n := range l.sys.Names() {
			c.take(t, l.sys.PID(n))
		}
		c.set(t, "cpu.cfs_period_us", "100000")
		c.set(t, "cpu.cfs_quota_us", "10000") // a tenth of one for all of them
		return func() { c.set(t, "cpu.cfs_quota_us", "-1") }
	}, 15 * time.Second},
}

func slowCards(d time.Duration, cs ...*card) func() {
	for _, c := range cs {
		c.delay.Store(int64(d))
	}
	return func() {
		for _, c := range cs {
			c.delay.Store(0)
		}
	}
}

func losing(perMille int32, cs ...*card) func() {
	for _, c := range cs {
		c.loss.Store(perMille)
	}
	return func() {
		for _, c := range cs {
			c.loss.Store(0)
		}
	}
}

// TestNoFalseTakeover disturbs a group with the default error times in every
// way that is no failure, each kind in turn, for DW_DISTURB seconds (0: each
// kind once; chaos two hours): nobody takes over, and nothing is lost.
// DW_DISTURB_ONLY=latency takes those with that in their names.
func TestNoFalseTakeover(t *testing.T) {
	if os.Getenv(labEnv) == "" {
		t.Parallel()
	}
	if os.Getenv("DW_DISTURB") == "" {
		t.Skip("takes minutes: DW_DISTURB=600 disturbs for that many seconds")
	}
	if !inLab(t) {
		return
	}
	ts := defaultTimes
	l, ld := labUnderLoad(t, labOptions{Options: dw.Options{Standbys: 1, Mode: "auto", Monitors: 1}, Watcher: ts.watcher, MAL: ts.mal})
	ld.setPatience(30 * time.Second)
	seed := uint64(envInt("DW_SEED", int(time.Now().UnixNano()&0x7fffffff)))
	rnd := rand.New(rand.NewPCG(seed, 2))
	t.Logf("seed %d, %s", seed, ts.name)
	prim, start := primary(t, l.sys), time.Now()
	end := start.Add(envSeconds("DW_DISTURB", 0))
	worst := map[string]time.Duration{}
	rounds := 0
	for round := 0; round == 0 || time.Now().Before(end); round++ {
		for _, d := range disturbances {
			if only := os.Getenv("DW_DISTURB_ONLY"); only != "" && !strings.Contains(d.name, only) {
				continue
			}
			at := time.Now()
			stop := d.do(t, l, rnd)
			pause(t.Context(), d.last)
			stop()
			ld.flows(t, 60*time.Second)
			gap := ld.longestGap(at, time.Now())
			worst[d.name] = max(worst[d.name], gap)
			if gap > 10*time.Second && os.Getenv("DW_TIMELINES") != "" {
				t.Logf("%s: %v without a commit:\n%s", d.name, gap, timeline(l.sys, at, time.Now()))
			}
			healthy(t, l.sys)
			if now := primary(t, l.sys); now != prim {
				t.Errorf("%s took over because of: %s\n%s", now, d.name, timeline(l.sys, at, time.Now()))
				prim = now
			}
			rounds++
		}
	}
	ld.stop()
	t.Logf("%d disturbances in %v, error times: %s", rounds, time.Since(start).Round(time.Second), ts.name)
	for _, d := range disturbances {
		t.Logf("| %s, %v | longest time without a commit %v |", d.name, d.last, worst[d.name].Round(10*time.Millisecond))
	}
	ld.check(t, 0)
}
