package dw

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// errNoPostgres says that there is no PostgreSQL server to compare with.
var errNoPostgres = errors.New("no PostgreSQL server installed")

// postgres runs PostgreSQL's programs, as its own user when we are root
// (PostgreSQL refuses root).
type postgres struct {
	bin  string
	cred *syscall.Credential
}

func findPostgres() (*postgres, error) {
	m, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(m) == 0 {
		return nil, errNoPostgres
	}
	p := &postgres{bin: filepath.Dir(m[len(m)-1])}
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, fmt.Errorf("%w: running as root and there is no user postgres", errNoPostgres)
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		p.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return p, nil
}

func (p *postgres) run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, name), args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred, Setsid: true}
	logf, err := os.OpenFile(filepath.Join(dir, "run.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer logf.Close()
	cmd.Stdout, cmd.Stderr = logf, logf // a file: pg_ctl's children keep it open
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, tail(logf.Name(), 12))
	}
	return nil
}

// startPostgres makes a primary and one synchronous standby in dir with
// default settings (synchronous_commit=on waits for the standby's flush, like
// a realtime standby survives the loss of either machine).
func startPostgres(ctx context.Context, dir string, port int, runs []benchRun) (*benchTarget, error) {
	p, err := findPostgres()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	if p.cred != nil {
		if err := os.Chown(dir, int(p.cred.Uid), int(p.cred.Gid)); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, benchTimeout)
	defer cancel()
	pri, sby := filepath.Join(dir, "primary"), filepath.Join(dir, "standby")
	opts := func(port int, extra string) string {
		return fmt.Sprintf("-p %d -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200 %s", port, extra)
	}
	steps := [][]string{
		{"initdb", "-D", pri, "-U", "bench", "--auth=trust"},
		{"pg_ctl", "-D", pri, "-w", "-l", filepath.Join(dir, "primary.log"), "-o", opts(port, ""), "start"},
		{"pg_basebackup", "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", "bench", "-D", sby, "-R", "-X", "stream"},
		{"pg_ctl", "-D", sby, "-w", "-l", filepath.Join(dir, "standby.log"), "-o", opts(port+1, ""), "start"},
	}
	stop := func(ctx context.Context) error {
		err1 := p.run(ctx, dir, "pg_ctl", "-D", pri, "-m", "immediate", "-w", "stop")
		err2 := p.run(ctx, dir, "pg_ctl", "-D", sby, "-m", "immediate", "-w", "stop")
		return errors.Join(err1, err2, os.RemoveAll(dir))
	}
	for _, s := range steps {
		if err := p.run(ctx, dir, s[0], s[1:]...); err != nil {
			return nil, errors.Join(err, stop(context.WithoutCancel(ctx)))
		}
	}
	c, err := pgconn.Connect(ctx, fmt.Sprintf("host=127.0.0.1 port=%d user=bench dbname=postgres sslmode=disable", port))
	if err != nil {
		return nil, errors.Join(err, stop(context.WithoutCancel(ctx)))
	}
	defer c.Close(ctx)
	sqls := append([]string{"ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"}, setup(runs, true)...)
	err = execAll(ctx, c, sqls...)
	if err != nil {
		return nil, errors.Join(err, stop(context.WithoutCancel(ctx)))
	}
	if err := poll(ctx, benchPoll, func() (bool, string) {
		r, err := c.Exec(ctx, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'").ReadAll()
		return err == nil && len(r) == 1 && string(r[0].Rows[0][0]) == "1", "PostgreSQL's standby to be synchronous"
	}); err != nil {
		return nil, errors.Join(err, stop(context.WithoutCancel(ctx)))
	}
	return &benchTarget{name: "PostgreSQL, one synchronous standby", postgres: true,
		conn: []string{"-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", "bench", "postgres"},
		env:  []string{"PGSSLMODE=disable"}, stop: stop}, nil
}
