package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"strings"

	"datawatch/internal/app/links"
	"datawatch/internal/config"
	"datawatch/internal/ha/proto"
	"datawatch/internal/logfile"
	"datawatch/internal/sql/session"
)

// Exit codes (docs/operations.md).
const (
	exitOK = iota
	exitFailed
	exitUsage
)

const usage = `dmserver: a Datawatch instance

  dmserver path/dm.ini [mount]    runs it in the foreground; with mount it stops
                                  in status Mount for its watcher
  dmserver help | version
`

// Main is the program dmserver. It returns the exit code.
func Main(ctx context.Context, args []string, out, errw io.Writer) int {
	var path string
	mount := false
	for _, a := range args {
		key, value, isPair := strings.Cut(a, "=")
		switch {
		case strings.EqualFold(a, "help"), a == "-h", a == "-help", a == "--help":
			fmt.Fprint(out, usage)
			return exitOK
		case strings.EqualFold(a, "version"), a == "-version", a == "--version":
			fmt.Fprintln(out, versionLine())
			return exitOK
		case strings.EqualFold(a, "mount"):
			mount = true
		case isPair && strings.EqualFold(key, "path") && path == "":
			path = value
		case path == "" && !strings.HasPrefix(a, "-"):
			path = a
		default:
			fmt.Fprintf(errw, "dmserver: unexpected argument %q\n\n%s", a, usage)
			return exitUsage
		}
	}
	if path == "" {
		fmt.Fprint(errw, usage)
		return exitUsage
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		fmt.Fprintf(errw, "dmserver: %v\n", err)
		return exitUsage
	}
	cfg, err := config.LoadInstance(abs)
	if err != nil {
		fmt.Fprintf(errw, "dmserver: configuration:\n%v\n", err)
		return exitUsage
	}
	shareMemory(cfg.DM.MemoryLimit, cfg.DM.Buffer, cfg.DM.RedosBufSize).apply()
	l, err := openLog(cfg.DM, errw)
	if err != nil {
		fmt.Fprintf(errw, "dmserver: %v\n", err)
		return exitFailed
	}
	defer l.close()
	defer logfile.OnHangup(ctx, l.reopen)()
	fmt.Fprintf(errw, "%s starting %s\n", versionLine(), abs)
	err = Run(ctx, cfg, Options{Log: l.log, SlowLog: l.slowStatement, Mount: mount, Ready: func() {
		fmt.Fprintln(out, "SYSTEM IS READY.")
		l.echo.Quiet()
	}})
	if err != nil {
		if !errors.Is(err, ErrHalted) {
			l.log.Error("start or end failed", "err", err)
		}
		fmt.Fprintf(errw, "dmserver: %v\n", err)
		if bad := (*links.Error)(nil); errors.As(err, &bad) {
			return exitUsage
		}
		return exitFailed
	}
	return exitOK
}

// logs are the files of a server: its log, repeated on stderr, and that of slow
// statements.
type logs struct {
	main, slow *logfile.File
	echo       *logfile.Echo
	log        *slog.Logger
	slowLog    *slog.Logger
}

// openLog logs to stderr and to SVR_LOG_DIR/dm_INSTANCE_YYYYMM.log; slow
// statements go to slow_INSTANCE_YYYYMM.log there.
func openLog(dm *config.DM, errw io.Writer) (*logs, error) {
	file := func(name string) logfile.Config {
		return logfile.Config{Dir: dm.SvrLogDir, Name: name + "_" + dm.InstanceName, Size: dm.SvrLogFileSize << 20, Space: dm.SvrLogSpaceLimit << 20}
	}
	f, err := logfile.Open(file("dm"))
	if err != nil {
		return nil, fmt.Errorf("SVR_LOG_DIR: %w", err)
	}
	l := &logs{main: f, slow: logfile.New(file("slow")), echo: logfile.NewEcho(errw)}
	var level slog.Level
	if err := level.UnmarshalText([]byte(dm.SvrLogLevel)); err != nil {
		level = slog.LevelInfo
	}
	h := slog.NewTextHandler(io.MultiWriter(l.echo, l.main), &slog.HandlerOptions{Level: level})
	l.log = slog.New(h).With("inst", dm.InstanceName)
	l.slowLog = slog.New(slog.NewTextHandler(l.slow, nil))
	return l, nil
}

// slowStatement writes one line.
func (l *logs) slowStatement(x session.SlowStatement) {
	attrs := []slog.Attr{slog.Float64("ms", float64(x.Took.Microseconds())/1000), slog.Time("start", x.Start), slog.Uint64("sess", uint64(x.Session)),
		slog.String("user", x.User), slog.String("addr", x.Address)}
	if x.App != "" {
		attrs = append(attrs, slog.String("app", x.App))
	}
	if x.Trx != 0 {
		attrs = append(attrs, slog.Uint64("trx", x.Trx))
	}
	if x.Code != "" {
		attrs = append(attrs, slog.String("sqlstate", x.Code))
	} else {
		attrs = append(attrs, slog.String("tag", x.Tag))
	}
	attrs = append(attrs, slog.String("sql", x.SQL))
	if x.Params != "" {
		attrs = append(attrs, slog.String("params", x.Params))
	}
	l.slowLog.LogAttrs(context.Background(), slog.LevelWarn, "slow statement", attrs...)
}

// reopen opens the files by name again (SIGHUP).
func (l *logs) reopen() {
	l.main.Reopen()
	l.slow.Reopen()
	l.log.Info("log files were opened again")
}

func (l *logs) close() {
	l.main.Close()
	l.slow.Close()
}

func versionLine() string {
	v := "DMSERVER[" + proto.GuardVersion + "] " + proto.GlobalVersion
	if b, ok := debug.ReadBuildInfo(); ok {
		v += " (datawatch, " + b.GoVersion + ")"
	}
	return v
}
