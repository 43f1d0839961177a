// Package logfile owns the log files of the daemons: NAME_YYYYMM.log, a new one
// each month, put aside as NAME_YYYYMM.YYYYMMDDThhmmss.log when it has reached a
// size, the oldest removed at a space limit, and opened again by name when an
// outside tool has moved it (SIGHUP).
//
// A log that cannot be written never stops what is logged about: the error goes
// to whoever wrote the line, and the next line tries again. It keeps no
// guarantee; the monitor's files, whose names the manual gives (5.5), are the
// monitor's own.
package logfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Config says where a log goes. Zero sizes are no limits.
type Config struct {
	Dir   string
	Name  string // before _YYYYMM.log
	Size  int64  // bytes of one file
	Space int64  // bytes of all files of this name
	Perm  os.FileMode
	Now   func() time.Time // nil: the system's
}

// File is a log. Every Write is one or more whole lines.
type File struct {
	cfg  Config
	mine *regexp.Regexp // names of its files

	mu    sync.Mutex
	f     *os.File
	month string
	size  int64
}

// New makes a log; the first line opens its file.
func New(cfg Config) *File {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Perm == 0 {
		cfg.Perm = 0o640
	}
	return &File{cfg: cfg, mine: regexp.MustCompile(`^` + regexp.QuoteMeta(cfg.Name) + `_\d{6}(\.\d{8}T\d{6}(-\d+)?)?\.log$`)}
}

// Open makes a log and its file, so that a directory that cannot be written to
// is known at once.
func Open(cfg Config) (*File, error) {
	l := New(cfg)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l, l.open(l.cfg.Now())
}

// Path is the file that is written to now.
func (l *File) Path() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.path(l.cfg.Now().Format("200601"))
}

func (l *File) path(month string) string {
	return filepath.Join(l.cfg.Dir, l.cfg.Name+"_"+month+".log")
}

// open opens the file of the month. Under mu.
func (l *File) open(now time.Time) error {
	month := now.Format("200601")
	if err := os.MkdirAll(l.cfg.Dir, 0o750); err != nil {
		return fmt.Errorf("log directory: %w", err)
	}
	f, err := os.OpenFile(l.path(month), os.O_CREATE|os.O_APPEND|os.O_WRONLY, l.cfg.Perm)
	if err != nil {
		return fmt.Errorf("log file: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("log file: %w", err)
	}
	l.f, l.month, l.size = f, month, fi.Size()
	l.trim()
	return nil
}

// Write appends lines.
func (l *File) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.cfg.Now()
	if l.f != nil && l.cfg.Size > 0 && l.size > 0 && l.size+int64(len(b)) > l.cfg.Size {
		l.putAside(now)
	}
	if l.f == nil || now.Format("200601") != l.month {
		l.close()
		if err := l.open(now); err != nil {
			return 0, err
		}
	}
	n, err := l.f.Write(b)
	l.size += int64(n)
	return n, err
}

// putAside closes the file and gives it a name of its own. When that fails it
// goes on growing: lines are worth more than the limit. Under mu.
func (l *File) putAside(now time.Time) {
	from := l.path(l.month)
	base := filepath.Join(l.cfg.Dir, l.cfg.Name+"_"+l.month+"."+now.Format("20060102T150405"))
	to := base + ".log"
	for i := 1; ; i++ {
		if _, err := os.Lstat(to); errors.Is(err, os.ErrNotExist) {
			break
		}
		to = fmt.Sprintf("%s-%d.log", base, i)
	}
	l.close()
	_ = os.Rename(from, to)
}

// trim removes the oldest files beyond the space limit, never the one in use.
// Under mu.
func (l *File) trim() {
	if l.cfg.Space <= 0 {
		return
	}
	all, err := os.ReadDir(l.cfg.Dir)
	if err != nil {
		return
	}
	type old struct {
		name string
		size int64
		at   time.Time
	}
	var files []old
	sum := l.cfg.Size // what the file in use may grow to
	for _, e := range all {
		if !l.mine.MatchString(e.Name()) || e.Name() == filepath.Base(l.path(l.month)) {
			continue
		}
		if fi, err := e.Info(); err == nil {
			files = append(files, old{e.Name(), fi.Size(), fi.ModTime()})
			sum += fi.Size()
		}
	}
	sort.Slice(files, func(i, j int) bool {
		if !files[i].at.Equal(files[j].at) {
			return files[i].at.Before(files[j].at)
		}
		return files[i].name < files[j].name
	})
	for _, f := range files {
		if sum <= l.cfg.Space {
			return
		}
		if os.Remove(filepath.Join(l.cfg.Dir, f.name)) == nil {
			sum -= f.size
		}
	}
}

func (l *File) close() {
	if l.f != nil {
		_ = l.f.Close()
		l.f = nil
	}
}

// Reopen closes the file; the next line opens it by name.
func (l *File) Reopen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.close()
}

// Close closes the file; a line after that opens it again.
func (l *File) Close() error { l.Reopen(); return nil }

// OnHangup calls reopen at every SIGHUP, until stop is called. Without it SIGHUP
// would end the process.
func OnHangup(ctx context.Context, reopen func()) (stop func()) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ch:
				reopen()
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { signal.Stop(ch); cancel(); <-done }
}

// Echo repeats a log on another stream. A stream that is a regular file nobody
// trims (the output of a daemon, kept by whoever started it) gets the lines up
// to Quiet only: they are in the log, which is.
type Echo struct {
	w       io.Writer
	regular bool
	quiet   atomic.Bool
}

// NewEcho repeats on w.
func NewEcho(w io.Writer) *Echo {
	e := &Echo{w: w}
	if f, ok := w.(*os.File); ok {
		fi, err := f.Stat()
		e.regular = err == nil && fi.Mode().IsRegular()
	}
	return e
}

// Quiet ends the repetition on a regular file.
func (e *Echo) Quiet() { e.quiet.Store(e.regular) }

// Write never fails: a stream that is gone must not keep lines from the log.
func (e *Echo) Write(b []byte) (int, error) {
	if !e.quiet.Load() {
		_, _ = e.w.Write(b)
	}
	return len(b), nil
}
