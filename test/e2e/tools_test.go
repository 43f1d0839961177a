package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"datawatch/internal/app/dw"
)

// TestPrograms: every program has help and a version, and answers wrong usage
// with exit code 2.
func TestPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	for _, p := range []string{"dminit", "dmserver", "dmwatcher", "dmmonitor", "disql", "dmrman", "dw"} {
		name := filepath.Join(programs(t), p)
		for _, a := range []string{"help", "-h", "--help"} {
			wants(t, run(t, 0, name, a), p)
		}
		for _, a := range []string{"version", "-version", "--version"} {
			wants(t, run(t, 0, name, a), "V8")
		}
		wants(t, run(t, 2, name, "--nonsense"), "nonsense")
	}
	for p, form := range map[string]string{"dmserver": "DMSERVER[4.0] V8", "dmwatcher": "DMWATCHER[4.0] V8", "dmmonitor": "DMMONITOR[4.0] V8"} {
		wants(t, run(t, 0, filepath.Join(programs(t), p), "version"), form)
	}
}

// TestDminit: every argument that is wrong is named, with exit code 2, and
// leaves nothing behind.
func TestDminit(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	dir := filepath.Join(t.TempDir(), "data")
	dminit := filepath.Join(programs(t), "dminit")
	for _, bad := range []string{"PAGE_SIZE=5", "LOG_SIZE=1", "LOG_SIZE=99999", "LOG_FILES=1", "DB_NAME=../x", "INSTANCE_NAME=ABCDEFGHIJKLMNOPQRS", "INSTANCE_NAME=a b",
		"PORT_NUM=80", "PORT_NUM=abc", "BUFFER=-1", "NO_SUCH=1", "nonsense", "PATH=/other"} {
		key, _, _ := strings.Cut(bad, "=")
		wants(t, run(t, 2, dminit, "PATH="+dir, bad), key)
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s left something in %s (%v)", bad, dir, err)
		}
	}
	wants(t, run(t, 2, dminit, "DB_NAME=X"), "PATH")
	wants(t, run(t, 0, dminit, "path="+dir, "db_name=shop", "Instance_Name=S1", "page_size=8", "log_size=16", "log_files=3", `SYSDBA_PWD=Ab 1;"x`), "dmserver", "disql")
	wants(t, run(t, 3, dminit, "path="+dir, "db_name=shop"), "shop")
	if logs, _ := filepath.Glob(filepath.Join(dir, "shop", "*.log")); len(logs) != 3 {
		t.Errorf("online logs: %v, want 3", logs)
	}
}

// TestTools uses disql and the monitor's command line on a running system, as
// scripts do: what they print and their exit codes.
func TestTools(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	sys := up(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true})
	bin := func(name string) string { return filepath.Join(programs(t), name) }
	one, two, port := sys.DBs[0].Name, sys.DBs[1].Name, sys.DBs[0].Port

	t.Run("disql", func(t *testing.T) {
		login := fmt.Sprintf("SYSDBA/SYSDBA@127.0.0.1:%d", port)
		script := filepath.Join(t.TempDir(), "s.sql")
		write(t, script, "CREATE TABLE dq(a INT, b TEXT);\nINSERT INTO dq VALUES (1, NULL), (2, 'x;y');\n-- a comment; here\nSELECT * FROM dq\n/\n")
		if got := run(t, 0, bin("disql"), login, "-f", script); got != "1\t\\N\n2\tx;y\n" {
			t.Errorf("script mode printed %q", got)
		}
		if got := run(t, 1, bin("disql"), login, "-e", "SELECT 1; SELECTT; SELECT 2"); !strings.HasPrefix(got, "1\n") || !strings.Contains(got, "42601") || strings.Contains(got, "\n2") {
			t.Errorf("an error must end the script: %q", got)
		}
		if got := run(t, 1, bin("disql"), login, "-continue", "-e", "SELECTT; SELECT 2"); !strings.HasSuffix(got, "2\n") {
			t.Errorf("-continue: %q", got)
		}
		if got := run(t, 1, bin("disql"), login, "-table", "-e", "SELECT * FROM nosuch"); strings.Contains(got, "─") {
			t.Errorf("a failed query printed a table: %q", got)
		}
		for _, c := range []struct {
			code int
			args []string
			word string
		}{
			{1, []string{fmt.Sprintf("SYSDBA/wrong@127.0.0.1:%d", port), "-e", "SELECT 1"}, "28P01"},
			{1, []string{"SYSDBA/x@127.0.0.1:1", "-e", "SELECT 1"}, "127.0.0.1:1"},
			{2, []string{"SYSDBA/x@127.0.0.1:99999", "-e", "SELECT 1"}, "99999"},
			{2, []string{login, "-f", script + ".missing"}, "missing"},
			{1, []string{fmt.Sprintf("SYSDBA/SYSDBA@127.0.0.1:%d", sys.DBs[1].Port), "-e", "CREATE TABLE x(a INT)"}, "25006"},
		} {
			wants(t, run(t, c.code, bin("disql"), c.args...), c.word)
		}
		cmd := exec.CommandContext(t.Context(), bin("disql"), login)
		cmd.Stdin = strings.NewReader("SELECT 40 +\n 2;\n\\conninfo\nexit\n")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "42\n") || !strings.Contains(string(out), "SYSDBA") {
			t.Errorf("from standard input: %q %v", out, err)
		}
	})

	ini := monitorIni(t, sys)
	b, err := os.ReadFile(ini)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	const login = "login SYSDBA/SYSDBA; "
	t.Run("dmmonitor", func(t *testing.T) {
		for _, c := range []struct {
			cmd  string
			code int
			word string
		}{
			{"help", 0, "switchover"},
			{"show version; show global info; show", 0, one},
			{"show database " + two, 0, "Standby"},
			{"show database " + sys.Group + "." + one + "; show open info " + one, 0, "Primary"},
			{"list", 0, "INST_OGUID"},
			{"list " + two, 0, "INST_OGUID"},
			{"show monitor", 0, "TRUE"},
			{"show state; get takeover time; q", 0, "SINGLE"},
			{"tip", 0, "normally"},
			{"logout", 0, "done"},
			{"show arch send info " + two, 0, "VALID"},
			{"show arch send info " + two, 0, "TOTAL SEND COUNT"},
			{"show apply stat " + two, 0, "TOTAL APPLY NUM"},
			{"explain", 0, "nothing to explain"}, {"explain " + two, 0, "it takes over by itself: no"},
			{"check open " + one + "; check recover " + two, 0, "ok"},
			{"choose switchover", 0, two + " can be switched to primary"},
			{"choose takeover", 3, two + ": no"}, {"choose takeover force; show version", 3, two + ": no"},
			{"startup dmwatcher; startup group; startup database " + two, 0, "nothing to do"},
			// Everything that changes something needs a login.
			{"stop dmwatcher", 3, "login"}, {"stop dmwatcher database " + two, 3, "login"}, {"stop group", 3, "login"},
			{"open database " + two, 3, "login"}, {"switchover", 3, "login"}, {"takeover", 3, "login"}, {"takeover force", 3, "login"},
			{"set database " + two + " recover time 10", 3, "login"}, {"set database " + two + " arch invalid", 3, "login"},
			{"set group " + sys.Group + " INST_RECOVER_TIME 10", 3, "login"}, {"set group recover time 10", 3, "login"}, {"set group arch invalid", 3, "login"},
			{"clear database " + two + " arch send info", 3, "login"}, {"clear group apply stat", 3, "login"},
			{"detach database " + two, 3, "login"}, {"attach database " + two, 3, "login"}, {"stop database " + two, 3, "login"},
			{"login SYSDBA/wrong", 1, "-2501"},
			{login + "clear group arch send info; clear group apply stat; clear database " + two + " apply stat; attach database " + two, 0, "done"},
			{login + "set group INST_RECOVER_TIME 5; set database " + two + " recover time 4; set group recover time 3", 0, "done"},
			{login + "set group INST_RECOVER_TIME -5", 2, "3 to 86400"},
			{login + "set group NO_SUCH 1", 2, "NO_SUCH"},
			{login + "open database " + two, 0, "Open"},
			{login + "takeover " + two, 3, one}, // the primary is there
			{login + "takeover force " + two, 3, one},
			{login + "switchover " + one, 3, one}, // it is the primary
			{login + "switchover " + sys.Group + ".NO_SUCH", 2, "NO_SUCH"},
			// What needs another kind of system says so.
			{"show mpp", 3, "MPP"}, {"stop group all", 3, "MPP"}, {"check mppctl", 3, "MPP"}, {"recover mppctl", 3, "MPP"}, {"startup dmwatcher all", 3, "MPP"},
			// Wrong usage.
			{"nonsense", 2, "nonsense"}, {"show database", 2, "usage"}, {"show database NO_SUCH", 2, "NO_SUCH"}, {"show NO_SUCH", 2, "NO_SUCH"}, {"show interval 4", 2, "5-3600"},
			// The first failure ends the list; what it prints once carries its code once.
			{"nonsense; show version", 2, "nonsense"},
			{login + "switchover", 0, "done"},
		} {
			out := run(t, c.code, bin("dmmonitor"), ini, "-e", c.cmd)
			wants(t, out, c.word)
			for _, l := range strings.Split(out, "\n") {
				if strings.Count(l, "[code ") > 1 {
					t.Errorf("%s: a code is repeated: %s", c.cmd, l)
				}
			}
		}
	})
	t.Run("dmmonitor -json", func(t *testing.T) {
		dec := json.NewDecoder(strings.NewReader(run(t, 3, bin("dmmonitor"), ini, "-json", "-e", "show; show version; choose takeover")))
		var g struct {
			Primary   string
			Databases []struct{ IName, IStatus, IMode string }
		}
		if err := dec.Decode(&g); err != nil || g.Primary != two || len(g.Databases) != 2 || g.Databases[0].IStatus != "Open" {
			t.Errorf("show: %+v %v", g, err)
		}
		for dec.More() {
			var any any
			if err := dec.Decode(&any); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("dmmonitor configuration", func(t *testing.T) {
		wants(t, run(t, 2, bin("dmmonitor"), ini+".missing", "-e", "show"), "missing")
		bad := filepath.Join(t.TempDir(), "bad.ini")
		write(t, bad, strings.Replace(text, "MON_INST_OGUID", "MON_OGUID", 1))
		wants(t, run(t, 2, bin("dmmonitor"), bad, "-e", "show"), "bad.ini", "MON_OGUID")
		write(t, bad, strings.Replace(text, fmt.Sprint(sys.OGUID), "17", 1))
		wants(t, run(t, -1, bin("dmmonitor"), bad, "-e", "show database "+one), "OGUID")
	})
	noPanics(t, sys)
}
