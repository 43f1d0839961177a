package watcher

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
	guard "datawatch/internal/ha/watcher"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// files writes the configuration of one guarded database and returns the path
// of its dmwatcher.ini and the watcher's port.
func files(t *testing.T) (string, int) {
	dir := t.TempDir()
	var p [8]int
	for i := range p {
		p[i] = freePort(t)
	}
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("dm.ini", fmt.Sprintf("INSTANCE_NAME = A\nPORT_NUM = %d\nMAL_INI = 1\nARCH_INI = 1\n", p[0]))
	put("dmmal.ini", fmt.Sprintf("[M1]\nMAL_INST_NAME = A\nMAL_HOST = 127.0.0.1\nMAL_PORT = %d\nMAL_INST_HOST = 127.0.0.1\nMAL_INST_PORT = %d\nMAL_DW_PORT = %d\nMAL_INST_DW_PORT = %d\n"+
		"[M2]\nMAL_INST_NAME = B\nMAL_HOST = 127.0.0.1\nMAL_PORT = %d\nMAL_DW_PORT = %d\nMAL_INST_DW_PORT = %d\n", p[1], p[0], p[2], p[3], p[4], p[5], p[6]))
	put("dmarch.ini", "[ARCHIVE_REALTIME1]\nARCH_TYPE = REALTIME\nARCH_DEST = B\n[ARCHIVE_LOCAL1]\nARCH_TYPE = LOCAL\nARCH_DEST = "+dir+"/arch\nARCH_FILE_SIZE = 128\n")
	put("dmwatcher.ini", "[GRP1]\nDW_TYPE = GLOBAL\nDW_MODE = AUTO\nINST_OGUID = 453331\nINST_INI = "+dir+"/dm.ini\nINST_AUTO_RESTART = 0\nINST_STARTUP_CMD = /opt/dm/bin/dmserver\n")
	return filepath.Join(dir, "dmwatcher.ini"), p[2]
}

func TestExitCodes(t *testing.T) {
	good, port := files(t)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	bad := filepath.Join(t.TempDir(), "dmwatcher.ini")
	if err := os.WriteFile(bad, []byte("[G]\nDW_TYPE = SIDEWAYS\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args []string
		code int
		text string
	}{
		{nil, ExitUsage, "dmwatcher.ini"},
		{[]string{"help"}, ExitOK, "usage"},
		{[]string{"version"}, ExitOK, "DMWATCHER[4.0] V8"},
		{[]string{"-x"}, ExitUsage, "-x"},
		{[]string{"/nowhere/dmwatcher.ini"}, ExitUsage, "/nowhere/dmwatcher.ini"},
		{[]string{bad}, ExitUsage, "SIDEWAYS"},
		{[]string{"path=" + good}, ExitRefused, "MAL_DW_PORT"},
	} {
		var out bytes.Buffer
		if code := Main(t.Context(), tc.args, strings.NewReader(""), &out, &out); code != tc.code || !strings.Contains(out.String(), tc.text) {
			t.Errorf("%v: code %d, %s", tc.args, code, out.String())
		}
	}
}

func TestConsole(t *testing.T) {
	path, port := files(t)
	p, err := Load(path, nil, guard.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	for cmd, want := range map[string]string{
		"help": "show link", "status": "DW_SUB_STATUS", "show": "DW_CTL_STATUS", "show group grp1": "SYS_STATUS", "show group Nix": "no group Nix", "show group": "usage: show group GROUP_NAME",
		"show version": "DMWATCHER[4.0] V8\n", "SHOW MONITOR CONFIG;": fmt.Sprintf("MON_DW_IP            = 127.0.0.1:%d", port), "Dance": "unknown command \"Dance\"",
	} {
		var out bytes.Buffer
		if p.Do(ctx, cmd, &out) || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %s", cmd, out.String())
		}
	}
	if !p.Do(ctx, "exit", &bytes.Buffer{}) {
		t.Error("exit does not exit")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	logs, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "log", "dm_dmwatcher_A_"+time.Now().Format("200601")+".log"))
	if len(logs) != 1 {
		t.Errorf("log files: %v", logs)
	}
}

func TestConvert(t *testing.T) {
	path, _ := files(t)
	p, err := Load(path, nil, guard.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	if in := p.Infos[0]; in.RType != "REALTIME" || len(in.Watchers) != 2 || in.OGUID != 453331 {
		t.Errorf("%+v", in)
	}
}

// TestFieldsAreTheManuals: what show prints of a group, an instance and its replay
// has the fields of manual 3.7 #4, in its order.
func TestFieldsAreTheManuals(t *testing.T) {
	st := proto.WatcherStatus{State: proto.DWOpen, CtlStatus: proto.CtlValid, InstOK: true, Config: proto.GroupConfig{Type: "GLOBAL", Mode: "AUTO"},
		Inst: proto.InstanceStatus{Incarnation: "i", Mode: base.ModeStandby, Status: base.StatusOpen, RedosParallel: 2, Replay: base.Position{Seq: 3, LSN: 77}}}
	var out bytes.Buffer
	printShow(&out, Info{Group: "GRP1", Inst: "A", RType: "REALTIME"}, guard.Snapshot{Status: st})
	l := strings.Split(out.String(), "\n")
	for i, want := range []string{"GROUP_NAME TYPE MODE OGUID MPP_FLAG AUTO_RESTART DW_STATUS DW_SUB_STATUS DW_CTL_STATUS",
		"INST_OK NAME SVR_MODE SYS_STATUS RTYPE FSEQ FLSN CSEQ CLSN DW_STAT_FLAG",
		"REDOS_PARALLEL_NUM DSC_SEQNO SSEQ SLSN KSEQ KLSN RSEQ RLSN N_TSK TSK_MEM_USE REDO_LSN_ARR"} {
		if 2*i+1 >= len(l) || strings.Join(strings.Fields(l[2*i]), " ") != want || len(strings.Fields(l[2*i+1])) != len(strings.Fields(want)) {
			t.Fatalf("line %d is not %q with its values:\n%s", 2*i, want, out.String())
		}
	}
	if !strings.HasSuffix(l[1], " Valid") {
		t.Errorf("the control file's status is not written as in the manual: %s", l[1])
	}
	if !strings.Contains(l[5], "(77,77)") {
		t.Errorf("one LSN for each replayer is missing: %s", l[5])
	}
	out.Reset()
	printLinks(&out, Info{}, guard.Snapshot{Links: []guard.Link{{From: "dmmonitor", MonID: "m", Addr: "h:1", Handle: "4", Confirm: true}}})
	if h, _, _ := strings.Cut(out.String(), "\n"); strings.Join(strings.Fields(h), " ") != "FROM_FLAG FROM_INAME HANDLE MID N_FIX MON_ADDR MON_CONFIRM CONN_TIME" {
		t.Errorf("show link: %s", h)
	}
}
