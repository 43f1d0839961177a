package cluster

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"datawatch/internal/ha/walktest"
)

// seedsInTest are what `go test` lives through; `make test` asks for 200, which
// take about a minute and a half on two cores.
const seedsInTest = 20

// enough lives that every kind of fault and success must be among them.
const enough = 200

// lifeLimit is real time: a life that takes longer hangs, in a loop or on a lock
// that is held across a wait.
const lifeLimit = 5 * time.Minute

// report is what a child says about one life.
type report struct {
	Seed             uint64
	Seconds          float64
	Acks, Unk, Reads int
	Primaries        int // different ones that acknowledged, one after the other
	Did, Commands    deeds
	Faults           []string
	Settings         string
	Trace            string // a hash of all its lines
	text             string // what it printed
}

// traced: traces are printed, whole.
var traced = os.Getenv("DW_CLUSTER_TRACE") != ""

// TestSeeds lives a number of lives, each in a process of its own, of one thread.
// A life is the same each time (replay_test.go). A seed that fails:
//
//	DW_CLUSTER_SEED=4711 go test ./test/cluster -run TestSeeds -v
//
// DW_CLUSTER_SEEDS says how many are run, DW_CLUSTER_FILE is a file that
// remembers where to go on (make sim, make chaos).
func TestSeeds(t *testing.T) {
	count := uint64(seedsInTest)
	number(t, "DW_CLUSTER_SEEDS", &count)
	file := os.Getenv("DW_CLUSTER_FILE")
	progress, err := walktest.Begin(file)
	if err != nil {
		t.Fatal(err)
	}
	first := progress.Next()
	one := os.Getenv("DW_CLUSTER_SEED") != ""
	if one {
		number(t, "DW_CLUSTER_SEED", &first)
		count = 1
	}
	did, commands := deeds{}, deeds{}
	var total report
	var trace string
	began := time.Now()
	exe, why := program()
	if why != nil {
		fmt.Printf("lives do not repeat themselves exactly: %s\n", why)
	}
	bad := lives(exe, nil, first, count, func(r report, n uint64) {
		trace = r.Trace
		did.add(r.Did)
		commands.add(r.Commands)
		total.Seconds += r.Seconds
		total.Acks += r.Acks
		total.Unk += r.Unk
		total.Reads += r.Reads
		total.Primaries += r.Primaries
		if n%1000 == 0 {
			fmt.Printf("%d lives of clusters\n", n)
		}
		if !one {
			if err := progress.Done(r.Seed); err != nil {
				t.Error(err)
			}
		}
	})
	if bad != nil {
		t.Errorf("seed %d, trace %s: %s\nsettings: %s\nagain: DW_CLUSTER_SEED=%d go test ./test/cluster -run TestSeeds -v\n%s",
			bad.Seed, bad.Trace, strings.Join(bad.Faults, "\n"), bad.Settings, bad.Seed, bad.text)
	}
	t.Logf("seeds %d to %d in %v: %.0f s of life, %d commits acknowledged, %d of unknown outcome, %d reads, %d times another primary",
		first, first+count-1, time.Since(began).Round(time.Second), total.Seconds, total.Acks, total.Unk, total.Reads, total.Primaries)
	if one && bad == nil {
		t.Logf("the trace has the hash %s", trace)
	}
	t.Logf("faults: %s", did)
	t.Logf("commands: %s", commands)
	if t.Failed() || one {
		return
	}
	if count >= enough {
		for _, k := range kinds {
			if did[k.name] == 0 {
				t.Errorf("in no life of %d: %s", count, k.name)
			}
		}
		if total.Primaries == 0 || commands["switchover done"] == 0 {
			t.Errorf("nobody took over, or no switchover succeeded, in %d lives", count)
		}
	}
	if file != "" {
		if err := progress.End(); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%d lives of clusters done in all, the last %d now, no violation\n", first+count-1, count)
	}
}

func number(t *testing.T, name string, n *uint64) {
	s := os.Getenv(name)
	if s == "" {
		return
	}
	var err error
	if *n, err = strconv.ParseUint(s, 10, 64); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func (d deeds) add(o deeds) {
	for k, n := range o {
		d[k] += n
	}
}

// mark begins the lines in which a child reports.
const mark = "@@cluster "

// lives lives count seeds from first on, each in a process of the program exe, and
// returns the first that fails, nil when none does. done hears of every other.
func lives(exe string, env []string, first, count uint64, done func(r report, n uint64)) *report {
	var mu sync.Mutex
	var bad *report
	var n uint64
	next := first
	take := func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if bad != nil || next >= first+count {
			return 0, false
		}
		next++
		return next - 1, true
	}
	var wg sync.WaitGroup
	for range min(runtime.NumCPU(), int(count)) {
		wg.Go(func() {
			for seed, ok := take(); ok; seed, ok = take() {
				r := lived(exe, env, seed)
				mu.Lock()
				if traced {
					fmt.Print(r.text)
				}
				if len(r.Faults) > 0 {
					if bad == nil {
						bad = &r
					}
				} else if n++; done != nil {
					done(r, n)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return bad
}

// lived runs one life in a process of its own, in which nothing is left of
// another. Of the environment it has only what is the same each time. There is
// no collection of garbage: a life makes some hundred MB of it.
func lived(exe string, env []string, seed uint64) (r report) {
	trace := "DW_CLUSTER_TRACE="
	if traced {
		trace += "1"
	}
	cmd := exec.Command(exe, "-test.run=^TestLife$", "-test.v", "-test.timeout=0")
	cmd.Env = append([]string{fmt.Sprintf("DW_CLUSTER_LIFE=%020d", seed), trace, "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1",
		"GOGC=off", "GOMEMLIMIT=3GiB"}, env...)
	// It ends with this process, however that ends: with the thread that began it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := cmd.StdoutPipe()
	if err == nil {
		cmd.Stderr = cmd.Stdout
		err = cmd.Start()
	}
	if err != nil {
		return report{Seed: seed, Faults: []string{err.Error()}}
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	hung := time.AfterFunc(lifeLimit, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) })
	r, err = await(bufio.NewReader(out))
	hung.Stop()
	if r.Seed = seed; err != nil {
		r.Faults = append(r.Faults, fmt.Sprintf("the process ended, or took more than %v: %v", lifeLimit, err))
	}
	return r
}

// await reads up to the report of a life, and keeps the end of what comes before.
func await(in *bufio.Reader) (r report, err error) {
	var b bytes.Buffer
	defer func() { r.text = b.String() }()
	for {
		s, err := in.ReadString('\n')
		if j, ok := strings.CutPrefix(s, mark); ok {
			return r, json.Unmarshal([]byte(j), &r)
		}
		b.WriteString(s)
		if err != nil {
			return r, err
		}
		if b.Len() > 16<<20 {
			b.Next(8 << 20)
		}
	}
}

// TestLife is the process of one life.
func TestLife(t *testing.T) {
	s := os.Getenv("DW_CLUSTER_LIFE")
	if s == "" {
		t.Skip("run by TestSeeds")
	}
	seed, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	cryptotest.SetGlobalRandom(t, seed)
	var r report
	synctest.Test(t, func(t *testing.T) { r = life(seed) })
	b, _ := json.Marshal(r)
	fmt.Printf("%s%s\n", mark, b)
}

// life lives one seed.
func life(seed uint64) report {
	w := newWorld(seed, choose(rand.New(rand.NewPCG(seed, 0))))
	defer w.stop()
	w.live()
	r := report{Seed: seed, Seconds: w.since().Seconds(), Acks: w.chain.acks, Unk: w.chain.unknown, Reads: w.chain.reads,
		Primaries: w.chain.changes, Did: w.did, Commands: w.results, Faults: w.chain.failed(), Settings: w.cfg.String()}
	if len(r.Faults) > 0 || traced {
		w.dump(os.Stdout)
	}
	h := sha256.New()
	for _, l := range w.trace {
		fmt.Fprintln(h, l)
	}
	r.Trace = fmt.Sprintf("%x", h.Sum(nil)[:8])
	return r
}

// lastLines of a trace are printed when a life fails, and what was done to the
// cluster before; DW_CLUSTER_TRACE=1 prints all.
const lastLines = 250

// dump prints the trace. What is said again and again is printed once.
func (w *world) dump(to io.Writer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	from := len(w.trace) - lastLines
	if traced {
		from = 0
	}
	said := map[string]int{}
	for i, l := range w.trace {
		s := l.String()[timeWidth:]
		if l.from == "life" {
			clear(said)
		}
		if said[s]++; said[s] <= 2 && (i >= from || l.from == "life") {
			fmt.Fprintln(to, l)
		}
	}
}
