package ship_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/repltest"
	"datawatch/internal/repl/ship"
)

// cluster is a primary "A" and standbys "B", "C" ... on a network in memory.
type cluster struct {
	t       *testing.T
	net     *repltest.Net
	entries []mal.Entry
	names   []string
	engines map[string]*repltest.Engine
	up      map[string]*repltest.Instance
	typ     base.ArchType
	wait    bool
	bufNum  int
}

func newCluster(t *testing.T, standbys int, typ base.ArchType) *cluster {
	c := &cluster{t: t, net: repltest.NewNet(), engines: map[string]*repltest.Engine{}, up: map[string]*repltest.Instance{}, typ: typ}
	for i := range standbys + 1 {
		name := string(rune('A' + i))
		c.names = append(c.names, name)
		c.entries = append(c.entries, mal.Entry{Inst: name, Host: name, Port: 5000})
		mode := base.ModeStandby
		if i == 0 {
			mode = base.ModePrimary
		}
		c.engines[name] = repltest.NewEngine(name, mode)
	}
	t.Cleanup(func() {
		for _, n := range c.names {
			c.stop(n)
		}
	})
	return c
}

func (c *cluster) start(name string) *repltest.Instance {
	c.t.Helper()
	var targets []ship.Target
	for _, n := range c.names {
		if n != name {
			targets = append(targets, ship.Target{Inst: n, Type: c.typ, WaitApply: c.wait})
		}
	}
	i, err := repltest.Start(c.engines[name], repltest.Options{Targets: targets, Entries: c.entries, OGUID: 453331,
		CheckInterval: 5 * time.Second, BufNum: c.bufNum, Dial: c.net.DialFrom(name), Listen: c.net.Listen})
	if err != nil {
		c.t.Fatal(err)
	}
	c.up[name] = i
	return i
}

func (c *cluster) stop(name string) {
	if i := c.up[name]; i != nil {
		i.Stop()
		delete(c.up, name)
		e := c.engines[name]
		e.Set(e.Mode(), base.StatusMount)
	}
}

// all starts everything and opens standbys and primary.
func (c *cluster) all() *repltest.Instance {
	c.t.Helper()
	for _, n := range c.names {
		c.start(n)
	}
	time.Sleep(3 * time.Second)
	for _, n := range c.names[1:] {
		c.engines[n].Set(base.ModeStandby, base.StatusOpen)
	}
	a := c.up["A"]
	if err := a.Open(context.Background(), a.Ship); err != nil {
		c.t.Fatal(err)
	}
	return a
}

func (c *cluster) commit(a *repltest.Instance) {
	c.t.Helper()
	if _, err := a.Commit(context.Background(), a.Ship, 100); err != nil {
		c.t.Fatal(err)
	}
}

// has checks that a standby has received everything the primary hardened.
func (c *cluster) has(name string, a *repltest.Instance) {
	c.t.Helper()
	if i := c.up[name].Recv.Info(); i.Keep != a.LogEnd() {
		c.t.Fatalf("%s has %v, primary %v", name, i.Keep, a.LogEnd())
	}
}

func state(a *repltest.Instance, inst string) (s struct {
	State  base.ArchState
	Failed bool
	Err    string
}) {
	for _, st := range a.Ship.States() {
		if st.Inst == inst {
			s.State, s.Failed, s.Err = st.State, st.SendFailed, st.LastError
		}
	}
	return s
}

func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func code(err error) base.Code { return base.CodeOf(err, 0) }

// failover is what the watcher does about a failed standby.
func (c *cluster) failover(a *repltest.Instance, insts ...string) {
	c.t.Helper()
	for _, n := range insts {
		if err := a.Ship.SetState(context.Background(), n, base.ArchInvalid); err != nil {
			c.t.Fatal(err)
		}
	}
	if err := a.Open(context.Background(), a.Ship); err != nil {
		c.t.Fatal(err)
	}
}

// recover is the watcher's Recovery (manual 3.1.9).
func (c *cluster) recover(a *repltest.Instance, insts ...string) error {
	ctx := context.Background()
	for _, n := range insts {
		c.up[n].Recv.DropKeep()
		if err := a.Ship.CatchUp(ctx, n); err != nil {
			return err
		}
	}
	a.Suspend("recovery")
	for _, n := range insts {
		if err := a.Ship.CatchUp(ctx, n); err != nil {
			return err
		}
		if err := a.Ship.SetState(ctx, n, base.ArchValid); err != nil {
			return err
		}
	}
	return a.Open(ctx, a.Ship)
}

var _ = fmt.Sprint
