package standby_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/repltest"
	"datawatch/internal/repl/standby"
	"datawatch/internal/storage/redo"
)

// chain builds packages of one primary: a new reign, then commits.
type chain struct {
	pos  base.Position
	id   uint64
	guid string
}

func (c *chain) open(guid string) *redo.Package {
	c.id, c.guid = c.id+1, guid
	p := repltest.Package(c.pos, c.id, 1, &base.OpenRecord{ID: c.id, TGUID: guid}, 0)
	c.pos = p.Pos()
	return p
}

func (c *chain) next() *redo.Package {
	p := repltest.Package(c.pos, c.id, 1, nil, 0)
	c.pos = p.Pos()
	return p
}

func (c *chain) head(k mal.Kind) mal.RedoHeader {
	return mal.RedoHeader{Kind: k, Claim: base.ArchValid, Count: 1, OpenID: c.id, OpenGUID: c.guid, Sender: "A-1"}
}

type result struct {
	ack mal.Ack
	err error
}

func offer(r *standby.Receiver, from string, h mal.RedoHeader, pkgs ...*redo.Package) chan result {
	ch := make(chan result, 1)
	r.Accept(from, h, pkgs, func(a mal.Ack, err error) { ch <- result{a, err} })
	return ch
}

func must(t *testing.T, ch chan result) mal.Ack {
	t.Helper()
	synctest.Wait()
	select {
	case r := <-ch:
		if r.err != nil {
			t.Fatal(r.err)
		}
		return r.ack
	default:
		t.Fatal("no answer")
	}
	return mal.Ack{}
}

func refused(t *testing.T, ch chan result, code base.Code) {
	t.Helper()
	synctest.Wait()
	select {
	case r := <-ch:
		if base.CodeOf(r.err, 0) != code {
			t.Fatalf("answer %v, want code %d", r.err, code)
		}
	default:
		t.Fatal("no answer")
	}
}

func pending(t *testing.T, ch chan result) {
	t.Helper()
	synctest.Wait()
	select {
	case r := <-ch:
		t.Fatalf("answered too early: %+v", r)
	default:
	}
}

func receiver(t *testing.T, change func(*standby.Config)) (*standby.Receiver, *repltest.Engine) {
	e := repltest.NewEngine("B", base.ModeStandby)
	e.Set(base.ModeStandby, base.StatusOpen)
	c := standby.Config{Engine: e, PmntMagic: repltest.Magic, Log: repltest.Quiet, ApplyDelay: -1}
	if change != nil {
		change(&c)
	}
	r := standby.New(c)
	t.Cleanup(r.Close)
	return r, e
}

func TestAcceptanceRules(t *testing.T) {
	// The standby has three packages logged (reign 1 "one") and one kept.
	type env struct {
		r *standby.Receiver
		e *repltest.Engine
		c chain
	}
	send := func(v *env, k mal.Kind, p *redo.Package) chan result { return offer(v.r, "A", v.c.head(k), p) }
	for _, c := range []struct {
		name string
		do   func(v *env) chan result
		code base.Code
	}{
		{"next one", func(v *env) chan result { return send(v, mal.KindRealtime, v.c.next()) }, 0},
		{"primary mode", func(v *env) chan result {
			v.e.Set(base.ModePrimary, base.StatusOpen)
			return send(v, mal.KindRealtime, v.c.next())
		}, standby.CodeMode},
		{"normal mode", func(v *env) chan result {
			v.e.Set(base.ModeNormal, base.StatusOpen)
			return send(v, mal.KindRealtime, v.c.next())
		}, standby.CodeMode},
		{"mounted", func(v *env) chan result {
			v.e.Set(base.ModeStandby, base.StatusMount)
			return send(v, mal.KindRealtime, v.c.next())
		}, standby.CodeState},
		{"suspended", func(v *env) chan result {
			v.e.Set(base.ModeStandby, base.StatusSuspend)
			return send(v, mal.KindRealtime, v.c.next())
		}, standby.CodeState},
		{"recovering", func(v *env) chan result {
			v.e.Set(base.ModeStandby, base.StatusAfterRedo)
			return send(v, mal.KindRealtime, v.c.next())
		}, standby.CodeState},
		{"other magic", func(v *env) chan result {
			p := *v.c.next()
			p.PmntMagic++
			return send(v, mal.KindRealtime, &p)
		}, standby.CodePmntMagic},
		{"gap in GSEQ", func(v *env) chan result {
			v.c.next()
			return send(v, mal.KindRealtime, v.c.next())
		}, standby.CodeNotNext},
		{"old GSEQ", func(v *env) chan result {
			v.c.pos = base.Position{Seq: 1, LSN: 1}
			return send(v, mal.KindRealtime, v.c.next())
		}, standby.CodeNotNext},
		{"gap in LSN", func(v *env) chan result {
			v.c.pos.LSN++
			return send(v, mal.KindRealtime, v.c.next())
		}, standby.CodeNotNext},
		{"older reign", func(v *env) chan result {
			v.c.id = 0
			h := v.c.head(mal.KindRealtime)
			return offer(v.r, "A", h, repltest.Package(v.c.pos, 0, 1, nil, 0))
		}, standby.CodeLineage},
		{"same number, other reign", func(v *env) chan result {
			v.c.guid = "fork"
			return send(v, mal.KindRealtime, v.c.next())
		}, standby.CodeLineage},
		{"newer reign without record", func(v *env) chan result {
			v.c.id, v.c.guid = 2, "two"
			return send(v, mal.KindRealtime, v.c.next())
		}, standby.CodeLineage},
		{"reign skipped", func(v *env) chan result {
			v.c.id = 2
			return send(v, mal.KindRealtime, v.c.open("three"))
		}, standby.CodeLineage},
		{"record other than named", func(v *env) chan result {
			p := v.c.open("two")
			v.c.guid = "another"
			return send(v, mal.KindRealtime, p)
		}, standby.CodeLineage},
		{"next reign", func(v *env) chan result { return send(v, mal.KindRealtime, v.c.open("two")) }, 0},
		{"header of another record", func(v *env) chan result {
			h := v.c.head(mal.KindRealtime)
			h.OpenID++
			return offer(v.r, "A", h, v.c.next())
		}, mal.CodeMessage},
		{"frozen", func(v *env) chan result {
			if err := v.r.ApplyKeep(context.Background()); err != nil {
				t.Fatal(err)
			}
			return send(v, mal.KindRealtime, v.c.next())
		}, standby.CodeChanging},
		{"timely next", func(v *env) chan result { return send(v, mal.KindTimely, v.c.next()) }, 0},
		{"timely gap", func(v *env) chan result { v.c.next(); return send(v, mal.KindTimely, v.c.next()) }, standby.CodeNotNext},
		{"recovery next", func(v *env) chan result { return send(v, mal.KindRecover, v.c.next()) }, 0},
		{"recovery batch with a hole refused whole", func(v *env) chan result {
			p := v.c.next()
			v.c.next()
			return offer(v.r, "A", v.c.head(mal.KindRecover), p, v.c.next())
		}, standby.CodeNotNext},
		{"other package of the kept number", func(v *env) chan result {
			p := *v.c.next()
			k, _ := v.r.Kept()
			p.GSEQ, p.PrevLSN, p.MinLSN, p.MaxLSN = k.GSEQ, k.PrevLSN, k.MinLSN, k.MaxLSN
			return send(v, mal.KindRealtime, &p)
		}, standby.CodeNotNext},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := &env{}
				v.r, v.e = receiver(t, nil)
				must(t, send(v, mal.KindRealtime, v.c.open("one")))
				for range 3 {
					must(t, send(v, mal.KindRealtime, v.c.next()))
				}
				synctest.Wait()
				before, log := v.r.Info(), len(v.e.Log())
				if log != 3 || !before.HasKeep || before.Keep.Seq != 4 || before.Stand.Seq != 3 {
					t.Fatalf("start: %d logged, %+v", log, before)
				}
				ch := c.do(v)
				if c.code == 0 {
					must(t, ch)
					return
				}
				refused(t, ch, c.code)
				after := v.r.Info()
				after.Claim, before.Claim = standby.Claim{}, standby.Claim{}
				if c.name != "frozen" && (after != before || len(v.e.Log()) != log) {
					t.Fatalf("refusal changed %+v to %+v", before, after)
				}
			})
		})
	}
}

func TestKeptPackageLife(t *testing.T) {
	start := func(t *testing.T) (*standby.Receiver, *repltest.Engine, *chain) {
		r, e := receiver(t, nil)
		c := &chain{}
		must(t, offer(r, "A", headOf(c, c.open("one")), repltest.Package(base.Position{}, 1, 1, &base.OpenRecord{ID: 1, TGUID: "one"}, 0)))
		synctest.Wait()
		if len(e.Log()) != 0 {
			t.Fatal("kept package replayed at once (G7)")
		}
		return r, e, c
	}
	run := func(name string, f func(t *testing.T, r *standby.Receiver, e *repltest.Engine, c *chain)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { r, e, c := start(t); f(t, r, e, c) })
		})
	}
	notice := func(r *standby.Receiver, from string, pos base.Position, id uint64) error {
		ch := make(chan error, 1)
		r.Hardened(from, mal.Hardened{Pos: pos, OpenID: id}, func(err error) { ch <- err })
		synctest.Wait()
		select {
		case err := <-ch:
			return err
		default:
			return errors.New("no answer")
		}
	}
	run("released by the next package", func(t *testing.T, r *standby.Receiver, e *repltest.Engine, c *chain) {
		a := must(t, offer(r, "A", c.head(mal.KindRealtime), c.next()))
		if a.Stand.Seq != 1 || a.Keep.Seq != 2 || len(e.Log()) != 1 {
			t.Fatalf("%+v, %d logged", a, len(e.Log()))
		}
	})
	run("released by the notice", func(t *testing.T, r *standby.Receiver, e *repltest.Engine, c *chain) {
		if err := notice(r, "C", c.pos, 1); err == nil {
			t.Fatal("notice of another instance believed")
		}
		if err := notice(r, "A", c.pos, 2); err == nil {
			t.Fatal("notice of another reign believed")
		}
		if err := notice(r, "A", base.Position{}, 1); err != nil || len(e.Log()) != 0 {
			t.Fatalf("notice of a smaller position: %v, %d logged", err, len(e.Log()))
		}
		if err := notice(r, "A", c.pos, 1); err != nil || len(e.Log()) != 1 || r.Info().HasKeep {
			t.Fatalf("%v, %d logged", err, len(e.Log()))
		}
		if err := notice(r, "A", base.Position{Seq: 9, LSN: 9}, 1); base.CodeOf(err, 0) != standby.CodeNotNext {
			t.Fatalf("notice beyond what we have: %v", err)
		}
	})
	run("released by ApplyKeep", func(t *testing.T, r *standby.Receiver, e *repltest.Engine, c *chain) {
		if err := r.ApplyKeep(t.Context()); err != nil || len(e.Log()) != 1 {
			t.Fatalf("%v, %d logged", err, len(e.Log()))
		}
		if err := r.ApplyKeep(t.Context()); err != nil {
			t.Fatalf("repeated: %v", err)
		}
		if !r.Info().Claim.Valid {
			t.Fatal("claim lost by ApplyKeep")
		}
		refused(t, offer(r, "A", c.head(mal.KindRealtime), c.next()), standby.CodeChanging)
		if _, err := r.State("A", mal.State{State: base.ArchValid, OpenID: 1, OpenGUID: "one", File: r.Info().Stand}); base.CodeOf(err, 0) != standby.CodeChanging {
			t.Fatalf("claim during takeover: %v", err)
		}
		r.Thaw()
		c.pos = r.Info().Stand
		must(t, offer(r, "A", c.head(mal.KindRealtime), c.next()))
	})
	run("dropped", func(t *testing.T, r *standby.Receiver, e *repltest.Engine, c *chain) {
		if !r.Info().Claim.Valid || !r.DropKeep() || r.Info().Claim.Valid || r.Info().Keep.Seq != 0 {
			t.Fatalf("%+v", r.Info())
		}
		if r.DropKeep() {
			t.Fatal("dropped twice")
		}
		c2 := chain{}
		must(t, offer(r, "A", headOf(&c2, c2.open("again")), repltest.Package(base.Position{}, 1, 1, &base.OpenRecord{ID: 1, TGUID: "again"}, 0)))
	})
	run("repeated", func(t *testing.T, r *standby.Receiver, e *repltest.Engine, c *chain) {
		p := c.next()
		must(t, offer(r, "A", c.head(mal.KindRealtime), p))
		before := r.Info()
		must(t, offer(r, "A", c.head(mal.KindRealtime), p))
		if r.Info() != before {
			t.Fatalf("%+v, was %+v", r.Info(), before)
		}
	})
	run("repeated after ApplyKeep and Thaw", func(t *testing.T, r *standby.Receiver, e *repltest.Engine, c *chain) {
		p := c.next()
		must(t, offer(r, "A", c.head(mal.KindRealtime), p))
		if err := r.ApplyKeep(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.Thaw()
		if a := must(t, offer(r, "A", c.head(mal.KindRealtime), p)); a.Keep != p.Pos() || len(e.Log()) != 2 {
			t.Fatalf("%+v", a)
		}
	})
	run("replaced by the reopened primary", func(t *testing.T, r *standby.Receiver, e *repltest.Engine, c *chain) {
		must(t, offer(r, "A", c.head(mal.KindRealtime), c.next())) // kept: 2
		at := base.Position{Seq: 1, LSN: 1}
		c2 := chain{pos: at, id: 1}
		p := c2.open("two")
		must(t, offer(r, "A", c2.head(mal.KindRealtime), p))
		if k, ok := r.Kept(); !ok || k.OpenID != 2 || k.GSEQ != 2 {
			t.Fatalf("kept %+v", k)
		}
		must(t, offer(r, "A", c2.head(mal.KindRealtime), c2.next()))
		if l := e.Log(); len(l) != 2 || l[1].OpenID != 2 {
			t.Fatalf("log %v", l)
		}
	})
	run("recovery repeats the kept one", func(t *testing.T, r *standby.Receiver, e *repltest.Engine, c *chain) {
		p := c.next()
		must(t, offer(r, "A", c.head(mal.KindRealtime), p))
		a := must(t, offer(r, "A", c.head(mal.KindRecover), p, c.next()))
		if a.Stand.Seq != 3 || len(e.Log()) != 3 || r.Info().HasKeep || r.Info().Claim.Valid {
			t.Fatalf("%+v %+v", a, r.Info())
		}
	})
	run("recovery replaces the kept one", func(t *testing.T, r *standby.Receiver, e *repltest.Engine, c *chain) {
		must(t, offer(r, "A", c.head(mal.KindRealtime), c.next()))
		c2 := chain{pos: base.Position{Seq: 1, LSN: 1}, id: 1}
		p := c2.open("two")
		must(t, offer(r, "A", c2.head(mal.KindRecover), p, c2.next()))
		if l := e.Log(); len(l) != 3 || l[1].OpenID != 2 {
			t.Fatalf("log %d", len(l))
		}
	})
	run("recovery behind a lost kept one is refused", func(t *testing.T, r *standby.Receiver, e *repltest.Engine, c *chain) {
		must(t, offer(r, "A", c.head(mal.KindRealtime), c.next()))
		c2 := chain{pos: base.Position{Seq: 1, LSN: 1}, id: 1}
		c2.open("two")
		refused(t, offer(r, "A", c2.head(mal.KindRecover), c2.next()), standby.CodeLineage)
		if !r.Info().HasKeep || len(e.Log()) != 1 {
			t.Fatal("refusal changed something")
		}
	})
}

func headOf(c *chain, _ *redo.Package) mal.RedoHeader { return c.head(mal.KindRealtime) }

func TestAcknowledgements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, e := receiver(t, func(c *standby.Config) { c.BufNum = 2 })
		gate := make(chan struct{})
		e.SetGate(gate)
		c := &chain{}
		must(t, offer(r, "A", headOf(c, c.open("one")), first(c)))
		for range 2 { // one in the engine, one queued: the limit, not above it
			must(t, offer(r, "A", c.head(mal.KindRealtime), c.next()))
		}
		late := offer(r, "A", c.head(mal.KindRealtime), c.next())
		pending(t, late)
		if i := r.Info(); i.NTask != 3 || i.TaskMem == 0 {
			t.Fatalf("%+v", i)
		}
		if len(r.Tasks()) != 3 {
			t.Fatalf("tasks %v", r.Tasks())
		}
		close(gate)
		must(t, late)
		if n := len(e.Log()); n != 3 {
			t.Fatalf("%d logged", n)
		}
		s := r.Stats()
		if s.RecvNum == 0 || s.ApplyNum != 3 || s.RecentNum != 3 || s.TaskMem != 0 {
			t.Fatalf("%+v", s)
		}
		r.ClearStats()
		if r.Stats().ApplyNum != 0 {
			t.Fatal("not cleared")
		}
	})
}

// first is the package that chain.open has just built.
func first(c *chain) *redo.Package {
	return repltest.Package(base.Position{}, c.id, 1, &base.OpenRecord{ID: c.id, TGUID: c.guid}, 0)
}

func TestTimelyAndRecoveryAcknowledgeInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, e := receiver(t, nil)
		gate := make(chan struct{})
		e.SetGate(gate)
		c := &chain{}
		c.open("one")
		must(t, offer(r, "A", c.head(mal.KindTimely), first(c))) // ARCH_WAIT_APPLY = 0: at once
		h := c.head(mal.KindTimely)
		h.Flags = mal.FlagWaitApply
		p := c.next()
		wait := offer(r, "A", h, p)
		pending(t, wait)
		again := offer(r, "A", h, p)
		pending(t, again)
		rec := offer(r, "A", c.head(mal.KindRecover), c.next())
		pending(t, rec)
		close(gate)
		must(t, wait)
		must(t, again)
		must(t, rec)
		if r.Info().HasKeep || len(e.Log()) != 3 {
			t.Fatalf("%+v", r.Info())
		}
	})
}

func TestReplayFailureAndDelayHalt(t *testing.T) {
	for _, c := range []struct {
		name string
		fail error
		code base.Code
	}{{"failure", errors.New("disk gone"), standby.CodeBadLog}, {"delay", nil, standby.CodeDelay}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				halted := make(chan error, 2)
				r, e := receiver(t, func(cf *standby.Config) { cf.MaxDelay = time.Minute; cf.OnHalt = func(err error) { halted <- err } })
				e.Fail = c.fail
				if c.fail == nil {
					e.SetGate(make(chan struct{}))
				}
				ch := &chain{}
				ch.open("one")
				wait := offer(r, "A", ch.head(mal.KindRecover), first(ch))
				time.Sleep(59 * time.Second)
				synctest.Wait()
				if c.fail == nil && len(halted) != 0 {
					t.Fatal("halted too early")
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				refused(t, wait, c.code)
				if len(halted) != 1 || base.CodeOf(<-halted, 0) != c.code {
					t.Fatal("not halted once")
				}
				refused(t, offer(r, "A", ch.head(mal.KindRealtime), ch.next()), c.code)
				if err := r.ApplyKeep(t.Context()); base.CodeOf(err, 0) != c.code {
					t.Fatal(err)
				}
			})
		})
	}
}
