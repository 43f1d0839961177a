package fsm

import (
	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// archiveFull stops guarding a standby whose local archive has no space left, and
// shuts it down, when DW_ARCH_SPACE_CHECK is 1 (manual 6.26): otherwise the primary
// would wait for it, or meet it again after every restart. The watcher first, so
// that it does not start the instance again. Monitor commands under way come first.
func (x *m) archiveFull() {
	in := x.In.Status
	if !x.ready() || in.Mode != base.ModeStandby || in.ArchFull == "" || x.Held != nil || x.W != Startup && x.W != Open {
		return
	}
	why := "the local archive of the standby has no space left (DW_ARCH_SPACE_CHECK): " + in.ArchFull
	x.endProc(why)
	x.down = why
	x.to(Shutdown, "", why)
	x.order(proto.InstanceCommand{Cmd: proto.CmdShutdown, How: "abort", Evidence: why}, pend{kind: pendPlain})
}
