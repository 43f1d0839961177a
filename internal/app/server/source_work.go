package server

import (
	"strings"
	"time"

	"datawatch/internal/ha/proto"
	"datawatch/internal/sql/views"
)

func (v source) Trx() []views.TrxRow {
	var out []views.TrxRow
	for _, t := range v.s.sess.Transactions() {
		r := views.TrxRow{ID: t.ID, Status: strings.ToUpper(t.State), Isolation: t.Isolation, ReadOnly: t.ReadOnly, SessID: int64(t.Session),
			Kind: t.Kind, User: t.User, Start: t.Start, Writer: t.Writer, Waiting: t.Waiting}
		if !t.Start.IsZero() {
			r.Seconds = int64(time.Since(t.Start) / time.Second)
		}
		out = append(out, r)
	}
	return out
}

func (v source) Locks() []views.LockRow {
	var out []views.LockRow
	for _, l := range v.s.sess.Locks() {
		r := views.LockRow{TrxID: l.Trx, LType: l.Kind, LMode: "X", SessID: int64(l.Session), Blocker: int64(l.Blocker), Since: l.Since}
		if l.Kind == "SNAPSHOT" {
			r.LMode = "S"
		}
		if l.Blocked {
			r.Blocked = 1
		}
		out = append(out, r)
	}
	return out
}

func (v source) ArchSend() []views.ArchSendRow {
	var out []views.ArchSendRow
	for _, i := range v.s.ship.SendInfos() {
		r := views.ArchSendRow{Dest: i.Inst, Type: int(i.Type), ForRecovery: "N", RecentCnt: i.RecentCnt, TotalCnt: i.TotalCnt, TotalLen: i.TotalLen,
			TotalPTX: i.TotalPTX, TotalTime: i.TotalTime.Microseconds(), MaxTime: i.MaxTime.Microseconds(), MaxEnd: i.MaxEnd, MaxPTX: i.MaxPTX,
			MaxLen: i.MaxLen, MaxLSN: i.MaxLSN, LastLen: i.LastLen, LastPTX: i.LastPTX, LastLSN: i.LastLSN, LastTime: i.LastTime.Microseconds(),
			LastStart: i.LastStart, LastEnd: i.LastEnd, RecentLen: i.RecentLen, RecentPTX: i.RecentPTX, RecentTime: i.RecentTime.Microseconds()}
		if i.ForRecovery {
			r.ForRecovery = "Y"
		}
		out = append(out, r)
	}
	return out
}

func (v source) RapplyStat() []views.RapplyStatRow {
	if !v.standby() {
		return nil
	}
	s, us := v.s.recv.Stats(), time.Duration.Microseconds
	return []views.RapplyStatRow{{RecentNum: s.RecentNum, TaskMem: s.TaskMem, TaskStart: s.TaskStart, RecvNum: s.RecvNum, RecvLen: s.RecvLen,
		RecvTime: us(s.RecvTime), ApplyNum: s.ApplyNum, ApplyLen: s.ApplyLen, ApplyTime: us(s.ApplyTime), WaitTime: us(s.WaitTime),
		RecvMax: us(s.RecvMax), WaitMax: us(s.WaitMax), ApplyMax: us(s.ApplyMax), ApplyMaxLen: s.ApplyMaxLen, LastRecvLen: s.LastRecvLen,
		LastRecvTime: us(s.LastRecvTime), RecentRecvLen: s.RecentRecvLen, RecentRecvTime: us(s.RecentRecvTime), LastWaitTime: us(s.LastWaitTime),
		RecentWaitTime: us(s.RecentWaitTime), LastApplyLen: s.LastApplyLen, LastApplyTime: us(s.LastApplyTime), RecentApplyLen: s.RecentApplyLen,
		RecentApplyTime: us(s.RecentApplyTime), LastCommit: s.LastCommit, Applied: s.Applied}}
}

func (v source) DBCheck() []views.DBCheckRow {
	c := v.s.sess.LastCheck()
	if c.State == "" {
		return nil
	}
	r := views.DBCheckRow{State: c.State, Phase: c.Phase, Done: int64(c.Done), Total: int64(c.Total), Problems: c.Count(), Start: c.Start, End: c.End,
		LSN: c.LSN, SessID: int64(c.Session), User: c.User, Error: c.Error}
	if c.Total > 0 {
		r.Percent = int(min(100, 100*int64(c.Done)/int64(c.Total)))
	}
	return []views.DBCheckRow{r}
}

func (v source) DBProblems() []views.DBProblemRow {
	var out []views.DBProblemRow
	for _, p := range v.s.sess.LastCheck().Problems {
		r := views.DBProblemRow{What: p.What, Object: p.Object, Page: int64(p.Page), Text: p.Text}
		if p.Page != 0 {
			r.Offset = ptr(p.Offset)
		}
		out = append(out, r)
	}
	return out
}

// sendStats and applyStat are what the monitor shows of sending and replay.
func (s *Server) sendStats() []proto.SendStat {
	var out []proto.SendStat
	us := time.Duration.Microseconds
	for _, i := range s.ship.SendInfos() {
		x := i.Newest
		out = append(out, proto.SendStat{Inst: i.Inst, ForRecovery: x.ForRecovery, LastStart: x.Start, LastEnd: x.End, LastTime: us(x.Time),
			FirstLSN: x.FirstLSN, LastLSN: x.LastLSN, LastLen: x.Len, LastPTX: x.PTX, LastFailed: x.Failed, RecentCnt: i.RecentCnt, RecentLen: i.RecentLen, RecentPTX: i.RecentPTX,
			RecentTime: us(i.RecentTime), MaxTime: us(i.MaxTime), MaxEnd: i.MaxEnd, MaxPTX: i.TopPTX, MaxLen: i.TopLen, MaxLSN: i.TopLSN,
			TotalCnt: i.TotalCnt, TotalLen: i.TotalLen, TotalPTX: i.TotalPTX, TotalTime: us(i.TotalTime)})
	}
	return out
}

func (s *Server) applyStat() *proto.ApplyStat {
	x, us := s.recv.Stats(), time.Duration.Microseconds
	return &proto.ApplyStat{LastRecvLen: x.LastRecvLen, LastRecvTime: us(x.LastRecvTime), LastWait: us(x.LastWaitTime), LastApplyLen: x.LastApplyLen,
		LastApplyTime: us(x.LastApplyTime), RecentNum: x.RecentNum, RecentRecvLen: x.RecentRecvLen, RecentRecvTime: us(x.RecentRecvTime),
		RecentWait: us(x.RecentWaitTime), RecentApplyLen: x.RecentApplyLen, RecentApplyTime: us(x.RecentApplyTime), MaxRecvTime: us(x.RecvMax),
		MaxWait: us(x.WaitMax), MaxApplyTime: us(x.ApplyMax), MaxApplyLen: x.ApplyMaxLen, TotalRecvNum: x.RecvNum, TotalRecvLen: x.RecvLen,
		TotalRecvTime: us(x.RecvTime), TotalWait: us(x.WaitTime), TotalApplyNum: x.ApplyNum, TotalApplyLen: x.ApplyLen, TotalApplyTime: us(x.ApplyTime)}
}
