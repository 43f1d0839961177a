package watcher

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/fsm"
	"datawatch/internal/ha/proto"
)

func TestJudgeCards(t *testing.T) {
	a := netip.MustParseAddr
	cards := []card{{"lo", true, []netip.Addr{a("127.0.0.1")}}, {"eth0", true, []netip.Addr{a("10.0.0.1"), a("fe80::1%eth0")}},
		{"eth1", false, []netip.Addr{a("10.0.1.1")}}}
	for _, c := range []struct {
		want []string
		why  string
	}{
		{[]string{"10.0.0.1"}, ""},
		{[]string{"fe80::1%x"}, ""},
		{[]string{"::ffff:10.0.0.1"}, ""},
		{[]string{"10.0.1.1"}, "eth1 of h is down"},
		{[]string{"10.0.2.1"}, "no network card has the address h"},
		{[]string{"10.0.1.1", "10.0.0.1"}, ""}, // one of several is enough
		{[]string{"0.0.0.0"}, ""},
		{[]string{"127.0.0.9"}, ""},
	} {
		var want []netip.Addr
		for _, w := range c.want {
			want = append(want, a(w))
		}
		if got := judgeCards(cards, "h", want); (got == "") != (c.why == "") || !strings.Contains(got, c.why) {
			t.Errorf("%v: %q, want %q", c.want, got, c.why)
		}
	}
	if why := unserved(t.Context(), "127.0.0.1"); why != "" {
		t.Errorf("this machine's loopback: %s", why)
	}
	if why := unserved(t.Context(), "192.0.2.77"); why == "" { // of documentation: nobody has it
		t.Error("an address nobody has can be reached")
	}
}

// TestPublicNetworkIsWatched: an Open primary whose address is gone is told to
// end after INST_ERROR_TIME, if the parameter says so, and an interruption that is
// shorter does nothing.
func TestPublicNetworkIsWatched(t *testing.T) {
	for _, check := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n := &network{all: map[string]*listener{}}
			ps := &procs{alive: map[int]bool{11: true, 12: true}}
			a, b := startInst(t, n, "A", 11, base.ModePrimary), startInst(t, n, "B", 12, base.ModeStandby)
			gb := startGuard(t, n, ps, "B", nil)
			var why atomic.Pointer[string]
			down := func(s string) { why.Store(&s) }
			down("")
			cfg := Config{FSM: fsm.Config{Group: "G", Name: "A", Remotes: []string{"B"}, Global: true, Auto: true, OGUID: 9, ServiceCheck: check,
				ErrorTime: 5 * time.Second, InstErrorTime: 5 * time.Second, RecoverTime: 3, Reconnect: true, Port: 1}, ServiceHost: "10.0.0.1",
				InstAddr: "inst-A", Listen: "dw-A", Peers: []Peer{{"B", "dw-B"}}, CtlPath: filepath.Join(t.TempDir(), "dmwatcher.ctl")}
			g, err := New(cfg, Deps{Dial: n.dial, Listen: n.listen, Procs: ps, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
				Unserved: func(_ context.Context, host string) string {
					if host != "10.0.0.1" {
						return "asked about " + host
					}
					return *why.Load()
				}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ga := &guarded{g, cancel, make(chan error, 1)}
			go func() { ga.done <- g.Run(ctx) }()
			until(t, "open", func() bool { return ga.snap(t).Status.State == proto.DWOpen })
			ended := func() bool {
				ps.mu.Lock()
				defer ps.mu.Unlock()
				return slices.Contains(ps.killed, 11)
			}
			down("eth0 is down")
			time.Sleep(4 * time.Second)
			down("")
			time.Sleep(4 * time.Second)
			if ended() {
				t.Fatal("ended by a short interruption")
			}
			down("eth0 is down")
			time.Sleep(8 * time.Second)
			if ended() != check {
				t.Fatalf("ended %v, INST_SERVICE_IP_CHECK %v", ended(), check)
			}
			ga.stop(t)
			gb.stop(t)
			a.stop()
			b.stop()
		})
	}
}
