package dw

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	defaultUser     = "SYSDBA"
	defaultPassword = "SYSDBA"
)

// progress prints one line per step with the time it took.
type progress struct {
	w       io.Writer
	n, step int
}

func (p *progress) do(what string, f func() error) error {
	p.step++
	start := time.Now()
	fmt.Fprintf(p.w, "[%d/%d] %s ...", p.step, p.n, what)
	if err := f(); err != nil {
		fmt.Fprintf(p.w, " failed\n")
		return fmt.Errorf("%s: %w", what, err)
	}
	fmt.Fprintf(p.w, " done (%.1f s)\n", time.Since(start).Seconds())
	return nil
}

// Up makes the system if it is not there yet, starts what does not run and
// waits until it is healthy.
func Up(ctx context.Context, o Options, bin string, out io.Writer) (*System, error) {
	s, err := loadSystem(o.Dir)
	fresh := errors.Is(err, errNoSystem)
	if err != nil && !fresh {
		return nil, err
	}
	if !fresh && !s.Ready {
		return nil, fmt.Errorf("%w: making the system in %s was never finished; remove it with `dw down -dir %s -wipe`", errState, s.Dir, o.Dir)
	}
	p := &progress{w: out, n: 3}
	if fresh {
		if s, err = newSystem(o, bin); err != nil {
			return nil, err
		}
		p.n = 6
		if err := s.checkDir(); err != nil {
			return nil, err
		}
		if err := s.checkPorts(); err != nil {
			return nil, err
		}
		if err := s.create(ctx, p); err != nil {
			return nil, err
		}
	} else if s.Bin != bin {
		s.Bin = bin
	}
	if err := p.do("starting databases", func() error { return s.startAll(ctx, kindServer) }); err != nil {
		return nil, err
	}
	if fresh {
		if err := p.do("setting OGUID and mode", func() error { return s.introduce(ctx) }); err != nil {
			return nil, err
		}
		s.Ready = true
		if err := s.save(); err != nil {
			return nil, err
		}
	}
	if err := p.do("starting watchers and monitor", func() error {
		return errors.Join(s.startAll(ctx, kindWatcher), s.startAll(ctx, kindMonitor))
	}); err != nil {
		return nil, err
	}
	if err := p.do("waiting until every database is open and every archive valid", func() error { return s.WaitHealthy(ctx) }); err != nil {
		return nil, err
	}
	return s, nil
}

// checkDir refuses a directory that holds something else: `dw down -wipe`
// would remove that with it. Empty directories, disks mounted for the databases
// say, hold nothing.
func (s *System) checkDir() error {
	l, err := os.ReadDir(s.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, e := range l {
		var inside []os.DirEntry
		if e.IsDir() {
			if inside, err = os.ReadDir(filepath.Join(s.Dir, e.Name())); err != nil {
				return err
			}
		}
		if !e.IsDir() || len(inside) > 0 {
			return fmt.Errorf("%w: %s is not empty and holds no system; give a new or an empty directory with -dir", errState, s.Dir)
		}
	}
	return nil
}

// portRange has the ports that the system lends to connections.
const portRange = "/proc/sys/net/ipv4/ip_local_port_range"

// lent says that a port is one of those: any program's connection may have it, and
// then a database that is started again does not come up.
func lent(port int, file string) string {
	var lo, hi int
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	if n, _ := fmt.Sscan(string(b), &lo, &hi); n != 2 || port < lo || port > hi {
		return ""
	}
	return fmt.Sprintf(", below %d: the system lends %d to %d to any connection, and keeps each for a minute", lo, lo, hi)
}

// checkPorts refuses ports that something else uses, before anything is made.
func (s *System) checkPorts() error {
	for _, d := range s.DBs {
		if d.Machine != nil {
			continue
		}
		for _, p := range []int{d.Port, d.MAL, d.InstDW, d.DW} {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
			if err != nil {
				return fmt.Errorf("port %d for %s is in use; choose others with -port%s: %w", p, d.Name, lent(p, portRange), err)
			}
			l.Close()
		}
	}
	return nil
}

// create makes data and configuration of every database: dminit, one normal
// start and stop of the first, an offline backup of it restored as each
// standby with a DB_MAGIC of its own (manual 7.1.1).
func (s *System) create(ctx context.Context, p *progress) error {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return err
	}
	if err := s.save(); err != nil {
		return err
	}
	if err := s.makeSecrets(time.Now()); err != nil {
		return err
	}
	first := s.DBs[0]
	if err := p.do("creating "+first.Name, func() error {
		if err := s.dminit(ctx, first); err != nil {
			return err
		}
		return s.startStopOnce(ctx, first)
	}); err != nil {
		return err
	}
	what := "copying it to the standbys by backup and restore"
	if len(s.DBs) == 1 {
		what = "writing configuration"
	}
	return p.do(what, func() error {
		set := filepath.Join(s.Dir, "backup")
		if len(s.DBs) > 1 {
			if err := s.rman(ctx, fmt.Sprintf("BACKUP DATABASE '%s' FULL BACKUPSET '%s'", s.ini(first, "dm.ini"), set)); err != nil {
				return err
			}
		}
		for _, d := range s.DBs[1:] {
			if err := s.dminit(ctx, d); err != nil {
				return err
			}
			ini := s.ini(d, "dm.ini")
			for _, stmt := range []string{
				fmt.Sprintf("RESTORE DATABASE '%s' FROM BACKUPSET '%s'", ini, set),
				fmt.Sprintf("RECOVER DATABASE '%s' UPDATE DB_MAGIC", ini),
			} {
				if err := s.rman(ctx, stmt); err != nil {
					return err
				}
			}
		}
		if err := os.RemoveAll(set); err != nil {
			return err
		}
		return s.writeConfig()
	})
}

func (s *System) writeConfig() error {
	for _, d := range s.DBs {
		for name, text := range s.files(d) {
			if err := os.WriteFile(s.ini(d, name), []byte(text), 0o644); err != nil {
				return err
			}
		}
		if err := setKeys(s.ini(d, "dm.ini"), s.dmIniKeys(d)); err != nil {
			return err
		}
	}
	dir := filepath.Dir(s.monitorIni())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(s.monitorIni(), []byte(s.monitorFile(s.Mode == "AUTO", dir)), 0o644); err != nil || s.configured == nil {
		return err
	}
	return s.configured(s)
}

// tool runs a program to its end; its output goes into the error on failure.
func (s *System) tool(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, s.program(name), args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func (s *System) dminit(ctx context.Context, d Database) error {
	logSize := 128 // MB
	switch {
	case s.logSize > 0:
		logSize = s.logSize
	case s.Fast:
		logSize = 64
	}
	err := s.tool(ctx, "dminit", "PATH="+filepath.Dir(s.dbDir(d)), "DB_NAME=DAMENG",
		"INSTANCE_NAME="+d.Name, fmt.Sprintf("PORT_NUM=%d", d.Port), fmt.Sprintf("LOG_SIZE=%d", logSize))
	if err != nil {
		return err
	}
	return setKeys(s.ini(d, "dm.ini"), s.sqlTLS(d))
}

func (s *System) rman(ctx context.Context, stmt string) error {
	return s.tool(ctx, "dmrman", "CTLSTMT="+stmt)
}

// startStopOnce is the one normal start and stop a new database needs before
// it is mounted or backed up (manual 7.1).
func (s *System) startStopOnce(ctx context.Context, d Database) error {
	p := process{d.Name, kindServer, d}
	if err := s.spawn(p.name, []string{s.program("dmserver"), s.ini(d, "dm.ini")}); err != nil {
		return err
	}
	err := s.waitServer(ctx, p)
	if err == nil && d.Machine != nil {
		err = s.changePassword(ctx, d)
	}
	if err == nil {
		err = s.stop(ctx, p)
	}
	if err != nil && s.pid(p) != 0 { // interrupted: leave nothing running
		_, kerr := s.kill(p)
		err = errors.Join(err, kerr)
	}
	return err
}

// changePassword gives the administrator a password that other machines may
// use; the initial one is accepted on the server's own.
func (s *System) changePassword(ctx context.Context, d Database) error {
	c, err := s.Connect(ctx, d.Port)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	secret := rand.Text()
	if err := execAll(ctx, c, fmt.Sprintf("ALTER USER %s IDENTIFIED BY \"%s\"", defaultUser, secret)); err != nil {
		return err
	}
	s.Secret = secret
	return s.save()
}

// waitServer waits until a server accepts connections; the end of the process
// is noticed at once and reported with the end of its log.
func (s *System) waitServer(ctx context.Context, p process) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	seen := false
	var ended error
	started := time.Now()
	err := poll(ctx, 30*time.Millisecond, func() (bool, string) {
		pid := s.pid(p)
		seen = seen || pid != 0
		if (seen && pid == 0) || (!seen && time.Since(started) > 10*time.Second) {
			ended = fmt.Errorf("%s ended or did not start; the end of %s:\n%s", p.name, s.logFile(p.name), tail(s.logFile(p.name), 8))
			return true, ""
		}
		if !seen {
			return false, p.name + " to start"
		}
		c, err := s.Connect(ctx, p.db.Port)
		if err != nil {
			return false, fmt.Sprintf("%s to accept connections on port %d (%v); its log is %s", p.name, p.db.Port, err, s.logFile(p.name))
		}
		c.Close(ctx)
		return true, ""
	})
	return errors.Join(err, ended)
}

func (s *System) startAll(ctx context.Context, k kind) error {
	for _, p := range s.processes() {
		if p.kind != k {
			continue
		}
		if err := s.start(p); err != nil {
			return err
		}
		if k == kindServer {
			if err := s.waitServer(ctx, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// introduce sets OGUID and mode of every database (manual 7.2.3.6 - 7.2.4.7).
func (s *System) introduce(ctx context.Context) error {
	for i, d := range s.DBs {
		mode := "STANDBY"
		if i == 0 {
			mode = "PRIMARY"
		}
		c, err := s.Connect(ctx, d.Port)
		if err != nil {
			return err
		}
		for _, q := range []string{
			"SP_SET_PARA_VALUE(1, 'ALTER_MODE_STATUS', 1)",
			fmt.Sprintf("SP_SET_OGUID(%d)", s.OGUID),
			"ALTER DATABASE " + mode,
			"SP_SET_PARA_VALUE(1, 'ALTER_MODE_STATUS', 0)",
		} {
			if _, err := c.Exec(ctx, q).ReadAll(); err != nil {
				c.Close(ctx)
				return fmt.Errorf("%s: %s: %w", d.Name, q, err)
			}
		}
		c.Close(ctx)
	}
	return nil
}
