package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"datawatch/internal/app/dw"
	"datawatch/internal/config"
	"datawatch/internal/vfs"
)

// The laboratory: machines with network cards of their own, on this machine. A
// test that uses it runs itself again as the first process of new network,
// process and mount namespaces; when that process ends, however it ends, the
// kernel ends everything it started and removes every card and mount. The
// namespaces have no way out.

const (
	labEnv    = "DW_LAB"        // set inside
	labCgroup = "DW_LAB_CGROUP" // what names of control groups begin with
)

// inLab reports whether the test runs in the laboratory. Outside, it runs the
// test there and takes over its output and result; the test then returns.
func inLab(t *testing.T) bool {
	t.Helper()
	if os.Getenv(labEnv) == "1" {
		return true
	}
	if testing.Short() {
		t.Skip("starts real processes in network namespaces")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make network namespaces")
	}
	if f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0); err != nil {
		t.Skipf("network cards cannot be made here: %v", err)
	} else {
		f.Close()
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip (Debian: iproute2) is not installed; .ci/deps installs it")
	}
	bin := programs(t)
	runtime.LockOSThread() // Pdeathsig is about the thread that forks
	defer runtime.UnlockOSThread()
	args := []string{"-test.run", "^" + t.Name() + "$", "-test.v", "-test.count=1"}
	if d, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout", (time.Until(d) - 5*time.Second).String())
	} else {
		args = append(args, "-test.timeout", "0")
	}
	cmd := exec.Command("/proc/self/exe", args...)
	groups := fmt.Sprintf("datawatch-lab-%d-%s", os.Getpid(), t.Name())
	cmd.Env = append(os.Environ(), labEnv+"=1", "DW_E2E_BIN="+bin, labCgroup+"="+groups)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	pr, pw := io.Pipe()
	cmd.Stdout, cmd.Stderr = pw, pw
	if err := cmd.Start(); err != nil {
		t.Skipf("namespaces cannot be made here: %v", err)
	}
	lines := make(chan struct{})
	go func() {
		defer close(lines)
		sc := bufio.NewScanner(pr)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			if l := sc.Text(); !strings.HasPrefix(l, "=== ") {
				t.Log(strings.TrimPrefix(l, "    "))
			}
		}
		_, _ = io.Copy(io.Discard, pr)
	}()
	err := cmd.Wait()
	pw.Close()
	<-lines
	if err != nil {
		t.Errorf("in the laboratory: %v", err)
	}
	// Control groups outlive the processes in them.
	left, _ := filepath.Glob("/sys/fs/cgroup/*/" + groups + "-*")
	for _, d := range left {
		if err := os.Remove(d); err != nil {
			t.Error(err)
		}
	}
	return false
}

// machine is a network namespace with its cards.
type machine struct {
	name  string
	jobs  chan func()
	inner *card // internal network: MAL, watchers, monitors
	outer *card // external network: SQL clients; nil for a monitor's machine
}

func newMachine(t *testing.T, name string) *machine {
	m := &machine{name: name, jobs: make(chan func())}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread is the machine
		made <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range m.jobs {
			f()
		}
	}()
	if err := <-made; err != nil {
		t.Fatalf("namespace of %s: %v", name, err)
	}
	m.ip(t, "link set lo up")
	return m
}

// do runs f on the machine: what it forks, listens on and dials is there.
func (m *machine) do(f func() error) error {
	if m == nil { // the namespace of the test itself: the clients' machine
		return f()
	}
	done := make(chan error, 1)
	m.jobs <- func() { done <- f() }
	return <-done
}

func (m *machine) ip(t testing.TB, command string) {
	t.Helper()
	err := m.do(func() error {
		if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", command, err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// lab is a system on machines of its own: databases in order, then the
// monitor's. The test process is the clients' machine.
type lab struct {
	sys          *dw.System
	machines     []*machine
	client       *card
	inner, outer *network
}

// labOptions adds what the laboratory can set to those of dw.
type labOptions struct {
	dw.Options
	DM, Watcher, MAL [][2]string // keys of dm.ini, of the group in dmwatcher.ini, of dmmal.ini
	Direct           bool        // the load has a writer for each database too
}

// prepareLab makes the namespaces fit to live in, once.
var prepareLab = sync.OnceValue(func() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mounts of its own: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("/proc: %w", err)
	}
	return nil
})

var labs atomic.Int32

// newLab makes the machines and a healthy system on them.
func newLab(t *testing.T, o labOptions) *lab {
	t.Helper()
	if err := prepareLab(); err != nil {
		t.Fatal(err)
	}
	id := labs.Add(1)
	net := func(kind, host int) string { return fmt.Sprintf("10.%d.%d.%d", id, kind, host) }
	var here *machine
	here.ip(t, "link set lo up")
	bridge := fmt.Sprintf("console%d", id)
	here.ip(t, "link add "+bridge+" type bridge")
	here.ip(t, "addr add "+net(3, 254)+"/24 dev "+bridge)
	here.ip(t, "link set "+bridge+" up")
	l := &lab{inner: newNetwork("inner"), outer: newNetwork("outer")}
	l.client = l.outer.plug(t, nil, fmt.Sprintf("outer%d", id), net(2, 254)+"/24")
	n := o.Standbys + 1
	for i := range n + 1 {
		m := newMachine(t, fmt.Sprintf("machine %d", i+1))
		l.machines = append(l.machines, m)
		m.inner = l.inner.plug(t, m, "inner", net(1, i+1)+"/24")
		if i < n {
			m.outer = l.outer.plug(t, m, "outer", net(2, i+1)+"/24")
			o.Machines = append(o.Machines, dw.Machine{Inner: net(1, i+1), Outer: net(2, i+1), Console: net(3, i+1)})
		}
		m.console(t, bridge, fmt.Sprintf("con%d.%d", id, i+1), net(3, i+1))
	}
	o.Port = 20000 // nobody else is here
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "run")
	}
	for i, m := range l.machines[:n] {
		for _, port := range []int{o.Port + i, o.Port + 300 + i} { // SQL, watcher
			m.forward(t, o.Machines[i].Console, port, o.Machines[i].Outer, o.Machines[i].Inner, "127.0.0.1")
		}
	}
	o.Start = func(process string, cmd *exec.Cmd) error { return l.of(process).do(cmd.Start) }
	o.Configured = o.adapt
	l.sys = up(t, o.Options)
	return l
}

// adapt changes keys of the configuration files.
func (o labOptions) adapt(s *dw.System) error {
	for _, d := range s.DBs {
		for _, f := range []struct {
			file, section string
			keys          [][2]string
		}{{"dm.ini", "", o.DM}, {"dmwatcher.ini", s.Group, o.Watcher}, {"dmmal.ini", "", o.MAL}} {
			for _, k := range f.keys {
				if err := config.SetParam(vfs.OS{}, filepath.Join(s.Dir, d.Name, "DAMENG", f.file), f.file, f.section, k[0], k[1]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// of is the machine of a process.
func (l *lab) of(process string) *machine {
	for i, d := range l.machines[:len(l.machines)-1] {
		if strings.HasSuffix(process, fmt.Sprintf("GRP1_RT_%02d", i+1)) {
			return d
		}
	}
	return l.machines[len(l.machines)-1]
}

// console gives the machine a card of a network that never fails, for the test
// to look at it.
func (m *machine) console(t *testing.T, bridge, name, addr string) {
	t.Helper()
	var here *machine
	hold := exec.Command("sleep", "60") // a process by which ip can name the namespace
	if err := m.do(hold.Start); err != nil {
		t.Fatal(err)
	}
	here.ip(t, fmt.Sprintf("link add %s type veth peer name console netns %d", name, hold.Process.Pid))
	_ = hold.Process.Kill()
	_ = hold.Wait()
	here.ip(t, fmt.Sprintf("link set %s master %s up", name, bridge))
	m.ip(t, fmt.Sprintf("addr add %s/24 dev console", addr))
	m.ip(t, "link set console up")
}

// forward takes connections from the console to a port of the machine's own
// addresses, as somebody logged in there would.
func (m *machine) forward(t *testing.T, console string, port int, hosts ...string) {
	t.Helper()
	var ln net.Listener
	listen := fmt.Sprintf("%s:%d", console, port)
	if err := m.do(func() (err error) { ln, err = net.Listen("tcp", listen); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	pipe := func(a, b net.Conn) {
		_, _ = io.Copy(a, b)
		a.Close()
		b.Close()
	}
	go func() {
		for {
			a, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				var b net.Conn
				err := m.do(func() (err error) {
					for _, h := range hosts {
						if b, err = net.DialTimeout("tcp", fmt.Sprintf("%s:%d", h, port), 300*time.Millisecond); err == nil {
							return nil
						}
					}
					return err
				})
				if err != nil {
					a.Close()
					return
				}
				go pipe(a, b)
				pipe(b, a)
			}()
		}
	}()
}

// TestLab makes a laboratory for somebody to work in, for DW_LAB_HOLD seconds:
// it prints how to get onto each machine. `ip link set dev inner down` there
// makes a card fail.
func TestLab(t *testing.T) {
	hold := envSeconds("DW_LAB_HOLD", 0)
	if hold == 0 {
		t.Skip("DW_LAB_HOLD=600 makes a laboratory for ten minutes")
	}
	if !inLab(t) {
		return
	}
	l := newLab(t, labOptions{Options: dw.Options{Standbys: 1, Mode: envOr("DW_LAB_MODE", "auto"), Monitors: 1, Fast: true}})
	for _, n := range l.sys.Names() {
		t.Logf("%s: `nsenter -n -t $(pgrep -f '%s')`", n, strings.Join(l.sys.Argv(n)[:2], " "))
	}
	t.Logf("monitor: %s/dmmonitor %s; the administrator's password: %s", l.sys.Bin, l.sys.MonitorIni(), l.sys.Password())
	pause(t.Context(), hold)
}

func envOr(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}
