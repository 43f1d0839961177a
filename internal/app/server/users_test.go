package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"datawatch/internal/config"
	"datawatch/internal/sql/session"
	"datawatch/internal/vfs"
)

// dial opens a connection of a real client.
func (p *pair) dial(n, user, password string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	return pgx.Connect(ctx, fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=%s dbname=T sslmode=disable", p.ports[n][0], user, password))
}

func (p *pair) client(n, user, password string) *pgx.Conn {
	p.t.Helper()
	c, err := p.dial(n, user, password)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func sqlstate(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

// Users, privileges and their changes hold on the standby, for statements that
// its clients prepared before, and after it has become the primary.
func TestUsersOnStandbyAndAfterTakeover(t *testing.T) {
	p := newPair(t)
	p.open()
	ctx := t.Context()
	if err := session.InitSchema(ctx, session.FromEngine(p.a.eng), "SYSDBA", "SYSDBA"); err != nil {
		t.Fatal(err)
	}
	admin := p.client("A", "SYSDBA", "SYSDBA")
	run := func(sql string) {
		t.Helper()
		if _, err := admin.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	run("create user app password 'apple-pie'")
	run("create table t(a int, b int)")
	run("insert into t values(1, 2)")
	run("create view v as select a from t")
	run("grant select on v to app")
	if _, err := admin.Exec(ctx, "alter user app password 'app'"); sqlstate(err) != "28P01" {
		t.Errorf("PWD_POLICY: %v", err)
	}
	p.until("the standby lets app in", func() bool {
		c, err := p.dial("B", "app", "apple-pie")
		if err != nil {
			return false
		}
		return c.Close(ctx) == nil
	})
	reader := p.client("B", "app", "apple-pie")
	var n int
	read := func() string {
		err := reader.QueryRow(ctx, "select a from v").Scan(&n) // prepared by pgx, once
		if err == nil {
			return "ok"
		}
		return sqlstate(err)
	}
	p.until("the view can be read on the standby", func() bool { return read() == "ok" })
	if _, err := reader.Exec(ctx, "select b from t"); sqlstate(err) != "42501" {
		t.Errorf("the table under the view, on the standby: %v", err)
	}
	if _, err := reader.Exec(ctx, "alter user app password 'another-pie'"); sqlstate(err) != "25006" {
		t.Errorf("a change of password on the standby: %v", err)
	}
	run("revoke select on v from app")
	p.until("the revoke counts on the standby", func() bool { return read() == "42501" })
	run("grant select on v to app")
	p.until("the grant counts on the standby", func() bool { return read() == "ok" })

	p.until("all is replayed", func() bool { i := p.b.recv.Info(); return i.Apply == i.Keep })
	if err := p.end(p.a, stopAbort); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"MOUNT", "PRIMARY", "OPEN FORCE"} {
		if err := p.b.AlterDatabase(ctx, verb); err != nil {
			t.Fatalf("ALTER DATABASE %s: %v", verb, err)
		}
	}
	after := p.client("B", "app", "apple-pie")
	if err := after.QueryRow(ctx, "select a from v").Scan(&n); err != nil || n != 1 {
		t.Errorf("after the takeover: %d %v", n, err)
	}
	if _, err := after.Exec(ctx, "insert into t values(9, 9)"); sqlstate(err) != "42501" {
		t.Errorf("after the takeover: %v", err)
	}
	boss := p.client("B", "SYSDBA", "SYSDBA")
	for _, sql := range []string{"grant insert on t to app", "create user late password 'apple-pie'"} {
		if _, err := boss.Exec(ctx, sql); err != nil {
			t.Errorf("after the takeover: %s: %v", sql, err)
		}
	}
	if _, err := after.Exec(ctx, "insert into t values(9, 9)"); err != nil {
		t.Errorf("after the takeover: %v", err)
	}
}

// Address rules: a file with a mistake keeps the server from starting, a change
// counts from the next login on, and wrong passwords lock.
func TestLoginOverTheNetwork(t *testing.T) {
	p := newPair(t)
	p.open()
	ctx := t.Context()
	if err := session.InitSchema(ctx, session.FromEngine(p.a.eng), "SYSDBA", "Secret-12"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(p.dir, "A", "dm_hba.conf")
	rules := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	login := func(password string) string {
		c, err := p.dial("A", "SYSDBA", password)
		if err != nil {
			return sqlstate(err)
		}
		c.Close(ctx)
		return "ok"
	}
	is := func(what, password, want string) {
		t.Helper()
		if got := login(password); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	is("without rules", "Secret-12", "ok")
	rules("host all all 192.0.2.0/24 scram-sha-256\n")
	is("from another network", "Secret-12", "28000")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	is("a file that is gone changes nothing", "Secret-12", "28000")
	rules("host all all samehost scram-sha-256 # all of it\n")
	is("from here", "Secret-12", "ok")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	rules("host all sysdba samehost trust\n")
	is("trust", "whatever", "ok")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	rules("host all all samehost scram-sha-256\n")
	if err := p.a.para.set(0, "FAILED_LOGIN_ATTEMPTS", "2"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		is("a wrong password", "wrong", "28P01")
	}
	is("locked", "Secret-12", "28P01")
	if err := p.a.login("SYSDBA", "Secret-12"); err == nil {
		t.Error("a monitor may try what clients may not any more")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	rules("host all all nonsense trust\n")
	if err := p.end(p.a, stopAbort); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.LoadInstance(filepath.Join(p.dir, "A", "dm.ini"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := start(ctx, cfg, Options{FS: vfs.OS{}, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "dm_hba.conf line 1") {
		t.Errorf("a start with a mistake in the rules: %v", err)
	}
}

// TestSuspendEndsSessions: a database that stays suspended ends its sessions
// after SESS_FREE_IN_SUSPEND, and again those that connected after that.
func TestSuspendEndsSessions(t *testing.T) {
	p := newPair(t)
	p.open()
	if err := session.InitSchema(t.Context(), session.FromEngine(p.a.eng), "SYSDBA", "SYSDBA"); err != nil {
		t.Fatal(err)
	}
	p.a.cfg.DM.SessFreeInSuspend = 100 * time.Millisecond
	p.a.eng.Suspend("a test")
	for i := range 2 {
		c := p.client("A", "SYSDBA", "SYSDBA")
		p.until(fmt.Sprintf("session %d to be ended", i+1), func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			return c.Ping(ctx) != nil
		})
	}
}
