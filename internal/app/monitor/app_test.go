package monitor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"go.uber.org/goleak"

	"datawatch/dwmon"
	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
	"datawatch/internal/vfs"
	"datawatch/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watcher is a fake that reports one fixed status and says yes to everything
// but the password "wrong".
type watcher struct {
	ln net.Listener
	mu sync.Mutex
	st proto.WatcherStatus
	cs map[net.Conn]bool
	wg sync.WaitGroup
}

func start(t *testing.T, st proto.WatcherStatus) *watcher {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{ln: ln, st: st, cs: map[net.Conn]bool{}}
	w.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			w.mu.Lock()
			w.cs[c] = true
			w.mu.Unlock()
			w.wg.Go(func() { w.serve(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		w.mu.Lock()
		for c := range w.cs {
			c.Close()
		}
		w.mu.Unlock()
		w.wg.Wait()
	})
	return w
}

func (w *watcher) serve(c net.Conn) {
	defer c.Close()
	out, in := wire.NewWriter(c), wire.NewReader(bufio.NewReader(c), wire.MaxControl)
	if _, err := in.Read(); err != nil {
		return
	}
	send := func(typ uint16, id uint64, v any) {
		b, _ := json.Marshal(v)
		out.Write(typ, id, b)
	}
	send(proto.TypeHelloReply, 0, proto.HelloReply{GuardVersion: proto.GuardVersion})
	send(proto.TypeDWStatus, 0, w.st)
	for {
		f, err := in.Read()
		if err != nil {
			return
		}
		switch f.Type {
		case proto.TypeMonStatus:
			send(proto.TypeDWStatus, 0, w.st)
		case proto.TypeDWCmd:
			var cmd proto.WatcherCommand
			json.Unmarshal(f.Payload, &cmd)
			r := proto.WatcherReply{Status: w.st}
			if cmd.Password == "wrong" {
				r.Code, r.Msg = -8206, "wrong user or password"
			}
			send(proto.TypeDWReply, f.ID, r)
		}
	}
}

var when = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func status(name string, prim bool) proto.WatcherStatus {
	lin := base.Lineage{{ID: 1, TGUID: "11111111111111111111111111111111", OpenTime: when, SysMode: base.ModePrimary, SrcDBMagic: 0xa1, DBMagic: 0xa1, CurInst: "A", Apply: []base.Position{{Seq: 1, LSN: 1}}}}
	st := proto.WatcherStatus{Seq: 1, Incarnation: name, Group: "GRP1", OGUID: 7, Time: when, State: proto.DWOpen, CtlStatus: proto.CtlValid, InstOK: true,
		Config:   proto.GroupConfig{Type: "GLOBAL", Mode: "MANUAL", ErrorTime: 10, InstErrorTime: 20, RecoverTime: 60, IniPath: "/dm/dm.ini", StartupCmd: "dmserver"},
		Monitors: []proto.MonitorInfo{{ID: "other", Addr: "10.0.0.9", Since: when}, {ID: "me", Addr: "127.0.0.1:40316", Since: when}},
		Inst: proto.InstanceStatus{InstName: name, Incarnation: name, Mode: base.ModeStandby, Status: base.StatusOpen, Port: 5236, Lineage: lin,
			File: base.Position{Seq: 9, LSN: 90}, Cur: base.Position{Seq: 9, LSN: 90}, Apply: base.Position{Seq: 8, LSN: 80}, Stand: base.Position{Seq: 8, LSN: 80},
			Keep: base.Position{Seq: 9, LSN: 90}, Replay: base.Position{Seq: 8, LSN: 80}, RedosParallel: 1, ValidClaim: true, ValidClaimFrom: "A", ValidClaimID: 1}}
	other := "A"
	if prim {
		other, st.Inst.Mode, st.Inst.ValidClaim = "B", base.ModePrimary, false
	}
	state := base.ArchInvalid
	if prim {
		state = base.ArchValid
	}
	st.Inst.Archives = []proto.ArchStatus{{Inst: other, Type: base.ArchRealtime, State: state, Acked: base.Position{Seq: 9, LSN: 90}, Sent: base.Position{Seq: 9, LSN: 90}}}
	st.Inst.Links = []proto.MALLink{{Inst: other, Connected: true}}
	return st
}

// The console's output, command by command. Ports are the only thing replaced.
func TestConsole(t *testing.T) {
	datadriven.RunTest(t, "testdata/console.txt", func(t *testing.T, d *datadriven.TestData) string {
		a, b := status("A", true), status("B", false)
		for _, arg := range d.CmdArgs {
			switch arg.Key {
			case "primary-dead":
				a.InstOK, a.StateAtLoss, a.State = false, proto.DWOpen, proto.DWStartup
				b.Inst.Links[0].Connected = false
			case "confirm-elsewhere":
				a.Config.Mode, b.Config.Mode = "AUTO", "AUTO"
				b.Monitors = append(b.Monitors, proto.MonitorInfo{ID: "c", Confirm: true, Addr: "10.0.0.7", Since: when})
			case "invalid":
				a.Inst.Archives[0].State = base.ArchInvalid
				b.Why = []string{"it waits"}
			}
		}
		wa, wb := start(t, a), start(t, b)
		addrs := []string{wa.ln.Addr().String(), wb.ln.Addr().String()}
		cfg := dwmon.Config{Groups: []dwmon.Group{{Name: "GRP1", OGUID: 7, Addrs: addrs}}, FS: vfs.NewMem(), MonID: "me"}
		var out, errs bytes.Buffer
		o := Options{Exec: strings.ReplaceAll(d.Input, "\n", ";"), Wait: 10 * time.Second, JSON: d.HasArg("json")}
		code := Run(t.Context(), o, cfg, strings.NewReader(""), &out, &errs)
		s := out.String() + errs.String()
		for i, x := range addrs {
			_, port, _ := net.SplitHostPort(x)
			s = strings.ReplaceAll(s, port, fmt.Sprintf("%-*s", len(port), fmt.Sprintf("PORT%d", i+1)[:min(5, len(port))]))
		}
		s = regexp.MustCompile(`"(time|heard)": "20[^"]*"`).ReplaceAllString(s, `"$1": "T"`)
		return s + fmt.Sprintf("exit %d\n", code)
	})
}

func TestParseArgs(t *testing.T) {
	for _, c := range []struct {
		args []string
		want Options
		bad  string
	}{
		{[]string{"a/dmmonitor.ini"}, Options{Path: "a/dmmonitor.ini"}, ""},
		{[]string{"path=a.ini", "-json", "-e", "tip"}, Options{Path: "a.ini", JSON: true, Exec: "tip"}, ""},
		{[]string{"-service", "PATH=a.ini"}, Options{Path: "a.ini", Service: true}, ""},
		{nil, Options{}, "path"},
		{[]string{"a", "b"}, Options{}, "unexpected argument"},
		{[]string{"a", "-x"}, Options{}, "-x"},
		{[]string{"a", "-service", "-e", "tip"}, Options{}, "exclude"},
	} {
		got, err := ParseArgs(c.args)
		if c.bad != "" {
			if err == nil || !strings.Contains(err.Error(), c.bad) {
				t.Errorf("%v: error %v", c.args, err)
			}
			continue
		}
		c.want.Wait = 3 * time.Second
		if err != nil || got != c.want {
			t.Errorf("%v: %+v, %v", c.args, got, err)
		}
	}
}

func TestMainUsageAndConfiguration(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.ini")
	if err := os.WriteFile(bad, []byte("MON_DW_CONFIRM = 2\n[G]\nMON_INST_OGUID = 7\nMON_DW_IP = 127.0.0.1:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		out  string
	}{
		{nil, ExitUsage, "path of dmmonitor.ini"},
		{[]string{"help"}, ExitOK, "usage:"},
		{[]string{"version"}, ExitOK, "DMMONITOR[4.0] V8"},
		{[]string{filepath.Join(dir, "none.ini")}, ExitUsage, "none.ini"},
		{[]string{bad}, ExitUsage, "bad.ini:1: MON_DW_CONFIRM"},
	} {
		var out bytes.Buffer
		if code := Main(t.Context(), c.args, strings.NewReader(""), &out, &out); code != c.code || !strings.Contains(out.String(), c.out) {
			t.Errorf("%v: exit %d, output %s", c.args, code, out.String())
		}
	}
}

func TestConfigure(t *testing.T) {
	p := filepath.Join(t.TempDir(), "dmmonitor.ini")
	text := "MON_DW_CONFIRM = 1\nMON_LOG_INTERVAL = 60\nMON_LOG_FILE_SIZE = 32\nMON_LOG_SPACE_LIMIT = 256\nMON_TAKEOVER_SHUTDOWN = 30\n[GRP1]\nMON_INST_OGUID = 7\nMON_DW_IP = 127.0.0.1:9236\nMON_DW_IP = 127.0.0.1:9237\n"
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Configure(p)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Confirm || c.TakeoverShutdown != 30*time.Second || c.Log.FileSize != 32<<20 || c.Log.SpaceLimit != 256<<20 || c.Log.Interval != 60 ||
		c.StateDir != filepath.Dir(p) || c.Log.Dir != filepath.Dir(p) || len(c.Groups) != 1 || c.Groups[0].OGUID != 7 || c.Groups[0].Addrs[1] != "127.0.0.1:9237" {
		t.Fatalf("%+v", c)
	}
	if err := os.WriteFile(p, []byte(strings.Replace(text, "9236", "9236/127.0.0.1:9240", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Configure(p); err == nil || !strings.Contains(err.Error(), "DSC") {
		t.Fatalf("DSC: %v", err)
	}
	if err := os.WriteFile(p, []byte("MON_INST_NUM = 3\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Configure(p); err == nil || !strings.Contains(err.Error(), "MON_INST_NUM") {
		t.Fatalf("a monitor system: %v", err)
	}
}

func TestServiceEndsWithItsContext(t *testing.T) {
	w := start(t, status("A", true))
	cfg := dwmon.Config{Confirm: true, StateDir: "/s", FS: vfs.NewMem(), Groups: []dwmon.Group{{Name: "GRP1", OGUID: 7, Addrs: []string{w.ln.Addr().String()}}}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() { done <- Run(ctx, Options{Service: true}, cfg, nil, &bytes.Buffer{}, &bytes.Buffer{}) }()
	cancel()
	if code := <-done; code != ExitOK {
		t.Fatalf("exit %d", code)
	}
}

// Every command line of the manual's table is known, in its three spellings of
// group and database.
func TestEveryCommandOfTheManualIsKnown(t *testing.T) {
	for _, line := range []string{
		"help", "exit", "show version", "show global info", "show database G.D", "show", "show G", "show interval 5", "show i 5", "q", "list", "list G.D",
		"show open info D", "show monitor", "show monitor G. D", "tip", "login", "logout", "get takeover time", "show state",
		"startup dmwatcher database D", "startup dmwatcher G", "stop dmwatcher database D", "stop dmwatcher", "startup group", "stop group G",
		"open database G. D", "choose switchover", "switchover", "switchover D", "switchover G. D", "choose takeover G", "takeover G.D",
		"choose takeover force", "takeover force D", "set group auto restart on", "set database D recover time 5", "set database D arch invalid",
		"set group DW_ERROR_TIME 10", "set group recover time 5", "set group arch invalid", "clear database D arch send info",
		"clear group arch send info", "clear database D apply stat", "clear group apply stat", "show arch send info D", "show apply stat D",
		"detach database D", "attach database D", "kill group", "rejoin database D", "check recover D", "explain", "explain D", "explain G. D", "check open D", "startup database D", "stop database D",
		"kill database D", "set database D until time '2020-01-01'", "cancel database D until time", "show mpp", "startup dmwatcher all",
		"stop dmwatcher all", "startup group all", "stop group all", "kill group all", "check mppctl", "recover mppctl",
	} {
		if cmd, _ := find(strings.Fields(line)); cmd == nil {
			t.Errorf("%q is not known", line)
		}
	}
	cmd, rest := find(strings.Fields("choose takeover force G"))
	if cmd.words != "choose takeover force" || len(rest) != 1 {
		t.Errorf("longest match: %s %v", cmd.words, rest)
	}
	if cmd, _ := find([]string{"frobnicate"}); cmd != nil {
		t.Error("nonsense is known")
	}
}

func TestCompletion(t *testing.T) {
	w := start(t, status("A", true))
	m, err := dwmon.Open(t.Context(), dwmon.Config{FS: vfs.NewMem(), Groups: []dwmon.Group{{Name: "GRP1", OGUID: 7, Addrs: []string{w.ln.Addr().String()}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := m.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	c := &Console{M: m}
	for in, want := range map[string]string{"cho": "choose", "choose ": "switchover takeover", "choose takeover ": "force GRP1 A", "show g": "global GRP1", "takeover a": "A"} {
		if got := strings.Join(c.complete(in), " "); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
