package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"time"

	"datawatch/dwmon"
	"datawatch/internal/base"
)

// Console runs command lines on a monitor.
type Console struct {
	M    *dwmon.Monitor
	Out  io.Writer
	JSON bool
	// Ask prompts for a line, hidden or not; nil when there is no terminal.
	Ask func(prompt string, hidden bool) (string, error)
	// Every starts or (0) ends the automatic show; nil when there is no terminal.
	Every func(time.Duration)
}

var errExit = errors.New("exit")

// argKind says what follows the words of a command.
type argKind uint8

const (
	argNone  argKind = iota
	argGroup         // [group]
	argOptDB         // [group[.]][db]
	argDB            // [group.]db
	argRest          // anything; the command looks itself
)

type command struct {
	words string
	arg   argKind
	hint  string // shown by help after the words
	text  string
	run   func(c *Console, ctx context.Context, a args) error
}

type args struct {
	group, db string
	rest      []string
}

// Do runs one command line and prints its outcome. The error is the command's,
// already printed.
func (c *Console) Do(ctx context.Context, line string) error {
	f := strings.Fields(strings.TrimSuffix(strings.TrimSpace(line), ";"))
	if len(f) == 0 {
		return nil
	}
	cmd, rest := find(f)
	if cmd == nil {
		return c.print(base.Errorf(dwmon.CodeArgument, "unknown command %q; help lists the commands", strings.Join(f, " ")))
	}
	a, err := c.args(cmd, rest)
	if err == nil {
		err = cmd.run(c, ctx, a)
	}
	if errors.Is(err, errExit) {
		return err
	}
	return c.print(err)
}

func (c *Console) print(err error) error {
	switch code := dwmon.CodeOf(err); {
	case err == nil:
	case c.JSON:
		c.json(map[string]any{"code": code, "error": err.Error()})
	case code >= 0:
		fmt.Fprintln(c.Out, err)
	default:
		fmt.Fprintln(c.Out, "error:", err)
	}
	return err
}

// find returns the command with the most words that begin the line.
func find(f []string) (*command, []string) {
	var best *command
	n := 0
	for i := range commands {
		w := strings.Fields(commands[i].words)
		if len(w) <= n || len(w) > len(f) {
			continue
		}
		ok := true
		for j := range w {
			ok = ok && strings.EqualFold(w[j], f[j])
		}
		if ok {
			best, n = &commands[i], len(w)
		}
	}
	return best, f[n:]
}

func (c *Console) isGroup(s string) bool {
	for _, g := range c.M.Snapshot().Groups {
		if strings.EqualFold(g.Name, s) {
			return true
		}
	}
	return false
}

func (c *Console) args(cmd *command, f []string) (args, error) {
	bad := func() (args, error) {
		return args{}, base.Errorf(dwmon.CodeArgument, "usage: %s", strings.TrimSpace(cmd.words+" "+cmd.hint))
	}
	if cmd.arg == argRest {
		return args{rest: f}, nil
	}
	if len(f) > 0 && cmd.arg == argNone || len(f) > 2 {
		return bad()
	}
	// "group. db", "group .db" and "group.db" all occur in the manual. Two words
	// are never made one name otherwise: "kill database A 2" is not A2.
	name := strings.Join(f, "")
	if len(f) == 2 && !strings.HasSuffix(f[0], ".") && !strings.HasPrefix(f[1], ".") {
		name = f[0] + "." + f[1]
	}
	if strings.Count(name, ".") > 1 || strings.HasPrefix(name, ".") || cmd.arg == argDB && strings.HasSuffix(name, ".") {
		return bad()
	}
	switch {
	case cmd.arg == argGroup:
		if len(f) > 1 {
			return bad()
		}
		return args{group: name}, nil
	case name == "":
		if cmd.arg == argDB {
			return bad()
		}
		return args{}, nil
	}
	return c.name(name, cmd.arg == argOptDB), nil
}

// name splits [group.]db; without a dot it may also be a group, where allowed.
func (c *Console) name(s string, group bool) args {
	if g, d, ok := strings.Cut(s, "."); ok {
		return args{group: g, db: d}
	}
	if group && c.isGroup(s) {
		return args{group: s}
	}
	return args{db: s}
}

func (c *Console) json(v any) {
	e := json.NewEncoder(c.Out)
	e.SetIndent("", "  ")
	e.Encode(v)
}

// done reports a command that has only an outcome.
func (c *Console) done(what string, err error) error {
	if err != nil {
		return err
	}
	if c.JSON {
		c.json(map[string]any{"code": 0, "done": what})
	} else {
		fmt.Fprintf(c.Out, "%s: done\n", what)
	}
	return nil
}

func (c *Console) help() {
	w := 0
	sorted := append([]command(nil), commands...)
	sort.SliceStable(sorted, func(i, j int) bool { return sorted[i].words < sorted[j].words })
	for _, x := range sorted {
		w = max(w, len(strings.TrimSpace(x.words+" "+x.hint)))
	}
	for _, x := range sorted {
		if x.text != "" {
			fmt.Fprintf(c.Out, "%-*s  %s\n", w, strings.TrimSpace(x.words+" "+x.hint), x.text)
		}
	}
}

// login is `login`, `login USER/PASSWORD` or `login USER PASSWORD`.
func (c *Console) login(ctx context.Context, rest []string) error {
	var user, pwd string
	switch len(rest) {
	case 0:
		if c.Ask == nil {
			return base.Errorf(dwmon.CodeArgument, "usage: login USER/PASSWORD")
		}
		var err error
		if user, err = c.Ask("user name: ", false); err != nil {
			return err
		}
		if pwd, err = c.Ask("password: ", true); err != nil {
			return err
		}
	case 1:
		var both bool
		if user, pwd, both = strings.Cut(rest[0], "/"); !both && c.Ask != nil {
			var err error
			if pwd, err = c.Ask("password: ", true); err != nil {
				return err
			}
		}
	case 2:
		user, pwd = rest[0], rest[1]
	default:
		return base.Errorf(dwmon.CodeArgument, "usage: login [USER/PASSWORD]")
	}
	return c.done("login", c.M.Login(ctx, user, pwd))
}

// set is every `set ...` command.
func (c *Console) set(ctx context.Context, f []string) error {
	bad := base.Errorf(dwmon.CodeArgument, "usage: set group [group] PARA VALUE | recover time N | arch invalid; set database [group.]db recover time N | arch invalid")
	if len(f) < 2 {
		return bad
	}
	var a args
	kind := strings.ToLower(f[0])
	f = f[1:]
	switch kind {
	case "database":
		a, f = c.name(f[0], false), f[1:]
	case "group":
		if c.isGroup(f[0]) {
			a, f = args{group: f[0]}, f[1:]
		}
	default:
		return bad
	}
	words := strings.ToLower(strings.Join(f, " "))
	switch {
	case len(f) == 3 && strings.HasPrefix(words, "recover time "):
		n, err := strconv.Atoi(f[2])
		if err != nil {
			return base.Errorf(dwmon.CodeArgument, "recover time %q is not a number of seconds", f[2])
		}
		return c.done("set recover time", c.M.SetRecoverTime(ctx, a.group, a.db, n))
	case words == "arch invalid":
		return c.done("set arch invalid", c.M.SetArchInvalid(ctx, a.group, a.db))
	case strings.HasPrefix(words, "auto restart "), strings.HasPrefix(words, "until time"):
		return base.Errorf(dwmon.CodeNotNormal, "set %s: there is no shared-storage cluster or asynchronous standby in this version", words)
	case kind == "group" && len(f) == 2:
		return c.done("set group "+f[0], c.M.SetGroupPara(ctx, a.group, f[0], f[1]))
	}
	return bad
}

// clear is `clear database|group ... arch send info|apply stat`.
func (c *Console) clear(ctx context.Context, f []string) error {
	bad := base.Errorf(dwmon.CodeArgument, "usage: clear database [group.]db | group [group]  arch send info | apply stat")
	if len(f) < 2 {
		return bad
	}
	var a args
	kind := strings.ToLower(f[0])
	f = f[1:]
	switch {
	case kind == "database":
		a, f = c.name(f[0], false), f[1:]
	case kind == "group" && c.isGroup(f[0]):
		a, f = args{group: f[0]}, f[1:]
	case kind != "group":
		return bad
	}
	switch strings.ToLower(strings.Join(f, " ")) {
	case "arch send info":
		return c.done("clear arch send info", c.M.ClearSend(ctx, a.group, a.db))
	case "apply stat", "rapply stat", "rapply info":
		return c.done("clear apply stat", c.M.ClearApply(ctx, a.group, a.db))
	}
	return bad
}

func (c *Console) interval(f []string) error {
	n, err := 0, error(nil)
	if len(f) == 1 {
		n, err = strconv.Atoi(f[0])
	}
	if len(f) != 1 || err != nil || n < 5 || n > 3600 {
		return base.Errorf(dwmon.CodeArgument, "usage: show interval N, N 5-3600 seconds")
	}
	if c.Every == nil {
		return base.Errorf(dwmon.CodeArgument, "show interval needs a terminal")
	}
	c.Every(time.Duration(n) * time.Second)
	return nil
}
