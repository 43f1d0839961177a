// Package proto defines the control messages between an instance and its
// watcher, between watchers, and between monitors and watchers. Messages are
// JSON inside wire frames: small, few, readable in a capture, and open to new
// fields (docs/decisions/0002). Redo never travels this way.
//
// Every connection starts with a Hello from the dialling side and a HelloReply;
// nothing else is read before, and frames are capped at wire.MaxPreAuth until
// then. Versions in GuardVersion must be equal (manual 3.1.1), OGUID too.
package proto

import (
	"time"

	"datawatch/internal/base"
)

// GuardVersion is the version "inside the brackets": DMWATCHER[4.0] V8.
const GuardVersion = "4.0"

// GlobalVersion is the version after the brackets.
const GlobalVersion = "V8"

// Frame types.
const (
	TypeHello      uint16 = 1  // Hello, dialling side
	TypeHelloReply uint16 = 2  // HelloReply, listening side
	TypeInstStatus uint16 = 10 // InstanceStatus, instance -> watcher, one-way, regular and on change
	TypeInstCmd    uint16 = 11 // InstanceCommand, watcher -> instance, frame id = request
	TypeInstReply  uint16 = 12 // InstanceReply, same id
	TypeDWStatus   uint16 = 20 // WatcherStatus, watcher -> watchers and monitors, one-way
	TypeDWCmd      uint16 = 21 // WatcherCommand, monitor or watcher -> watcher, frame id = request
	TypeDWReply    uint16 = 22 // WatcherReply, same id
	TypeMonStatus  uint16 = 30 // MonitorStatus, monitor -> watcher, one-way heartbeat
	TypeConfirmReq uint16 = 31 // ConfirmRequest, watcher -> confirm monitor, frame id = request
	TypeConfirmRep uint16 = 32 // ConfirmReply, same id
)

// Role says who dials.
type Role string

const (
	RoleWatcher Role = "watcher"
	RoleMonitor Role = "monitor"
	RoleTool    Role = "tool"
)

// Hello opens a connection.
type Hello struct {
	Role         Role   `json:"role"`
	GuardVersion string `json:"guard_version"`
	Name         string `json:"name"`  // instance name a watcher guards; monitor address
	OGUID        uint32 `json:"oguid"` // group the dialler belongs to; 0 when it has no group yet
	Group        string `json:"group,omitempty"`
	MonConfirm   bool   `json:"mon_confirm,omitempty"`
	MonID        string `json:"mon_id,omitempty"` // random per monitor process
	Auto         bool   `json:"auto,omitempty"`   // DW_MODE of a watcher is AUTO; display only
	PID          int    `json:"pid"`
}

// HelloReply answers; Code 0 accepts, anything else is followed by a close.
type HelloReply struct {
	Code         base.Code `json:"code"`
	Msg          string    `json:"msg,omitempty"`
	GuardVersion string    `json:"guard_version"`
	Name         string    `json:"name"`
	OGUID        uint32    `json:"oguid"`
	PID          int       `json:"pid"`
}

// ArchStatus is the state of one configured archive target of a primary.
type ArchStatus struct {
	Inst  string         `json:"inst"`
	Type  base.ArchType  `json:"type"`
	State base.ArchState `json:"state"`
	// SendFailed is set while the last required send to it failed and the
	// database is suspended because of it.
	SendFailed bool   `json:"send_failed,omitempty"`
	LastError  string `json:"last_error,omitempty"`
	// Late is set while it answers, but so late that no commit can be acknowledged
	// by its answers: sending again is of no use, nor is recovering it.
	Late bool `json:"late,omitempty"`
	// Recovering is set while archive_send to it runs; Sent is how far it got.
	Recovering bool          `json:"recovering,omitempty"`
	Sent       base.Position `json:"sent"`
	// Acked is the last position the target acknowledged in this reign.
	Acked base.Position `json:"acked"`
	// RecentSends are the last sends counted, at most RLOG_SEND_APPLY_MON;
	// RecentTime is how long they took together, microseconds.
	RecentSends int   `json:"recent_sends"`
	RecentTime  int64 `json:"recent_time"`
}

// SendStat are the statistics of sending to one target (manual 4.4 #41). Times
// are microseconds. The Max figures but for the time are each on their own. The
// last send is the newest, also one that is under way (LastStart without
// LastEnd) or has failed; the others are of sends that were acknowledged.
type SendStat struct {
	Inst        string    `json:"inst"`
	ForRecovery bool      `json:"for_recovery,omitempty"` // the last send
	LastStart   time.Time `json:"last_start"`
	LastEnd     time.Time `json:"last_end"`
	LastTime    int64     `json:"last_time"`
	LastFailed  bool      `json:"last_failed,omitempty"`
	FirstLSN    base.LSN  `json:"first_lsn"` // of the last send: where it begins
	LastLSN     base.LSN  `json:"last_lsn"`  // and ends
	LastLen     int64     `json:"last_len"`
	LastPTX     int64     `json:"last_ptx"`
	RecentCnt   int       `json:"recent_cnt"`
	RecentLen   int64     `json:"recent_len"`
	RecentPTX   int64     `json:"recent_ptx"`
	RecentTime  int64     `json:"recent_time"`
	MaxTime     int64     `json:"max_time"`
	MaxEnd      time.Time `json:"max_end"`
	MaxPTX      int64     `json:"max_ptx"`
	MaxLen      int64     `json:"max_len"`
	MaxLSN      base.LSN  `json:"max_lsn"`
	TotalCnt    int64     `json:"total_cnt"`
	TotalLen    int64     `json:"total_len"`
	TotalPTX    int64     `json:"total_ptx"`
	TotalTime   int64     `json:"total_time"`
}

// ApplyStat are the statistics of a standby's replay (manual 4.4 #42). Times are
// microseconds.
type ApplyStat struct {
	LastRecvLen     int64 `json:"last_recv_len"`
	LastRecvTime    int64 `json:"last_recv_time"`
	LastWait        int64 `json:"last_wait"`
	LastApplyLen    int64 `json:"last_apply_len"`
	LastApplyTime   int64 `json:"last_apply_time"`
	RecentNum       int   `json:"recent_num"`
	RecentRecvLen   int64 `json:"recent_recv_len"`
	RecentRecvTime  int64 `json:"recent_recv_time"`
	RecentWait      int64 `json:"recent_wait"`
	RecentApplyLen  int64 `json:"recent_apply_len"`
	RecentApplyTime int64 `json:"recent_apply_time"`
	MaxRecvTime     int64 `json:"max_recv_time"`
	MaxWait         int64 `json:"max_wait"`
	MaxApplyTime    int64 `json:"max_apply_time"`
	MaxApplyLen     int64 `json:"max_apply_len"`
	TotalRecvNum    int64 `json:"total_recv_num"`
	TotalRecvLen    int64 `json:"total_recv_len"`
	TotalRecvTime   int64 `json:"total_recv_time"`
	TotalWait       int64 `json:"total_wait"`
	TotalApplyNum   int64 `json:"total_apply_num"`
	TotalApplyLen   int64 `json:"total_apply_len"`
	TotalApplyTime  int64 `json:"total_apply_time"`
}

// MALLink is the state of the link to one other instance.
type MALLink struct {
	Inst      string    `json:"inst"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
	LastHeard time.Time `json:"last_heard"`
}

// InstanceStatus is what an instance tells its watcher, every 200 ms and at
// every change of mode, status, archive state, MAL link or positions that a
// command waits for (manual 3.1.1). Positions are by producing node, length 1.
type InstanceStatus struct {
	Seq         uint64      `json:"seq"` // of this message, per process
	Time        time.Time   `json:"time"`
	PID         int         `json:"pid"`
	Incarnation string      `json:"incarnation"` // random per process start
	InstName    string      `json:"inst_name"`
	DBName      string      `json:"db_name"`
	Mode        base.Mode   `json:"mode"`
	Status      base.Status `json:"status"`
	OGUID       uint32      `json:"oguid"`
	PmntMagic   base.Magic  `json:"pmnt_magic"`
	DBMagic     base.Magic  `json:"db_magic"`
	Version     string      `json:"version"`
	Port        int         `json:"port"` // PORT_NUM

	Cur  base.Position `json:"cur"`  // CSEQ, CLSN: newest assigned
	File base.Position `json:"file"` // FSEQ, FLSN: in the online log
	Ckpt base.LSN      `json:"ckpt"`
	// Standby side; equal to File/Cur on a primary.
	Apply  base.Position `json:"apply"`  // ASEQ, ALSN: original position in the standby's online log
	Stand  base.Position `json:"stand"`  // SSEQ, SLSN: known to be replayable
	Keep   base.Position `json:"keep"`   // KSEQ, KLSN: received, perhaps not yet replayable; >= Stand
	Replay base.Position `json:"replay"` // RSEQ, RLSN: replayed
	NTask  int           `json:"n_task"`
	TaskMB int64         `json:"task_mem"` // bytes of redo waiting for replay

	// RecentReplays are the last packages replayed, at most RLOG_SEND_APPLY_MON;
	// ReplayTime is how long they waited and took together, microseconds.
	RecentReplays int   `json:"recent_replays"`
	ReplayTime    int64 `json:"replay_time"`

	RedosParallel int          `json:"redos_parallel"`
	Archives      []ArchStatus `json:"archives"`
	Links         []MALLink    `json:"links"`
	Sends         []SendStat   `json:"sends,omitempty"`
	Applies       *ApplyStat   `json:"applies,omitempty"` // of a standby
	// ValidClaim, on a standby: the primary told THIS incarnation, on the
	// current or last link, that its archive to us is Valid. It is lost at
	// restart, and false again as soon as the primary says Invalid. A standby
	// without it is no candidate for takeover (only for forced takeover).
	ValidClaim     bool         `json:"valid_claim"`
	ValidClaimFrom string       `json:"valid_claim_from,omitempty"` // instance name of that primary
	ValidClaimID   uint64       `json:"valid_claim_id,omitempty"`   // ID of that primary's last open record
	Lineage        base.Lineage `json:"lineage"`
	SuspendedSince time.Time    `json:"suspended_since"` // zero when not suspended
	SuspendReason  string       `json:"suspend_reason,omitempty"`
	// SQLCert is the certificate for SQL clients, when it ends soon or has ended.
	SQLCert *Ending `json:"sql_cert,omitempty"`
	// ArchFull, on a standby with DW_ARCH_SPACE_CHECK: why its local archive cannot
	// be written for want of space.
	ArchFull      string `json:"arch_full,omitempty"`
	ExitingNormal bool   `json:"exiting_normal,omitempty"` // last message of a normal shutdown
	Running       string `json:"running,omitempty"`        // command in progress
	// Rejoin: the database has pages of Primary as of Whole, under the open
	// records Lineage, and redo that ends before: it can follow that history only
	// and is not readable. nil: it is whole.
	Rejoin *Rejoin `json:"rejoin,omitempty"`
}

// Ending is a certificate that ends soon or has ended.
type Ending struct {
	File      string    `json:"file"`
	At        time.Time `json:"at"`
	Ours      bool      `json:"ours,omitempty"`      // `dw certs renew` makes the next one
	Authority bool      `json:"authority,omitempty"` // which needs a new authority
}

// Rejoin is what a database that rejoined with pages of its new primary still
// has to reach (docs/decisions/0008).
type Rejoin struct {
	Primary string        `json:"primary"`
	Fork    base.Position `json:"fork"`
	Whole   base.Position `json:"whole"`
	Lineage base.Lineage  `json:"lineage"`
}

// Instance command names. Each is idempotent: repeating one that has already
// taken effect succeeds.
const (
	CmdOpen         = "open"          // Mount or Suspend -> Open. Force: regardless of DW_INACTIVE rules
	CmdMount        = "mount"         // Open -> Mount: rolls back transactions, flushes, keeps connections
	CmdSuspend      = "suspend"       // Open -> Suspend
	CmdSetMode      = "set_mode"      // Mode; only in Mount
	CmdSetArch      = "set_arch"      // Inst ("" = every realtime and timely target), State
	CmdApplyKeep    = "apply_keep"    // standby: replay the kept package and everything queued, then reply
	CmdEnded        = "ended"         // Ended: beside apply_keep or set_mode under way, which need not wait for these any more
	CmdDropKeep     = "drop_keep"     // standby: drop the kept package
	CmdArchSend     = "arch_send"     // primary: stream archives to Inst until it has File as of the start; reply then
	CmdShutdown     = "shutdown"      // How: "normal" or "abort"
	CmdDropSessions = "drop_sessions" // disconnect SQL sessions
	CmdRejoin       = "rejoin"        // in Mount: give up the redo that the primary Inst is without, fetch the pages it touched, start anew as standby
	CmdLogin        = "login"         // User, Password: checks monitor credentials (DBA role)
	CmdSetPara      = "set_para"      // Name, Value
	CmdClearSend    = "clear_send"    // clear arch send statistics to Inst
	CmdClearApply   = "clear_apply"   // clear apply statistics
	CmdNoop         = "noop"          // reply at once: proves the instance answers
	// Watcher: the state of the watcher itself, for V$DMWATCHER, at every change and
	// every second; frame id 0, no answer. It changes nothing. An instance that does
	// not know it answers with an error and is told no more.
	CmdWatcher = "watcher"
)

// InstanceCommand is an order from the watcher.
type InstanceCommand struct {
	Cmd   string         `json:"cmd"`
	Inst  string         `json:"inst,omitempty"`
	State base.ArchState `json:"state,omitempty"`
	// Told, with set_arch Invalid: only if the standby can be told first.
	Told     bool      `json:"told,omitempty"`
	Mode     base.Mode `json:"mode,omitempty"`
	Force    bool      `json:"force,omitempty"`
	How      string    `json:"how,omitempty"`
	User     string    `json:"user,omitempty"`
	Password string    `json:"password,omitempty"`
	Name     string    `json:"name,omitempty"`
	Value    string    `json:"value,omitempty"`
	// Ended, with apply_keep, set_mode and ended: incarnations of instances whose
	// processes are known to have ended, so that nobody need wait until they can
	// acknowledge nothing any more. It is true for ever: an order ended may come
	// late, twice or not at all. An instance that does not know this order answers
	// with an error, which changes nothing.
	Ended    []string `json:"ended,omitempty"`
	Evidence string   `json:"evidence,omitempty"` // why; logged by the instance
	// Watcher comes with the order of that name.
	Watcher *WatcherInfo `json:"watcher,omitempty"`
}

// WatcherInfo is what a watcher tells its instance of itself (manual 10.1 #13).
type WatcherInfo struct {
	Groups      int    `json:"groups"` // of its dmwatcher.ini
	Group       string `json:"group"`
	Type        string `json:"type"` // LOCAL or GLOBAL
	Mode        string `json:"mode"` // MANUAL or AUTO
	AutoRestart bool   `json:"auto_restart"`
	ErrorTime   int    `json:"error_time"` // DW_ERROR_TIME, seconds
	State       string `json:"state"`
	SubState    string `json:"sub_state,omitempty"`
	Switches    int64  `json:"switches"`  // changes of primaries that it has seen, in all its groups
	Ctls        int    `json:"ctls"`      // other watchers that have told the state of their control file
	Insts       int    `json:"insts"`     // other instances that it has heard of
	MaxConns    int    `json:"max_conns"` // most connections of this group at one time
}

// InstanceReply answers an InstanceCommand. Code 0 is success.
type InstanceReply struct {
	Code   base.Code      `json:"code"`
	Msg    string         `json:"msg,omitempty"`
	Status InstanceStatus `json:"status"` // after the command
}
