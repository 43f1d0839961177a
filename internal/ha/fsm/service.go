package fsm

import "datawatch/internal/base"

// service notes whether clients can reach the instance (INST_SERVICE_IP_CHECK,
// manual 5.4).
func (x *m) service(why string) {
	if why == x.svcWhy {
		return
	}
	if x.svcWhy == "" {
		x.svcSince = x.now
	}
	x.svcWhy = why
	if why == "" {
		x.svcDone = false
		x.log("public network is back")
		return
	}
	x.log("public network is down", "why", why)
}

// unserved ends an Open primary that clients have not reached for
// INST_ERROR_TIME, so that a standby can take over. It does so once in each
// outage: a primary that comes back, because no standby could, stays.
//
// G1, G3: to everybody else this is a crash of the instance. It is killed, not
// told to shut down: one that had reported Shutdown would not have been Open when
// it failed, and nobody would take over from it.
func (x *m) unserved() bool {
	if !x.Cfg.ServiceCheck || x.svcWhy == "" || x.svcDone {
		return false
	}
	if left := x.Cfg.InstErrorTime - x.now.Sub(x.svcSince); left > 0 {
		x.why("the public network is down (%s): the primary is shut down in %s", x.svcWhy, left.Truncate(1e9))
		return false
	}
	x.svcDone = true
	x.kill("INST_SERVICE_IP_CHECK: " + x.svcWhy)
	return true
}

// successor: a standby has all that is acknowledged, and runs.
func (x *m) successor() bool {
	for _, n := range x.names() {
		if a, ok := x.arch(n); ok && a.State == base.ArchValid && !a.SendFailed && x.instOK(n, x.now) {
			return true
		}
	}
	return false
}
