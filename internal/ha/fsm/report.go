package fsm

import (
	"time"

	"datawatch/internal/ha/proto"
)

// quietTime is after how long silence of an instance that is judged OK is told.
const quietTime = 2 * time.Second

// Report is the status message of the moment. Seq, Time, PID, Incarnation and
// Version are the driver's to fill in.
func (s State) Report(seq uint64, now time.Time) proto.WatcherStatus {
	typ, mode := "LOCAL", "MANUAL"
	if s.Cfg.Global {
		typ = "GLOBAL"
	}
	if s.Cfg.Auto {
		mode = "AUTO"
	}
	st := proto.WatcherStatus{
		Seq: seq, Era: s.era, Group: s.Cfg.Group, OGUID: s.Cfg.OGUID, Host: s.Cfg.Host, Port: s.Cfg.Port,
		Config: proto.GroupConfig{Type: typ, Mode: mode, ErrorTime: int(s.Cfg.ErrorTime / time.Second),
			InstErrorTime: int(s.Cfg.InstErrorTime / time.Second), RecoverTime: s.Cfg.RecoverTime, AutoRestart: s.Cfg.AutoRestart,
			ServiceIPCheck: s.Cfg.ServiceCheck, RlogSendThreshold: s.Cfg.SendThreshold, RlogApplyThreshold: s.Cfg.ApplyThresh,
			Reconnect: s.Cfg.Reconnect, FailoverForce: s.Cfg.FailoverForce, Rejoin: s.Cfg.Rejoin, IniPath: s.Cfg.IniPath, StartupCmd: s.Cfg.StartupCmd},
		State: s.W.String(), SubState: s.Sub, CtlStatus: s.Ctl, CtlDesc: s.CtlDesc,
		InstOK: s.In.OK, InstExitNorm: s.In.Normal, InstGone: s.In.Gone, Inst: s.In.Status,
		RejoinBy: s.rejoinBy, RejoinBad: s.rejoinBad,
		Why: append([]string(nil), s.Why...),
	}
	if st.Inst.InstName == "" {
		st.Inst.InstName = s.Cfg.Name
	}
	st.Inst.ValidClaim = s.effectiveClaim()
	if s.Held != nil {
		st.Cmd = &proto.HeldCommand{ID: s.Held.ID, Mon: s.Held.Mon, Kind: s.Held.Kind}
	}
	if quiet := now.Sub(s.In.Heard); s.In.OK && quiet >= quietTime {
		st.InstSilent = int(quiet / time.Second)
	}
	if !s.In.OK {
		st.InstLost = s.In.Lost
		st.StateAtLoss = s.In.AtLoss.String()
	}
	st.RecoverTime = make(map[string]int, len(s.recT))
	for n, v := range s.recT {
		st.RecoverTime[n] = v.secs
		if v.begun.IsZero() {
			continue
		}
		if st.Recovered == nil {
			st.Recovered = map[string]proto.Recovered{}
		}
		st.Recovered[n] = proto.Recovered{Begun: v.begun, Code: v.code}
	}
	st.Remotes = make([]proto.RemoteView, 0, len(s.Cfg.Remotes))
	for _, n := range s.Cfg.Remotes {
		r := s.remote(n)
		st.Remotes = append(st.Remotes, proto.RemoteView{Inst: n, DWLink: s.hears(n, now), InstOK: r.Link && s.instOK(n, now), MALLink: s.malUp(n), LastHeard: r.Heard})
	}
	for _, id := range sorted(s.Mons) {
		mo := s.Mons[id]
		if now.Sub(mo.Seen) >= s.Cfg.ErrorTime {
			continue
		}
		st.Monitors = append(st.Monitors, proto.MonitorInfo{ID: id, Addr: mo.Addr, Confirm: mo.Confirm, Since: mo.Since, LastSeen: mo.Seen})
	}
	return st
}
