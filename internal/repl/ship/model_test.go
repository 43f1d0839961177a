package ship_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/repltest"
	"datawatch/internal/storage/redo"
)

// model runs one primary and its standbys through random faults, with the
// watcher's part played in the open, and checks after every step:
//
//	G1  a commit that was acknowledged is in keep or log of every standby whose
//	    archive is Valid and that has not restarted meanwhile
//	G5  no log ever holds a package that does not continue the one before
//	    (repltest.Engine refuses that) and every log is a prefix of the primary's
//	G7  which includes that no standby has logged what the primary lacks
//	    and a standby that claims to be Valid has every acknowledged commit
type model struct {
	*cluster
	a     *repltest.Instance
	r     *rand.Rand
	acked *redo.Package
	gates map[string]chan struct{}
	steps []string
}

func (m *model) fail(format string, a ...any) {
	m.t.Helper()
	m.t.Fatalf("%s\nafter %v", fmt.Sprintf(format, a...), m.steps)
}

func (m *model) ungate(b string) {
	if g := m.gates[b]; g != nil {
		m.engines[b].SetGate(nil)
		close(g)
		delete(m.gates, b)
	}
}

func (m *model) check() {
	m.t.Helper()
	synctest.Wait()
	log := m.a.Log()
	for _, b := range m.names[1:] {
		for i, p := range m.engines[b].Logged() {
			if i >= len(log) || !p.SameRedo(log[i]) {
				m.fail("%s has logged package %d, which its primary does not have so", b, p.GSEQ)
			}
		}
		inst := m.up[b]
		if inst == nil || m.acked == nil {
			continue
		}
		i := inst.Recv.Info()
		n := len(m.engines[b].Log()) + i.NTask
		if i.HasKeep {
			n++
		}
		if n != int(i.Keep.Seq) || i.Failed != nil {
			m.fail("%s says %v but has %d packages (%v)", b, i.Keep, n, i.Failed)
		}
		if i.Claim.Valid && state(m.a, b).State == base.ArchValid && i.Keep.Seq < m.acked.GSEQ {
			m.fail("%s claims to be Valid at %v, package %d was acknowledged", b, i.Keep, m.acked.GSEQ)
		}
	}
	if m.acked != nil && (len(log) < int(m.acked.GSEQ) || !log[m.acked.GSEQ-1].SameRedo(m.acked)) {
		m.fail("primary lost package %d", m.acked.GSEQ)
	}
}

func (m *model) commit() {
	if m.a.Status() != base.StatusOpen {
		return
	}
	for _, b := range m.names[1:] {
		if m.gates[b] != nil && m.r.IntN(3) == 0 {
			m.ungate(b)
		}
	}
	before := map[string]*repltest.Instance{}
	for _, b := range m.names[1:] {
		before[b] = m.up[b]
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // a gate nobody opens
	defer cancel()
	p, err := m.a.Commit(ctx, m.a.Ship, 10+m.r.IntN(5000))
	if err != nil {
		return
	}
	m.acked = p
	for b, inst := range before {
		if inst == m.up[b] && inst != nil && state(m.a, b).State == base.ArchValid && inst.Recv.Info().Keep.Seq < p.GSEQ {
			m.fail("package %d acknowledged without %s, which is Valid at %v", p.GSEQ, b, inst.Recv.Info().Keep)
		}
	}
}

// watch does what the primary's watcher would.
func (m *model) watch() {
	ctx := context.Background()
	if m.a.Status() == base.StatusSuspend {
		for _, s := range m.a.Ship.States() {
			if s.SendFailed {
				if err := m.a.Ship.SetState(ctx, s.Inst, base.ArchInvalid); err != nil {
					m.fail("failover of %s: %v", s.Inst, err)
				}
			}
		}
		octx, cancel := context.WithTimeout(ctx, time.Minute)
		m.a.Open(octx, m.a.Ship)
		cancel()
	}
	for _, b := range m.names[1:] {
		inst := m.up[b]
		if inst == nil {
			continue
		}
		if inst.Status() != base.StatusOpen {
			inst.Set(base.ModeStandby, base.StatusOpen)
		}
		if m.a.Status() == base.StatusOpen && state(m.a, b).State == base.ArchInvalid && m.r.IntN(2) == 0 {
			m.ungate(b)
			rctx, cancel := context.WithTimeout(ctx, time.Minute)
			inst.Recv.DropKeep()
			err := m.a.Ship.CatchUp(rctx, b)
			if err == nil {
				m.a.Suspend("recovery")
				if err = m.a.Ship.CatchUp(rctx, b); err == nil {
					err = m.a.Ship.SetState(rctx, b, base.ArchValid)
				}
				m.a.Open(rctx, m.a.Ship)
			}
			m.steps = append(m.steps, fmt.Sprintf("recover %s: %v", b, err))
			cancel()
		}
	}
}

// restart is a crash of the primary and its start flow.
func (m *model) restart() {
	m.stop("A")
	m.a = m.start("A")
	time.Sleep(5 * time.Second)
	for _, b := range m.names[1:] {
		ok := m.up[b] != nil
		if ok {
			m.up[b].Recv.DropKeep()
			m.engines[b].Set(base.ModeStandby, base.StatusOpen)
			ok = m.up[b].Recv.Info().Keep == m.a.LogEnd()
		}
		if !ok {
			m.a.Ship.SetState(context.Background(), b, base.ArchInvalid)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m.a.Open(ctx, m.a.Ship)
}

func (m *model) step() {
	b := m.names[1+m.r.IntN(len(m.names)-1)]
	switch k := m.r.IntN(12); k {
	case 0:
		m.steps = append(m.steps, "reset "+b)
		m.net.Reset("A", b)
	case 1:
		m.steps = append(m.steps, "cut "+b)
		m.net.Cut("A", b)
	case 2:
		m.steps = append(m.steps, "mute "+b)
		m.net.Mute("A", b)
	case 3, 4:
		m.steps = append(m.steps, "heal "+b)
		m.net.Heal("A", b)
	case 5:
		m.steps = append(m.steps, "restart "+b)
		m.ungate(b)
		m.stop(b)
		m.start(b)
	case 6:
		m.steps = append(m.steps, "slow "+b)
		if m.gates[b] == nil && m.up[b] != nil {
			m.gates[b] = make(chan struct{})
			m.engines[b].SetGate(m.gates[b])
		}
	case 7:
		m.steps = append(m.steps, "lost while waiting "+b)
		d := time.Duration(m.r.IntN(3000)) * time.Microsecond
		go func() { time.Sleep(d); m.net.Reset("A", b) }()
	case 8:
		if m.r.IntN(4) == 0 {
			m.steps = append(m.steps, "restart A")
			m.restart()
		}
	case 9:
		m.steps = append(m.steps, "watch")
		m.watch()
	default:
		m.steps = append(m.steps, "pause")
		time.Sleep(time.Duration(m.r.IntN(4000)) * time.Millisecond)
	}
	for range m.r.IntN(4) {
		m.commit()
		m.check()
	}
	m.check()
}

func TestModel(t *testing.T) {
	for seed := range uint64(50) {
		bubble(t, fmt.Sprint(seed), func(t *testing.T) {
			m := &model{r: rand.New(rand.NewPCG(seed, 1)), gates: map[string]chan struct{}{}}
			typ := base.ArchRealtime
			if seed%2 == 1 {
				typ = base.ArchTimely
			}
			m.cluster = newCluster(t, 1+int(seed%3), typ)
			m.bufNum, m.wait = 2, seed%8 >= 4
			t.Cleanup(func() {
				for _, b := range m.names {
					m.ungate(b)
				}
			})
			if seed >= 25 { // replay takes its time, while more is logged
				for _, b := range m.names[1:] {
					r := rand.New(rand.NewPCG(seed, uint64(b[0])))
					m.engines[b].SetLag(func() time.Duration { return time.Duration(r.IntN(30)*r.IntN(30)*r.IntN(3)) * time.Millisecond })
				}
			}
			m.a = m.all()
			for range 60 {
				m.step()
			}
			// Once the faults stop, everything comes together again.
			for _, b := range m.names[1:] {
				m.ungate(b)
				m.net.Heal("A", b)
			}
			for range 40 {
				time.Sleep(10 * time.Second)
				m.watch()
				m.commit()
				m.check()
			}
			time.Sleep(5 * time.Second)
			for _, b := range m.names[1:] {
				if s := state(m.a, b); s.State != base.ArchValid || m.engines[b].LogEnd() != m.a.LogEnd() {
					m.fail("%s does not come back: %+v, %v of %v, primary %v %v", b, s, m.engines[b].LogEnd(), m.a.LogEnd(), m.a.Status(), m.a.Reasons())
				}
			}
		})
	}
}
