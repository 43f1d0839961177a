package pgwire

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestPSQL(t *testing.T) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Skip("psql is not installed (Debian package postgresql-client)")
	}
	_, addr := serve(t, newFake(), func(s *Server) { s.TLS = shown(certificate(t)) })
	host, port, _ := net.SplitHostPort(addr)
	run := func(mode, pw, sql string) (string, error) {
		cmd := exec.CommandContext(t.Context(), psql, "-X", "-A", "-t", "-c", sql,
			fmt.Sprintf("host=%s port=%s user=sysdba dbname=DAMENG sslmode=%s", host, port, mode))
		cmd.Env = append(os.Environ(), "PGPASSWORD="+pw, "PGCLIENTENCODING=UTF8")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, mode := range []string{"disable", "prefer", "require"} {
		out, err := run(mode, "SYSDBA", "begin; rows 2; commit")
		if err != nil || out != "BEGIN\n0|row of some text\n1|row of some text\nCOMMIT\n" {
			t.Errorf("sslmode %s: %v\n%s", mode, err, out)
		}
	}
	if out, err := run("disable", "wrong", "insert"); err == nil || !strings.Contains(out, `password authentication failed for user "sysdba"`) {
		t.Errorf("wrong password: %v %s", err, out)
	}
	out, err := run("disable", "SYSDBA", "insert; badparse")
	if err == nil || !strings.Contains(out, "ERROR:  syntax error") || !strings.Contains(out, "HINT:  h") {
		t.Errorf("error: %v %s", err, out)
	}
}

func TestPgbench(t *testing.T) {
	pgbench, err := exec.LookPath("pgbench")
	if err != nil {
		t.Skip("pgbench is not installed (Debian package postgresql-contrib)")
	}
	_, addr := serve(t, newFake())
	host, port, _ := net.SplitHostPort(addr)
	script := filepath.Join(t.TempDir(), "script.sql")
	if err := os.WriteFile(script, []byte("begin;\nrows 3;\ninsert;\ncommit;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"simple", "extended", "prepared"} {
		cmd := exec.CommandContext(t.Context(), pgbench, "-n", "-M", mode, "-f", script, "-c", "4", "-t", "20", "-h", host, "-p", port, "-U", "SYSDBA", "DAMENG")
		cmd.Env = append(os.Environ(), "PGPASSWORD=SYSDBA", "PGSSLMODE=disable")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "80/80") {
			t.Errorf("%s: %v\n%s", mode, err, out)
		}
	}
}
