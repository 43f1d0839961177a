package monitor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"datawatch/dwmon"
	"datawatch/internal/vfs"
)

// output is a buffer that can be waited on.
type output struct {
	mu   sync.Mutex
	b    bytes.Buffer
	more chan struct{} // closed with the next write
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func (o *output) wait(t *testing.T, want string) {
	t.Helper()
	for end := time.After(20 * time.Second); ; {
		o.mu.Lock()
		if o.more == nil {
			o.more = make(chan struct{})
		}
		there, more := strings.Contains(o.b.String(), want), o.more
		o.mu.Unlock()
		if there {
			return
		}
		select {
		case <-more:
		case <-end:
			t.Fatalf("%q is not in:\n%s", want, o.String())
		}
	}
}

func configOf(ws ...*watcher) dwmon.Config {
	g := dwmon.Group{Name: "GRP1", OGUID: 7}
	for _, w := range ws {
		g.Addrs = append(g.Addrs, w.ln.Addr().String())
	}
	return dwmon.Config{Groups: []dwmon.Group{g}, FS: vfs.NewMem(), MonID: "me"}
}

// Whoever types into a pipe, as over ssh without a terminal, sees the answer to a
// line before he writes the next; a signal ends the wait for it.
func TestLinesAreRunAsTheyCome(t *testing.T) {
	cfg := configOf(start(t, status("A", true)), start(t, status("B", false)))
	r, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errs output
	code := make(chan int, 1)
	go func() { code <- Run(ctx, Options{Wait: 10 * time.Second}, cfg, r, &out, &errs) }()
	fmt.Fprintln(w, "show version")
	out.wait(t, dwmon.Version)
	fmt.Fprintln(w, "logout")
	out.wait(t, "logout: done")
	cancel()
	select {
	case c := <-code:
		if c != ExitOK {
			t.Fatalf("exit code %d: %s", c, errs.String())
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the monitor goes on reading after its context has ended")
	}
}

// A line that cannot be read is an error: the commands behind it were not run.
func TestTooLongALine(t *testing.T) {
	cfg := configOf(start(t, status("A", true)), start(t, status("B", false)))
	var out, errs output
	in := "show version\n" + strings.Repeat("x", 70_000) + "\nlogout\n"
	code := Run(t.Context(), Options{Wait: 10 * time.Second}, cfg, strings.NewReader(in), &out, &errs)
	if code != ExitUsage || !strings.Contains(out.String(), dwmon.Version) || strings.Contains(out.String(), "logout") || !strings.Contains(errs.String(), "token too long") {
		t.Fatalf("exit code %d\n%s%s", code, out.String(), errs.String())
	}
}

// On a terminal that answers no question the console reads plain lines; a signal
// ends it while it waits for one, and leaves the terminal as it was.
func TestPlainTerminal(t *testing.T) {
	t.Setenv("TERM", "dumb")
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Skip(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer slave.Close()
	m, err := dwmon.Open(t.Context(), configOf(start(t, status("A", true)), start(t, status("B", false))))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var out output
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	code := make(chan int, 1)
	go func() { code <- interactive(ctx, &Console{M: m, Out: &out}, slave, t.TempDir()) }()
	out.wait(t, "monitor> ")
	fmt.Fprintln(master, "show version")
	out.wait(t, dwmon.Version)
	cancel()
	select {
	case <-code:
	case <-time.After(20 * time.Second):
		t.Fatal("the console goes on waiting for a line after its context has ended")
	}
	master.Close() // ends the reader
}
