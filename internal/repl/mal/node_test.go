package mal_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/repltest"
	"datawatch/internal/wire"
)

type rec struct {
	mu    sync.Mutex
	ids   map[string]mal.Identity
	ups   int
	downs []error
	serve func(*mal.Request)
}

func (r *rec) Serve(q *mal.Request) {
	if r.serve != nil {
		r.serve(q)
		return
	}
	q.Reply([]byte("re:"), q.Payload)
}
func (r *rec) LinkUp(string, mal.Identity) { r.mu.Lock(); r.ups++; r.mu.Unlock() }
func (r *rec) LinkDown(_ string, err error) {
	r.mu.Lock()
	r.downs = append(r.downs, err)
	r.mu.Unlock()
}
func (r *rec) count(up bool) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if up {
		return r.ups
	}
	return len(r.downs)
}
func (r *rec) PeerIdentity(inst string, id mal.Identity) {
	r.mu.Lock()
	if r.ids == nil {
		r.ids = map[string]mal.Identity{}
	}
	r.ids[inst] = id
	r.mu.Unlock()
}

const typEcho = 99

var entries = []mal.Entry{{Inst: "A", Host: "A", Port: 1}, {Inst: "B", Host: "B", Port: 1}}

func node(t *testing.T, n *repltest.Net, self string, id func() mal.Identity, h mal.Handler, change func(*mal.Config)) *mal.Node {
	t.Helper()
	c := mal.Config{Self: self, Entries: entries, CheckInterval: 5 * time.Second, ConnFailInterval: 2 * time.Second,
		Dial: n.DialFrom(self), Listen: n.Listen, Identity: id, Log: repltest.Quiet}
	if change != nil {
		change(&c)
	}
	m, err := mal.New(c, h)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func same() mal.Identity {
	return mal.Identity{PmntMagic: repltest.Magic, OGUID: 7, Mode: base.ModeStandby, Status: base.StatusOpen}
}

// TestEndedOfBothDirections: whoever looks at the links when a connection has ended
// sees at last that there is none, whichever of the two ended last. A watcher has to
// know that its primary's process is gone before that is there again.
func TestEndedOfBothDirections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, seen := repltest.NewNet(), make(chan bool, 100)
		var up atomic.Pointer[mal.Node]
		a := node(t, n, "A", same, &rec{}, func(c *mal.Config) {
			c.Ended = func() {
				if a := up.Load(); a != nil {
					seen <- a.Links()[0].Connected
				}
			}
		})
		up.Store(a)
		b := node(t, n, "B", same, &rec{}, nil)
		time.Sleep(2 * time.Second)
		if !a.Links()[0].Connected {
			t.Fatal("not connected")
		}
		b.Close()
		synctest.Wait()
		connected, looks := true, 0
		for len(seen) > 0 {
			connected = <-seen
			looks++
		}
		if looks < 2 || connected {
			t.Fatalf("%d looks, connected at the last: %v", looks, connected)
		}
		a.Close()
	})
}

func TestCallAndReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, ra, rb := repltest.NewNet(), &rec{}, &rec{}
		a := node(t, n, "A", same, ra, nil)
		if l := a.Links(); len(l) != 1 || l[0].Connected {
			t.Fatalf("links %+v", l)
		}
		_, err := a.Call(t.Context(), "B", typEcho, []byte("x"))
		if base.CodeOf(err, 0) != mal.CodeLost {
			t.Fatalf("no peer yet: %v", err)
		}
		b := node(t, n, "B", same, rb, nil)
		time.Sleep(2 * time.Second)
		for _, size := range []int{0, 1, 70 << 10, 3 << 20} {
			msg := strings.Repeat("m", size)
			got, err := a.Call(t.Context(), "B", typEcho, []byte(msg))
			if err != nil || string(got) != "re:"+msg {
				t.Fatalf("%d bytes: %d, %v", size, len(got), err)
			}
		}
		if _, err := a.Call(t.Context(), "B", typEcho, make([]byte, wire.MaxControl+1)); base.CodeOf(err, 0) != mal.CodeTooLong {
			t.Fatalf("too long: %v", err)
		}
		n.Reset("A", "B")
		time.Sleep(time.Second)
		if _, err := b.Call(t.Context(), "A", typEcho); err != nil {
			t.Fatal(err)
		}
		if ra.count(true) != 2 || ra.count(false) != 1 || base.CodeOf(ra.downs[0], 0) != mal.CodeLost {
			t.Fatalf("ups %d downs %v", ra.ups, ra.downs)
		}
		if l := a.Links(); !l[0].Connected || l[0].LastHeard.IsZero() {
			t.Fatalf("links %+v", l)
		}
		if s := a.LinkStates(); !s[0].Ctl || !s[0].Data {
			t.Fatalf("states %+v", s)
		}
		b.Close()
		synctest.Wait()
		if l := a.Links(); l[0].Connected {
			t.Fatal("a closed connection is noticed at once")
		}
		a.Close()
	})
}

func TestRefusedHellos(t *testing.T) {
	for _, c := range []struct {
		name   string
		id     func(*mal.Identity)
		config func(*mal.Config)
		want   string
	}{
		{"magic", func(i *mal.Identity) { i.PmntMagic = 1 }, nil, "PERMANENT_MAGIC"},
		{"oguid", func(i *mal.Identity) { i.OGUID = 8 }, nil, "OGUID"},
		{"no oguid", func(i *mal.Identity) { i.OGUID = 0 }, nil, "OGUID"},
		{"compress", nil, func(c *mal.Config) { c.CompressLevel = 10 }, "MAL_COMPRESS_LEVEL"},
		{"name", nil, func(c *mal.Config) {
			c.Self = "C"
			c.Entries = []mal.Entry{{Inst: "A", Host: "A", Port: 1}, {Inst: "C", Host: "B", Port: 1}}
		}, "this is C"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, ra, rb := repltest.NewNet(), &rec{}, &rec{}
				a := node(t, n, "A", same, ra, nil)
				b := node(t, n, "B", func() mal.Identity {
					i := same()
					if c.id != nil {
						c.id(&i)
					}
					return i
				}, rb, c.config)
				time.Sleep(5 * time.Second)
				if ra.count(true)+rb.count(true) != 0 || a.Links()[0].Connected {
					t.Fatalf("linked all the same: %d %d", ra.ups, rb.ups)
				}
				a.Close()
				b.Close()
			})
		})
	}
}

func TestIdentityChangeIsToldAndJudged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, ra, rb := repltest.NewNet(), &rec{}, &rec{}
		id := same()
		id.OGUID, id.Mode, id.Status = 0, base.ModeNormal, base.StatusMount
		var mu sync.Mutex
		set := func(f func()) { mu.Lock(); f(); mu.Unlock() }
		a := node(t, n, "A", func() mal.Identity { mu.Lock(); defer mu.Unlock(); return id }, ra, nil)
		b := node(t, n, "B", same, rb, nil)
		time.Sleep(2 * time.Second)
		if !a.Links()[0].Connected {
			t.Fatal("a mounted instance without OGUID must be let in")
		}
		set(func() { id.OGUID, id.Mode = 7, base.ModePrimary })
		a.IdentityChanged()
		synctest.Wait()
		rb.mu.Lock()
		got := rb.ids["A"]
		rb.mu.Unlock()
		if got.OGUID != 7 || got.Mode != base.ModePrimary {
			t.Fatalf("B knows %+v", got)
		}
		set(func() { id.OGUID = 9 })
		a.IdentityChanged()
		time.Sleep(5 * time.Second)
		if a.Links()[0].Connected {
			t.Fatal("wrong OGUID set later must end the link")
		}
		a.Close()
		b.Close()
	})
}

func TestSilenceBreaksLink(t *testing.T) {
	for _, c := range []struct {
		name     string
		check    time.Duration
		call     bool
		min, max time.Duration
	}{
		{"idle", 5 * time.Second, false, 2 * time.Second, 4 * time.Second},
		{"idle, rarely checked", 30 * time.Minute, false, 2 * time.Second, 4 * time.Second},
		{"request under way", 30 * time.Second, true, 2 * time.Second, 5 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, ra, rb := repltest.NewNet(), &rec{}, &rec{}
				a := node(t, n, "A", same, ra, func(m *mal.Config) { m.CheckInterval = c.check })
				b := node(t, n, "B", same, rb, func(m *mal.Config) { m.CheckInterval = c.check })
				time.Sleep(time.Minute) // idle but alive links stay
				if ra.count(true) != 1 || ra.count(false) != 0 {
					t.Fatalf("ups %d downs %v", ra.ups, ra.downs)
				}
				n.Mute("A", "B")
				start := time.Now()
				if c.call {
					_, err := a.Call(t.Context(), "B", typEcho)
					// The other side's check may be the first to notice.
					if c := base.CodeOf(err, 0); c != mal.CodeBroken && c != mal.CodeLost {
						t.Fatalf("%v", err)
					}
				} else {
					for ra.count(false) == 0 && time.Since(start) < time.Minute {
						time.Sleep(100 * time.Millisecond)
					}
				}
				if d := time.Since(start); d < c.min || d > c.max {
					t.Fatalf("noticed after %v", d)
				}
				n.Heal("A", "B")
				time.Sleep(20 * time.Second)
				if _, err := a.Call(t.Context(), "B", typEcho); err != nil {
					t.Fatal(err)
				}
				a.Close()
				b.Close()
			})
		})
	}
}

func TestNoCheckNoBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, ra, rb := repltest.NewNet(), &rec{}, &rec{}
		off := func(m *mal.Config) { m.CheckInterval = 0 }
		a, b := node(t, n, "A", same, ra, off), node(t, n, "B", same, rb, off)
		time.Sleep(time.Second)
		n.Mute("A", "B")
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := a.Call(ctx, "B", typEcho); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		a.Close()
		b.Close()
	})
}

// The handler of a peer's old connection must have returned before the new one
// is served: requests stay in order across reconnection.
func TestNewConnectionWaitsForOldHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, ra, rb := repltest.NewNet(), &rec{}, &rec{}
		release := make(chan struct{})
		var mu sync.Mutex
		var order []string
		rb.serve = func(q *mal.Request) {
			if string(q.Payload) == "old" {
				<-release
			}
			mu.Lock()
			order = append(order, string(q.Payload))
			mu.Unlock()
			q.Reply()
		}
		a, b := node(t, n, "A", same, ra, nil), node(t, n, "B", same, rb, nil)
		time.Sleep(time.Second)
		if _, err := a.Go("B", typEcho, []byte("old")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		n.Reset("A", "B")
		time.Sleep(time.Second)
		call, err := a.Go("B", typEcho, []byte("new"))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		close(release)
		if _, err := call.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if strings.Join(order, " ") != "old new" {
			t.Fatalf("order %v", order)
		}
		a.Close()
		b.Close()
	})
}

// rawConn dials a real node over TCP.
func listening(t *testing.T) (*mal.Node, *rec) {
	t.Helper()
	r := &rec{}
	n, err := mal.New(mal.Config{Self: "A", Entries: []mal.Entry{{Inst: "A", Host: "127.0.0.1", Port: 0}, {Inst: "B", Host: "127.0.0.1", Port: 1}},
		CheckInterval: time.Second, ConnFailInterval: 2 * time.Second, LoginTimeout: 2 * time.Second, Identity: same, Log: repltest.Quiet}, r)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n, r
}

const helloB = "\x01\x00\x00\x00" + `{"inst":"B","to":"A","identity":{"pmnt_magic":5667985,"oguid":7,"mode":"Standby","status":"Open"}}`

func TestGarbageBeforeAndAfterHello(t *testing.T) {
	n, _ := listening(t)
	header := func(typ uint16, size uint32) []byte {
		b := append([]byte("DWF1"), 0, 0, 0, 0)
		binary.LittleEndian.PutUint32(b[4:], size)
		b = binary.LittleEndian.AppendUint16(b, typ)
		b = append(b, 0, 0)
		b = append(b, make([]byte, 12)...)
		return b
	}
	frame := func(typ uint16, payload []byte) []byte {
		var w sliceWriter
		if err := wire.NewWriter(&w).Write(typ, 0, payload); err != nil {
			t.Fatal(err)
		}
		return w
	}
	hello := frame(mal.TypeHello, []byte(helloB))
	rnd := make([]byte, 4096)
	for i := range rnd {
		rnd[i] = byte(rand.Uint32())
	}
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	for name, b := range map[string][]byte{
		"random":                rnd,
		"oversized hello":       header(mal.TypeHello, wire.MaxPreAuth+1),
		"redo before hello":     header(mal.TypeRedo, wire.MaxRedo),
		"other type first":      frame(mal.TypePing, nil),
		"hello of junk":         frame(mal.TypeHello, rnd),
		"wrong version":         frame(mal.TypeHello, []byte("\x09\x00\x00\x00{}")),
		"random after hello":    append(append([]byte(nil), hello...), rnd...),
		"big control after":     append(append([]byte(nil), hello...), header(mal.TypeState, wire.MaxControl+1)...),
		"huge redo after":       append(append([]byte(nil), hello...), header(mal.TypeRedo, wire.MaxRedo+1)...),
		"reply nobody awaits":   append(append([]byte(nil), hello...), frame(mal.TypeHello, nil)...),
		"announced, never sent": append(append([]byte(nil), hello...), header(mal.TypeRedo, wire.MaxRedo)...),
	} {
		c, err := net.Dial("tcp", n.ListenAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		c.Write(b)
		if name == "announced, never sent" {
			// Nothing may be wrong with a frame that is still on its way.
			io.CopyN(io.Discard, c, 1)
		} else if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: not closed by the node: %v", name, err)
		}
		c.Close()
	}
	var after runtime.MemStats
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 32<<20 {
		t.Errorf("garbage cost %d MB", got>>20)
	}
}

type sliceWriter []byte

func (s *sliceWriter) Write(b []byte) (int, error) { *s = append(*s, b...); return len(b), nil }

// A peer that connects and says nothing is dropped after the login timeout, and
// a flood of them is bounded.
func TestSilentConnectionsAreDropped(t *testing.T) {
	n, _ := listening(t)
	var cs []net.Conn
	for range 100 {
		c, err := net.Dial("tcp", n.ListenAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		cs = append(cs, c)
	}
	for i, c := range cs {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("connection %d still open", i)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for name, c := range map[string]mal.Config{
		"no identity": {Self: "A", Entries: entries},
		"twice":       {Self: "A", Entries: append(entries, entries[0]), Identity: same},
		"not there":   {Self: "Z", Entries: entries, Identity: same},
	} {
		if _, err := mal.New(c, &rec{}); err == nil {
			t.Errorf("%s accepted", name)
		}
	}
}
