// Package disql is the SQL command line (manual 7.2, interfaces): interactive
// with history, completion, tables and timing; plain for scripts. It speaks the
// PostgreSQL protocol and knows nothing of the server's inside.
package disql

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"datawatch/internal/app/tools"
)

const usage = `disql: SQL command line of Datawatch.

  disql [USER[/PASSWORD]][@HOST[:PORT][/DATABASE] | @SERVICE] [options]
  disql /nolog             start without logging in

Default: SYSDBA@localhost:5236. A service is a name in dm_svc.conf ($DM_SVC_CONF
or /etc/dm_svc.conf). Without a password it is asked for, or taken from
$DISQL_PASSWORD.

  -e "SQL; SQL"   execute and exit; may be repeated
  -f FILE         execute a script and exit ("-": standard input)
  -table          tables and timing in scripts too
  -continue       go on after an error; the exit status is 1 all the same
  help, version

Without -e and -f, statements are read from standard input: with line editing
on a terminal, as a script otherwise. In scripts a row is one line of values
between tabs, NULL is \N; errors go to standard error.
Exit status: 0 done, 1 a statement or the login failed, 2 bad usage.
`

const help = `  statement;          execute; may go over several lines; a line "/" ends it too
  \?  \help           this text
  \q  exit  quit      leave
  \d                  tables, views and indexes
  \d NAME             columns of a table or view
  \v                  V$ views
  \conninfo           who and where am I
  \x                  one line per value, on or off
  \timing             timing, on or off
  \i FILE  start FILE execute a script
  conn USER/PWD@HOST:PORT    log in elsewhere;  login asks for everything
  disconn  logout     log out
`

// program is one run of disql.
type program struct {
	out, errOut io.Writer
	in          io.Reader
	style       style
	goOn        bool
	tty         bool
	login       login
	conn        *pgconn.PgConn
	ask         func(prompt string, secret bool) (string, error)
	failed      bool
	reported    error // was shown already
	depth       int   // of \i
}

// errQuit ends a session at the user's wish.
var errQuit = errors.New("quit")

// Main runs disql and returns its exit status.
func Main(ctx context.Context, args []string, in *os.File, out, errOut io.Writer) int {
	p := &program{out: out, errOut: errOut, in: in}
	p.ask = asker(in, errOut)
	err := p.run(ctx, args, in)
	if p.conn != nil {
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		_ = p.conn.Close(closeCtx)
		cancel()
	}
	if err != nil && !errors.Is(err, errQuit) {
		if p.reported == nil || !errors.Is(err, p.reported) {
			fmt.Fprintln(errOut, "disql:", err)
		}
		return tools.ExitCode(err)
	}
	if p.failed {
		return tools.ExitFailed
	}
	return tools.ExitOK
}

func (p *program) run(ctx context.Context, args []string, in *os.File) error {
	var connect string
	var have, nolog, forceTable bool
	type job struct{ sql, file string }
	var jobs []job
	for i := 0; i < len(args); i++ {
		a := args[i]
		value := func() (string, error) {
			i++
			if i >= len(args) {
				return "", tools.Usagef("%s needs an argument", a)
			}
			return args[i], nil
		}
		switch strings.ToLower(a) {
		case "-e":
			v, err := value()
			if err != nil {
				return err
			}
			jobs = append(jobs, job{sql: v})
		case "-f":
			v, err := value()
			if err != nil {
				return err
			}
			jobs = append(jobs, job{file: v})
		case "-table":
			forceTable = true
		case "-continue":
			p.goOn = true
		case "/nolog":
			nolog = true
		default:
			if tools.IsHelp(a) {
				fmt.Fprint(p.out, usage)
				return nil
			}
			if tools.IsVersion(a) {
				fmt.Fprintln(p.out, tools.Version("DISQL"))
				return nil
			}
			if strings.HasPrefix(a, "-") || have {
				return tools.Usagef("unexpected argument %q; disql help shows the usage", a)
			}
			connect, have = a, true
		}
	}
	p.tty = len(jobs) == 0 && isTerminal(in)
	p.style = style{table: p.tty || forceTable, timing: p.tty || forceTable}
	l, err := parseLogin(connect)
	if err != nil {
		return err
	}
	p.login = l
	if nolog && have {
		return tools.Usagef("/nolog and %q exclude each other", mask(connect))
	}
	if !nolog {
		if err := p.logIn(ctx, l); err != nil {
			if !p.tty {
				return err
			}
			p.report(err) // stay, so that "conn" can try again
			p.failed = false
		}
	}
	if p.tty {
		return p.interactive(ctx)
	}
	for _, j := range jobs {
		if j.file != "" {
			err = p.file(ctx, j.file)
		} else {
			err = p.script(ctx, strings.NewReader(j.sql))
		}
		if err != nil {
			return err
		}
	}
	if len(jobs) == 0 {
		return p.script(ctx, p.in)
	}
	return nil
}

// logIn connects, asking for the password when there is none.
func (p *program) logIn(ctx context.Context, l login) error {
	if !l.HasPassword {
		if v, ok := os.LookupEnv("DISQL_PASSWORD"); ok {
			l.Password, l.HasPassword = v, true
		} else {
			v, err := p.ask("password of "+l.User+": ", true)
			if err != nil {
				return tools.Usagef("no password for %s: give USER/PASSWORD or $DISQL_PASSWORD", l.User)
			}
			l.Password, l.HasPassword = v, true
		}
	}
	c, at, err := connect(ctx, l, p.notice)
	if err != nil {
		return err
	}
	p.logOut(ctx)
	p.conn, p.login = c, l
	if p.tty {
		mode := serverMode(ctx, c)
		if mode != "" {
			mode = ", " + mode
		}
		fmt.Fprintf(p.out, "Server[%s:%d%s] connected as %s.\n", at.Host, at.Port, strings.ToLower(mode), at.User)
	}
	return nil
}

func (p *program) logOut(ctx context.Context) {
	if p.conn != nil {
		_ = p.conn.Close(ctx)
		p.conn = nil
	}
}

func (p *program) notice(n *pgconn.Notice) {
	fmt.Fprintf(p.errOut, "%s: %s\n", n.Severity, n.Message)
}

// report shows an error and remembers that there was one.
func (p *program) report(err error) {
	p.failed, p.reported = true, err
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		fmt.Fprintln(p.errOut, describeError(pe))
		return
	}
	fmt.Fprintln(p.errOut, "error:", err)
}

// script executes statements from r; the first error ends it unless -continue.
func (p *program) script(ctx context.Context, r io.Reader) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), 64<<20)
	var s splitter
	step := func(st string) error {
		if err := p.statement(ctx, st); err != nil {
			if errors.Is(err, errQuit) {
				return err
			}
			p.report(err)
			if !p.goOn || ctx.Err() != nil {
				return err
			}
		}
		return nil
	}
	for sc.Scan() {
		line := sc.Text()
		if !s.Pending() && isCommand(line) {
			if err := step(line); err != nil {
				return err
			}
			continue
		}
		for _, st := range s.Feed(line) {
			if err := step(st); err != nil {
				return err
			}
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("read the script: %w", err)
	}
	if rest := s.Rest(); rest != "" {
		return step(rest)
	}
	return nil
}

func (p *program) file(ctx context.Context, name string) error {
	if name == "-" {
		return p.script(ctx, p.in)
	}
	if p.depth >= 20 {
		return fmt.Errorf("script %s: scripts call each other more than 20 deep", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return tools.Usagef("script: %w", err)
	}
	defer f.Close()
	p.depth++
	defer func() { p.depth-- }()
	return p.script(ctx, f)
}

// isCommand says that a line is for disql itself and ends with the line.
func isCommand(line string) bool {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, `\`) {
		return true
	}
	word, _, _ := strings.Cut(strings.TrimSuffix(line, ";"), " ")
	switch strings.ToLower(word) {
	case "exit", "quit", "help", "conn", "connect", "login", "logout", "disconn", "start":
		return !strings.EqualFold(word, "start") || !strings.HasPrefix(strings.ToLower(line), "start transaction")
	}
	return false
}

// statement executes a command of disql or a statement of the server.
func (p *program) statement(ctx context.Context, st string) error {
	if isCommand(st) {
		return p.command(ctx, st)
	}
	return p.query(ctx, st)
}

// query sends one statement and shows its results. Ctrl-C cancels it.
func (p *program) query(ctx context.Context, sql string) error {
	if p.conn == nil {
		return errors.New("not logged in; conn USER/PWD@HOST:PORT logs in")
	}
	if p.conn.IsClosed() {
		fmt.Fprintln(p.errOut, "connection was lost; connecting again")
		p.conn = nil
		if err := p.logIn(ctx, p.login); err != nil {
			return err
		}
	}
	stop := p.cancelOnInterrupt(ctx)
	defer stop()
	begin := time.Now()
	mr := p.conn.Exec(ctx, sql)
	for mr.NextResult() {
		r := mr.ResultReader()
		isQuery := len(r.FieldDescriptions()) > 0
		rows, err := p.style.show(p.out, r)
		tag, cerr := r.Close()
		if err == nil {
			err = cerr
		}
		if err != nil {
			_ = mr.Close()
			return err
		}
		if p.style.table {
			fmt.Fprintln(p.out, p.style.footer(tag.String(), rows, isQuery, time.Since(begin)))
			if p.tty {
				fmt.Fprintln(p.out)
			}
		}
	}
	return mr.Close()
}

// cancelOnInterrupt sends a cancel request for each SIGINT until stopped.
func (p *program) cancelOnInterrupt(ctx context.Context) func() {
	if !p.tty {
		return func() {}
	}
	sig := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(sig, os.Interrupt)
	conn := p.conn
	go func() {
		for {
			select {
			case <-sig:
				cctx, cancel := context.WithTimeout(ctx, 5*time.Second)
				_ = conn.CancelRequest(cctx)
				cancel()
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(sig); close(done) }
}

// command executes what isCommand recognises.
func (p *program) command(ctx context.Context, line string) error {
	line = strings.TrimSuffix(strings.TrimSpace(line), ";")
	word, arg, _ := strings.Cut(line, " ")
	arg = strings.TrimSpace(arg)
	onOff := func(what string, v *bool) {
		*v = !*v
		fmt.Fprintf(p.out, "%s is %s\n", what, map[bool]string{true: "on", false: "off"}[*v])
	}
	switch strings.ToLower(word) {
	case `\q`, "exit", "quit":
		return errQuit
	case `\?`, `\help`, `\h`, "help":
		fmt.Fprint(p.out, help)
	case `\timing`:
		onOff("timing", &p.style.timing)
	case `\x`:
		onOff("expanded output", &p.style.expanded)
	case `\conninfo`:
		if p.conn == nil || p.conn.IsClosed() {
			fmt.Fprintln(p.out, "not logged in")
			return nil
		}
		fmt.Fprintf(p.out, "%s at %s, server %s\n", p.login.User, p.conn.Conn().RemoteAddr(), p.conn.ParameterStatus("server_version"))
	case `\d`:
		if arg == "" {
			return p.query(ctx, "SELECT name, type FROM sqlite_schema WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY type DESC, name")
		}
		return p.query(ctx, `SELECT name, type, "notnull" AS not_null, dflt_value AS default_value, pk AS primary_key FROM pragma_table_info(`+literal(arg)+`)`)
	case `\v`:
		return p.query(ctx, "SELECT name FROM pragma_module_list WHERE name LIKE 'V$%' ORDER BY name")
	case `\i`, "start":
		if arg == "" {
			return tools.Usagef("%s needs a file name", word)
		}
		return p.file(ctx, arg)
	case "conn", "connect":
		l, err := parseLogin(arg)
		if err != nil {
			return err
		}
		return p.logIn(ctx, l)
	case "login":
		return p.askLogin(ctx)
	case "logout", "disconn":
		p.logOut(ctx)
	default:
		return tools.Usagef(`unknown command %s; \? lists the commands`, word)
	}
	return nil
}

func literal(s string) string {
	return "'" + strings.ReplaceAll(unquote(strings.TrimSuffix(s, ";")), "'", "''") + "'"
}

// askLogin asks for everything a login needs (manual 7.3.9.2).
func (p *program) askLogin(ctx context.Context) error {
	l := login{User: "SYSDBA", Host: "localhost", Port: defaultPort, Database: "DAMENG", HasPassword: true}
	var port string
	for _, q := range []struct {
		prompt string
		secret bool
		to     *string
	}{{"server [localhost]: ", false, &l.Host}, {"user [SYSDBA]: ", false, &l.User}, {"password: ", true, &l.Password}, {"port [5236]: ", false, &port}} {
		v, err := p.ask(q.prompt, q.secret)
		if err != nil {
			return fmt.Errorf("login: %w", err)
		}
		if v = strings.TrimSpace(v); v != "" {
			*q.to = v
		}
	}
	if port != "" {
		if _, err := fmt.Sscanf(port, "%d", &l.Port); err != nil || l.Port < 1 || l.Port > 65535 {
			return tools.Usagef("port %q is not a port", port)
		}
	}
	return p.logIn(ctx, l)
}
