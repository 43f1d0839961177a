package session

import (
	"sync/atomic"
	"testing"
)

// TestLeaseOver: a session that stood still between the release of its commit and
// the answer does not acknowledge it (G3); the commit is there, whose outcome the
// client is told not to know.
func TestLeaseOver(t *testing.T) {
	e := newEnv(t)
	var over atomic.Bool
	e.b.leaseOver = over.Load
	c := e.client()
	c.exec("create table t(a int)")
	c.exec("insert into t values(1)")
	over.Store(true)
	c.fails("insert into t values(2)", "08007")
	c.exec("begin")
	c.exec("insert into t values(3)")
	c.fails("commit", "08007")
	c.is("select count(*) from t", "3") // reading needs no lease
	over.Store(false)
	c.exec("insert into t values(4)")
}
