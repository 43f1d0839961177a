package dw

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"datawatch/internal/app/dump"
	"datawatch/internal/certs"
)

// Exit codes: 0 done, 1 failed, 2 bad usage, 3 refused because of state.
const (
	exitOK = iota
	exitFailed
	exitUsage
	exitRefused
)

const usage = `dw: a whole Datawatch system on this machine

  dw up     [-dir run] [-standbys 1] [-mode auto] [-monitors 1] [-port 5236] [-tls]
            [-archive timely] [-wait-apply 0|1]
            makes it if needed, starts it and waits until it is healthy; -tls
            encrypts everything, -tls=key by a group key instead of certificates;
            -archive timely sends redo after the local write instead of before;
            -wait-apply 1: a commit waits until the standbys can show it
  dw status [-dir run] [-json]     one line per process; exits with 0 when healthy, else with 3
  dw kill   [-dir run] NAME        kill -9: a crash, to see what happens
  dw stop   [-dir run] NAME        ends a process normally
  dw start  [-dir run] NAME        starts it again
  dw down   [-dir run] [-wipe]     stops everything; -wipe removes the directory
  dw bench  [-dir bench] [-port 5436] [-seconds 3] [-rounds 7] [-only insert,select,tpcb,scan]
            throughput beside PostgreSQL, in one run
  dw certs  ca | issue | renew | key | show
            certificates and keys for TLS; ` + "`dw certs help`" + ` explains them
  dw chaos  [-dir run] [-seconds 60] [-clients 4] [-seed N] [-harm kill,pause,watcher,monitor]
            harms a running system while clients write, then looks for every row they
            were told is committed, on every database; -seed repeats the same harm
` + dump.Usage + `  dw help | version
`

// usageError is a mistake on the command line.
type usageError struct{ error }

// Main runs one dw command and returns its exit code.
func Main(ctx context.Context, args []string, out, errw io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(errw, usage)
		return exitUsage
	}
	var err error
	if args[0] == "dump" {
		err = dump.Main(args[1:], out)
	} else {
		err = command(ctx, args[0], args[1:], out)
	}
	var u usageError
	var du dump.UsageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &u), errors.As(err, &du):
		fmt.Fprintf(errw, "dw %s: %v\n`dw help` shows the usage\n", args[0], err)
		return exitUsage
	case errors.Is(err, errUnhealthy): // said on the output
		return exitRefused
	case errors.Is(err, errNoSystem), errors.Is(err, errState):
		fmt.Fprintf(errw, "dw %s: %v\n", args[0], err)
		return exitRefused
	default:
		fmt.Fprintf(errw, "dw %s: %v\n", args[0], err)
		return exitFailed
	}
}

func command(ctx context.Context, name string, args []string, out io.Writer) error {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	var o Options
	var wipe, asJSON bool
	var chaos ChaosOptions
	var bench BenchOptions
	switch name {
	case "help", "-h", "-help", "--help":
		fmt.Fprint(out, usage)
		return nil
	case "version", "-version", "--version":
		fmt.Fprintln(out, versionLine())
		return nil
	case "certs":
		return certsCommand(args, time.Now(), out)
	case "up":
		fs.Var((*tlsFlag)(&o.TLS), "tls", "")
		fs.StringVar(&o.Dir, "dir", "run", "")
		fs.IntVar(&o.Standbys, "standbys", 1, "")
		fs.StringVar(&o.Mode, "mode", "auto", "")
		fs.IntVar(&o.Monitors, "monitors", 1, "")
		fs.IntVar(&o.Port, "port", 5236, "")
		fs.StringVar(&o.Archive, "archive", "", "")
		fs.StringVar(&o.Wait, "wait-apply", "", "")
		fs.BoolVar(&o.Fast, "fast", false, "")
	case "bench":
		fs.StringVar(&o.Dir, "dir", "bench", "")
		fs.IntVar(&o.Port, "port", 5436, "")
		fs.IntVar(&bench.Seconds, "seconds", 3, "")
		fs.IntVar(&bench.Rounds, "rounds", 7, "")
		fs.StringVar(&bench.Only, "only", "", "")
	case "chaos":
		fs.StringVar(&o.Dir, "dir", "run", "")
		fs.IntVar(&chaos.Seconds, "seconds", 60, "")
		fs.IntVar(&chaos.Clients, "clients", 4, "")
		fs.Uint64Var(&chaos.Seed, "seed", 0, "")
		fs.StringVar(&chaos.Harm, "harm", "", "")
	case "status", "kill", "stop", "start", "down":
		fs.StringVar(&o.Dir, "dir", "run", "")
		fs.BoolVar(&asJSON, "json", false, "")
		fs.BoolVar(&wipe, "wipe", false, "")
	default:
		return usageError{fmt.Errorf("no such command")}
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(out, usage)
			return nil
		}
		return usageError{err}
	}
	needName := name == "kill" || name == "stop" || name == "start"
	if needName != (fs.NArg() == 1) && (needName || fs.NArg() != 0) {
		if needName {
			return usageError{errors.New("give exactly one process NAME (dw status lists them)")}
		}
		return usageError{fmt.Errorf("unexpected %q", strings.Join(fs.Args(), " "))}
	}
	bin, err := binDir()
	if err != nil {
		return err
	}
	switch name {
	case "up":
		if err := sameOptions(fs, o); err != nil {
			return err
		}
		s, err := Up(ctx, o, bin, out)
		if err != nil {
			return err
		}
		s.hello(out, o.Dir, s.primary(ctx))
		return nil
	case "bench":
		bench.Dir, bench.Port = o.Dir, o.Port
		return Bench(ctx, bench, bin, out)
	}
	s, err := loadSystem(o.Dir)
	if err != nil {
		return err
	}
	switch name {
	case "status":
		st, err := s.Status(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			enc := json.NewEncoder(out)
			enc.SetIndent("", "  ")
			err = enc.Encode(st)
		} else {
			printStatus(out, st)
		}
		if err == nil && !st.Healthy {
			err = errUnhealthy
		}
		return err
	case "down":
		return s.Down(ctx, wipe, out)
	case "chaos":
		return s.Chaos(ctx, chaos, out)
	}
	p, err := s.find(fs.Arg(0))
	if err != nil {
		return usageError{err}
	}
	switch name {
	case "kill":
		pid, err := s.kill(p)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s (pid %d) killed\n", p.name, pid)
		return nil
	case "stop":
		return s.stopOne(ctx, p, out)
	default:
		return s.startOne(ctx, p, out)
	}
}

// Kill kills the named process with SIGKILL, as a crash would.
func (s *System) Kill(name string) error {
	p, err := s.find(name)
	if err != nil {
		return err
	}
	_, err = s.kill(p)
	return err
}

// Load reads the record of the system in dir.
func Load(dir string) (*System, error) { return loadSystem(dir) }

// PID returns the process id of the named process, 0 when it does not run.
func (s *System) PID(name string) int {
	p, err := s.find(name)
	if err != nil {
		return 0
	}
	return s.pid(p)
}

// Names lists the processes of the system.
func (s *System) Names() []string {
	var out []string
	for _, p := range s.processes() {
		out = append(out, p.name)
	}
	return out
}

// binDir is where the other programs are: beside this one.
func binDir() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return "", err
	}
	dir := filepath.Dir(exe)
	if _, err := os.Stat(filepath.Join(dir, "dmserver")); err != nil {
		return "", fmt.Errorf("dmserver is not beside this program in %s; run `make build`", dir)
	}
	return dir, nil
}

// sameOptions refuses options of `dw up` that differ from those the system in
// the directory was made with: they are ignored otherwise.
func sameOptions(fs *flag.FlagSet, o Options) error {
	s, err := loadSystem(o.Dir)
	if err != nil {
		return nil // Up judges it
	}
	var err2 error
	fs.Visit(func(f *flag.Flag) {
		var has string
		switch f.Name {
		case "port":
			has = strconv.Itoa(s.DBs[0].Port)
		case "standbys":
			has = strconv.Itoa(len(s.DBs) - 1)
		case "mode":
			has = strings.ToLower(s.Mode)
		case "monitors":
			has = strconv.Itoa(s.Monitors)
		case "tls":
			has = cmp.Or(s.TLS, "false")
		case "archive":
			has = cmp.Or(s.Archive, "realtime")
		case "wait-apply":
			has = s.Wait
		case "fast":
			has = strconv.FormatBool(s.Fast)
		default:
			return
		}
		if !strings.EqualFold(has, f.Value.String()) {
			err2 = fmt.Errorf("%w: the system in %s was made with -%s %s; make another one with -dir, or remove this one with `dw down -dir %s -wipe`",
				errState, s.Dir, f.Name, has, o.Dir)
		}
	})
	return err2
}

// primary is the database that is the primary now.
func (s *System) primary(ctx context.Context) Database {
	st, err := s.Status(ctx)
	if err == nil {
		for _, p := range st.Processes {
			for _, d := range s.DBs {
				if d.Name == p.Name && p.Mode == "Primary" && p.Status == "Open" {
					return d
				}
			}
		}
	}
	return s.DBs[0]
}

// hello prints how to connect, what to look at and what to try.
func (s *System) hello(out io.Writer, dir string, prim Database) {
	flagDir := ""
	if dir != "run" {
		flagDir = " -dir " + dir
	}
	bin := fromHere(s.Bin)
	hosts, ports := make([]string, len(s.DBs)), make([]string, len(s.DBs))
	for i, d := range s.DBs {
		hosts[i], ports[i] = "127.0.0.1", fmt.Sprint(d.Port)
	}
	psqlTLS, disqlTLS := "", ""
	if s.TLS != "" {
		psqlTLS = " " + s.SQLOptions()
		disqlTLS = "PGSSLMODE=verify-full PGSSLROOTCERT=" + filepath.Join(s.sslDir(), certs.CACertFile) + " "
	}
	fmt.Fprintf(out, `
The system is healthy: %s is the primary.

  connect     PGPASSWORD=%s psql "host=%s port=%s user=%s dbname=DAMENG target_session_attrs=read-write%s"
              %s%s/disql %s/%s@127.0.0.1:%d
  watch       %s/dw status%s
              %s/dmmonitor %s      (help, show, tip)
  try         %s/dw kill%s %s     then watch %s
  stop        %s/dw down%s
  logs        %s
`, prim.Name, defaultPassword, strings.Join(hosts, ","), strings.Join(ports, ","), defaultUser, psqlTLS,
		disqlTLS, bin, defaultUser, defaultPassword, prim.Port,
		bin, flagDir, bin, fromHere(s.plainMonitorIni()), bin, flagDir, prim.Name, s.taker(prim), bin, flagDir, fromHere(filepath.Join(s.Dir, "log")))
}

// fromHere is a path as one types it in the working directory, where it is below that.
func fromHere(path string) string {
	if wd, err := os.Getwd(); err == nil {
		if r, err := filepath.Rel(wd, path); err == nil && !strings.HasPrefix(r, "..") {
			return r
		}
	}
	return path
}

// taker says what happens when the primary dies.
func (s *System) taker(prim Database) string {
	switch {
	case len(s.DBs) == 1 || s.Mode != "AUTO" || s.Monitors == 0:
		return "its watcher start it again"
	case len(s.DBs) > 2:
		return "a standby take over"
	case s.DBs[0] == prim:
		return s.DBs[1].Name + " take over"
	default:
		return s.DBs[0].Name + " take over"
	}
}

// Start starts the named process if it does not run, as whoever guards the
// programs of a machine would.
func (s *System) Start(name string) error {
	p, err := s.find(name)
	if err != nil {
		return err
	}
	return s.start(p)
}

// Argv is the command line of the named process.
func (s *System) Argv(name string) []string {
	p, err := s.find(name)
	if err != nil {
		return nil
	}
	return s.argv(p)
}
