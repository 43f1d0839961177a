// Package monitor is the program dmmonitor: arguments, configuration, and the
// console over package dwmon. It decides nothing and keeps no guarantee of its
// own; refusing wrong arguments and configuration clearly is its part of G8.
package monitor

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"datawatch/dwmon"
	"datawatch/internal/config"
	"datawatch/internal/logfile"
)

// Exit codes of dmmonitor.
const (
	ExitOK      = 0
	ExitFailed  = 1
	ExitUsage   = 2 // bad arguments or configuration
	ExitRefused = 3 // refused because of the state of the system
)

// Options are the parsed arguments.
type Options struct {
	Path    string
	Exec    string // -e
	Service bool
	JSON    bool
	Wait    time.Duration // for the first messages of all watchers
}

const usage = `usage: dmmonitor path/dmmonitor.ini [-e "cmd; cmd"] [-service] [-json] [-wait 3s]
       dmmonitor path=path/dmmonitor.ini ...
       dmmonitor help | version
On a terminal it is a console with history and completion; otherwise commands
are read from standard input. -service runs without a console, as a confirm
monitor does. Exit codes: 0 done, 1 failed, 2 bad usage or configuration,
3 refused because of the state of the system.
`

// ParseArgs accepts options before and after the path.
func ParseArgs(args []string) (Options, error) {
	o := Options{Wait: 3 * time.Second}
	fs := flag.NewFlagSet("dmmonitor", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&o.Exec, "e", "", "")
	fs.BoolVar(&o.Service, "service", false, "")
	fs.BoolVar(&o.JSON, "json", false, "")
	fs.DurationVar(&o.Wait, "wait", o.Wait, "")
	for {
		if err := fs.Parse(args); err != nil {
			return o, err
		}
		args = fs.Args()
		if len(args) == 0 {
			break
		}
		a := args[0]
		if k, v, ok := strings.Cut(a, "="); ok && strings.EqualFold(k, "path") {
			a = v
		}
		if o.Path != "" {
			return o, fmt.Errorf("unexpected argument %q", args[0])
		}
		o.Path, args = a, args[1:]
	}
	if o.Path == "" {
		return o, errors.New("the path of dmmonitor.ini is missing")
	}
	if o.Exec != "" && o.Service {
		return o, errors.New("-e and -service exclude each other")
	}
	return o, nil
}

// Configure turns dmmonitor.ini into a monitor configuration.
func Configure(path string) (dwmon.Config, error) {
	c, err := config.LoadMonitor(path)
	if err != nil {
		return dwmon.Config{}, err
	}
	if len(c.Insts) > 1 || c.InstNum > 1 {
		return dwmon.Config{}, fmt.Errorf("%s: MON_INST_NUM = %d: this version runs a single monitor only", path, c.InstNum)
	}
	out := dwmon.Config{Confirm: c.Confirm, TakeoverShutdown: c.TakeoverShutdown, StateDir: filepath.Dir(path),
		TLS: dwmon.TLS{Mode: c.SSLMode, Dir: c.SSLPath, Name: c.SSLName, File: path},
		Log: dwmon.LogConfig{Dir: c.LogPath, Interval: c.LogInterval, FileSize: int64(c.LogFileSize) << 20, SpaceLimit: int64(c.LogSpaceLimit) << 20}}
	for _, g := range c.Groups {
		gr := dwmon.Group{Name: g.Name, OGUID: g.OGUID}
		for _, db := range g.Watchers {
			if len(db) > 1 {
				return dwmon.Config{}, fmt.Errorf("%s: [%s] MON_DW_IP: several watchers of one database (DSC) are not supported", path, g.Name)
			}
			gr.Addrs = append(gr.Addrs, db[0].String())
		}
		out.Groups = append(out.Groups, gr)
	}
	return out, nil
}

// Main runs the program and returns its exit code.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 1 {
		switch strings.ToLower(strings.TrimLeft(args[0], "-")) {
		case "help", "h":
			fmt.Fprint(stdout, usage)
			return ExitOK
		case "version", "v":
			fmt.Fprintln(stdout, dwmon.Version)
			if bi, ok := debug.ReadBuildInfo(); ok {
				fmt.Fprintf(stdout, "%s, %s\n", bi.Main.Version, bi.GoVersion)
			}
			return ExitOK
		}
	}
	o, err := ParseArgs(args)
	if err != nil {
		fmt.Fprintf(stderr, "dmmonitor: %v\n%s", err, usage)
		return ExitUsage
	}
	cfg, err := Configure(o.Path)
	if err != nil {
		fmt.Fprintf(stderr, "dmmonitor: %v\n", err)
		return ExitUsage
	}
	if o.Service {
		cfg.Logger = slog.New(slog.NewTextHandler(stderr, nil))
	}
	return Run(ctx, o, cfg, stdin, stdout, stderr)
}

// Run opens the monitor and serves the console until it ends.
func Run(ctx context.Context, o Options, cfg dwmon.Config, stdin io.Reader, stdout, stderr io.Writer) int {
	m, err := dwmon.Open(ctx, cfg)
	if err != nil {
		fmt.Fprintf(stderr, "dmmonitor: %v\n", err)
		return exitCode(err)
	}
	defer m.Close()
	if o.Service {
		defer logfile.OnHangup(ctx, m.RenewLog)()
		select {
		case <-ctx.Done():
			return ExitOK
		case <-m.Done():
			fmt.Fprintf(stderr, "dmmonitor: %v\n", m.Err())
			return exitCode(m.Err())
		}
	}
	c := &Console{M: m, Out: stdout, JSON: o.JSON}
	wctx, cancel := context.WithTimeout(ctx, o.Wait)
	err = m.WaitReady(wctx)
	cancel()
	if err != nil {
		fmt.Fprintf(stderr, "dmmonitor: %v\n", err)
		if m.Err() != nil {
			return exitCode(err)
		}
	}
	if o.Exec != "" {
		return c.Script(ctx, slices.Values(strings.Split(o.Exec, ";")))
	}
	if in, ok := stdin.(*os.File); ok && isTerminal(in) {
		return interactive(ctx, c, in, filepath.Dir(o.Path))
	}
	lines, readErr := linesOf(ctx, stdin)
	if code := c.Script(ctx, lines); code != ExitOK {
		return code
	}
	if *readErr != nil {
		fmt.Fprintf(stderr, "dmmonitor: reading commands: %v\n", *readErr)
		return ExitUsage
	}
	return ExitOK
}

// linesOf are the lines of in as they come, so that a command is run before the
// next one is written, until ctx ends. The error is set when they have ended.
func linesOf(ctx context.Context, in io.Reader) (iter.Seq[string], *error) {
	var failed error
	return func(yield func(string) bool) {
		next, stop := make(chan string), make(chan struct{})
		end := make(chan error, 1)
		defer close(stop)
		go func() {
			sc := bufio.NewScanner(in)
			for sc.Scan() {
				select {
				case next <- sc.Text():
				case <-stop:
					return
				}
			}
			end <- sc.Err()
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case failed = <-end:
				return
			case l := <-next:
				if !yield(l) {
					return
				}
			}
		}
	}, &failed
}

// Script runs lines until one fails and returns its exit code.
func (c *Console) Script(ctx context.Context, lines iter.Seq[string]) int {
	for line := range lines {
		if strings.TrimSpace(line) == "" {
			continue
		}
		err := c.Do(ctx, line)
		if errors.Is(err, errExit) {
			return ExitOK
		}
		if code := exitCode(err); code != ExitOK {
			return code
		}
	}
	return ExitOK
}

func exitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	switch c := dwmon.CodeOf(err); {
	case c == -8197, c == -8206, c == -8210:
		return ExitFailed // a wrong login
	case c <= -8000:
		return ExitRefused // a watcher or an instance refused
	case c >= 0:
		return ExitOK // a notice
	case c == dwmon.CodeArgument || c == dwmon.CodeConfig || c == -7:
		return ExitUsage
	case c == -5, c == -8, c <= -10 && c >= -15, c == -19, c <= -20 && c >= -27:
		return ExitRefused
	}
	return ExitFailed
}
