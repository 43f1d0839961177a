package fsm

import (
	"fmt"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// average is the mean of n times that took us microseconds together.
func average(us int64, n int) time.Duration {
	if n == 0 {
		return 0
	}
	return time.Duration(us/int64(n)) * time.Microsecond
}

// slowSend tells that the last sends to n took longer than RLOG_SEND_THRESHOLD
// on the average (manual 3.1.7).
func (x *m) slowSend(n string) string {
	a, ok := x.arch(n)
	limit := time.Duration(x.Cfg.SendThreshold) * time.Second
	if avg := average(a.RecentTime, a.RecentSends); ok && limit > 0 && avg > limit {
		return fmt.Sprintf("the last %d sends to it took %s on the average, RLOG_SEND_THRESHOLD is %s", a.RecentSends, avg, limit)
	}
	return ""
}

// slow tells why the archive to n must not become Valid: sending to it or its
// replay is too slow (manual 3.1.7, 3.1.9).
func (x *m) slow(n string) string {
	if why := x.slowSend(n); why != "" {
		return why
	}
	ri := x.remote(n).Status.Inst
	limit := time.Duration(x.Cfg.ApplyThresh) * time.Second
	if avg := average(ri.ReplayTime, ri.RecentReplays); limit > 0 && avg > limit {
		return fmt.Sprintf("its last %d packages waited and took %s on the average, RLOG_APPLY_THRESHOLD is %s", ri.RecentReplays, avg, limit)
	}
	return ""
}

// untoldPause is how long a slow standby that could not be told is left alone:
// commits wait while it is tried, and no other standby is recovered.
const untoldPause = recoverSoon * time.Second

// slowStandbys lists those with a Valid archive to which sending is too slow.
func (x *m) slowStandbys() (slow []string, why string) {
	var whys []string
	for _, n := range x.names() {
		a, ok := x.arch(n)
		if !ok || a.State != base.ArchValid || a.SendFailed || x.now.Sub(x.recT[n].untold) < untoldPause {
			continue
		}
		if why := x.slowSend(n); why != "" {
			slow, whys = append(slow, n), append(whys, n+": "+why)
		}
	}
	return slow, strings.Join(whys, "; ")
}

// checkStandbys begins to cut slow standbys off (manual 3.1.7). G1, G3: the
// archive of one becomes Invalid only when the standby has been told, so it will
// not take over without what is acknowledged from then on.
func (x *m) checkStandbys() bool {
	slow, why := x.slowStandbys()
	if len(slow) == 0 {
		return false
	}
	var steps []proto.InstanceCommand
	for _, n := range slow {
		// Its last report may be from before; and the interval gives it time.
		x.change(n, func(v *interval) { v.hold(x.Cfg.RecoverTime, x.now) })
		c := setArch(n, base.ArchInvalid)
		c.Told, c.Evidence = true, x.slowSend(n)
		steps = append(steps, c)
	}
	x.to(StandbyCheck, "", why)
	x.run(proc{kind: procStandbyCheck, steps: steps, why: why})
	return true
}

func (x *m) decideStandbyCheck() {
	if len(x.failed()) > 0 {
		x.endProc("a send has failed, failover comes first")
	}
	if x.p == nil {
		x.to(Open, "", "standby check has ended")
		return
	}
	x.why("%s: %s", procNames[x.p.kind], x.Sub)
}
