package fsm_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/cond"
	"datawatch/internal/ha/confirm"
	"datawatch/internal/ha/fsm"
	"datawatch/internal/ha/proto"
	"datawatch/internal/ha/walktest"
)

// A seed is one life of a group in virtual time: its configuration, faults of
// everything, and commands of an operator in between. Everything follows from the
// seed, so a seed that failed fails again:
//
//	DW_SIM_SEED=4711 go test ./internal/ha/fsm -run TestSeeds -v
//
// DW_SIM_SEEDS says how many are run; DW_SIM_FILE is a file that remembers where
// to go on (make sim, make chaos).
const seedsInTest = 300 // make test: ten thousand

func TestSeeds(t *testing.T) {
	if s := os.Getenv("DW_SIM_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("DW_SIM_SEED: %v", err)
		}
		traceLines = math.MaxInt // all of it
		life(t, seed)
		return
	}
	count := uint64(seedsInTest)
	if s := os.Getenv("DW_SIM_SEEDS"); s != "" {
		var err error
		if count, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("DW_SIM_SEEDS: %v", err)
		}
	}
	file := os.Getenv("DW_SIM_FILE")
	progress, err := walktest.Begin(file)
	if err != nil {
		t.Fatal(err)
	}
	first := progress.Next()
	defer debug.SetGCPercent(debug.SetGCPercent(1600)) // a life is small and makes much garbage
	var next atomic.Uint64
	next.Store(first)
	var wg sync.WaitGroup
	var did [numDeeds]atomic.Int64
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !t.Failed() {
				seed := next.Add(1) - 1
				if seed >= first+count {
					return
				}
				var w *world
				if why := caught(func(r tester) { w = life(r, seed) }); why != "" {
					t.Errorf("seed %d: %s\nagain: DW_SIM_SEED=%d go test ./internal/ha/fsm -run TestSeeds -v", seed, why, seed)
					return
				}
				for i, n := range w.did {
					did[i].Add(int64(n))
				}
				if err := progress.Done(seed); err != nil {
					t.Error(err)
				}
				if done := seed - first + 1; done%5000 == 0 {
					fmt.Printf("%d seeds done\n", first+done-1)
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	var b strings.Builder
	for i := range did {
		fmt.Fprintf(&b, " %s %d,", deedNames[i], did[i].Load())
		if did[i].Load() == 0 && (count >= 500 || count >= seedsInTest && (i == int(didTakeover) || i == int(didFailover))) {
			t.Errorf("in no life of %d: %s", count, deedNames[i])
		}
	}
	t.Logf("seeds %d to %d:%s", first, first+count-1, strings.TrimSuffix(b.String(), ","))
	if file != "" {
		if err := progress.End(); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%d seeds done in all, the last %d now, no violation\n", first+count-1, count)
	}
}

// TestFailedSeeds: seeds that have found something once.
func TestFailedSeeds(t *testing.T) {
	for seed, what := range map[uint64]string{
		2807:     "a suspended primary asked a split one, in Primary mode still, to renounce, again and again, and never went on without it",
		2928:     "a late acknowledgement and a new one by the same database",
		2994:     "a watcher stopped in a takeover that came to nothing did not let its standby be recovered any more",
		3237:     "a split is one although the primary of the newest reign is down when it is noticed",
		3265:     "MANUAL mode: a takeover by command over a primary that went on alone",
		12887:    "timely archives: a primary whose standby was late when it opened asked that one to renounce, which knew of that opening and never did",
		14685:    "a standby whose instance hung in a takeover and came back, the same one, was never recovered",
		23243:    "a switchover was cut off between the changes of mode, and nobody led because a fourth database was split",
		40001003: "timely archives: a standby is beyond the fork, and the database that took over has to open again",
		8602:     "the same, and both databases wait in Mount for a person to choose",
	} {
		t.Run(what, func(t *testing.T) { life(t, seed) })
	}
}

// deeds are what shows that lives are lived.
type deed uint8

const (
	didTakeover deed = iota // by the confirm monitor
	didSwitch
	didCommandTakeover
	didFailover
	didAck
	didStop
	didArchInvalid
	didPause
	didLate
	didSplit
	didByHand
	didOneWay
	didMonStop
	didJump
	didDisk
	didRemedy
	didOrder
	didEnded
	didLag
	numDeeds
)

var deedNames = [numDeeds]string{"takeovers", "switchovers", "takeovers by command", "failovers", "lives with commits", "stopped watchers", "archives made Invalid by command",
	"paused hosts", "commits acknowledged after a pause", "splits", "databases opened by hand",
	"one-way cuts", "stopped monitors", "clock jumps", "slow or failing disks", "remedies", "other commands",
	"waits ended by news of a process", "sends with late answers"}

// life runs one seed.
func life(t tester, seed uint64) *world {
	rng := rand.New(rand.NewPCG(seed, 0x5eed))
	cfg := auto()
	cfg.Reconnect, cfg.FailoverForce = rng.IntN(2) == 0, rng.IntN(2) == 0
	cfg.ServiceCheck = rng.IntN(4) == 0
	cfg.AutoRestart = rng.IntN(8) != 0
	cfg.Auto = rng.IntN(8) != 0
	if rng.IntN(4) == 0 {
		cfg.SendThreshold, cfg.ApplyThresh = 1, 1
	}
	databases := 2 + rng.IntN(3)
	if rng.IntN(16) == 0 {
		databases, cfg.Global = 1, false
	}
	w := newWorld(t, seed, databases, cfg)
	w.timely, w.slowEnds = seed%2 == 1, true
	w.every, w.beat = 200+100*int64(rng.IntN(5)), 100*int64(1+rng.IntN(3))
	w.noMon = rng.IntN(8) == 0
	w.old = seed/8%8 == 5
	lags := rand.New(rand.NewPCG(seed, 0x1a7e)) // of its own: the other faults of a seed stay what they were
	if rng.IntN(6) == 0 {
		w.addViewer()
	}
	w.startAll()
	w.settle(2 * time.Minute)
	for range 1 + rng.IntN(24) {
		switch rng.IntN(9) {
		case 0, 1:
			w.operator(rng)
		case 2, 3:
			w.rarer(rng)
		default:
			w.fault(rng.IntN(1024))
		}
		if seed/2%4 == 3 && lags.IntN(3) == 0 {
			w.lagOf(lags)
		}
		w.run(time.Duration(rng.IntN(16)) * 600 * time.Millisecond)
		w.fail()
	}
	w.log("REPAIR")
	w.repair()
	for _, n := range w.names {
		w.dbs[n].replay = 0
		for _, a := range w.dbs[n].arch {
			a.slow = 0
		}
		w.ev(n, fsm.Service{})
	}
	w.heal()
	w.durable()
	if len(w.acked) > 0 {
		w.did[didAck]++
	}
	if w.rec.Taken != nil && !w.rec.Taken.Manual {
		w.did[didTakeover]++
	}
	if len(w.rec.Dropped) > 0 {
		w.did[didFailover] = 1
	}
	return w
}

// remedies are what a watcher names when it needs a hand, and what the hand does.
var remedies = []struct {
	says string
	do   func(*world, string)
}{
	{"startup dmwatcher", func(w *world, n string) { w.ask(n, proto.WatcherCommand{Cmd: proto.DWCmdStartDW}) }},
	{"no confirm monitor is connected and DW_FAILOVER_FORCE is 0", func(w *world, _ string) {
		w.noMon = false
		w.startMonitor()
	}},
	{"start the instance by hand", func(w *world, n string) { w.dbs[n].start() }},
}

// heal lets the group become healthy: by itself, or each time it cannot, by what
// its watchers ask for.
func (w *world) heal() {
	w.t.Helper()
	for range 4 * len(w.names) {
		if w.becomes(40 * time.Second) {
			return
		}
		for _, n := range w.names {
			why := strings.Join(w.ws[n].st.Why, "; ")
			for _, r := range remedies {
				if strings.Contains(why, r.says) {
					w.log("REMEDY at %s: %s", n, r.says)
					r.do(w, n)
					w.did[didRemedy]++
				}
			}
		}
	}
	w.settle(5 * time.Minute)
}

// rarer faults.
func (w *world) rarer(rng *rand.Rand) {
	n := w.names[rng.IntN(len(w.names))]
	d := w.dbs[n]
	o := w.names[rng.IntN(len(w.names))]
	switch rng.IntN(14) {
	case 12, 13:
		w.pauseHost(n)
		w.run(time.Duration(rng.IntN(60)) * 200 * time.Millisecond)
		if rng.IntN(4) != 0 {
			w.thaw(n)
			w.goOn(n)
		}
	case 0:
		w.log("FAULT public network of %s", n)
		w.ev(n, fsm.Service{Why: "no card"})
	case 1:
		w.ev(n, fsm.Service{})
	case 2:
		w.log("FAULT %s is slow", n)
		d.replay = time.Duration(rng.IntN(3)) * time.Second
		for _, o := range w.names {
			if a := w.dbs[o].arch[n]; a != nil {
				a.slow = time.Duration(rng.IntN(3)) * time.Second
			}
		}
	case 3, 4:
		if n == o {
			break
		}
		w.log("FAULT nothing from %s reaches %s", n, o)
		w.did[didOneWay]++
		for i, k := 0, 1+rng.IntN(7); i < 3; i++ {
			if k>>i&1 == 1 {
				w.mute([]string{w.ws[n].me, d.ep, w.ws[n].me}[i], []string{w.ws[o].me, w.dbs[o].ep, "m:"}[i])
			}
		}
	case 5:
		w.log("FAULT nothing from the monitor reaches %s", n)
		w.did[didOneWay]++
		w.mute("m:", w.ws[n].me)
	case 6:
		if w.noMon {
			break
		}
		w.log("FAULT stop monitor")
		w.did[didMonStop]++
		w.monStop = true
		w.run(time.Duration(rng.IntN(12)) * time.Second)
		w.thawMonitor()
	case 7:
		w.log("FAULT clock of %s jumps", n)
		w.did[didJump]++
		w.ws[n].skew += time.Duration(rng.IntN(20)) * time.Second
	case 8:
		w.log("FAULT clock of the monitor jumps")
		w.did[didJump]++
		w.monSkew += time.Duration(rng.IntN(40)-20) * time.Second
	case 9:
		w.log("FAULT the disk of the monitor is slow")
		w.did[didDisk]++
		w.slow = rng.IntN(3) != 0
	default:
		w.log("FAULT stop watcher %s", n)
		w.did[didStop]++
		w.ws[n].frozen = true
		w.run(time.Duration(rng.IntN(12)) * time.Second)
		if rng.IntN(2) == 0 {
			w.thaw(n)
		}
	}
	w.links()
}

// orders are the operator's simple commands.
var orders = []proto.WatcherCommand{{Cmd: proto.DWCmdStopDW}, {Cmd: proto.DWCmdStopDW}, {Cmd: proto.DWCmdStartDW}, {Cmd: proto.DWCmdStopInst},
	{Cmd: proto.DWCmdStartInst}, {Cmd: proto.DWCmdKillInst}, {Cmd: proto.DWCmdSetPara, Name: "INST_RECOVER_TIME", Value: "3"},
	{Cmd: proto.DWCmdRecoverT, Value: "5"}, {Cmd: proto.DWCmdLogin}, {Cmd: proto.DWCmdBegin, Kind: proto.KindClearSend},
	{Cmd: proto.DWCmdBegin, Kind: proto.KindSwitchover}, {Cmd: proto.DWCmdNoop}}

// operator gives a command, and perhaps loses interest before its end.
func (w *world) operator(rng *rand.Rand) {
	if !w.monUp || w.monStop {
		return
	}
	n, prim := w.names[rng.IntN(len(w.names))], w.primary()
	w.monStep(confirm.Busy{On: true})
	var err error
	switch rng.IntN(5) {
	case 3, 4:
		c := orders[rng.IntN(len(orders))]
		c.ID = fmt.Sprint("op", w.reqs)
		w.log("COMMAND %s at %s", c.Cmd, n)
		w.did[didOrder]++
		w.ask(n, c)
	case 0:
		v := w.mon.View(w.now)
		if target, ok := v.Find(n); !ok || !cond.Switchover(v, target).OK() || prim == "" {
			break
		}
		until := switchSteps
		if rng.IntN(3) == 0 {
			until = rng.IntN(switchSteps)
		}
		w.log("COMMAND switchover to %s, %d steps", n, until)
		if err = w.switchover(prim, n, until); err == nil && until == switchSteps {
			w.did[didSwitch]++
		}
	case 1:
		w.log("COMMAND takeover by %s", n)
		if prim != "" && prim != n { // an operator is quicker than the monitor
			w.ws[prim].st.Cfg.AutoRestart = rng.IntN(3) == 0
			w.dbs[prim].crash()
			w.links()
			w.run(ms(150 + rng.IntN(2000)))
			defer func() { w.ws[prim].st.Cfg.AutoRestart = true }()
		}
		if err = w.reserved(n); err == nil {
			w.did[didCommandTakeover]++
		}
	case 2:
		if prim == "" || prim == n {
			break
		}
		w.log("COMMAND archive %s to %s Invalid", prim, n)
		if err = w.archInvalid(prim, n); err == nil {
			w.did[didArchInvalid]++
		}
	}
	w.log("COMMAND has ended: %v", err)
	w.monStep(confirm.Busy{})
}

// reserved is a takeover by command at the confirm monitor: written down first.
func (w *world) reserved(inst string) error {
	w.granted = nil
	w.monStep(confirm.Reserve{ID: w.reqs, Inst: inst})
	w.run(ms(100))
	if w.granted == nil || !w.granted.OK {
		return fmt.Errorf("not reserved: %+v", w.granted)
	}
	err := w.takeover(inst, false)
	w.monStep(confirm.GrantReply{Term: w.granted.Grant.Term, OK: err == nil, Msg: fmt.Sprint(err)})
	return err
}

func (w *world) archInvalid(prim, standby string) error {
	id := fmt.Sprint("ai", w.reqs)
	for _, c := range []proto.WatcherCommand{{Cmd: proto.DWCmdBegin, Kind: proto.KindChangeArch},
		{Cmd: proto.DWCmdStep, Order: &proto.InstanceCommand{Cmd: proto.CmdSetArch, Inst: standby, State: base.ArchInvalid}},
		{Cmd: proto.DWCmdEnd}} {
		c.ID = id
		if r, ok := w.ask(prim, c); !ok || r.Code != 0 {
			return fmt.Errorf("%s: %v %s", c.Cmd, ok, r.Msg)
		}
	}
	return nil
}
