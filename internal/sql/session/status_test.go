package session

import (
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/sql/sqlapi"
)

func TestMount(t *testing.T) {
	e := newEnv(t)
	a, b, idle, silent := e.client(), e.client(), e.client(), e.client()
	a.exec("create table t(v int); insert into t values(1)")
	e.admin.alter = func(verb string) error {
		if verb == "MOUNT" {
			e.db.status.Store(uint32(base.StatusMount))
		} else {
			e.db.status.Store(uint32(base.StatusOpen))
		}
		return nil
	}
	idle.exec("begin; update t set v=99")
	silent.exec("begin; select v from t")
	slow := make(chan error, 1)
	go func() { _, _, err := b.simpleQ("select pg_sleep(100)"); slow <- err }()
	until(t, "b sleeps", func() bool { return b.describe().State == "active" })
	a.is("alter database mount", "ALTER DATABASE")
	if code := codeOf(t, <-slow); code != "57P01" {
		t.Errorf("the running statement: %s", code)
	}
	until(t, "everything is rolled back", func() bool { return idle.TxStatus() == sqlapi.TxFailed && silent.TxStatus() == sqlapi.TxFailed })
	idle.fails("select 1", "57P01")
	idle.fails("select 1", "25P02")
	idle.is("commit", "ROLLBACK")
	// Nobody has told this client yet: a tag of ROLLBACK would pass for success.
	silent.fails("commit", "57P01")
	silent.is("select 1", "1")
	for _, q := range []string{"select * from t", "insert into t values(1)", "create table x(a int)", "create temp table x(a int)", "vacuum", "begin; lock table t"} {
		a.fails(q, "57P03")
		a.exec("rollback")
	}
	a.is("select 1+1", "2")
	a.exec("select name from v$instance")
	a.is("show server_version", serverVersion)
	a.is("select pg_is_in_recovery()", "0")
	a.is("SP_SET_OGUID(5)", "CALL")
	a.is("alter database open force", "ALTER DATABASE")
	a.is("select v from t", "1")
	idle.exec("update t set v=2")
}

// TestDemoted: when the primary becomes a standby its sessions end, which is
// what every driver reconnects on; the one that made the change goes on, and a
// standby that becomes the primary keeps its own.
func TestDemoted(t *testing.T) {
	e := newEnv(t)
	admin, idle, busy := e.client(), e.client(), e.client()
	admin.exec("create table t(v int); insert into t values(1)")
	change := func(m base.Mode) {
		e.db.mode.Store(uint32(m))
		e.b.StatusChanged()
	}
	e.admin.alter = func(verb string) error {
		change(map[string]base.Mode{"STANDBY": base.ModeStandby, "PRIMARY": base.ModePrimary}[verb])
		<-idle.Done() // it is over for the others before the command is
		return nil
	}
	result := make(chan error, 1)
	go func() { _, _, err := busy.simpleQ("select pg_sleep(100)"); result <- err }()
	until(t, "busy sleeps", func() bool { return busy.describe().State == "active" })
	admin.is("alter database standby", "ALTER DATABASE")
	if err := errOf(t, <-result); err.Code != "57P01" || err.Severity != "FATAL" {
		t.Errorf("running statement: %+v", err)
	}
	if _, _, err := idle.simpleQ("select 1"); codeOf(t, err) != "57P01" {
		t.Errorf("idle session: %v", err)
	}
	admin.is("select v from t", "1")
	reader := e.client()
	reader.is("select v from t", "1")
	admin.is("alter database primary", "ALTER DATABASE")
	reader.exec("update t set v=2")

	// Others may end when the command is over already; who gave it still stays.
	e.admin.alter = func(verb string) error {
		change(map[string]base.Mode{"STANDBY": base.ModeStandby, "PRIMARY": base.ModePrimary}[verb])
		return nil
	}
	for range 50 {
		other := e.client()
		admin.is("alter database standby", "ALTER DATABASE")
		<-other.Done()
		admin.is("alter database primary", "ALTER DATABASE")
	}
}
