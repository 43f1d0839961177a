package dw

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"datawatch/internal/config"
)

// run runs one dw command ; nothing is started.
func run(t *testing.T, args ...string) (code int, text string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	stub := filepath.Join(filepath.Dir(exe), "dmserver") // binDir looks for it
	if f, err := os.OpenFile(stub, os.O_CREATE|os.O_EXCL, 0o755); err == nil {
		f.Close()
	}
	var b bytes.Buffer
	code = Main(t.Context(), args, &b, &b)
	return code, b.String()
}

// A system that exists is not silently used with other options than it was
// made with.
func TestUpRefusesOtherOptions(t *testing.T) {
	dir := t.TempDir()
	s, err := newSystem(Options{Dir: dir, Standbys: 1, Mode: "auto", Monitors: 1, Port: 14000}, "/nowhere")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
	for _, a := range [][]string{{"-port", "14001"}, {"-standbys", "2"}, {"-mode", "manual"}, {"-monitors", "0"}} {
		code, text := run(t, append([]string{"up", "-dir", dir}, a...)...)
		if code != exitRefused || !strings.Contains(text, "was made with "+a[0]) {
			t.Errorf("%v: exit %d, %s", a, code, text)
		}
	}
	code, text := run(t, "up", "-dir", dir, "-port", "14000", "-mode", "AUTO")
	if code != exitRefused || !strings.Contains(text, "never finished") {
		t.Errorf("the same options: exit %d, %s", code, text)
	}
}

// `dw up` takes no directory with other things in it: -wipe would remove them.
func TestUpRefusesForeignDirectory(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, a := range [][]string{{"up", "-dir", dir}, {"down", "-wipe", "-dir", dir}} {
		if code, text := run(t, a...); code != exitRefused {
			t.Errorf("%v: exit %d, %s", a, code, text)
		}
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}

// TestHelp: a question for help is answered, of the program and of a command.
func TestHelp(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, a := range []string{"-h", "help", "up -h", "status -help", "bench --help"} {
		code, text := run(t, strings.Fields(a)...)
		if code != exitOK || !strings.Contains(text, "dw up     [-dir run]") {
			t.Errorf("dw %s: exit %d, %s", a, code, text)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, a := range []string{"bogus", "up -port 80", "up -mode x", "up -standbys 9", "up -monitors 2", "up -x", "up y", "kill", "kill a b"} {
		code, text := run(t, strings.Fields(a)...)
		if code != exitUsage || !strings.Contains(text, "dw help") {
			t.Errorf("dw %s: exit %d, %s", a, code, text)
		}
	}
}

// A server that has not written its own pid file yet is found by ours, so that
// an interrupted start leaves nothing running.
func TestPIDBeforeOwnFile(t *testing.T) {
	s, err := newSystem(Options{Dir: t.TempDir(), Mode: "manual", Port: 14000}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := s.processes()[0]
	ini := s.ini(p.db, "dm.ini")
	for _, d := range []string{filepath.Dir(ini), filepath.Join(s.Dir, "pid")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// A shell that looks like the server: its script is the configuration file.
	if err := os.WriteFile(ini, []byte("read x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("/bin/sh", ini)
	c.Args[0] = s.program("dmserver")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = c.Wait() })
	for _, pid := range []int{c.Process.Pid, os.Getpid()} {
		if err := os.WriteFile(s.pidFile(p.name), []byte(strconv.Itoa(pid)), 0o644); err != nil {
			t.Fatal(err)
		}
		want := pid
		if pid == os.Getpid() {
			want = 0 // another program has the number now
		}
		if got := s.pid(p); got != want {
			t.Errorf("pid %d, want %d", got, want)
		}
	}
}

// `dw status` exits with something else than 0 when the system is not healthy,
// and says why in both of its forms.
func TestStatusOfAnUnhealthySystem(t *testing.T) {
	dir := t.TempDir()
	s, err := newSystem(Options{Dir: dir, Standbys: 1, Mode: "auto", Monitors: 1, Port: 14000}, "/nowhere")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
	for _, a := range [][]string{{"status", "-dir", dir}, {"status", "-json", "-dir", dir}} {
		code, text := run(t, a...)
		if code != exitRefused || !strings.Contains(text, "nothing runs") || strings.Contains(text, "dw status:") {
			t.Errorf("%v: exit %d, %s", a, code, text)
		}
	}
}

// What dw writes has an effect: its programs would warn of it at every start.
func TestGeneratedFilesHaveEffect(t *testing.T) {
	for _, o := range []Options{{Standbys: 0, Mode: "manual", Port: 14000}, {Standbys: 2, Mode: "auto", Monitors: 1, Port: 14000, Fast: true}} {
		dir := t.TempDir()
		o.Dir = dir
		s, err := newSystem(o, dir)
		if err != nil {
			t.Fatal(err)
		}
		files := map[string]string{"dmmonitor.ini": s.monitorFile(true, dir)}
		for name, text := range s.files(s.DBs[0]) {
			files[name] = text
		}
		var dm strings.Builder
		for _, kv := range s.dmIniKeys(s.DBs[0]) {
			fmt.Fprintf(&dm, "%s = %s\n", kv[0], kv[1])
		}
		files["dm.ini"] = "CTL_PATH = " + dir + "/dm.ctl\nSYSTEM_PATH = " + dir + "\n" + dm.String()
		for name, text := range files {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			var src config.Source
			switch name {
			case "dm.ini":
				var c *config.DM
				if c, err = config.LoadDM(path); err == nil {
					src = c.Source
				}
			case "dmmal.ini":
				var c *config.MAL
				if c, err = config.LoadMAL(path); err == nil {
					src = c.Source
				}
			case "dmarch.ini":
				var c *config.Arch
				if c, err = config.LoadArch(path); err == nil {
					src = c.Source
				}
			case "dmwatcher.ini":
				var c *config.Watcher
				if c, err = config.LoadWatcher(path); err == nil {
					src = c.Source
				}
			case "dmmonitor.ini":
				var c *config.Monitor
				if c, err = config.LoadMonitor(path); err == nil {
					src = c.Source
				}
			}
			if err != nil || len(src.Settings) == 0 {
				t.Fatalf("%s: %v, %d settings", name, err, len(src.Settings))
			}
			for _, w := range src.Warnings() {
				t.Errorf("%s", w)
			}
		}
	}
}

// What ends soon is told of below the judgement, which is healthy still.
func TestStatusTellsOfCertificates(t *testing.T) {
	var out strings.Builder
	st := SystemStatus{Healthy: true, Certificates: []string{"B: its certificate /ssl/B.crt ends on 2026-01-02", "next: dw certs renew B"}}
	printStatus(&out, st)
	if want := "\nhealthy\n  B: its certificate /ssl/B.crt ends on 2026-01-02\n  next: dw certs renew B\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("%s", out.String())
	}
	out.Reset()
	st.Healthy, st.Why = false, "a certificate has expired"
	printStatus(&out, st)
	if want := "\nnot healthy: a certificate has expired\n  B: its"; !strings.Contains(out.String(), want) {
		t.Errorf("%s", out.String())
	}
}

// A port that the system lends to connections is in use now and then: what dw up
// says of it names ports that are not.
func TestLentPorts(t *testing.T) {
	f := filepath.Join(t.TempDir(), "range")
	if err := os.WriteFile(f, []byte("32768\t60999\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for port, want := range map[int]string{14000: "", 32768: ", below 32768: ", 60999: ", below 32768: ", 61000: ""} {
		if s := lent(port, f); want == "" && s != "" || !strings.HasPrefix(s, want) {
			t.Errorf("%d: %q", port, s)
		}
	}
	if s := lent(40000, f+"x"); s != "" {
		t.Errorf("without the file: %q", s)
	}
}

// What dw up prints to type is short where it can be.
func TestFromHere(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if p := fromHere(filepath.Join(wd, "run", "log")); p != filepath.Join("run", "log") {
		t.Errorf("%q", p)
	}
	if p := fromHere("/elsewhere/run"); p != "/elsewhere/run" {
		t.Errorf("%q", p)
	}
}
