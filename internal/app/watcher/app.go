// Package watcher is the program dmwatcher: arguments, configuration, log file
// and console (manual 3.7). It builds one ha/watcher.Guard per group of
// dmwatcher.ini and decides nothing. Refusing wrong arguments and configuration
// clearly is its part of G8.
package watcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"datawatch/internal/app/links"
	"datawatch/internal/base"
	"datawatch/internal/config"
	"datawatch/internal/ha/fsm"
	"datawatch/internal/ha/proto"
	guard "datawatch/internal/ha/watcher"
	"datawatch/internal/logfile"
	"datawatch/internal/metrics/admin"
	"datawatch/internal/secure"
	"datawatch/internal/vfs"
)

// Exit codes of dmwatcher.
const (
	ExitOK      = 0
	ExitFailed  = 1
	ExitUsage   = 2 // bad arguments or configuration
	ExitRefused = 3 // refused because of state: the port is taken
)

const usage = `usage: dmwatcher path/dmwatcher.ini
       dmwatcher help | version
Guards the databases of dmwatcher.ini. On a terminal it is also a console; help
lists its commands. SIGTERM ends it; the databases go on. Exit codes: 0 done,
1 failed, 2 bad usage or configuration, 3 refused because of state.
`

// Version is what `show version` prints (manual 3.7 #6).
func Version() string {
	return "DMWATCHER[" + proto.GuardVersion + "] " + proto.GlobalVersion
}

// ParseArgs returns the path of dmwatcher.ini, given as it is or as path=...
func ParseArgs(args []string) (string, error) {
	if len(args) != 1 {
		return "", errors.New("one argument is needed: the path of dmwatcher.ini")
	}
	a := args[0]
	if k, v, ok := strings.Cut(a, "="); ok && (strings.EqualFold(k, "path") || strings.EqualFold(k, "dw_ini")) {
		a = v
	}
	if a == "" || strings.HasPrefix(a, "-") {
		return "", fmt.Errorf("unknown argument %q", args[0])
	}
	return a, nil
}

// Program is a watcher program: all guards of one dmwatcher.ini.
type Program struct {
	Path   string
	Guards []*guard.Guard
	Infos  []Info
	log    *slog.Logger
	logs   []*logfile.File
	admin  *admin.Server // nil without DW_ADMIN_PORT

	logSize, logSpace int64 // bytes

	switches atomic.Int64 // of the primaries of all groups
}

// Info is what the console knows of a guard beside its status.
type Info struct {
	Group, Inst string
	Watchers    []string // host:port of every watcher of the group known here
	OGUID       uint32
	MPP         bool
	RType       string
}

// Load reads the configuration and takes the ports. More names the place where
// log lines go beside the log file; nil for none.
func Load(path string, more io.Writer, deps guard.Deps) (*Program, error) {
	w, insts, err := config.LoadWatcherAll(path)
	if err != nil {
		return nil, err
	}
	p := &Program{Path: path, logSize: w.LogFileSize << 20, logSpace: w.LogSpaceLimit << 20}
	for n, g := range w.Groups {
		if err := p.add(path, g, insts[n], len(w.Groups), more, deps); err != nil {
			p.Close()
			return nil, err
		}
	}
	for _, t := range w.Warnings() {
		p.log.Warn(t)
	}
	if err := p.serveAdmin(w.AdminIP, w.AdminPort); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Program) add(path string, g config.WatcherGroup, in *config.Instance, groups int, more io.Writer, deps guard.Deps) error {
	dir := filepath.Join(filepath.Dir(path), "..", "log")
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		dir = filepath.Join(in.DM.SystemPath, "log")
	}
	log := logfile.New(logfile.Config{Dir: dir, Name: "dm_dmwatcher_" + in.DM.InstanceName, Size: p.logSize, Space: p.logSpace})
	p.logs = append(p.logs, log)
	var out io.Writer = log
	if more != nil {
		out = io.MultiWriter(log, more)
	}
	deps.Log = slog.New(slog.NewTextHandler(out, nil))
	p.log = deps.Log
	deps.SavePara = func(group, name, value string) error {
		return config.SetParam(vfs.OS{}, path, "dmwatcher.ini", group, name, value)
	}
	cfg, info := Convert(path, g, in)
	cfg.Groups, cfg.Switches = groups, &p.switches
	var err error
	if deps.Secure, err = links.ForInstance(in, secure.Watcher, func() uint32 { return g.OGUID }, deps.Clock, deps.Log); err != nil {
		return err
	}
	gd, err := guard.New(cfg, deps)
	if err != nil {
		return err
	}
	p.Guards, p.Infos = append(p.Guards, gd), append(p.Infos, info)
	return nil
}

// Convert makes the guard's configuration of the files'.
func Convert(path string, g config.WatcherGroup, in *config.Instance) (guard.Config, Info) {
	host, self := in.Self.Host, in.Self
	if host == "" {
		host = "127.0.0.1"
	}
	name := in.DM.InstanceName
	f := fsm.Config{Group: g.Name, Name: name, Global: strings.EqualFold(g.Type, "GLOBAL"), Auto: strings.EqualFold(g.Mode, "AUTO"),
		OGUID: g.OGUID, ErrorTime: g.DWErrorTime, InstErrorTime: g.InstErrorTime, RecoverTime: int(g.RecoverTime / time.Second),
		AutoRestart: g.AutoRestart, ServiceCheck: g.ServiceIPCheck, SendThreshold: int(g.RlogSendThreshold / time.Second),
		ApplyThresh: int(g.RlogApplyThreshold / time.Second), Reconnect: g.Reconnect, FailoverForce: g.FailoverForce, Rejoin: g.Rejoin,
		IniPath: absolute(path, g.InstIni), StartupCmd: g.StartupCmd, Host: host, Port: self.DWPort}
	info := Info{Group: g.Name, Inst: name, OGUID: g.OGUID, MPP: in.DM.MPPIni, RType: "NONE"}
	if self.DWPort != 0 {
		info.Watchers = append(info.Watchers, net.JoinHostPort(host, strconv.Itoa(self.DWPort)))
	}
	c := guard.Config{ServiceHost: self.InstHost, InstAddr: net.JoinHostPort(host, strconv.Itoa(in.DWPort)), Listen: net.JoinHostPort(host, strconv.Itoa(self.DWPort)),
		CtlPath: filepath.Join(in.DM.SystemPath, "dmwatcher.ctl"), InstLog: filepath.Join(in.DM.SystemPath, "log", name+"_start.log"),
		Version: buildVersion()}
	if in.Arch != nil && in.MAL != nil {
		for _, a := range in.Arch.Entries {
			guarded := a.Type == base.ArchRealtime || a.Type == base.ArchTimely
			if guarded {
				info.RType = a.Type.String()
			}
			for _, t := range a.Targets() {
				e, ok := in.MAL.Entry(t)
				if !ok || e.DWPort == 0 {
					continue
				}
				addr := net.JoinHostPort(e.Host, strconv.Itoa(e.DWPort))
				info.Watchers = append(info.Watchers, addr)
				if guarded && f.Global {
					f.Remotes = append(f.Remotes, e.InstName)
					c.Peers = append(c.Peers, guard.Peer{Inst: e.InstName, Addr: addr})
				}
			}
		}
	}
	sort.Strings(f.Remotes)
	c.FSM = f
	return c, info
}

func absolute(file, path string) string {
	if path != "" && !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(file), path)
	}
	if a, err := filepath.Abs(path); err == nil {
		return a
	}
	return path
}

func buildVersion() string {
	v := "devel"
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				v = s.Value[:12]
			}
		}
	}
	return Version() + " (" + v + ")"
}

// Run guards until ctx ends.
func (p *Program) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(p.Guards))
	var wg sync.WaitGroup
	for n, g := range p.Guards {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if errs[n] = g.Run(ctx); errs[n] != nil {
				cancel()
			}
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Close releases the log files, and the ports of a program that was not run.
func (p *Program) Close() {
	p.admin.Close()
	for _, g := range p.Guards {
		g.Release()
	}
	for _, l := range p.logs {
		_ = l.Close()
	}
}

// ReopenLogs opens the log files by name again (SIGHUP).
func (p *Program) ReopenLogs() {
	for _, l := range p.logs {
		l.Reopen()
	}
	p.log.Info("log files were opened again")
}

// Main runs the program and returns its exit code.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 1 {
		switch strings.ToLower(strings.TrimLeft(args[0], "-")) {
		case "help", "h":
			fmt.Fprint(stdout, usage)
			return ExitOK
		case "version", "v":
			fmt.Fprintln(stdout, buildVersion())
			return ExitOK
		}
	}
	path, err := ParseArgs(args)
	if err != nil {
		fmt.Fprintf(stderr, "dmwatcher: %v\n%s", err, usage)
		return ExitUsage
	}
	console := terminal(stdin)
	var more io.Writer
	if !console {
		more = stderr
	}
	p, err := Load(path, more, guard.Deps{})
	if err != nil {
		fmt.Fprintf(stderr, "dmwatcher: %v\n", err)
		var op *net.OpError
		if errors.As(err, &op) {
			return ExitRefused
		}
		return ExitUsage
	}
	defer p.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer logfile.OnHangup(ctx, p.ReopenLogs)()
	if console {
		fmt.Fprintln(stdout, Version())
		go func() {
			p.Console(ctx, stdin, stdout)
			cancel()
		}()
	}
	if err := p.Run(ctx); err != nil {
		fmt.Fprintf(stderr, "dmwatcher: %v\n", err)
		return ExitFailed
	}
	return ExitOK
}
