package hba

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMatch(t *testing.T) {
	r, err := Parse("f", []byte(`# comment
host    all       evil            all             reject   # whoever knows it
hostssl dameng    +app, boss      10.0.0.0/8      scram-sha-256
hostnossl all     "Old"           10.1.2.3        scram-sha-256
host    all       all             ::1/128         trust
host    all       sysdba          samehost        scram-sha-256
host    other,x   all             192.168.0.0/16  scram-sha-256
`))
	if err != nil {
		t.Fatal(err)
	}
	member := func(role string) bool { return role == "app" }
	for _, x := range []struct {
		c      Client
		want   Method
		byUser bool
		line   string
	}{
		{Client{User: "EVIL", Addr: "10.0.0.1:5", TLS: true, Member: member}, Reject, true, "line 2"},
		{Client{User: "u", Database: "DAMENG", Addr: "10.200.0.1:5", TLS: true, Member: member}, Scram, true, "line 3"},
		{Client{User: "u", Database: "DAMENG", Addr: "10.200.0.1:5", TLS: true}, Reject, true, "no line"},
		{Client{User: "u", Database: "DAMENG", Addr: "10.200.0.1:5", Member: member}, Reject, true, "no line"},
		{Client{User: "BOSS", Database: "dameng", Addr: "10.200.0.1:5", TLS: true}, Scram, true, "line 3"},
		{Client{User: "boss", Database: "postgres", Addr: "10.200.0.1:5", TLS: true}, Reject, true, "no line"},
		{Client{User: "old", Addr: "10.1.2.3:5"}, Scram, true, "line 4"},
		{Client{User: "old", Addr: "[::ffff:10.1.2.3]:5"}, Scram, true, "line 4"},
		{Client{User: "old", Addr: "10.1.2.4:5"}, Reject, true, "no line"},
		{Client{User: "any", Addr: "[::1]:5", Local: true}, Trust, true, "line 5"},
		{Client{User: "SYSDBA", Addr: "127.0.0.1:5", Local: true}, Scram, true, "line 6"},
		{Client{User: "any", Addr: "127.0.0.1:5", Local: true}, Reject, true, "no line"},
		{Client{User: "any", Database: "X", Addr: "192.168.7.7:5"}, Scram, true, "line 7"},
		{Client{User: "any", Database: "X", Addr: "no address"}, Reject, true, "no line"},
	} {
		d := r.Match(x.c)
		if d.Method != x.want || d.ByUser != x.byUser || !strings.Contains(d.Reason, x.line) {
			t.Errorf("%+v: %+v", x.c, d)
		}
	}
	plain, err := Parse("f", []byte("host all all 10.0.0.0/8 scram-sha-256"))
	if err != nil {
		t.Fatal(err)
	}
	if d := plain.Match(Client{User: "a", Addr: "11.0.0.1:1"}); d.Method != Reject || d.ByUser {
		t.Errorf("an address nobody may use: %+v", d)
	}
	if d := (*Rules)(nil).Match(Client{}); d.Method != Scram {
		t.Errorf("without rules: %+v", d)
	}
}

func TestErrorsNameFileAndLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                                       "/etc/x line 1: there is no rule",
		"\n\nlocal all all trust":                "/etc/x line 3: type \"local\"",
		"foo all all all reject":                 "type \"foo\"",
		"host all all all":                       "4 fields",
		"host all all 10.0.0.1/8 reject":         "write 10.0.0.0/8",
		"host all all 10.0.0.0/33 reject":        "address \"10.0.0.0/33\"",
		"host all all example.com reject":        "host names are not looked up",
		"host all all 10.0.0.0 255.0.0.0 reject": "separate mask",
		"host all all all trust":                 "loopback addresses only",
		"host all all 127.0.0.0/7 trust":         "write 126.0.0.0/7",
		"host all all 126.0.0.0/7 trust":         "loopback addresses only",
		"host all all all md5":                   "method \"md5\"",
		"host all @file all reject":              "name \"@file\"",
		"host all a,,b all reject":               "name \"\"",
		"host all + all reject":                  "name \"+\"",
	} {
		_, err := Parse("/etc/x", []byte(in))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "/etc/x line ") {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

// However a file is cut short, whoever gets in would get in by the whole file.
func TestCutFileLetsNobodyMoreIn(t *testing.T) {
	text := "host all a 10.0.0.0/8 scram-sha-256\nhost all all 10.0.0.0/8 reject\nhost all b 11.0.0.0/8 scram-sha-256\nhost all all 12.0.0.0/8 scram-sha-256\n"
	whole, err := Parse("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i := range text {
		cut, err := Parse("f", []byte(text[:i]))
		if err != nil {
			continue
		}
		n++
		for _, user := range []string{"a", "b", "c"} {
			for _, addr := range []string{"10.0.0.1:1", "11.0.0.1:1", "12.0.0.1:1", "13.0.0.1:1"} {
				c := Client{User: user, Addr: addr}
				if cut.Match(c).Method != Reject && whole.Match(c).Method == Reject {
					t.Errorf("cut at %d lets %s in from %s", i, user, addr)
				}
			}
		}
	}
	if n < 4 {
		t.Errorf("only %d cuts could be read", n)
	}
}

func TestReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hba")
	write := func(s string, age time.Duration) {
		t.Helper()
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	l := slog.New(slog.NewTextHandler(&log, nil))
	src := Source{os.ReadFile, os.Stat}
	if _, err := Open(src, path, true, l); err == nil {
		t.Error("a missing file that was named is accepted")
	}
	f, err := Open(src, path, false, l)
	if err != nil || f.Rules() != nil {
		t.Fatalf("without a file: %v %v", err, f.Rules())
	}
	here := Client{User: "u", Addr: "10.0.0.1:1"}
	is := func(what string, want Method) {
		t.Helper()
		if d := f.Rules().Match(here); d.Method != want {
			t.Errorf("%s: %+v", what, d)
		}
	}
	write("host all all all reject\n", time.Hour)
	is("a new file", Reject)
	write("host all all all scram-sha-256\n", time.Minute)
	is("a changed file", Scram)
	write("host all all nowhere reject\n", time.Second)
	is("a file with an error", Scram)
	is("again", Scram)
	if n := strings.Count(log.String(), "hba line 1: address"); n != 1 {
		t.Errorf("the error was logged %d times:\n%s", n, log.String())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	is("no file any more", Scram)
	if !strings.Contains(log.String(), "cannot be read") {
		t.Error("the missing file was not logged")
	}
	write("host all all all reject\n", 0)
	is("back again", Reject)
	if _, err := Open(Source{func(string) ([]byte, error) { return []byte("x"), nil }, func(string) (fs.FileInfo, error) { return nil, fs.ErrNotExist }}, path, false, l); err == nil {
		t.Error("a server starts with rules that have an error")
	}
}
