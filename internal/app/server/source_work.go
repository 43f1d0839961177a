package server

import (
	"strings"
	"time"

	"datawatch/internal/sql/views"
)

func (v source) Trx() []views.TrxRow {
	var out []views.TrxRow
	for _, t := range v.s.sess.Transactions() {
		r := views.TrxRow{ID: t.ID, Status: strings.ToUpper(t.State), Isolation: t.Isolation, ReadOnly: t.ReadOnly, SessID: int64(t.Session),
			User: t.User, Start: t.Start, Writer: t.Writer, Waiting: t.Waiting}
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
