package watcher

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// StartCommand says how to start the instance (INST_STARTUP_CMD, manual 5.4).
type StartCommand struct {
	Line   string // "program path" or "service NAME restart"
	Ini    string // path of dm.ini
	Output string // file for stdout and stderr, appended
}

// Args is the command line: the program gets dm.ini and mount, a service
// manager's line is used as it stands.
func (s StartCommand) Args() ([]string, error) {
	f := strings.Fields(s.Line)
	switch {
	case len(f) == 0:
		return nil, errors.New("INST_STARTUP_CMD is not set")
	case s.service():
		return f, nil
	case len(f) > 1:
		return nil, fmt.Errorf("INST_STARTUP_CMD %q: a program path must not contain blanks", s.Line)
	}
	return []string{f[0], s.Ini, "mount"}, nil
}

func (s StartCommand) service() bool {
	f := strings.Fields(s.Line)
	if len(f) < 2 {
		return false
	}
	switch filepath.Base(f[0]) {
	case "service", "systemctl", "net":
		return true
	}
	return false
}

// Process is a started program. PID is 0 when a service manager started it.
type Process struct {
	PID  int
	Done <-chan struct{}
}

// Processes is the process table, injected for tests.
type Processes interface {
	Start(StartCommand) (Process, error)
	// Identity tells processes with equal ids apart; it is never empty. The error
	// of a process that does not exist is fs.ErrNotExist or ESRCH.
	Identity(pid int) (string, error)
	// Alive is false for an empty identity.
	Alive(pid int, identity string) bool
	Kill(pid int, identity string) error
}

// OSProcesses is the operating system's.
type OSProcesses struct{}

// Start runs the program in a session of its own, so that signals to the
// watcher's terminal do not reach it and it outlives the watcher.
func (OSProcesses) Start(s StartCommand) (Process, error) {
	args, err := s.Args()
	if err != nil {
		return Process{}, err
	}
	if err := os.MkdirAll(filepath.Dir(s.Output), 0o750); err != nil {
		return Process{}, fmt.Errorf("log of the instance: %w", err)
	}
	f, err := openOutput(s.Output)
	if err != nil {
		return Process{}, fmt.Errorf("log of the instance: %w", err)
	}
	defer f.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if s.service() {
		if err := cmd.Run(); err != nil {
			return Process{}, fmt.Errorf("%s: %w", s.Line, err)
		}
		return Process{}, nil
	}
	if err := cmd.Start(); err != nil {
		return Process{}, fmt.Errorf("start %s: %w", args[0], err)
	}
	done := make(chan struct{})
	// This goroutine lives as long as the child: it only waits for it, so that
	// no zombie stays, and ends with it or with the watcher's process.
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	return Process{PID: cmd.Process.Pid, Done: done}, nil
}

// maxOutput is the size at which the output of an instance is put aside as
// NAME.old before the next start.
const maxOutput = 16 << 20

func openOutput(path string) (*os.File, error) {
	for put := false; ; put = true {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, err
		}
		if fi, err := f.Stat(); put || err != nil || fi.Size() < maxOutput {
			return f, nil
		}
		f.Close()
		if err := os.Rename(path, path+".old"); err != nil {
			return nil, err
		}
	}
}

// stat reads /proc/PID/stat from the state field on.
func stat(pid int) ([]string, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return nil, err
	}
	s := string(b)
	i := strings.LastIndexByte(s, ')')
	f := strings.Fields(s[i+1:])
	if i < 0 || len(f) < 20 {
		return nil, fmt.Errorf("/proc/%d/stat: unexpected form", pid)
	}
	return f, nil
}

// Identity is the start time of the process in clock ticks since boot.
func (OSProcesses) Identity(pid int) (string, error) {
	f, err := stat(pid)
	if err != nil {
		return "", err
	}
	return f[19], nil
}

// Alive: it exists, is the same one, and has not ended.
func (OSProcesses) Alive(pid int, identity string) bool {
	f, err := stat(pid)
	return err == nil && f[19] == identity && !ended(f)
}

// ended: all that is left is an entry for its parent. A killed process is a
// zombie before its last threads have let go of files and ports; started again
// in that moment it would find them taken.
func ended(stat []string) bool {
	const state, threads = 0, 17
	return stat[state] == "X" || stat[state] == "Z" && (stat[threads] == "0" || stat[threads] == "1")
}

// Kill sends SIGKILL to that very process.
func (p OSProcesses) Kill(pid int, identity string) error {
	if pid <= 1 || !p.Alive(pid, identity) {
		return nil
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}
