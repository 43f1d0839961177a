package server

import (
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// TestArchiveValidNeedsLink: an archive becomes Valid only when redo can go out
// to the standby; otherwise opening the primary would suspend it at once.
func TestArchiveValidNeedsLink(t *testing.T) {
	p := newPair(t)
	if err := p.end(p.b, stopAbort); err != nil {
		t.Fatal(err)
	}
	p.until("A has lost its link", func() bool { return !p.a.node.LinkStates()[0].Data })
	done := make(chan error, 1)
	go func() {
		done <- p.a.execute(t.Context(), proto.InstanceCommand{Cmd: proto.CmdSetArch, Inst: "B", State: base.ArchValid})
	}()
	p.until("the command runs", func() bool { return p.a.running.Load() == proto.CmdSetArch || len(done) == 1 })
	p.b = p.start("B")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !p.a.node.LinkStates()[0].Data {
		t.Error("the archive is Valid although there is no link to send by")
	}
}
