package monitor

import (
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/cond"
	"datawatch/internal/ha/proto"
)

// Snapshot is everything the monitor knows at one moment.
type Snapshot struct {
	Time    time.Time       `json:"time"`
	Confirm bool            `json:"mon_confirm"`
	Login   string          `json:"login,omitempty"`
	Groups  []GroupSnapshot `json:"groups"`
}

// GroupSnapshot is one group (fields of `show global info`, manual 4.4 #4).
type GroupSnapshot struct {
	Name      string             `json:"group"`
	OGUID     uint32             `json:"oguid"`
	Confirm   bool               `json:"mon_confirm"`
	Mode      string             `json:"mode"` // AUTO or MANUAL
	MPP       bool               `json:"mpp_flag"`
	Primary   string             `json:"primary,omitempty"` // the one active primary
	Databases []DatabaseSnapshot `json:"databases"`
}

// DatabaseSnapshot is one database and its watcher. Before the first report
// only DWIP and Port are set, and Heard is zero.
type DatabaseSnapshot struct {
	DWIP    string    `json:"dw_ip"`
	Port    string    `json:"mal_dw_port"`
	WTime   time.Time `json:"wtime"`
	WType   string    `json:"wtype"`
	WCtl    string    `json:"wctlstat"`
	WStatus string    `json:"wstatus"`
	WSub    string    `json:"wsubstatus,omitempty"`
	Name    string    `json:"iname"`
	InstOK  string    `json:"inst_ok"`
	NEP     int       `json:"n_ep"`
	NOK     int       `json:"n_ok"`
	Status  string    `json:"istatus"`
	Mode    string    `json:"imode"`
	RType   string    `json:"rtype"`
	RStat   string    `json:"rstat"`

	InstPort int           `json:"inst_port"`
	File     base.Position `json:"file"` // FSEQ, FLSN
	Cur      base.Position `json:"cur"`  // CSEQ, CLSN
	StatFlag string        `json:"dw_stat_flag"`
	Reign    uint64        `json:"reign"` // ID of the last open record

	RedosParallel int           `json:"redos_parallel_num"`
	Stand         base.Position `json:"stand"`  // SSEQ, SLSN
	Keep          base.Position `json:"keep"`   // KSEQ, KLSN
	Replay        base.Position `json:"replay"` // RSEQ, RLSN
	Apply         base.Position `json:"apply"`  // ASEQ, ALSN
	NTask         int           `json:"n_tsk"`
	TaskMem       int64         `json:"tsk_mem_use"`

	Config   proto.GroupConfig   `json:"config"`
	CtlDesc  string              `json:"ctl_desc,omitempty"`
	Archives []proto.ArchStatus  `json:"archives,omitempty"`
	Links    []proto.MALLink     `json:"links,omitempty"`
	Sends    []proto.SendStat    `json:"arch_send_info,omitempty"`
	Applies  *proto.ApplyStat    `json:"apply_stat,omitempty"`
	Lineage  base.Lineage        `json:"open_history,omitempty"`
	Monitors []proto.MonitorInfo `json:"monitors,omitempty"`
	Recover  map[string]int      `json:"recover_time,omitempty"` // seconds, by standby
	// Recovered is the last recovery of each standby by this database's watcher.
	Recovered map[string]proto.Recovered `json:"recovered,omitempty"`
	Why       []string                   `json:"why,omitempty"`
	// Silent: it is Ok, and its watcher has heard nothing of it for so many seconds.
	Silent    int        `json:"silent,omitempty"`
	Suspended string     `json:"suspend_reason,omitempty"`
	Heard     time.Time  `json:"heard"`
	Connected bool       `json:"connected"`
	PmntMagic base.Magic `json:"pmnt_magic"`
	DBMagic   base.Magic `json:"db_magic"`
}

// Snapshot copies what is known.
func (m *Monitor) Snapshot() Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Snapshot{Time: m.clk.Now(), Confirm: m.cfg.Confirm, Login: m.login}
	for _, g := range m.groups {
		v := g.st.View(s.Time)
		gs := GroupSnapshot{Name: g.Name, OGUID: g.OGUID, Confirm: m.cfg.Confirm, Mode: "MANUAL"}
		if v.Auto() {
			gs.Mode = "AUTO"
		}
		prims := v.ActivePrimaries()
		if len(prims) == 1 {
			gs.Primary = prims[0].Inst()
		}
		for _, p := range v.Peers {
			gs.Databases = append(gs.Databases, database(v, p, prims))
		}
		s.Groups = append(s.Groups, gs)
	}
	return s
}

func database(v cond.View, p cond.Peer, prims []cond.Peer) DatabaseSnapshot {
	st, in := p.Status, p.Status.Inst
	host, port := p.Addr, ""
	if i := strings.LastIndexByte(p.Addr, ':'); i >= 0 {
		host, port = p.Addr[:i], p.Addr[i+1:]
	}
	d := DatabaseSnapshot{DWIP: host, Port: port, WStatus: v.State(p), InstOK: "Error", Status: "Unknown", Mode: "Unknown",
		RType: "NONE", RStat: "Unknown", WCtl: "NULL", Connected: p.Connected, Heard: p.Heard}
	if !p.Known {
		return d
	}
	d.WTime, d.WType, d.WSub, d.Name, d.NEP = st.Time, st.Config.Type, st.SubState, in.InstName, 1
	if cond.Global(p) {
		d.WCtl = ctlText(st.CtlStatus)
	}
	if v.InstOK(p) {
		d.InstOK, d.NOK = "Ok", 1
	}
	d.Status, d.Mode = in.Status.String(), in.Mode.String()
	d.RType, d.RStat = archOf(p, prims)
	d.InstPort, d.File, d.Cur, d.Reign, d.StatFlag = in.Port, in.File, in.Cur, p.Reign(), "NONE"
	if in.Running != "" {
		d.StatFlag = strings.ToUpper(in.Running)
	}
	d.RedosParallel, d.Stand, d.Keep, d.Replay, d.Apply = in.RedosParallel, in.Stand, in.Keep, in.Replay, in.Apply
	d.NTask, d.TaskMem = in.NTask, in.TaskMB
	d.Config, d.CtlDesc, d.Archives, d.Links, d.Lineage = st.Config, st.CtlDesc, in.Archives, in.Links, in.Lineage
	d.Sends, d.Applies = in.Sends, in.Applies
	d.Recovered = st.Recovered
	if v.InstOK(p) {
		d.Silent, d.Suspended = st.InstSilent, in.SuspendReason
	}
	d.Monitors, d.Recover, d.Why, d.PmntMagic, d.DBMagic = st.Monitors, st.RecoverTime, st.Why, in.PmntMagic, in.DBMagic
	return d
}

func ctlText(s string) string {
	switch s {
	case proto.CtlValid:
		return "Valid"
	case proto.CtlSplit:
		return "Split"
	}
	return "Invalid"
}

// archOf gives RTYPE and RSTAT (manual 4.4 #4): Valid for a primary, the state
// of the active primary's archive for a standby, Unknown without one.
func archOf(p cond.Peer, prims []cond.Peer) (typ, state string) {
	typ = "NONE"
	for _, a := range p.Status.Inst.Archives {
		if a.Type == base.ArchRealtime || a.Type == base.ArchTimely {
			typ = a.Type.String()
			break
		}
	}
	if !cond.Global(p) {
		return typ, "NULL"
	}
	if p.Status.Inst.Mode == base.ModePrimary {
		return typ, "Valid"
	}
	if len(prims) == 1 {
		if a, ok := prims[0].Arch(p.Inst()); ok {
			return a.Type.String(), a.State.String()
		}
	}
	return typ, "Unknown"
}

// TakeoverTime returns the database whose normal exit a confirm monitor waits
// out, and the time left (manual 4.4 #15).
func (m *Monitor) TakeoverTime(groupName string) (inst string, left time.Duration, ok bool, err error) {
	g, err := m.group(groupName)
	if err != nil {
		return "", 0, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	inst, left, ok = g.st.TakeoverWait(m.clk.Now())
	return inst, left, ok, nil
}
