package proto

import (
	"time"

	"datawatch/internal/base"
)

// Watcher states (manual 3.4). The string is what `show` prints.
const (
	DWStartup      = "STARTUP"
	DWOpen         = "OPEN"
	DWShutdown     = "SHUTDOWN"
	DWSwitchover   = "SWITCHOVER"
	DWFailover     = "FAILOVER"
	DWRecovery     = "RECOVERY"
	DWConfirm      = "CONFIRM"
	DWTakeover     = "TAKEOVER"
	DWOpenForce    = "OPEN FORCE"
	DWError        = "ERROR" // judged by others only
	DWLoginCheck   = "LOGIN CHECK"
	DWMppctlUpdate = "MPPCTL UPDATE"
	DWChangeArch   = "CHANGE ARCH"
	DWStandbyCheck = "STANDBY CHECK"
	DWClearSend    = "CLEAR SEND INFO"
	DWClearRapply  = "CLEAR RAPPLY STAT"
	DWUnifyEP      = "UNIFY EP"
	DWCssProcess   = "CSS PROCESS"
)

// Control file states (manual 3.5).
const (
	CtlValid = "VALID"
	CtlSplit = "SPLIT"
)

// GroupConfig is the part of dmwatcher.ini a watcher reports for one group.
type GroupConfig struct {
	Type               string `json:"type"` // LOCAL or GLOBAL
	Mode               string `json:"mode"` // MANUAL or AUTO
	ErrorTime          int    `json:"error_time"`
	InstErrorTime      int    `json:"inst_error_time"`
	RecoverTime        int    `json:"recover_time"`
	AutoRestart        bool   `json:"auto_restart"`
	ServiceIPCheck     bool   `json:"service_ip_check"`
	RlogSendThreshold  int    `json:"rlog_send_threshold"`
	RlogApplyThreshold int    `json:"rlog_apply_threshold"`
	Reconnect          bool   `json:"reconnect"`
	FailoverForce      bool   `json:"failover_force"`
	Rejoin             bool   `json:"rejoin"`
	IniPath            string `json:"ini_path"`
	StartupCmd         string `json:"startup_cmd"`
}

// RemoteView is how the sending watcher sees another watcher of its group:
// evidence for takeover and confirm decisions.
type RemoteView struct {
	Inst      string    `json:"inst"`
	DWLink    bool      `json:"dw_link"`  // watcher-to-watcher connection is up and not silent for DW_ERROR_TIME
	InstOK    bool      `json:"inst_ok"`  // that watcher, heard by this connection, says that its instance is OK
	MALLink   bool      `json:"mal_link"` // instance-to-instance link is up, as our instance reports
	LastHeard time.Time `json:"last_heard"`
}

// WatcherStatus is what a watcher tells other watchers and monitors, every
// 200 ms and at every change (manual 3.1.2). One message per group.
type WatcherStatus struct {
	Seq uint64 `json:"seq"`
	// Era counts halves of DW_ERROR_TIME in the life of this watcher: an order to
	// take over names the era of the report it was decided by, and the watcher
	// refuses one that is two eras old. So whoever gave the order knows by a
	// later report that it cannot be obeyed any more, whatever delayed it.
	Era         uint64      `json:"era"`
	Time        time.Time   `json:"time"` // WTIME, local clock of the sender; display only
	PID         int         `json:"pid"`
	Incarnation string      `json:"incarnation"`
	Version     string      `json:"version"`
	Group       string      `json:"group"`
	OGUID       uint32      `json:"oguid"`
	Host        string      `json:"host"` // MAL_HOST
	Port        int         `json:"port"` // MAL_DW_PORT
	Config      GroupConfig `json:"config"`
	State       string      `json:"state"`     // WSTATUS, one of the DW constants
	SubState    string      `json:"sub_state"` // step inside it, free text from one table
	CtlStatus   string      `json:"ctl_status"`
	CtlDesc     string      `json:"ctl_desc,omitempty"`
	// RejoinBy: a monitor has ordered a split database to rejoin; RejoinBad: why
	// its instance cannot.
	RejoinBy  string `json:"rejoin_by,omitempty"`
	RejoinBad string `json:"rejoin_bad,omitempty"`
	// Cmd is the monitor command that holds the watcher, if any; while it is
	// set other monitors' commands are refused (manual 3.1.4).
	Cmd *HeldCommand `json:"cmd,omitempty"`
	// InstOK: the watcher judges its instance OK. When false, Inst is the
	// last status heard, and InstLost tells since when.
	InstOK       bool      `json:"inst_ok"`
	InstLost     time.Time `json:"inst_lost"`
	InstExitNorm bool      `json:"inst_exit_norm"`      // it ended by a normal shutdown
	InstGone     bool      `json:"inst_gone,omitempty"` // its process has ended
	// InstSilent: it is judged OK and has said nothing for so many seconds, 0 below
	// two: what is told of it may be no longer so.
	InstSilent int            `json:"inst_silent,omitempty"`
	Inst       InstanceStatus `json:"inst"`
	// LastPrimaryState remembers State at the moment the instance was lost.
	StateAtLoss string         `json:"state_at_loss,omitempty"`
	RecoverTime map[string]int `json:"recover_time,omitempty"` // INST_RECOVER_TIME in memory, per standby, seconds
	// Recovered is the last recovery of each standby that has been recovered.
	Recovered map[string]Recovered `json:"recovered,omitempty"`
	Remotes   []RemoteView         `json:"remotes"`
	// Monitors connected, in order of connection.
	Monitors []MonitorInfo `json:"monitors"`
	// Cert is the certificate of the links of this watcher and its instance, when it
	// ends soon or has ended.
	Cert *Ending  `json:"cert,omitempty"`
	Why  []string `json:"why,omitempty"` // what it waits for, condition by condition (check open, check recover, tip)
}

// Recovered is the last recovery of a standby by its primary's watcher.
type Recovered struct {
	Begun time.Time `json:"begun"`
	Code  base.Code `json:"code"` // 0 done, below 0 failed or interrupted, 100 under way
}

// HeldCommand identifies the monitor command a watcher is serving.
type HeldCommand struct {
	ID   string `json:"id"` // unique per command
	Mon  string `json:"mon"`
	Kind string `json:"kind"` // switchover, takeover, ...
}

// MonitorInfo is a row of `show monitor`.
type MonitorInfo struct {
	ID       string    `json:"id"`
	Addr     string    `json:"addr"`
	Confirm  bool      `json:"confirm"`
	Since    time.Time `json:"since"`
	LastSeen time.Time `json:"last_seen"`
}

// MonitorStatus is a monitor's heartbeat to every watcher, every 200 ms.
type MonitorStatus struct {
	MonID   string `json:"mon_id"`
	Confirm bool   `json:"confirm"`
}

// Watcher command names. Each is idempotent under the same command id.
//
// A command that changes roles runs in steps: begin at every watcher involved,
// then single steps, then end. A watcher that hears no step for DW_ERROR_TIME
// drops the held command by itself and returns to Startup, where the ordinary
// rules bring the group back.
const (
	DWCmdBegin     = "begin"      // Kind: take the state for that kind (switchover -> SWITCHOVER, ...); refused when another command is held
	DWCmdStep      = "step"       // Order: an InstanceCommand to perform on the instance; needs begin
	DWCmdEnd       = "end"        // leave the command: state -> OPEN (Failed false) or STARTUP
	DWCmdLogin     = "login"      // User, Password
	DWCmdStartDW   = "startup_dw" // Shutdown -> Startup
	DWCmdStopDW    = "stop_dw"    // -> Shutdown
	DWCmdStartInst = "startup_inst"
	DWCmdStopInst  = "stop_inst" // normal exit of the instance; watcher -> Shutdown
	DWCmdKillInst  = "kill_inst"
	DWCmdSetPara   = "set_para"       // Name, Value: memory and dmwatcher.ini
	DWCmdRecoverT  = "recover_time"   // Inst ("" all), Value seconds, memory only
	DWCmdTakeover  = "takeover_grant" // confirm monitor -> candidate's watcher: Grant; the watcher rechecks its own view, then runs the takeover itself
	DWCmdExitOld   = "exit_old"       // a watcher or monitor that saw a newer primary tells the old primary's watcher: shut your instance down
	// Between watchers only. The primary's watcher asks a standby's watcher to
	// have the kept package dropped (before recovery, and before the primary
	// opens), or to forget its claim to take over (before the primary goes on
	// without it). Both are refused once a takeover has begun there; after an
	// answer with Code 0 that standby does not take over until its primary,
	// Open again, reports the archive to it Valid. The answer carries a status
	// taken afterwards.
	DWCmdDropKeep  = "drop_keep"
	DWCmdDropClaim = "drop_claim"
	// A monitor allows a split database to give up the redo that the new primary
	// is without, once (docs/decisions/0008).
	DWCmdRejoin = "rejoin"
	DWCmdNoop   = "noop"
)

// WatcherCommand is an order from a monitor (or another watcher).
type WatcherCommand struct {
	Cmd    string           `json:"cmd"`
	ID     string           `json:"id"`
	Mon    string           `json:"mon"`
	Kind   string           `json:"kind,omitempty"`
	Order  *InstanceCommand `json:"order,omitempty"`
	Failed bool             `json:"failed,omitempty"`
	// Force, with begin of a takeover: whether or not this standby has a claim
	// to take over.
	Force bool `json:"force,omitempty"`
	// Era, with begin of a takeover: see WatcherStatus.
	Era      uint64 `json:"era,omitempty"`
	Inst     string `json:"inst,omitempty"`
	Name     string `json:"name,omitempty"`
	Value    string `json:"value,omitempty"`
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
	Evidence string `json:"evidence,omitempty"`
	Grant    *Grant `json:"grant,omitempty"`
}

// Grant is a confirm monitor's durable permission to take over, or for a
// primary to go on without a standby. Term grows with every decision of that
// monitor system for the group.
type Grant struct {
	Term       uint64        `json:"term"`
	OldPrimary string        `json:"old_primary"`
	Lineage    uint64        `json:"lineage"`  // ID of the last open record both shared
	MinKeep    base.Position `json:"min_keep"` // the candidate must have at least this
	Era        uint64        `json:"era"`      // of the candidate's report: see WatcherStatus
}

// WatcherReply answers a WatcherCommand. Code 0 is success.
type WatcherReply struct {
	Code   base.Code     `json:"code"`
	Msg    string        `json:"msg,omitempty"`
	Status WatcherStatus `json:"status"`
}

// ConfirmRequest is a primary's watcher in state Confirm asking for leave to
// make the archives to Failed invalid and reopen (manual 4.2, 6.9).
type ConfirmRequest struct {
	Status WatcherStatus `json:"status"`
	Failed []string      `json:"failed"` // instance names
}

// ConfirmReply: Granted only after the decision is on the monitor's disk.
type ConfirmReply struct {
	Granted bool   `json:"granted"`
	Term    uint64 `json:"term"`
	Why     string `json:"why"`
}

// GroupParas are the parameters that DWCmdSetPara changes (manual 4.4 #34, and
// DW_REJOIN, which is ours).
var GroupParas = []string{"DW_ERROR_TIME", "INST_RECOVER_TIME", "INST_ERROR_TIME", "INST_AUTO_RESTART",
	"INST_SERVICE_IP_CHECK", "RLOG_SEND_THRESHOLD", "RLOG_APPLY_THRESHOLD", "DW_REJOIN"}
