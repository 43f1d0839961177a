// Package dwmon is the public monitor API (manual 10.2): it opens a monitor on
// the watchers of a system, shows what they report as typed structs and runs
// every monitor command. The console dmmonitor is a thin layer over it.
//
//	m, err := dwmon.Open(ctx, dwmon.Config{Groups: []dwmon.Group{{Name: "GRP1", OGUID: 453331, Addrs: []string{"10.0.0.1:5240"}}}})
//	...
//	defer m.Close()
//	m.WaitReady(ctx)
//	for _, db := range m.Snapshot().Groups[0].Databases { ... }
//
// Errors carry the manual's codes (10.2.8): CodeOf reads them, ErrorText
// explains them. It owns no state of its own; package internal/ha/monitor keeps
// the connections and, in confirm mode, guarantee G3.
package dwmon

import (
	"context"

	"datawatch/internal/base"
	"datawatch/internal/ha/cond"
	"datawatch/internal/ha/monitor"
	"datawatch/internal/ha/proto"
)

// The types of the API. A Monitor's methods are safe for concurrent use.
type (
	Monitor   = monitor.Monitor
	Config    = monitor.Config
	LogConfig = monitor.LogConfig
	TLS       = monitor.TLS
	Group     = monitor.Group
	Message   = monitor.Message
	Choice    = monitor.Choice
	Report    = monitor.Report
	// Explanation says why one thing does or does not happen, by Monitor.Explain.
	Explanation = monitor.Explanation
	Condition   = cond.Cond

	Snapshot         = monitor.Snapshot
	GroupSnapshot    = monitor.GroupSnapshot
	DatabaseSnapshot = monitor.DatabaseSnapshot
	// Code is an error code of the manual: below 0 an error, 100 a notice that
	// there was nothing to do.
	Code = base.Code
)

// Codes that callers most often look for.
const (
	CodeLogin        = monitor.CodeLogin
	CodeConfig       = monitor.CodeConfig
	CodeBusy         = monitor.CodeBusy
	CodeInstFailed   = monitor.CodeInstFailed
	CodeNotNormal    = monitor.CodeNotNormal
	CodeTwoConfirm   = monitor.CodeTwoConfirm
	CodeNoWatcher    = monitor.CodeNoWatcher
	CodeArgument     = monitor.CodeArgument
	CodeTooMany      = monitor.CodeTooMany
	CodeAlready      = monitor.CodeAlready
	CodeRecoverLater = monitor.CodeRecoverLater
	CodeNoRecover    = monitor.CodeNoRecover
)

// Version is the monitor's version in the manual's form.
const Version = "DMMONITOR[" + proto.GuardVersion + "] " + proto.GlobalVersion

// Open starts a monitor. It returns before watchers have answered; see
// Monitor.WaitReady. Code -6: no group; -7: log directory.
func Open(ctx context.Context, cfg Config) (*Monitor, error) { return monitor.Open(ctx, cfg) }

// CodeOf returns the code an error carries, -1 for an error without one and 0
// for nil.
func CodeOf(err error) Code {
	if err == nil {
		return 0
	}
	return base.CodeOf(err, monitor.CodeError)
}

// ErrorText explains a code (manual 10.2.8.1); ok is false when there is no text.
func ErrorText(c Code) (text string, ok bool) {
	text, ok = texts[c]
	return text, ok
}

var texts = map[Code]string{
	-1:    "general error",
	-2:    "invalid handle",
	-3:    "could not initialise the log",
	-4:    "could not initialise system data",
	-5:    "not logged in, or the server public key changed: log in again",
	-6:    "could not read dmmonitor.ini (wrong path, wrong content or no permission)",
	-7:    "invalid log directory",
	-8:    "could not set the command mark: it is already set and must be reset first",
	-9:    "could not reset the command mark: it was already reset",
	-10:   "instance failed, or its watcher failed",
	-11:   "system not running normally",
	-12:   "MPP control files differ",
	-13:   "watcher control file has no record",
	-14:   "several confirm monitors in one guard system",
	-15:   "no watcher could be reached, perhaps none is running",
	-16:   "illegal argument: empty, too long or out of range",
	-17:   "no text for this code",
	-18:   "out of memory",
	-19:   "maximum number of monitors reached (10 per group)",
	-20:   "cannot be judged now whether the instance can be recovered, try again later",
	-21:   "instance does not meet the recovery conditions",
	-22:   "cannot be judged now whether the database can be opened, try again later",
	-23:   "the database does not meet the open conditions",
	-24:   "the database is Open but its watcher is not",
	-25:   "every group has a normal primary, but other instances are abnormal",
	-26:   "not every group has a normal primary: wait for the watchers",
	-27:   "not every group has a normal primary: the user must decide",
	-28:   "handle freed without deinit",
	-8013: "timeout receiving watcher messages",
	-8037: "instance not in Mount",
	-8197: "user name or password empty or too long",
	-8204: "no active instance or watcher state not suitable, login check failed",
	-8206: "wrong user or password, or no DBA authority",
	-8210: "login failed",
	-8243: "no message yet from any watcher of the group",
	-8380: "watcher control file not valid",
}
