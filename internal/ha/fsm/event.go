package fsm

import (
	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// Event is something the driver saw. Events carry no times: `now` of Step is
// the local moment of reception, the only clock decisions know.
type Event interface{ kind() EventKind }

// EventKind indexes the table.
type EventKind uint8

const (
	EvTick EventKind = iota
	EvInstUp
	EvInstDown
	EvInstStatus
	EvInstReply
	EvInstGone
	EvStarted
	EvRemoteUp
	EvRemoteDown
	EvRemoteStatus
	EvRemoteReply
	EvMonUp
	EvMonDown
	EvMonStatus
	EvConfirmReply
	EvCtlSaved
	EvService
	EvBegin
	EvStep
	EvEnd
	EvLogin
	EvStartDW
	EvStopDW
	EvStartInst
	EvStopInst
	EvKillInst
	EvSetPara
	EvRecoverTime
	EvGrant
	EvExitOld
	EvDropKeep
	EvDropClaim
	EvRejoin
	EvNoop
	EvUnknownCmd
	numEvents
)

var eventNames = [numEvents]string{"tick", "instance connected", "instance link lost", "instance status", "instance reply",
	"instance process gone", "process started", "watcher connected", "watcher link lost", "watcher status", "watcher reply",
	"monitor connected", "monitor left", "monitor heartbeat", "confirm reply", "control file written", "public network",
	"begin", "step", "end", "login", "startup_dw", "stop_dw", "startup_inst", "stop_inst", "kill_inst", "set_para",
	"recover_time", "takeover_grant", "exit_old", "drop_keep", "drop_claim", "rejoin", "noop", "unknown command"}

func (k EventKind) String() string { return eventNames[k] }

type (
	// Tick says that time has passed. Every 100 ms is often enough.
	Tick struct{}
	// InstUp: the connection to the instance is open, hello exchanged.
	InstUp struct{ PID int }
	// InstDown: it broke. Gone when the process is known to be dead.
	InstDown struct{ Gone bool }
	// InstStatus is a regular message of the instance.
	InstStatus struct{ Status proto.InstanceStatus }
	// InstReply answers the SendInst with that Req. Err is a transport failure.
	InstReply struct {
		Req   uint64
		Reply proto.InstanceReply
		Err   string
	}
	// InstGone: the process with that id no longer exists.
	InstGone struct{ PID int }
	// Started answers StartInst.
	Started struct {
		PID int
		Err string
	}
	// RemoteUp, RemoteDown: the connection to the watcher of Inst.
	RemoteUp   struct{ Inst string }
	RemoteDown struct{ Inst string }
	// RemoteStatus is a regular message of the watcher of Inst.
	RemoteStatus struct {
		Inst   string
		Status proto.WatcherStatus
	}
	// RemoteReply answers TellRemote.
	RemoteReply struct {
		Inst  string
		Req   uint64
		Reply proto.WatcherReply
		Err   string
	}
	MonUp struct {
		ID, Addr string
		Confirm  bool
	}
	MonDown   struct{ ID string }
	MonStatus struct{ ID string }
	// ConfirmReply answers AskConfirm.
	ConfirmReply struct {
		Req   uint64
		Reply proto.ConfirmReply
		Err   string
	}
	// Service says whether the address by which clients reach the instance can
	// be used on this machine; Why is empty when it can.
	Service struct{ Why string }
	// CtlSaved answers WriteCtl.
	CtlSaved struct{ Err string }
	// Command is an order of a monitor (MonID) or of another watcher (From is
	// then its instance name).
	Command struct {
		From  string
		MonID string
		To    Reply
		Cmd   proto.WatcherCommand
	}
)

// Reply addresses the answer to a Command: the driver's connection and request.
type Reply struct{ Conn, Req uint64 }

func (Tick) kind() EventKind         { return EvTick }
func (InstUp) kind() EventKind       { return EvInstUp }
func (InstDown) kind() EventKind     { return EvInstDown }
func (InstStatus) kind() EventKind   { return EvInstStatus }
func (InstReply) kind() EventKind    { return EvInstReply }
func (InstGone) kind() EventKind     { return EvInstGone }
func (Started) kind() EventKind      { return EvStarted }
func (RemoteUp) kind() EventKind     { return EvRemoteUp }
func (RemoteDown) kind() EventKind   { return EvRemoteDown }
func (RemoteStatus) kind() EventKind { return EvRemoteStatus }
func (RemoteReply) kind() EventKind  { return EvRemoteReply }
func (MonUp) kind() EventKind        { return EvMonUp }
func (MonDown) kind() EventKind      { return EvMonDown }
func (MonStatus) kind() EventKind    { return EvMonStatus }
func (ConfirmReply) kind() EventKind { return EvConfirmReply }
func (CtlSaved) kind() EventKind     { return EvCtlSaved }
func (Service) kind() EventKind      { return EvService }

var cmdEvents = map[string]EventKind{proto.DWCmdBegin: EvBegin, proto.DWCmdStep: EvStep, proto.DWCmdEnd: EvEnd,
	proto.DWCmdLogin: EvLogin, proto.DWCmdStartDW: EvStartDW, proto.DWCmdStopDW: EvStopDW, proto.DWCmdStartInst: EvStartInst,
	proto.DWCmdStopInst: EvStopInst, proto.DWCmdKillInst: EvKillInst, proto.DWCmdSetPara: EvSetPara,
	proto.DWCmdRecoverT: EvRecoverTime, proto.DWCmdTakeover: EvGrant, proto.DWCmdExitOld: EvExitOld,
	proto.DWCmdDropKeep: EvDropKeep, proto.DWCmdDropClaim: EvDropClaim, proto.DWCmdRejoin: EvRejoin, proto.DWCmdNoop: EvNoop}

func (c Command) kind() EventKind {
	if k, ok := cmdEvents[c.Cmd.Cmd]; ok {
		return k
	}
	return EvUnknownCmd
}

// Action is something the driver has to do.
type Action interface{ action() }

type (
	// SendInst orders the own instance; InstReply with the same Req follows.
	SendInst struct {
		Req uint64
		Cmd proto.InstanceCommand
	}
	// TellRemote orders the watcher of Inst; RemoteReply follows.
	TellRemote struct {
		Inst string
		Req  uint64
		Cmd  proto.WatcherCommand
	}
	// AskConfirm asks the confirm monitor Mon; ConfirmReply follows.
	AskConfirm struct {
		Mon     string
		Req     uint64
		Request proto.ConfirmRequest
	}
	// Answer answers a Command.
	Answer struct {
		To    Reply
		Reply proto.WatcherReply
	}
	// KillInst kills the process of the instance, if it is still the one of
	// which a status was received.
	KillInst struct{ PID int }
	// StartInst starts the instance; Started follows.
	StartInst struct{}
	// WriteCtl writes dmwatcher.ctl; CtlSaved follows.
	WriteCtl struct{ Desc string }
	// DropCtl removes dmwatcher.ctl: the database is split no more.
	DropCtl struct{}
	// SavePara writes a parameter into dmwatcher.ini.
	SavePara struct{ Name, Value string }
	// Broadcast sends the status to everybody now, not at the next interval.
	Broadcast struct{}
	// Log is a line of the log: what happened, and the evidence for it.
	Log struct {
		Event string
		Attrs []any // slog key, value, ...
	}
)

func (SendInst) action()   {}
func (TellRemote) action() {}
func (AskConfirm) action() {}
func (Answer) action()     {}
func (KillInst) action()   {}
func (StartInst) action()  {}
func (WriteCtl) action()   {}
func (DropCtl) action()    {}
func (SavePara) action()   {}
func (Broadcast) action()  {}
func (Log) action()        {}

// Codes of the manual that a watcher answers with (10.2.8).
const (
	codeFail     base.Code = -1
	codeInst     base.Code = -8125 // instance failed, not OK
	codeState    base.Code = -8123 // watcher in the wrong state
	codeBusy     base.Code = -8    // another command holds the watcher
	codeArg      base.Code = -16
	codePara     base.Code = -8220 // watcher not in a state to change parameters
	codeLogin    base.Code = -8203 // watcher or instance not in a state to check a login
	codeCtl      base.Code = -8380
	codeLocal    base.Code = -8497 // LOCAL guard
	codeNotStdby base.Code = -8392 // instance not Standby and Open
	codeActive   base.Code = -8399 // the instance to take over is still active
	codeArch     base.Code = -8400 // archive was not valid
	codeStart    base.Code = -8223
	codeStop     base.Code = -8229
	codeClash    base.Code = -8113
)
