package watcher

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// logFile appends to dm_dmwatcher_INSTANCE_YYYYMM.log (manual 3.4), and goes to
// the next file with the month. A log that cannot be written does not stop
// guarding; the error goes to whoever asked for the line.
type logFile struct {
	dir, inst string
	now       func() time.Time

	mu    sync.Mutex
	f     *os.File
	month string
}

// Write appends one line.
func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.now().Format("200601"); l.f == nil || m != l.month {
		if l.f != nil {
			_ = l.f.Close()
			l.f = nil
		}
		if err := os.MkdirAll(l.dir, 0o750); err != nil {
			return 0, fmt.Errorf("log directory: %w", err)
		}
		f, err := os.OpenFile(filepath.Join(l.dir, "dm_dmwatcher_"+l.inst+"_"+m+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return 0, fmt.Errorf("log file: %w", err)
		}
		l.f, l.month = f, m
	}
	return l.f.Write(b)
}

// Close closes the file.
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}
