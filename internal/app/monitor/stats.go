package monitor

import (
	"fmt"

	"github.com/jedib0t/go-pretty/v6/table"

	"datawatch/dwmon"
	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// sendTables prints what is known of sending to a standby (manual 4.4 #41). The
// maxima, but for the time and its end, are each on their own. A send under way
// has a start and no end; its code is that of one that has not been done.
func (c *Console) sendTables(typ base.ArchType, failed bool, s proto.SendStat, desc string) {
	kind, code := "FOR "+typ.String()+" SEND", 0
	switch {
	case s.LastStart.IsZero():
		kind, code = "NONE", 100
	case s.LastEnd.IsZero():
		code = 100
	case failed || s.LastFailed:
		code = -1
	}
	if s.ForRecovery {
		kind = "FOR RECOVER SEND"
	}
	fmt.Fprintln(c.Out, "last send (times in microseconds, lengths in bytes)")
	c.grid(table.Row{"SEND TYPE", "SEND START TIME", "SEND END TIME", "SEND TIME USED", "SEND START LSN", "SEND END LSN", "SEND LOG LEN", "SEND PTX COUNT", "SEND CODE", "SEND DESC INFO"},
		table.Row{kind, stamp(s.LastStart), stamp(s.LastEnd), s.LastTime, s.FirstLSN, s.LastLSN, s.LastLen, s.LastPTX, code, desc})
	fmt.Fprintf(c.Out, "last %d sends\n", s.RecentCnt)
	c.grid(table.Row{"SEND LOG LEN", "SEND PTX COUNT", "SEND TIME USED"}, table.Row{s.RecentLen, s.RecentPTX, s.RecentTime})
	fmt.Fprintln(c.Out, "maxima")
	c.grid(table.Row{"MAX SEND TIME USED", "MAX END TIME", "MAX PTX COUNT", "MAX SEND LOG LEN", "MAX END LSN"}, table.Row{s.MaxTime, stamp(s.MaxEnd), s.MaxPTX, s.MaxLen, s.MaxLSN})
	fmt.Fprintln(c.Out, "totals")
	c.grid(table.Row{"TOTAL SEND COUNT", "TOTAL SEND LOG LEN", "TOTAL SEND PTX COUNT", "TOTAL SEND TIME USED"}, table.Row{s.TotalCnt, s.TotalLen, s.TotalPTX, s.TotalTime})
}

// sendStat finds the statistics of one target.
func sendStat(p dwmon.DatabaseSnapshot, inst string) proto.SendStat {
	for _, s := range p.Sends {
		if s.Inst == inst {
			return s
		}
	}
	return proto.SendStat{Inst: inst}
}

// applyTables prints what is known of a standby's replay (manual 4.4 #42).
func (c *Console) applyTables(s proto.ApplyStat) {
	fmt.Fprintln(c.Out, "last replay (times in microseconds, lengths in bytes)")
	head := table.Row{"RECEIVED LOG LEN", "RESPONSE TIME USED", "WAIT TIME USED", "APPLY LOG LEN", "APPLY TIME USED"}
	c.grid(head, table.Row{s.LastRecvLen, s.LastRecvTime, s.LastWait, s.LastApplyLen, s.LastApplyTime})
	fmt.Fprintf(c.Out, "last %d replays\n", s.RecentNum)
	c.grid(head, table.Row{s.RecentRecvLen, s.RecentRecvTime, s.RecentWait, s.RecentApplyLen, s.RecentApplyTime})
	fmt.Fprintln(c.Out, "maxima")
	c.grid(table.Row{"MAX RESPONSE TIME", "MAX WAIT TIME", "MAX APPLY TIME", "MAX APPLY LOG LEN"}, table.Row{s.MaxRecvTime, s.MaxWait, s.MaxApplyTime, s.MaxApplyLen})
	fmt.Fprintln(c.Out, "totals")
	c.grid(table.Row{"TOTAL RECEIVED NUM", "TOTAL RECEIVED LOG LEN", "TOTAL APPLY NUM", "TOTAL APPLY LOG LEN", "TOTAL RESPONSE TIME", "TOTAL WAIT TIME", "TOTAL APPLY TIME"},
		table.Row{s.TotalRecvNum, s.TotalRecvLen, s.TotalApplyNum, s.TotalApplyLen, s.TotalRecvTime, s.TotalWait, s.TotalApplyTime})
}
