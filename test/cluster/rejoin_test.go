package cluster

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
	"datawatch/internal/storage/engine"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/wire"
)

// TestRejoin: the old primary, alone, acknowledges more; the other database takes
// over by force without that. Off, the old primary is Split as the manual says,
// and rejoins by command. On, it rejoins by itself, also when it was only cut off
// and goes on beside its successor, and when the power fails again and again
// meanwhile. Then both are the same, page for page, and it can take over.
func TestRejoin(t *testing.T) {
	for seed := range uint64(3) {
		for _, how := range []string{"command", "isolated", "power"} {
			t.Run(fmt.Sprint(how, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { rejoin(t, how, seed) })
			})
		}
	}
}

func rejoin(t *testing.T, how string, seed uint64) {
	cfg := settings{dbs: 2, restart: true, reconnect: true, force: true, errorTime: 5, instErrorTime: 5, recoverTime: 3, malCheck: 1, malFail: 3, ckpt: 2}
	w := newWorld(seed, cfg)
	defer w.stop()
	defer func() {
		if f := w.chain.failed(); len(f) > 0 || t.Failed() {
			t.Error(f)
			w.tail(t)
		}
	}()
	if err := w.start(); err != nil {
		t.Fatal(err)
	}
	must := func(ok bool, what string) {
		t.Helper()
		if !ok {
			w.chain.fault("%s\n%s", what, w.explain())
			t.FailNow()
		}
	}
	a, b := w.hosts[0], w.hosts[1]
	rnd := rand.New(rand.NewPCG(seed, 77))
	must(w.settle(time.Minute), "not whole at the beginning")
	w.commits(a, 20+rnd.IntN(30))
	must(w.settle(time.Minute), "not whole")

	// B is away; A goes on alone.
	b.cut()
	must(w.await(time.Minute, func() bool { w.commits(a, 1); return w.alone(a) }), "A does not go on alone")
	w.commits(a, 10+rnd.IntN(60))
	old := a.engine().Positions().File
	if how == "isolated" {
		for _, h := range []string{a.addr, b.addr} {
			for _, o := range []string{a.addr, b.addr} {
				if h != o {
					w.net.set(h, o, true, 0)
				}
			}
		}
	} else {
		a.cut()
	}
	b.boot()
	must(w.await(time.Minute, func() bool { e := b.engine(); return e != nil && e.Status() == base.StatusMount }), "B does not start")
	time.Sleep(3 * time.Second) // its watcher connects
	w.takeover(t, b)
	w.chain.goesOn(w.hash(t, b))
	w.commits(b, 20+rnd.IntN(60))
	if how != "command" {
		w.command(t, b, proto.WatcherCommand{Cmd: proto.DWCmdSetPara, Name: "DW_REJOIN", Value: "1"})
	}

	switch how {
	case "command":
		a.boot()
		must(w.await(time.Minute, func() bool {
			_, err := a.etc.Stat("/db/dmwatcher.ctl")
			return err == nil && a.engine() == nil
		}), "A is not marked Split and shut down")
		time.Sleep(10 * time.Second)
		must(a.engine() == nil, "a split database was started")
		_, why := a.state()
		must(strings.Contains(why, "rejoin database"), "the watcher does not offer a rejoin")
		w.command(t, a, proto.WatcherCommand{Cmd: proto.DWCmdRejoin})
	case "isolated":
		w.command(t, a, proto.WatcherCommand{Cmd: proto.DWCmdSetPara, Name: "DW_REJOIN", Value: "1"})
		w.net.heal()
	case "power":
		// What the operator writes into the file of a watcher that does not run.
		w.allow(t, a)
		for range 4 {
			a.boot()
			time.Sleep(time.Duration(rnd.IntN(4000)) * time.Millisecond)
			a.cut()
			w.commits(b, rnd.IntN(10))
		}
		a.boot()
	}
	must(w.settle(2*time.Minute), "not whole after the rejoin")
	e := a.engine()
	must(e.Mode() == base.ModeStandby && e.Rejoining() == nil, "A is not whole")
	must(!e.Positions().File.Less(b.engine().Positions().File) || old.Seq > 0, "A has not caught up")
	w.commits(b, 5)
	must(w.await(time.Minute, func() bool { return e.Positions().Replay == b.engine().Positions().Replay }), "A does not follow")
	must(samePages(e, b.engine()) == "", "pages: "+samePages(e, b.engine()))
	_, err := a.etc.Stat("/db/dmwatcher.ctl")
	must(err != nil, "it is still marked Split")
	names, err := a.disk.ReadDir("/db/surplus")
	must(err == nil && len(names) > 0, "redo was given up and is in no file")
	c := newClient(w, 60)
	c.look(a.current(), e) // what it shows is a state of the history that goes on

	// The group goes on through a takeover by what rejoined.
	b.cut()
	time.Sleep(10 * time.Second)
	w.takeover(t, a)
	w.commits(a, 5)
	b.boot()
	must(w.settle(time.Minute), "not whole after a takeover by the database that rejoined")
}

// commits makes n transactions at a database.
func (w *world) commits(h *host, n int) {
	c := newClient(w, 900)
	c.rng = rand.New(rand.NewPCG(w.seed, uint64(w.chain.acks)))
	for range n {
		if i := h.current(); i != nil && i.engine() != nil {
			c.commit(i, i.engine())
		}
	}
}

func (w *world) await(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return false
}

// alone: the primary is Open and its archive Invalid.
func (w *world) alone(h *host) bool {
	e := h.engine()
	if e == nil || e.Status() != base.StatusOpen {
		return false
	}
	for _, a := range h.current().srv.Load().Views().ArchStatus() {
		if a.Type == base.ArchRealtime && a.Status == base.ArchValid {
			return false
		}
	}
	return true
}

// takeover makes a standby the primary by force, as a monitor does (manual 6.7).
func (w *world) takeover(t *testing.T, h *host) {
	t.Helper()
	id := fmt.Sprint("t", time.Now().UnixNano())
	step := func(o proto.InstanceCommand) proto.WatcherCommand {
		return proto.WatcherCommand{Cmd: proto.DWCmdStep, ID: id, Order: &o}
	}
	for _, c := range []proto.WatcherCommand{{Cmd: proto.DWCmdBegin, ID: id, Kind: proto.KindTakeover, Force: true},
		step(proto.InstanceCommand{Cmd: proto.CmdMount}), step(proto.InstanceCommand{Cmd: proto.CmdSetMode, Mode: base.ModePrimary}),
		step(proto.InstanceCommand{Cmd: proto.CmdSetArch, State: base.ArchInvalid}), step(proto.InstanceCommand{Cmd: proto.CmdOpen}),
		{Cmd: proto.DWCmdEnd, ID: id}} {
		w.command(t, h, c)
	}
}

// command gives a watcher a command, as a monitor does.
func (w *world) command(t *testing.T, h *host, c proto.WatcherCommand) {
	t.Helper()
	n := w.net.node("10.0.1.9", "hand")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	nc, err := n.dialTo(ctx, fmt.Sprintf("%s:%d", h.addr, dwPort))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c.Mon = "hand"
	if c.Cmd == proto.DWCmdBegin {
		// Its era is that of a report, see below.
		c.Era = 0
	}
	r, wr := wire.NewReader(bufio.NewReader(nc), wire.MaxControl), wire.NewWriter(nc)
	send := func(typ uint16, id uint64, v any) {
		b, err := json.Marshal(v)
		if err == nil {
			err = wr.Write(typ, id, b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	send(proto.TypeHello, 0, proto.Hello{Role: proto.RoleMonitor, GuardVersion: proto.GuardVersion, Name: "10.0.1.9", OGUID: oguid, Group: groupNm, MonID: "hand"})
	sent := false
	for {
		f, err := r.Read()
		if err != nil {
			t.Fatalf("%s %s: %v", h.name, c.Cmd, err)
		}
		switch f.Type {
		case proto.TypeDWStatus:
			var st proto.WatcherStatus
			if err := json.Unmarshal(f.Payload, &st); err != nil {
				t.Fatal(err)
			}
			if !sent {
				sent = true
				if c.Cmd == proto.DWCmdBegin {
					c.Era = st.Era
				}
				send(proto.TypeDWCmd, 7, c)
			}
		case proto.TypeDWReply:
			var rep proto.WatcherReply
			if err := json.Unmarshal(f.Payload, &rep); err != nil {
				t.Fatal(err)
			}
			if f.ID == 7 {
				if rep.Code != 0 {
					w.tail(t)
					t.Fatalf("%s %s: %d %s", h.name, c.Cmd, rep.Code, rep.Msg)
				}
				return
			}
		}
	}
}

// allow writes DW_REJOIN = 1 into the watcher's file.
func (w *world) allow(t *testing.T, h *host) {
	t.Helper()
	f, err := h.disk.Open("/db/dmwatcher.ini")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := f.Size()
	if err == nil {
		_, err = f.WriteAt([]byte("DW_REJOIN = 1\n"), n)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// hash of the state that a database is in.
func (w *world) hash(t *testing.T, x *host) uint64 {
	t.Helper()
	h := x.engine().Store().NewHandle(true)
	defer h.Close()
	if err := h.Lock(pagestore.LockShared); err != nil {
		t.Fatal(err)
	}
	defer h.Unlock(pagestore.LockNone)
	b, err := page(h, pageA)
	if err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.Uint64(b[8:])
}

// goesOn makes the state with a hash the last that may not be lost: a takeover by
// force has given up what followed.
func (c *chain) goesOn(hash uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.all[hash]
	if x == nil {
		c.bad("no transaction left the state %x", hash)
		return
	}
	c.settled = c.settled[:x.depth+1]
	if c.settled[x.depth] != x {
		c.bad("the database that took over is in the state of %s, which is not of the history", x)
	}
}

// samePages compares two databases at one LSN; "": they are the same.
func samePages(a, b *engine.Engine) string {
	x, y := a.Store().Snapshot(), b.Store().Snapshot()
	defer x.Close()
	defer y.Close()
	if x.LSN() != y.LSN() || x.Pages() != y.Pages() {
		return fmt.Sprintf("LSN %d, %d pages against LSN %d, %d pages", x.LSN(), x.Pages(), y.LSN(), y.Pages())
	}
	p, q := make([]byte, pageSize), make([]byte, pageSize)
	for n := uint32(1); n <= x.Pages(); n++ {
		if err := x.ReadPage(n, p); err != nil {
			return err.Error()
		}
		if err := y.ReadPage(n, q); err != nil {
			return err.Error()
		}
		if string(p[:pageSize-16]) != string(q[:pageSize-16]) {
			return fmt.Sprintf("page %d differs", n)
		}
	}
	return ""
}

// tail prints the end of the trace.
func (w *world) tail(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.trace[max(0, len(w.trace)-300):] {
		t.Log(l)
	}
}
