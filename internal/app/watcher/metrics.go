package watcher

import (
	"context"
	"strings"
	"time"

	"datawatch/internal/base"
	guard "datawatch/internal/ha/watcher"
	"datawatch/internal/metrics/admin"
)

// Metrics are what a watcher says on its DW_ADMIN_PORT.
var Metrics = []admin.Metric{
	{Name: "dw_watcher_info", Type: "gauge", Labels: "group,instance,type,mode,state,substate", Help: "1; the state of the watcher (docs/watcher-states.md) and its configuration are labels."},
	{Name: "dw_watcher_open", Type: "gauge", Labels: "group,instance", Help: "1 in state OPEN: nothing to do for its database."},
	{Name: "dw_watcher_instance_ok", Type: "gauge", Labels: "group,instance", Help: "1 while the watched instance answers."},
	{Name: "dw_watcher_instance_info", Type: "gauge", Labels: "group,instance,mode,status", Help: "1; mode and status that the instance last told are labels."},
	{Name: "dw_watcher_instance_pid", Type: "gauge", Labels: "group,instance", Help: "Process of the instance."},
	{Name: "dw_watcher_split", Type: "gauge", Labels: "group,instance", Help: "1 when the database is marked Split (dmwatcher.ctl): a person must decide."},
	{Name: "dw_watcher_remote_up", Type: "gauge", Labels: "group,instance,remote", Help: "1 while the watcher of another database of the group is heard."},
	{Name: "dw_watcher_remote_instance_ok", Type: "gauge", Labels: "group,instance,remote", Help: "1 while that watcher says that its instance is in order."},
	{Name: "dw_watcher_monitors", Type: "gauge", Labels: "group,instance", Help: "Monitors connected."},
	{Name: "dw_watcher_confirm_monitors", Type: "gauge", Labels: "group,instance", Help: "Confirm monitors among them; in AUTO mode 0 means that nobody would take over."},
	{Name: "dw_watcher_archive_valid", Type: "gauge", Labels: "group,instance,standby", Help: "1 while the instance, a primary, reports its archive to a standby as Valid."},
}

// snapshotTime bounds how long a guard may take to answer.
const snapshotTime = 2 * time.Second

func (p *Program) snapshots(ctx context.Context) (out []guard.Snapshot, err error) {
	ctx, cancel := context.WithTimeout(ctx, snapshotTime)
	defer cancel()
	for _, g := range p.Guards {
		s, err := g.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// collect gives the values of now; nothing when a guard does not answer.
func (p *Program) collect(e admin.Emit) {
	all, err := p.snapshots(context.Background())
	if err != nil {
		return
	}
	for i, x := range all {
		st, group, inst := x.Status, p.Infos[i].Group, p.Infos[i].Inst
		e.Value("dw_watcher_info", 1, group, inst, st.Config.Type, st.Config.Mode, st.State, st.SubState)
		e.Bool("dw_watcher_open", strings.EqualFold(st.State, "OPEN"), group, inst)
		e.Bool("dw_watcher_instance_ok", st.InstOK, group, inst)
		if st.Inst.Incarnation != "" {
			e.Value("dw_watcher_instance_info", 1, group, inst, st.Inst.Mode.String(), st.Inst.Status.String())
			e.Value("dw_watcher_instance_pid", float64(st.Inst.PID), group, inst)
		}
		e.Bool("dw_watcher_split", strings.EqualFold(st.CtlStatus, "SPLIT"), group, inst)
		for _, r := range st.Remotes {
			e.Bool("dw_watcher_remote_up", r.DWLink, group, inst, r.Inst)
			e.Bool("dw_watcher_remote_instance_ok", r.DWLink && r.InstOK, group, inst, r.Inst)
		}
		confirm := 0
		for _, m := range st.Monitors {
			if m.Confirm {
				confirm++
			}
		}
		e.Value("dw_watcher_monitors", float64(len(st.Monitors)), group, inst)
		e.Value("dw_watcher_confirm_monitors", float64(confirm), group, inst)
		if st.InstOK && st.Inst.Mode == base.ModePrimary {
			for _, a := range st.Inst.Archives {
				e.Bool("dw_watcher_archive_valid", a.State == base.ArchValid, group, inst, a.Inst)
			}
		}
	}
}

// health answers /healthz: every guard answers. ready answers /readyz: every
// instance guarded here is in order, and its watcher has nothing to do.
func (p *Program) health(ctx context.Context) admin.State {
	all, err := p.snapshots(ctx)
	if err != nil {
		return admin.State{Reason: "a guard does not answer: " + err.Error()}
	}
	return admin.State{OK: true, Facts: p.facts(all)}
}

func (p *Program) facts(all []guard.Snapshot) map[string]any {
	out := map[string]any{}
	for i, x := range all {
		out[p.Infos[i].Group] = map[string]any{"instance": p.Infos[i].Inst, "instance_ok": x.Status.InstOK, "state": x.Status.State}
	}
	return out
}

func (p *Program) ready(ctx context.Context, _ string) admin.State {
	all, err := p.snapshots(ctx)
	if err != nil {
		return admin.State{Reason: "a guard does not answer: " + err.Error()}
	}
	st := admin.State{OK: true, Facts: p.facts(all)}
	var bad []string
	for i, x := range all {
		switch {
		case !x.Status.InstOK:
			bad = append(bad, p.Infos[i].Group+": the instance does not answer")
		case !strings.EqualFold(x.Status.State, "OPEN"):
			bad = append(bad, p.Infos[i].Group+": the watcher is in state "+x.Status.State)
		}
	}
	if len(bad) > 0 {
		st.OK, st.Reason = false, strings.Join(bad, "; ")
	}
	return st
}

// serveAdmin takes DW_ADMIN_PORT, if there is one, and serves it until the
// program is closed.
func (p *Program) serveAdmin(ip string, port int) error {
	if port == 0 {
		return nil
	}
	l, err := admin.Listen("DW_ADMIN_PORT", ip, port)
	if err != nil {
		return err
	}
	p.admin = &admin.Server{Log: p.log, Registry: admin.Registry(Metrics, p.collect), Health: p.health, Ready: p.ready}
	p.admin.Start(l)
	return nil
}
