package dw

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Down stops everything in the manual's order (6.4): confirm monitor, then the
// group through its watchers (primary first), then the watchers. What does not
// obey is asked with SIGTERM and, last, killed. Instances come last again: a
// watcher may have been starting one until it ended itself.
func (s *System) Down(ctx context.Context, wipe bool, out io.Writer) error {
	err := s.end(ctx, kindMonitor, out)
	if s.anyRunning(kindServer) && s.anyRunning(kindWatcher) {
		c, cancel := context.WithTimeout(ctx, 40*time.Second)
		if err := s.stopGroup(c); err != nil {
			fmt.Fprintf(out, "stop group: %v; going on with signals\n", err)
		}
		cancel()
	}
	if err := errors.Join(err, s.end(ctx, kindWatcher, out), s.end(ctx, kindServer, out)); err != nil {
		return err
	}
	for _, p := range s.processes() {
		if pids := s.pids(p); len(pids) > 0 {
			return fmt.Errorf("%s (pid %d) was started again meanwhile", p.name, pids[0])
		}
	}
	fmt.Fprintln(out, "everything is stopped")
	if !wipe {
		return nil
	}
	if err := os.RemoveAll(s.Dir); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s is removed\n", s.Dir)
	return nil
}

func (s *System) anyRunning(k kind) bool {
	for _, p := range s.processes() {
		if p.kind == k && s.pid(p) != 0 {
			return true
		}
	}
	return false
}

// end ends every process of a kind and waits until they are gone. It looks again
// until it finds none, but not for ever: somebody else may be starting them.
func (s *System) end(ctx context.Context, k kind, out io.Writer) error {
	var errs []error
	for _, p := range s.processes() {
		for try := 0; p.kind == k && try < 5; try++ {
			pids := s.pids(p)
			if len(pids) == 0 {
				break
			}
			for _, pid := range pids {
				errs = append(errs, s.endOne(ctx, p, pid, out))
			}
		}
	}
	return errors.Join(errs...)
}

func (s *System) endOne(ctx context.Context, p process, pid int, out io.Writer) error {
	c, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := s.stopPID(c, p, pid)
	if err == nil || syscall.Kill(pid, syscall.SIGKILL) != nil {
		return err
	}
	fmt.Fprintf(out, "%s did not end and was killed\n", p.name)
	c, cancel = context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return s.waitGone(c, p, pid)
}

// pids are all the processes that run as p: the one in its pid file, and any of
// this system's pid namespace with its command line. An instance that its watcher has just started is in no pid
// file yet, and until it has become another program it looks like its watcher.
func (s *System) pids(p process) []int {
	var out []int
	if pid := s.pid(p); pid != 0 {
		out = append(out, pid)
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return out
	}
	for _, dir := range all {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err == nil && !slices.Contains(out, pid) && s.is(p, cmdline(pid)) && !elsewhere(pid) {
			out = append(out, pid)
		}
	}
	return out
}
