package monitor

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"datawatch/dwmon"
	"datawatch/internal/base"
)

func (c *Console) grid(header table.Row, rows ...table.Row) {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = 0 // field names stand as the manual writes them
	t.AppendHeader(header)
	t.AppendRows(rows)
	fmt.Fprintln(c.Out, t.Render())
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "NONE"
	}
	return t.Format("2006-01-02 15:04:05")
}

func upper(b bool) string { return strings.ToUpper(strconv.FormatBool(b)) }

func (c *Console) groupTable(g dwmon.GroupSnapshot) {
	c.grid(table.Row{"GROUP", "OGUID", "MON_CONFIRM", "MODE", "MPP_FLAG"}, table.Row{g.Name, g.OGUID, upper(g.Confirm), g.Mode, upper(g.MPP)})
}

var globalHeader = table.Row{"DW_IP", "MAL_DW_PORT", "WTIME", "WTYPE", "WCTLSTAT", "WSTATUS", "INAME", "INST_OK", "N_EP", "N_OK", "ISTATUS", "IMODE", "DSC_STATUS", "RTYPE", "RSTAT"}

func globalRow(d dwmon.DatabaseSnapshot) table.Row {
	return table.Row{d.DWIP, d.Port, stamp(d.WTime), d.WType, d.WCtl, d.WStatus, d.Name, d.InstOK, d.NEP, d.NOK, d.Status, d.Mode, "NULL", d.RType, d.RStat}
}

func (c *Console) showGlobal() {
	s := c.M.Snapshot()
	if c.JSON {
		c.json(s)
		return
	}
	for _, g := range s.Groups {
		c.groupTable(g)
		rows := []table.Row{}
		for _, d := range g.Databases {
			rows = append(rows, globalRow(d))
		}
		c.grid(globalHeader, rows...)
	}
}

// detail prints what show database adds to the global row.
func (c *Console) detail(d dwmon.DatabaseSnapshot) {
	c.grid(globalHeader, globalRow(d))
	if d.Heard.IsZero() {
		fmt.Fprintln(c.Out, "no message received yet")
		return
	}
	c.grid(table.Row{"INST_PORT", "INST_OK", "INAME", "ISTATUS", "IMODE", "DSC_STATUS", "DSC_SEQNO", "DSC_CONTROL_NODE", "RTYPE", "RSTAT", "FSEQ", "FLSN", "CSEQ", "CLSN", "DW_STAT_FLAG"},
		table.Row{d.InstPort, strings.ToUpper(d.InstOK), d.Name, d.Status, d.Mode, "NULL", 0, 0, d.RType, d.RStat, d.File.Seq, d.File.LSN, d.Cur.Seq, d.Cur.LSN, d.StatFlag})
	if d.Mode == base.ModeStandby.String() {
		c.grid(table.Row{"REDOS_PARALLEL_NUM", "ARCH_SEND_UNTIL_TIME", "APPLY_UNTIL_TIME", "DSC_SEQNO", "SSEQ", "SLSN", "KSEQ", "KLSN", "RSEQ", "RLSN", "N_TSK", "TSK_MEM_USE", "REDO_LSN_ARR"},
			table.Row{d.RedosParallel, "NONE", "FALSE", 0, d.Stand.Seq, d.Stand.LSN, d.Keep.Seq, d.Keep.LSN, d.Replay.Seq, d.Replay.LSN, d.NTask, d.TaskMem, redoLSNs(d)})
	}
}

// redoLSNs has the LSN of each replayer; they finish each batch together.
func redoLSNs(d dwmon.DatabaseSnapshot) string {
	one := strconv.FormatUint(uint64(d.Replay.LSN), 10)
	return "(" + strings.Join(slices.Repeat([]string{one}, max(d.RedosParallel, 1)), ",") + ")"
}

func (c *Console) showDatabase(a args) error {
	_, d, err := c.find(a)
	if err != nil {
		return err
	}
	if c.JSON {
		c.json(d)
		return nil
	}
	c.detail(d)
	return nil
}

func (c *Console) show(a args) error {
	s := c.M.Snapshot()
	found := false
	for _, g := range s.Groups {
		if a.group != "" && !strings.EqualFold(g.Name, a.group) {
			continue
		}
		found = true
		if c.JSON {
			c.json(g)
			continue
		}
		c.groupTable(g)
		for _, d := range g.Databases {
			c.detail(d)
		}
	}
	if !found {
		return base.Errorf(dwmon.CodeArgument, "no group %q in dmmonitor.ini", a.group)
	}
	return nil
}

func (c *Console) find(a args) (dwmon.GroupSnapshot, dwmon.DatabaseSnapshot, error) {
	for _, g := range c.M.Snapshot().Groups {
		if a.group != "" && !strings.EqualFold(a.group, g.Name) {
			continue
		}
		for _, d := range g.Databases {
			if strings.EqualFold(d.Name, a.db) && d.Name != "" {
				return g, d, nil
			}
		}
	}
	err := c.M.Heard(a.group, a.db)
	if err == nil {
		err = base.Errorf(dwmon.CodeInstFailed, "%s has been heard of for the first time just now: type it again", a.db)
	}
	return dwmon.GroupSnapshot{}, dwmon.DatabaseSnapshot{}, err
}

// selected returns the databases an optional name stands for.
func (c *Console) selected(a args) ([]dwmon.DatabaseSnapshot, error) {
	if a.db != "" {
		_, d, err := c.find(a)
		return []dwmon.DatabaseSnapshot{d}, err
	}
	if a.group != "" && !c.isGroup(a.group) {
		return nil, base.Errorf(dwmon.CodeArgument, "no group %q in dmmonitor.ini", a.group)
	}
	var out []dwmon.DatabaseSnapshot
	for _, g := range c.M.Snapshot().Groups {
		if a.group == "" || strings.EqualFold(a.group, g.Name) {
			out = append(out, g.Databases...)
		}
	}
	return out, nil
}

func (c *Console) list(a args) error {
	ds, err := c.selected(a)
	if err != nil {
		return err
	}
	flag := map[bool]int{true: 1}
	oguid := map[string]uint32{}
	for _, g := range c.M.Snapshot().Groups {
		for _, d := range g.Databases {
			oguid[d.Name] = g.OGUID
		}
	}
	for _, d := range ds {
		if d.Heard.IsZero() {
			continue
		}
		k := d.Config
		if c.JSON {
			c.json(map[string]any{"iname": d.Name, "inst_oguid": oguid[d.Name], "config": k})
			continue
		}
		c.grid(table.Row{"INAME " + d.Name, ""},
			table.Row{"DW_TYPE", k.Type}, table.Row{"DW_MODE", k.Mode}, table.Row{"DW_ERROR_TIME", k.ErrorTime},
			table.Row{"INST_ERROR_TIME", k.InstErrorTime}, table.Row{"INST_RECOVER_TIME", k.RecoverTime}, table.Row{"INST_OGUID", oguid[d.Name]}, table.Row{"INST_INI", k.IniPath},
			table.Row{"INST_AUTO_RESTART", flag[k.AutoRestart]}, table.Row{"INST_STARTUP_CMD", k.StartupCmd},
			table.Row{"INST_SERVICE_IP_CHECK", flag[k.ServiceIPCheck]}, table.Row{"RLOG_SEND_THRESHOLD", k.RlogSendThreshold},
			table.Row{"RLOG_APPLY_THRESHOLD", k.RlogApplyThreshold}, table.Row{"DW_RECONNECT", flag[k.Reconnect]}, table.Row{"DW_FAILOVER_FORCE", flag[k.FailoverForce]}, table.Row{"DW_REJOIN", flag[k.Rejoin]})
	}
	return nil
}

func (c *Console) showOpen(a args) error {
	_, d, err := c.find(a)
	if err != nil {
		return err
	}
	if c.JSON {
		c.json(map[string]any{"inst_name": d.Name, "ctl_status": d.WCtl, "desc": d.CtlDesc, "records": d.Lineage})
		return nil
	}
	c.grid(table.Row{"INST_NAME", "N_ITEM", "CTL_STATUS", "DESC"}, table.Row{d.Name, len(d.Lineage), d.WCtl, d.CtlDesc})
	rows := []table.Row{}
	names := map[base.Magic]string{}
	for _, r := range d.Lineage {
		names[r.DBMagic] = r.CurInst
	}
	for _, r := range d.Lineage {
		var seqs, lsns []string
		for _, p := range r.Apply {
			seqs, lsns = append(seqs, p.Seq.String()), append(lsns, p.LSN.String())
		}
		src := names[r.SrcDBMagic]
		if src == "" {
			src = r.CurInst
		}
		rows = append(rows, table.Row{r.TGUID, r.ID, stamp(r.OpenTime), r.SysMode.String(), src, r.CurInst, r.SrcDBMagic, r.DBMagic, max(1, len(r.Apply)),
			"(" + strings.Join(seqs, ", ") + ")", "(" + strings.Join(lsns, ", ") + ")"})
	}
	c.grid(table.Row{"TGUID", "ROWID", "OPEN_TIME", "SYS_MODE", "PRI_INST_NAME", "CUR_INST_NAME", "PRI_DB_MAGIC", "CUR_DB_MAGIC", "N_EP", "PKG_SEQNO_ARR", "APPLY_LSN_ARR"}, rows...)
	return nil
}

// host is an address without its port, where it has one.
func host(addr string) string {
	if h, _, err := net.SplitHostPort(addr); err == nil {
		return h
	}
	return addr
}

func (c *Console) showMonitors(a args) error {
	ds, err := c.selected(a)
	if err != nil {
		return err
	}
	for _, d := range ds {
		if !d.Connected || d.Heard.IsZero() {
			continue
		}
		if c.JSON {
			c.json(d.Monitors)
			return nil
		}
		var own, rest []table.Row
		for _, x := range d.Monitors {
			row := table.Row{stamp(x.Since), upper(x.Confirm), x.ID, host(x.Addr), dwmon.Version}
			if x.ID == c.M.ID() {
				own = append(own, row)
			} else {
				rest = append(rest, row)
			}
		}
		c.grid(table.Row{"DW_CONN_TIME", "MON_CONFIRM", "MID", "MON_IP", "MON_VERSION"}, append(own, rest...)...)
		return nil
	}
	return base.Errorf(dwmon.CodeInstFailed, "no watcher is connected")
}

func (c *Console) showSend(a args) error {
	g, d, err := c.find(a)
	if err != nil {
		return err
	}
	for _, p := range g.Databases {
		for _, x := range p.Archives {
			if p.Name != g.Primary || x.Inst != d.Name {
				continue
			}
			mal := "DISCONNECTED"
			for _, l := range p.Links {
				if l.Inst == d.Name && l.Connected {
					mal = "CONNECTED"
				}
			}
			mem, ok := p.Recover[d.Name]
			if !ok {
				mem = p.Config.RecoverTime
			}
			if c.JSON {
				c.json(map[string]any{"source": p.Name, "standby": d.Name, "recover_time_ini": p.Config.RecoverTime, "recover_time_memory": mem, "last_recover": p.Recovered[d.Name], "mal_status": mal, "archive": x, "send": sendStat(p, d.Name)})
				return nil
			}
			last, ok := p.Recovered[d.Name]
			if !ok {
				last.Code = 100
			}
			c.grid(table.Row{"SOURCE", "STANDBY", "LAST RECOVER TIME", "LAST_RECOVER CODE", "INST_RECOVER_TIME(IN DMWATCHER.INI)", "INST_RECOVER_TIME(IN DMWATCHER MEMORY)"},
				table.Row{p.Name, d.Name, stamp(last.Begun), last.Code, p.Config.RecoverTime, mem})
			c.grid(table.Row{"MPP_FLAG", "ARCH TYPE", "MAL STATUS", "ARCH STATUS", "RECOVERING", "SENT LSN", "ACKNOWLEDGED LSN", "SEND DESC INFO"},
				table.Row{"FALSE", x.Type.String(), mal, strings.ToUpper(x.State.String()), upper(x.Recovering), x.Sent.LSN, x.Acked.LSN, x.LastError})
			c.sendTables(x.Type, x.SendFailed, sendStat(p, d.Name), x.LastError)
			return nil
		}
	}
	return base.Errorf(dwmon.CodeNotNormal, "there is no active primary with an archive to %s", d.Name)
}

func (c *Console) showApply(a args) error {
	_, d, err := c.find(a)
	if err != nil {
		return err
	}
	if d.Mode != base.ModeStandby.String() {
		return base.Errorf(dwmon.CodeNotNormal, "%s is %s, not a standby", d.Name, d.Mode)
	}
	if c.JSON {
		c.json(map[string]any{"iname": d.Name, "stand": d.Stand, "keep": d.Keep, "replay": d.Replay, "apply": d.Apply, "n_tsk": d.NTask, "tsk_mem_use": d.TaskMem, "apply_stat": d.Applies})
		return nil
	}
	c.grid(table.Row{"INAME", "SSEQ", "SLSN", "KSEQ", "KLSN", "RSEQ", "RLSN", "ASEQ", "ALSN", "N_TSK", "TSK_MEM_USE"},
		table.Row{d.Name, d.Stand.Seq, d.Stand.LSN, d.Keep.Seq, d.Keep.LSN, d.Replay.Seq, d.Replay.LSN, d.Apply.Seq, d.Apply.LSN, d.NTask, d.TaskMem})
	if d.Applies != nil {
		c.applyTables(*d.Applies)
	}
	return nil
}

func (c *Console) showState() error {
	row := map[string]any{"mon_id": c.M.ID(), "mon_confirm": c.M.Confirm(), "mon_state": "ACTIVE", "mon_role": "SINGLE"}
	if c.JSON {
		c.json(row)
		return nil
	}
	c.grid(table.Row{"MON_NAME", "MON_STATE", "MON_ROLE", "MON_CONFIRM"}, table.Row{c.M.ID(), row["mon_state"], row["mon_role"], upper(c.M.Confirm())})
	return nil
}

func (c *Console) takeoverTime(a args) error {
	inst, left, ok, err := c.M.TakeoverTime(a.group)
	switch {
	case err != nil:
		return err
	case c.JSON:
		c.json(map[string]any{"waiting": ok, "instance": inst, "seconds": int(left.Seconds())})
	case !ok:
		fmt.Fprintln(c.Out, "no instance is waiting to be taken over")
	default:
		fmt.Fprintf(c.Out, "%s exited normally; a standby takes over in %d s\n", inst, int(left.Seconds()))
	}
	return nil
}

func (c *Console) conds(l []dwmon.Condition) {
	for _, x := range l {
		if x.OK {
			fmt.Fprintf(c.Out, "  ok   %s\n", x.Text)
		} else {
			fmt.Fprintf(c.Out, "  FAIL %s: %s\n", x.Text, x.Why)
		}
	}
}

func (c *Console) choices(what string, l []dwmon.Choice, err error) error {
	if err != nil {
		return err
	}
	ok := slices.ContainsFunc(l, func(x dwmon.Choice) bool { return x.OK })
	none := base.Errorf(dwmon.CodeNotNormal, "no standby %s now", what)
	if ok {
		none = nil
	}
	if c.JSON {
		c.json(l)
		return none
	}
	if len(l) == 0 {
		fmt.Fprintln(c.Out, "no standby is known")
	}
	for _, x := range l {
		if x.OK {
			fmt.Fprintf(c.Out, "%s %s\n", x.Name, what)
		} else {
			fmt.Fprintf(c.Out, "%s: no\n", x.Name)
		}
		c.conds(x.Conds)
	}
	return none
}

// explain prints what may happen, condition by condition.
func (c *Console) explain(a args) error {
	l, err := c.M.Explain(a.group, a.db)
	if err != nil {
		return err
	}
	if c.JSON {
		c.json(l)
		return nil
	}
	if len(l) == 0 {
		fmt.Fprintln(c.Out, "there is nothing to explain: every database is Open, every archive Valid")
	}
	for _, x := range l {
		answer := "no"
		if x.OK {
			answer = "yes"
		}
		fmt.Fprintf(c.Out, "%s: %s: %s\n", x.Inst, x.What, answer)
		c.conds(x.Conds)
		for _, t := range x.Lines {
			fmt.Fprintf(c.Out, "  -    %s\n", t)
		}
	}
	return nil
}

func (c *Console) report(r dwmon.Report) {
	if c.JSON {
		c.json(r)
		return
	}
	for _, l := range r.Lines {
		fmt.Fprintln(c.Out, l)
	}
	c.conds(r.Conds)
}
