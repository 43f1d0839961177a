package watcher

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/ha/fsm"
	"datawatch/internal/ha/proto"
	"datawatch/internal/wire"
)

type lockedLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedLog) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), what)
}

// TestRefusedIsLoggedOnce: who is refused comes again five times a second, and is
// logged once in half a minute for each reason.
func TestRefusedIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{all: map[string]*listener{}}
		var log lockedLog
		cfg := Config{FSM: fsm.Config{Group: "G", Name: "A", Remotes: []string{"B"}, Global: true, Auto: true, OGUID: 9, ErrorTime: 5 * time.Second,
			InstErrorTime: 5 * time.Second, RecoverTime: 3, Port: 1}, InstAddr: "inst-A", Listen: "dw-A", Peers: []Peer{{"B", "dw-B"}}, CtlPath: t.TempDir() + "/dmwatcher.ctl"}
		g, err := New(cfg, Deps{Dial: n.dial, Listen: n.listen, Procs: &procs{alive: map[int]bool{}}, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		x := &guarded{g, cancel, make(chan error, 1)}
		go func() { x.done <- g.Run(ctx) }()
		defer x.stop(t)
		knock := func(typ uint16, h proto.Hello) {
			t.Helper()
			c, err := n.dial(t.Context(), "dw-A")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := put(wire.NewWriter(c), typ, 0, h); err != nil {
				t.Fatal(err)
			}
			if typ != proto.TypeHello {
				synctest.Wait()
				return
			}
			f, err := wire.NewReader(c, wire.MaxControl).Read()
			if err != nil {
				t.Fatal(err)
			}
			var r proto.HelloReply
			if err := json.Unmarshal(f.Payload, &r); err != nil || r.Code == 0 {
				t.Fatalf("%+v, %v", r, err)
			}
		}
		wrong := proto.Hello{Role: proto.RoleMonitor, GuardVersion: proto.GuardVersion, OGUID: 8, MonID: "m"}
		for range 10 {
			knock(proto.TypeHello, wrong)
			knock(proto.TypeDWStatus, wrong)
		}
		other := wrong
		other.GuardVersion = "0.1"
		knock(proto.TypeHello, other)
		if a, b, c := log.count("OGUID 8 there, 9 here"), log.count("guard version"), log.count("without a hello"); a != 1 || b != 1 || c != 1 {
			t.Errorf("logged %d, %d and %d times", a, b, c)
		}
		time.Sleep(31 * time.Second)
		knock(proto.TypeHello, wrong)
		if a, b := log.count("OGUID 8 there, 9 here"), log.count("like_it_since=9"); a != 2 || b != 1 {
			t.Errorf("half a minute later: logged %d times, %d with their number", a, b)
		}
	})
}
