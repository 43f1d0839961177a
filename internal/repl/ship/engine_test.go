package ship_test

import (
	"context"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/repltest"
	"datawatch/internal/repl/ship"
	"datawatch/internal/repl/standby"
	"datawatch/internal/storage/engine"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/vfs"
)

// real adapts the engine: positions are hardened ones, with which the lineage
// moves.
type real struct{ *engine.Engine }

func (r real) LogEnd() base.Position   { return r.Positions().Replay }
func (r real) Replayed() base.Position { return r.Positions().Replay }
func (r real) Archive() ship.Archive   { return r.Engine.Archive() }

type realHandler struct {
	s *ship.Shipper
	r *standby.Receiver
}

func (h *realHandler) Serve(q *mal.Request)             { h.r.Serve(q) }
func (h *realHandler) LinkUp(i string, id mal.Identity) { h.s.LinkUp(i, id) }
func (h *realHandler) LinkDown(i string, err error)     { h.s.LinkDown(i, err) }
func (h *realHandler) PeerIdentity(i string, id mal.Identity) {
	h.r.PeerIdentity(i, id)
	h.s.PeerIdentity(i, id)
}

// TestRealEngines runs commits, a failover and a recovery with the engine
// itself on both sides.
func TestRealEngines(t *testing.T) {
	ctx := t.Context()
	network := repltest.NewNet()
	entries := []mal.Entry{{Inst: "A", Host: "A", Port: 1}, {Inst: "B", Host: "B", Port: 1}}
	var engines []*engine.Engine
	var handlers []*realHandler
	for i, e := range entries {
		fs := vfs.NewMem()
		logs := []string{"/db/1.log", "/db/2.log"}
		mode := []base.Mode{base.ModePrimary, base.ModeStandby}[i]
		if err := engine.Create(engine.CreateConfig{FS: fs, Dir: "/db", CtlPath: "/db/dm.ctl", LogPaths: logs, LogSize: 1 << 20,
			DBName: "T", PageSize: 4096, Mode: mode, OGUID: 7, PmntMagic: repltest.Magic}); err != nil {
			t.Fatal(err)
		}
		eng, err := engine.Open(ctx, engine.Config{FS: fs, Dir: "/db", CtlPath: "/db/dm.ctl", LogPaths: logs, InstName: e.Inst,
			Arch: &engine.ArchConfig{Dir: "/arch", Name: "A", FileSize: 1 << 20}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(eng.Abort)
		h := &realHandler{r: standby.New(standby.Config{Engine: real{eng}, PmntMagic: repltest.Magic, Log: repltest.Quiet})}
		node, err := mal.New(mal.Config{Self: e.Inst, Entries: entries, CheckInterval: time.Second, Dial: network.DialFrom(e.Inst),
			Listen: network.Listen, Log: repltest.Quiet, Identity: func() mal.Identity {
				return mal.Identity{PmntMagic: repltest.Magic, OGUID: 7, Mode: eng.Mode(), Status: eng.Status(), Lineage: eng.Lineage()}
			}}, h)
		if err != nil {
			t.Fatal(err)
		}
		h.s = ship.New(ship.Config{Targets: []ship.Target{{Inst: entries[1-i].Inst, Type: base.ArchRealtime}}, Engine: real{eng}, Transport: node, Log: repltest.Quiet})
		eng.SetShipper(h.s)
		eng.OnChange(func() { node.IdentityChanged(); h.s.EngineChanged() })
		if err := node.Start(ctx); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { node.Close(); h.s.Close(); h.r.Close() })
		engines, handlers = append(engines, eng), append(handlers, h)
	}
	until := func(what string, cond func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s does not happen: A %v %v, B %v %+v, %+v", what, engines[0].Status(), engines[0].Positions(), engines[1].Status(),
					handlers[1].r.Info(), handlers[0].s.States())
			}
		}
	}
	a, b := engines[0], engines[1]
	if err := b.OpenDatabase(ctx); err != nil {
		t.Fatal(err)
	}
	until("link", func() bool { _, err := handlers[0].tell(ctx); return err == nil })
	if err := a.OpenDatabase(ctx); err != nil {
		t.Fatal(err)
	}
	h := a.Store().NewHandle(false)
	n := byte(0)
	publish := func() base.LSN {
		t.Helper()
		s := a.Store()
		n++
		page := make([]byte, 4096)
		for i := range page[:4000] {
			page[i] = n
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(s.LockWrite(ctx, h))
		defer s.UnlockWrite(h)
		defer h.Unlock(pagestore.LockNone)
		must(h.Lock(pagestore.LockShared))
		must(h.Lock(pagestore.LockExclusive))
		_, err := h.WriteAt(page, 4096)
		must(err)
		must(h.Sync())
		h.CommitPhaseTwo()
		must(h.Unlock(pagestore.LockShared))
		return h.LastCommit()
	}
	commit := func() {
		t.Helper()
		if err := a.WaitHardened(ctx, publish()); err != nil {
			t.Fatal(err)
		}
	}
	equal := func() bool { return b.Positions().Replay == a.Positions().Replay && a.Positions().Replay.Seq > 1 }
	for range 50 {
		commit()
	}
	until("standby equal", equal)
	network.Cut("A", "B")
	last := publish()
	until("suspend", func() bool { return a.Status() == base.StatusSuspend })
	if a.Hardened() >= last {
		t.Fatal("hardened without the standby (G1)")
	}
	if err := handlers[0].s.SetState(ctx, "B", base.ArchInvalid); err != nil {
		t.Fatal(err)
	}
	if err := a.OpenDatabase(ctx); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		commit()
	}
	network.Heal("A", "B")
	until("catch-up", func() bool { handlers[1].r.DropKeep(); return handlers[0].s.CatchUp(ctx, "B") == nil })
	a.Suspend("recovery")
	if err := a.Quiesce(ctx); err != nil {
		t.Fatal(err)
	}
	if err := handlers[0].s.CatchUp(ctx, "B"); err != nil {
		t.Fatal(err)
	}
	if err := handlers[0].s.SetState(ctx, "B", base.ArchValid); err != nil {
		t.Fatal(err)
	}
	if err := a.OpenDatabase(ctx); err != nil {
		t.Fatal(err)
	}
	commit()
	until("standby equal again", equal)
	if got, want := b.Lineage().Last(), a.Lineage().Last(); got.TGUID != want.TGUID || want.ID == 0 {
		t.Fatalf("lineage %+v, want %+v", got, want)
	}
}

// tell asks the standby for its state, which shows that the link is up.
func (h *realHandler) tell(ctx context.Context) (base.ArchState, error) {
	for _, l := range h.s.States() {
		return l.State, h.s.Probe(ctx, l.Inst)
	}
	return 0, nil
}
