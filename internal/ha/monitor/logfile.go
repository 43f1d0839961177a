package monitor

import (
	"fmt"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/vfs"
)

// LogConfig is MON_LOG_* (manual 5.5). Lines begin with [monitor] or [instance].
type LogConfig struct {
	Dir        string
	Interval   int   // 0 no log, 1 messages only, 5-3600 also the state every n seconds
	FileSize   int64 // bytes; a new file is begun beyond it; 64 MB by default
	SpaceLimit int64 // bytes, 0 no limit; the oldest files are deleted beyond it
}

const logPrefix, logSuffix = "dmmonitor_", ".log"

type logFile struct {
	mu   sync.Mutex
	fs   vfs.FS
	cfg  LogConfig
	f    vfs.File
	size int64
	bad  bool // a write failed; tried again with the next file
}

// openLog goes on with the newest file when it has room (manual 5.5).
func openLog(fsys vfs.FS, cfg LogConfig, now time.Time) (*logFile, error) {
	if cfg.FileSize <= 0 {
		cfg.FileSize = 64 << 20
	}
	l := &logFile{fs: fsys, cfg: cfg}
	if err := fsys.MkdirAll(cfg.Dir); err != nil {
		return nil, base.Errorf(CodeLogDir, "log directory %s: %v", cfg.Dir, err)
	}
	files, err := l.files()
	if err != nil {
		return nil, base.Errorf(CodeLogDir, "log directory %s: %v", cfg.Dir, err)
	}
	if len(files) > 0 {
		if f, err := fsys.Open(filepath.Join(cfg.Dir, files[len(files)-1])); err == nil {
			if n, err := f.Size(); err == nil && n < cfg.FileSize {
				l.f, l.size = f, n
				return l, nil
			}
			f.Close()
		}
	}
	if err := l.next(now); err != nil {
		return nil, base.Errorf(CodeLogDir, "log directory %s: %v", cfg.Dir, err)
	}
	return l, nil
}

// files lists the log files, oldest first: their names sort by time.
func (l *logFile) files() ([]string, error) {
	all, err := l.fs.ReadDir(l.cfg.Dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range all {
		if strings.HasPrefix(n, logPrefix) && strings.HasSuffix(n, logSuffix) {
			out = append(out, n)
		}
	}
	sort.Strings(out)
	return out, nil
}

func (l *logFile) next(now time.Time) error {
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
	l.trim()
	// Two files within one second would share a name; the second waits its turn.
	for ; ; now = now.Add(time.Second) {
		path := filepath.Join(l.cfg.Dir, logPrefix+now.Format("20060102150405")+logSuffix)
		if _, err := l.fs.Stat(path); err == nil {
			continue
		}
		f, err := l.fs.Create(path, false)
		if err != nil {
			return err
		}
		l.f, l.size = f, 0
		return nil
	}
}

// trim deletes the oldest files until a new one fits below the limit.
func (l *logFile) trim() {
	if l.cfg.SpaceLimit <= 0 {
		return
	}
	files, err := l.files()
	if err != nil {
		return
	}
	sizes := make([]int64, len(files))
	var sum int64
	for i, n := range files {
		if st, err := l.fs.Stat(filepath.Join(l.cfg.Dir, n)); err == nil {
			sizes[i] = st.Size()
			sum += st.Size()
		}
	}
	for i := 0; i < len(files) && sum+l.cfg.FileSize > l.cfg.SpaceLimit; i++ {
		if l.fs.Remove(filepath.Join(l.cfg.Dir, files[i])) == nil {
			sum -= sizes[i]
		}
	}
}

// line appends a message. A log that cannot be written never stops the monitor.
func (l *logFile) line(msg Message) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := fmt.Appendf(nil, "%s [%s] %s\n", msg.Time.Format("2006-01-02 15:04:05.000"), msg.From, strings.ReplaceAll(msg.Text, "\n", " "))
	if l.f == nil || l.bad || l.size+int64(len(b)) > l.cfg.FileSize {
		if l.next(msg.Time) != nil {
			return
		}
		l.bad = false
	}
	if _, err := l.f.WriteAt(b, l.size); err != nil {
		l.bad = true
		return
	}
	l.size += int64(len(b))
}

// RenewLog lets the next line of the log begin a new file (SIGHUP).
func (m *Monitor) RenewLog() { m.logf.renew() }

func (l *logFile) renew() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bad = true
}

// Close closes the file; a nil log closes too.
func (l *logFile) Close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}
