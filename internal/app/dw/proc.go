package dw

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// kind of a process of a system.
type kind string

const (
	kindServer  kind = "server"
	kindWatcher kind = "watcher"
	kindMonitor kind = "monitor"
)

// process is one process a system should have.
type process struct {
	name string
	kind kind
	db   Database // of servers and watchers
}

// processes lists every process of the system in start order.
func (s *System) processes() []process {
	var out []process
	for _, d := range s.DBs {
		out = append(out, process{d.Name, kindServer, d})
	}
	for _, d := range s.DBs {
		out = append(out, process{watcherName(d), kindWatcher, d})
	}
	for i := 0; i < s.Monitors; i++ {
		out = append(out, process{monitorName, kindMonitor, Database{}})
	}
	return out
}

// find returns the process with that name, case-insensitively.
func (s *System) find(name string) (process, error) {
	var names []string
	for _, p := range s.processes() {
		if strings.EqualFold(p.name, name) {
			return p, nil
		}
		names = append(names, p.name)
	}
	return process{}, fmt.Errorf("no process %q here; there are %s", name, strings.Join(names, ", "))
}

// argv is the command line of a process. The last argument but for options is
// its configuration file, by which a pid is recognised as ours.
func (s *System) argv(p process) []string {
	switch p.kind {
	case kindServer:
		return []string{s.program("dmserver"), s.ini(p.db, "dm.ini"), "mount"}
	case kindWatcher:
		return []string{s.program("dmwatcher"), s.ini(p.db, "dmwatcher.ini")}
	default:
		return []string{s.program("dmmonitor"), s.monitorIni(), "-service"}
	}
}

// pid returns the process id of a running process, 0 when it does not run. A
// server's pid file is its own (its watcher may have restarted it), but ours
// is the only one until it has written that; the command line is checked, so
// that a recycled pid is never taken for ours.
func (s *System) pid(p process) int {
	if p.kind == kindServer {
		if pid := s.pidIn(p, filepath.Join(s.dbDir(p.db), "dmserver.pid")); pid != 0 {
			return pid
		}
	}
	return s.pidIn(p, s.pidFile(p.name))
}

func (s *System) pidIn(p process, path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return 0
	}
	if !s.runs(p, pid) {
		return 0
	}
	return pid
}

// runs tells whether the process with that number, which was p, still is.
func (s *System) runs(p process, pid int) bool {
	args := cmdline(pid)
	return !elsewhere(pid) && (s.is(p, args) || args == nil && ending(pid))
}

// elsewhere tells whether a process has another number where it runs: a container
// may have the same program with the same file name in it, and shows its processes
// to those outside. Where that cannot be read the process is ending, or not ours to
// end.
func elsewhere(pid int) bool {
	own, err := os.Readlink("/proc/self/ns/pid")
	its, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	return err == nil && err2 == nil && own != its
}

// cmdline is the command line of a process, nil when it has none: it is gone, or
// has begun to end.
func cmdline(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
}

// is tells whether a process with that command line is p.
func (s *System) is(p process, args []string) bool {
	want := s.argv(p)
	return len(args) >= 2 && filepath.Base(args[0]) == filepath.Base(want[0]) && args[1] == want[1]
}

// ending tells whether a process has begun to end and still holds what it had
// open: its memory goes first, and its command line with that, then its files.
func ending(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return err == nil && stillEnding(stat, len(threads))
}

// stillEnding judges by the line that Linux shows of a process: PID (NAME) STATE
// PPID PGRP SESSION TTY TPGID FLAGS. A name may hold anything.
func stillEnding(stat []byte, threads int) bool {
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 7 {
		return false
	}
	const exiting = 0x4 // PF_EXITING; threads of the kernel have no command line either
	flags, err := strconv.ParseUint(f[6], 10, 64)
	dead := f[0] == "Z" || f[0] == "X"
	return err == nil && flags&exiting != 0 && (!dead || threads > 1)
}

// start starts a process of its own session with its output in the log
// directory; it outlives dw.
func (s *System) start(p process) error {
	if pid := s.pid(p); pid != 0 {
		return nil
	}
	return s.spawn(p.name, s.argv(p))
}

func (s *System) spawn(name string, argv []string) error {
	for _, d := range []string{"log", "pid"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, d), 0o755); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(s.logFile(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = s.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if s.launch != nil {
		err = s.launch(name, cmd)
	} else {
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	if err := os.WriteFile(s.pidFile(name), []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o644); err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	go func() { _ = cmd.Wait() }() // no zombie while dw lives
	return nil
}

// stop asks a process to end (SIGTERM) and waits.
func (s *System) stop(ctx context.Context, p process) error {
	pid := s.pid(p)
	if pid == 0 {
		return nil
	}
	return s.stopPID(ctx, p, pid)
}

func (s *System) stopPID(ctx context.Context, p process, pid int) error {
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stopping %s (pid %d): %w", p.name, pid, err)
	}
	return s.waitGone(ctx, p, pid)
}

func (s *System) waitGone(ctx context.Context, p process, pid int) error {
	return poll(ctx, 50*time.Millisecond, func() (bool, string) {
		return !s.runs(p, pid), fmt.Sprintf("%s (pid %d) to end; its log is %s", p.name, pid, s.logFile(p.name))
	})
}

// kill ends a process at once (SIGKILL), as a crash would.
func (s *System) kill(p process) (int, error) {
	pid := s.pid(p)
	if pid == 0 {
		return 0, fmt.Errorf("%s does not run", p.name)
	}
	return pid, syscall.Kill(pid, syscall.SIGKILL)
}

// poll calls ok until it is true or ctx is done; the error then says what was
// waited for.
func poll(ctx context.Context, every time.Duration, ok func() (bool, string)) error {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		done, what := ok()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s while waiting for %s", endOf(ctx), what)
		case <-t.C:
		}
	}
}

// endOf says why a wait ended.
func endOf(ctx context.Context) string {
	if errors.Is(ctx.Err(), context.Canceled) {
		return "interrupted"
	}
	return "out of time"
}

// tail returns the last lines of a log file, for error messages.
func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	if len(b) > 64<<10 {
		b = b[len(b)-64<<10:]
	}
	l := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(l) > lines {
		l = l[len(l)-lines:]
	}
	return "    " + strings.Join(l, "\n    ")
}
