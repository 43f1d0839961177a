package dw

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain: under the name of a program of a system this is a stand-in for it.
func TestMain(m *testing.M) {
	switch name := filepath.Base(os.Args[0]); name {
	case "dmserver", "dmwatcher":
		standIn(name)
	default:
		os.Exit(m.Run())
	}
}

// standIn says its name and number on file 3 and ends when it is asked to. A
// watcher starts its instance in that very moment.
func standIn(name string) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	lives := os.NewFile(3, "lives")
	fmt.Fprintln(lives, name, os.Getpid())
	<-asked
	if name == "dmwatcher" {
		dir := filepath.Dir(os.Args[0])
		cmd := exec.Command(filepath.Join(dir, "dmserver"), filepath.Join(filepath.Dir(os.Args[1]), "dm.ini"), "mount")
		cmd.ExtraFiles = []*os.File{lives}
		if err := cmd.Start(); err != nil {
			os.Exit(1)
		}
	}
	os.Exit(0)
}

// TestDownFindsWhatAWatcherJustStarted: an instance that its watcher starts while
// it ends itself is in no pid file; nothing of the system runs after `dw down`.
func TestDownFindsWhatAWatcherJustStarted(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for _, name := range []string{"dmserver", "dmwatcher"} {
		if err := os.Symlink(exe, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := newSystem(Options{Dir: t.TempDir(), Mode: "manual", Port: 14000}, bin)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s.launch = func(_ string, cmd *exec.Cmd) error {
		cmd.ExtraFiles = []*os.File{w}
		return cmd.Start()
	}
	p, err := s.find(watcherName(s.DBs[0]))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.start(p); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := r.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	lives := bufio.NewReader(r)
	if line, err := lives.ReadString('\n'); err != nil || !strings.HasPrefix(line, "dmwatcher ") {
		t.Fatalf("%q, %v", line, err)
	}
	if err := s.Down(t.Context(), true, io.Discard); err != nil {
		t.Error(err)
	}
	// The end of the pipe is the end of all who hold it.
	if err := r.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(lives)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("still running: %s", rest)
		if _, n, ok := strings.Cut(strings.TrimSpace(string(rest)), " "); ok {
			pid, _ := strconv.Atoi(n)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	} else if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.Dir); err == nil {
		t.Error("the directory is still there")
	}
}

// TestDownLeavesContainersAlone: a process with the same program and file in
// another pid namespace is another system's, whatever the pid file says.
func TestDownLeavesContainersAlone(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(exe, filepath.Join(bin, "dmserver")); err != nil {
		t.Fatal(err)
	}
	s, err := newSystem(Options{Dir: t.TempDir(), Mode: "manual", Port: 14000}, bin)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.find(s.DBs[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	argv := s.argv(p)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
	}
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Skipf("no namespace can be made here: %v", err)
	}
	if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || line != "dmserver 1\n" {
		t.Errorf("%q, %v", line, err)
	}
	pid := cmd.Process.Pid
	if args := cmdline(pid); !s.is(p, args) {
		t.Errorf("its command line is %q", args)
	}
	if err := os.MkdirAll(filepath.Dir(s.pidFile(p.name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.pidFile(p.name), []byte(strconv.Itoa(pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := s.pid(p); got != 0 {
		t.Errorf("taken for ours: %d", got)
	}
	if err := s.Down(t.Context(), false, io.Discard); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	var end *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &end) || end.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("it had ended before: %v", err)
	}
}

// TestStillEnding: a process is gone when its files are closed, not when its
// command line is.
func TestStillEnding(t *testing.T) {
	for _, c := range []struct {
		stat    string
		threads int
		want    bool
	}{
		{"7 (dmserver) R 1 7 7 0 -1 4194564 0 0", 1, true},
		{"7 (a) b ) D 1 7 7 0 -1 4194564 0 0", 3, true},
		{"7 (dmserver) Z 1 7 7 0 -1 4194564 0 0", 2, true}, // other threads still hold the files
		{"7 (dmserver) Z 1 7 7 0 -1 4194564 0 0", 1, false},
		{"7 (dmserver) X 1 7 7 0 -1 4194564 0 0", 1, false},
		{"7 (kthreadd) S 0 0 0 0 -1 2129984 0 0", 1, false}, // another has the number now: a thread of the kernel
		{"7 (dmserver) R 1 7", 1, false},
		{"", 1, false},
	} {
		if got := stillEnding([]byte(c.stat), c.threads); got != c.want {
			t.Errorf("%q with %d threads: %v", c.stat, c.threads, got)
		}
	}
}
