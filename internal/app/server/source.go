package server

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
	"datawatch/internal/repl/mal"
	"datawatch/internal/sql/views"
	"datawatch/internal/storage/redo"
)

// source gives the V$ views their rows (manual 10.1).
type source struct{ s *Server }

// Views is what sessions register their virtual tables with.
func (s *Server) Views() views.Source { return source{s} }

func ptr(n int64) *int64 { return &n }

func svrVersion() string {
	return "Datawatch DMSERVER[" + proto.GuardVersion + "] " + proto.GlobalVersion + " (" + runtime.Version() + ")"
}

func (v source) Instance() []views.InstanceRow {
	s, host := v.s, ""
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return []views.InstanceRow{{Name: s.name, InstanceName: s.name, InstanceNumber: 1, HostName: host, SvrVersion: svrVersion(),
		DBVersion: "1", StartTime: s.started, Status: s.eng.Status(), Mode: s.eng.Mode(), OGUID: s.eng.Control().OGUID,
		PortNum: s.cfg.DM.PortNum, PID: s.pid}}
}

func (v source) Database() []views.DatabaseRow {
	s := v.s
	c := s.eng.Control()
	r := views.DatabaseRow{Name: c.DBName, CreateTime: c.Created, ArchMode: "N", Status: int(s.eng.Status()), Role: int(s.eng.Mode()),
		PageSize: c.PageSize, DSCNodes: 1, OpenCount: int64(s.eng.Lineage().Last().ID), StartupTime: s.started,
		PmntMagic: c.PmntMagic, DBMagic: c.DBMagic, TotalSize: int64(s.eng.Store().Pages()), LastCkptTime: s.eng.LastCheckpoint()}
	if s.cfg.Arch != nil {
		r.ArchMode = "Y"
	}
	r.SuspendedReason, r.SuspendedSince = s.eng.SuspendReason()
	return []views.DatabaseRow{r}
}

func (v source) RLog() []views.RLogRow {
	s := v.s
	p, l, c := s.eng.Positions(), s.eng.LogInfo(), s.eng.Control()
	return []views.RLogRow{{CkptLSN: p.Ckpt, FileLSN: p.File.LSN, FlushLSN: p.Flush.LSN, CurLSN: p.Cur.LSN, HardenedLSN: s.eng.Hardened(),
		NextSeq: l.NextLSEQ, GlobalNextSeq: p.File.Seq + 1, FileSeq: p.File.Seq, CurSeq: p.Cur.Seq, CkptFile: l.CkptFile, CkptOffset: l.CkptOffset,
		CurFile: l.CurFile, CurOffset: l.CurOffset, NFiles: len(l.Files), FreeSpace: l.Free, TotalSpace: l.Total, DBMagic: c.DBMagic, PmntMagic: c.PmntMagic}}
}

func (v source) ArchStatus() []views.ArchStatusRow {
	s := v.s
	var out []views.ArchStatusRow
	if s.cfg.Arch != nil {
		if l, ok := s.cfg.Arch.Local(); ok {
			st := base.ArchValid
			if a := s.eng.Archive(); a == nil || a.Failing() {
				st = base.ArchInvalid
			}
			out = append(out, views.ArchStatusRow{Type: base.ArchLocal, Dest: l.Dest, Status: st, Src: s.name})
		}
	}
	for _, a := range s.ship.States() {
		out = append(out, views.ArchStatusRow{Type: a.Type, Dest: a.Inst, Status: a.State, Src: s.name})
	}
	return out
}

func (v source) ArchFiles() []views.ArchFileRow {
	a := v.s.eng.Archive()
	if a == nil {
		return nil
	}
	var out []views.ArchFileRow
	for _, f := range a.Files() {
		status := "INACTIVE"
		if f.Active {
			status = "ACTIVE"
		}
		out = append(out, views.ArchFileRow{DBMagic: f.DBMagic, Status: status, Len: f.Len, Free: f.Free, ArchLSN: f.FirstLSN, CLSN: f.LastLSN,
			ArchSeq: f.FirstSeq, NextSeq: f.LastSeq, CreateTime: f.Created, CloseTime: f.Closed, Path: f.Path, PmntMagic: f.PmntMagic,
			DSCSeqno: int(f.Node), CRCCheck: 1, LastPkgOff: f.LastPkgOffset, PrevLSN: f.PrevLSN, GlobalNextSeq: f.LastSeq, SrcDBMagic: f.SrcDB})
	}
	return out
}

func (v source) ArchIni() []views.ArchIniRow {
	if v.s.cfg.Arch == nil {
		return nil
	}
	states := map[string]base.ArchState{}
	for _, a := range v.s.ship.States() {
		states[strings.ToUpper(a.Inst)] = a.State
	}
	var out []views.ArchIniRow
	for _, e := range v.s.cfg.Arch.Entries {
		r := views.ArchIniRow{Name: e.Name, Type: e.Type, Dest: e.Dest, IsValid: "Y", TimerName: e.TimerName, IncomingPath: e.IncomingPath}
		if e.Type == base.ArchLocal || e.Type == base.ArchRemote {
			r.FileSize, r.SpaceLimit, r.HangFlag = ptr(e.FileSize), ptr(e.SpaceLimit), ptr(1)
		} else {
			wait := int64(0)
			if v.s.cfg.Arch.WaitApply {
				wait = 1
			}
			r.WaitApply, r.CurrDest = ptr(wait), e.Dest
			if st, ok := states[strings.ToUpper(e.Dest)]; ok && st != base.ArchValid {
				r.IsValid = "N"
			}
		}
		if e.Type == base.ArchAsync {
			r.SendDelay = ptr(int64(e.SendDelay / time.Minute))
		}
		out = append(out, r)
	}
	return out
}

func (v source) MALIni() []views.MALIniRow {
	if v.s.cfg.MAL == nil {
		return nil
	}
	var out []views.MALIniRow
	for _, e := range v.s.cfg.MAL.Entries {
		out = append(out, views.MALIniRow{Name: e.Name, InstName: e.InstName, Host: e.Host, Port: e.Port, InstHost: e.InstHost,
			InstPort: e.InstPort, DWPort: e.DWPort, LinkMagic: e.LinkMagic, InstDWPort: e.InstDWPort})
	}
	return out
}

func (v source) MALLinks() []views.MALLinkRow {
	if v.s.node == nil {
		return nil
	}
	var out []views.MALLinkRow
	for _, l := range v.s.node.LinkStates() {
		out = append(out, views.MALLinkRow{Src: v.s.name, Dest: l.Inst, Ctl: views.Linked(l.Ctl), Data: views.Linked(l.Data)})
	}
	return out
}

func (v source) MALSys() []views.MALSysRow {
	if v.s.node == nil {
		return nil
	}
	x, m := v.s.node.System(), v.s.cfg.MAL
	return []views.MALSysRow{{State: x.State, NextID: int64(x.Next), Port: x.Port, Sites: x.Sites, Num: x.Open, SeqNo: x.Self,
		CheckInterval: int64(m.CheckInterval / time.Second), FailInterval: int64(m.ConnFailInterval / time.Second), CompressLevel: m.CompressLevel,
		BufSize: m.BufSize, SysBufSize: m.SysBufSize, VPoolSize: m.VPoolSize, TempPath: m.TempPath}}
}

func (v source) MALSites() []views.MALSiteRow {
	if v.s.node == nil {
		return nil
	}
	var out []views.MALSiteRow
	self := v.s.node.System().Self
	for _, x := range v.s.node.SiteInfos() {
		r := views.MALSiteRow{Src: self, Dest: x.Seq, BuildTime: int64(x.Sent) + 1, Handled: int64(x.Handled), TotalLinks: x.Links, FreeLinks: x.Free, SendLetters: x.Open}
		if x.Data {
			r.PortNum = 1
		}
		out = append(out, r)
	}
	return out
}

func (v source) standby() bool { return v.s.eng.Mode() == base.ModeStandby }

func (v source) RapplySys() []views.RapplySysRow {
	if !v.standby() {
		return nil
	}
	i, st := v.s.recv.Info(), v.s.recv.Stats()
	return []views.RapplySysRow{{Applying: i.NTask > 0, SSeq: i.Stand.Seq, SLSN: i.Stand.LSN, KSeq: i.Keep.Seq, KLSN: i.Keep.LSN,
		TaskNum: i.NTask, PrimaryName: i.Primary, HasKeepPkg: i.HasKeep, TaskMemUsed: i.TaskMem, TaskStartTime: st.TaskStart,
		LastRedoTime: st.LastApplyTime.Milliseconds(), TaskNumApplied: st.ApplyNum, AppliedTotalTime: st.ApplyTime.Milliseconds(), RRecType: "RTYPE_NONE"}}
}

func (v source) KeepPkg() []views.KeepPkgRow {
	h, ok := v.s.recv.Kept()
	if !ok || !v.standby() {
		return nil
	}
	return []views.KeepPkgRow{pkgRow(base.ArchRealtime, h)}
}

func pkgRow(typ base.ArchType, h redo.Header) views.KeepPkgRow {
	return views.KeepPkgRow{Type: typ, MinLSN: h.MinLSN, MaxLSN: h.MaxLSN, PTXOff: int(h.HeaderLen), LogSize: int64(h.RawLen),
		DBMagic: h.SrcDBMagic, PkgSeqno: h.GSEQ, PrevLSN: h.PrevLSN, PkgLen: int64(h.HeaderLen) + int64(h.DataLen)}
}

func (v source) RapplyTasks() (out []views.KeepPkgRow) {
	if !v.standby() {
		return nil
	}
	types := map[mal.Kind]base.ArchType{mal.KindRealtime: base.ArchRealtime, mal.KindTimely: base.ArchTimely, mal.KindRecover: base.ArchAsync}
	for _, t := range v.s.recv.Tasks() {
		out = append(out, pkgRow(types[t.Kind], t.Header))
	}
	return out
}

func (v source) RapplyParallel() []views.RapplyParallelRow {
	if !v.standby() {
		return nil
	}
	p, n := v.s.eng.Positions(), v.s.cfg.DM.RedosParallelNum
	return []views.RapplyParallelRow{{ApplyPkgSeq: p.Apply.Seq, ApplyLSN: p.Apply.LSN, ParallelNum: n, RedoLSN: slices.Repeat([]base.LSN{p.Replay.LSN}, n),
		RpkgSeq: p.Replay.Seq, RpkgLSN: p.Replay.LSN}}
}

// RapplyLSN tells on a primary how far this database had its primary's redo when it
// became one itself: its open record says that.
func (v source) RapplyLSN() []views.RapplyLSNRow {
	l := v.s.eng.Lineage()
	if v.standby() {
		return []views.RapplyLSNRow{views.NewRapplyLSNRow(l.Last().DBMagic, v.s.eng.Positions().Apply)}
	}
	own := v.s.eng.Control().DBMagic
	for _, r := range slices.Backward(l) {
		if r.DBMagic == own && r.SrcDBMagic != own {
			return []views.RapplyLSNRow{views.NewRapplyLSNRow(r.SrcDBMagic, r.Apply...)}
		}
	}
	return nil
}

func (v source) Parameters() []views.ParameterRow { return v.s.para.rows() }

func (v source) OpenHistory() []views.OpenHistoryRow { return views.OpenHistoryRows(v.s.eng.Lineage()) }

func (v source) Sessions() []views.SessionRow {
	var out []views.SessionRow
	for _, x := range v.s.sess.Sessions() {
		r := views.SessionRow{ID: int64(x.ID), SQL: x.SQL, State: "IDLE", User: x.User, TrxState: "IDLE", TrxStart: x.TxStart,
			HoldsWrite: x.HoldsWriteLock, WaitWrite: x.Waiting != "", CreateTime: x.Start, ClientIP: x.Address, AppName: x.App,
			LastRecv: x.StmtStart, TrxID: x.TxID, WaitEvent: x.Waiting, NStmt: x.Statements, NErr: x.Errors, Database: x.Database}
		switch x.State {
		case "active":
			r.State = "ACTIVE"
			if x.TxID != 0 {
				r.TrxState = "ACTIVE"
			}
		case "idle in transaction":
			r.TrxState = "ACTIVE"
		case "idle in transaction (aborted)":
			r.TrxState = "FAILED"
		}
		out = append(out, r)
	}
	return out
}

func (v source) Version() []views.VersionRow { return []views.VersionRow{{Banner: svrVersion()}} }
