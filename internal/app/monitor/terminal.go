package monitor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reeflective/readline"
	"golang.org/x/sys/unix"
)

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// askHidden reads a line, without echo when hidden.
func ask(in *os.File, out io.Writer, prompt string, hidden bool) (string, error) {
	fmt.Fprint(out, prompt)
	if hidden {
		old, err := unix.IoctlGetTermios(int(in.Fd()), unix.TCGETS)
		if err != nil {
			return "", fmt.Errorf("reading a password: %w", err)
		}
		quiet := *old
		quiet.Lflag &^= unix.ECHO
		if err := unix.IoctlSetTermios(int(in.Fd()), unix.TCSETS, &quiet); err != nil {
			return "", fmt.Errorf("reading a password: %w", err)
		}
		defer func() {
			unix.IoctlSetTermios(int(in.Fd()), unix.TCSETS, old)
			fmt.Fprintln(out)
		}()
	}
	s, err := bufio.NewReader(in).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("reading from the terminal: %w", err)
	}
	return strings.TrimRight(s, "\r\n"), nil
}

// interactive is the console on a terminal: history, completion, messages of
// the system between the lines.
func interactive(ctx context.Context, c *Console, in *os.File, dir string) int {
	prompt := func() string {
		if u := c.M.LoggedIn(); u != "" {
			return "monitor(" + u + ")> "
		}
		return "monitor> "
	}
	rl := readline.NewShell()
	rl.Prompt.Primary(prompt)
	rl.History.AddFromFile("commands", filepath.Join(dir, ".dmmonitor_history"))
	rl.Completer = func(line []rune, cursor int) readline.Completions {
		return readline.CompleteValues(c.complete(string(line[:cursor]))...)
	}
	// While no line is edited the terminal is not the editor's: it would ask it for
	// its cursor, and the answer would be typed into whatever is read next.
	var editing atomic.Bool
	say := func(text string) {
		if editing.Load() {
			rl.Printf("%s\n", text)
		} else {
			fmt.Fprintln(c.Out, text)
		}
	}
	read := func() (string, error) {
		editing.Store(true)
		defer editing.Store(false)
		return rl.Readline()
	}
	if t := os.Getenv("TERM"); t == "" || t == "dumb" { // it answers no question
		say = func(text string) { fmt.Fprintln(c.Out, text) }
		read = func() (string, error) { return ask(in, c.Out, prompt(), false) }
	}
	c.Ask = func(prompt string, hidden bool) (string, error) { return ask(in, c.Out, prompt, hidden) }

	msgs, cancel := c.M.Subscribe()
	defer cancel()
	go func() {
		for m := range msgs {
			say(fmt.Sprintf("%s [%s] %s", m.Time.Format("15:04:05"), m.From, m.Text))
		}
	}()
	var mu sync.Mutex
	var stopShow func()
	c.Every = func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if stopShow != nil {
			stopShow()
			stopShow = nil
		}
		if d == 0 {
			return
		}
		sctx, stop := context.WithCancel(ctx)
		stopShow = stop
		go func() {
			t := time.NewTicker(d)
			defer t.Stop()
			for {
				select {
				case <-sctx.Done():
					return
				case <-t.C:
					var b strings.Builder
					shown := &Console{M: c.M, Out: &b}
					shown.show(args{})
					say(b.String())
				}
			}
		}()
	}
	defer c.Every(0)
	for {
		line, err := c.readLine(ctx, in, read)
		switch {
		case errors.Is(err, readline.ErrInterrupt):
			continue
		case ctx.Err() != nil:
			return ExitOK
		case c.M.Err() != nil:
			fmt.Fprintln(c.Out, c.M.Err())
			return exitCode(c.M.Err())
		case err != nil: // end of input
			return ExitOK
		}
		if f := strings.Fields(line); len(f) > 0 && !(len(f) >= 2 && strings.HasPrefix(strings.ToLower(f[1]), "i") && strings.EqualFold(f[0], "show")) {
			c.Every(0) // any other command ends the automatic show
		}
		if errors.Is(c.Do(ctx, line), errExit) {
			return ExitOK
		}
	}
}

// readLine reads a line, or ends with ctx or the monitor: who waits for a line
// would otherwise keep the process from ending until somebody types one. The
// terminal is left as it was found; the reader ends with the process.
func (c *Console) readLine(ctx context.Context, in *os.File, read func() (string, error)) (string, error) {
	type result struct {
		line string
		err  error
	}
	before, terr := unix.IoctlGetTermios(int(in.Fd()), unix.TCGETS)
	got := make(chan result, 1)
	go func() {
		l, err := read()
		got <- result{l, err}
	}()
	select {
	case r := <-got:
		return r.line, r.err
	case <-ctx.Done():
	case <-c.M.Done():
	}
	if terr == nil {
		unix.IoctlSetTermios(int(in.Fd()), unix.TCSETS, before)
	}
	fmt.Fprintln(c.Out)
	return "", io.EOF
}

// complete lists the words that may follow a line: command words, groups and
// database names.
func (c *Console) complete(line string) []string {
	f := strings.Fields(line)
	part := ""
	if len(f) > 0 && !strings.HasSuffix(line, " ") {
		part, f = f[len(f)-1], f[:len(f)-1]
	}
	seen := map[string]bool{}
	var out []string
	add := func(s string) {
		if s != "" && !seen[s] && strings.HasPrefix(strings.ToLower(s), strings.ToLower(part)) {
			seen[s] = true
			out = append(out, s)
		}
	}
	names := false
	for _, cmd := range commands {
		w := strings.Fields(cmd.words)
		same := true
		for i := 0; i < min(len(w), len(f)); i++ {
			same = same && strings.EqualFold(w[i], f[i])
		}
		switch {
		case !same:
		case len(w) > len(f):
			add(w[len(f)])
		default:
			names = names || cmd.arg != argNone
		}
	}
	if names {
		for _, g := range c.M.Snapshot().Groups {
			add(g.Name)
			for _, d := range g.Databases {
				add(d.Name)
			}
		}
	}
	return out
}
