package logfile

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

type disk struct {
	t   *testing.T
	dir string
	now time.Time
}

func (d *disk) clock() time.Time { return d.now }

// files are the names with their content.
func (d *disk) files() map[string]string {
	d.t.Helper()
	out := map[string]string{}
	all, err := os.ReadDir(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, e := range all {
		b, err := os.ReadFile(filepath.Join(d.dir, e.Name()))
		if err != nil {
			d.t.Fatal(err)
		}
		out[e.Name()] = string(b)
	}
	return out
}

func TestRotation(t *testing.T) {
	d := &disk{t, t.TempDir(), time.Date(2026, 1, 31, 23, 59, 50, 0, time.UTC)}
	l, err := Open(Config{Dir: d.dir, Name: "dm_A", Size: 10, Now: d.clock})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	put := func(s string) {
		t.Helper()
		if _, err := l.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	put("one 4567\n")
	put("two\n") // would pass the limit
	put("three is longer than a file\n")
	d.now = d.now.Add(20 * time.Second)
	put("feb\n")
	want := map[string]string{"dm_A_202601.20260131T235950.log": "one 4567\n", "dm_A_202601.20260131T235950-1.log": "two\n",
		"dm_A_202601.20260201T000010.log": "three is longer than a file\n", "dm_A_202602.log": "feb\n"}
	got := d.files()
	for n, s := range want {
		if got[n] != s {
			t.Errorf("%s: %q, want %q", n, got[n], s)
		}
	}
	if len(got) != len(want) {
		t.Errorf("files: %v", got)
	}
	// A restart goes on in the same file.
	l.Close()
	l, _ = Open(Config{Dir: d.dir, Name: "dm_A", Size: 10, Now: d.clock})
	put("mar\n")
	if got := d.files()["dm_A_202602.log"]; got != "feb\nmar\n" {
		t.Errorf("after a restart: %q", got)
	}
}

func TestSpaceLimit(t *testing.T) {
	d := &disk{t, t.TempDir(), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	for _, other := range []string{"dm_A_B_202512.log", "dm_A_x.log", "slow_A_202511.log"} {
		if err := os.WriteFile(filepath.Join(d.dir, other), []byte("not mine\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := New(Config{Dir: d.dir, Name: "dm_A", Size: 100, Space: 350, Now: d.clock})
	defer l.Close()
	line := strings.Repeat("x", 89) + "\n"
	for i := range 10 {
		d.now = d.now.Add(time.Minute)
		if _, err := l.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
		// Which is oldest goes by the file's time.
		if err := os.Chtimes(l.Path(), d.now, d.now); err != nil {
			t.Fatal(i, err)
		}
	}
	got := d.files()
	var sum int
	for n, s := range got {
		if s != "not mine\n" {
			sum += len(s)
		} else {
			delete(got, n)
		}
	}
	if sum != 270 || got["dm_A_202601.20260101T001000.log"] == "" || got["dm_A_202601.20260101T000900.log"] == "" || got["dm_A_202601.log"] == "" {
		t.Errorf("%d bytes are left in %d files", sum, len(got))
	}
	if len(d.files()) != 3+len(got) {
		t.Error("files of others were removed")
	}
}

func TestFileMovedAway(t *testing.T) {
	d := &disk{t, t.TempDir(), time.Now()}
	l, err := Open(Config{Dir: d.dir, Name: "n", Now: d.clock})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.Write([]byte("1\n"))
	moved := filepath.Join(d.dir, "moved")
	if err := os.Rename(l.Path(), moved); err != nil {
		t.Fatal(err)
	}
	l.Write([]byte("2\n"))
	done := make(chan struct{}, 10)
	stop := OnHangup(context.Background(), func() { l.Reopen(); done <- struct{}{} })
	defer stop()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	<-done
	l.Write([]byte("3\n"))
	if f := d.files(); f["moved"] != "1\n2\n" || f[filepath.Base(l.Path())] != "3\n" {
		t.Errorf("%q", f)
	}
}

// TestDirectoryGone: lines are lost while the directory cannot be written to,
// and come again afterwards.
func TestDirectoryGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file where the directory should be
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir, Name: "n"}); err == nil {
		t.Error("no error at start")
	}
	l := New(Config{Dir: dir, Name: "n"})
	defer l.Close()
	if _, err := l.Write([]byte("lost\n")); err == nil {
		t.Error("no error")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write([]byte("kept\n")); err != nil {
		t.Error(err)
	}
}

func TestEcho(t *testing.T) {
	var b bytes.Buffer
	e := NewEcho(&b)
	e.Quiet()
	e.Write([]byte("x"))
	if b.String() != "x" {
		t.Error("a stream that is no file must go on")
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	e = NewEcho(f)
	e.Write([]byte("1"))
	e.Quiet()
	if n, err := e.Write([]byte("2")); n != 1 || err != nil {
		t.Error(n, err)
	}
	if got, _ := os.ReadFile(f.Name()); string(got) != "1" {
		t.Errorf("a file: %q", got)
	}
	f.Close()
	if _, err := NewEcho(f).Write([]byte("3")); err != nil {
		t.Error("a stream that is gone must not stop the log:", err)
	}
}
