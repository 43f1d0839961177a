package server

import (
	"path/filepath"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/certs"
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

// The status that the watcher reads tells of a certificate for SQL clients that ends
// soon.
func TestStatusTellsOfCertificate(t *testing.T) {
	p := newPair(t)
	dir := t.TempDir()
	if st := p.a.status(); st.SQLCert != nil {
		t.Errorf("without TLS: %+v", st.SQLCert)
	}
	pair, err := certs.NewCA("a name", time.Now(), 5) // not one of ours
	if err != nil {
		t.Fatal(err)
	}
	if err := certs.WritePair(dir, "sql", pair); err != nil {
		t.Fatal(err)
	}
	p.a.cfg.DM.SSLCert, p.a.cfg.DM.SSLKey = filepath.Join(dir, "sql.crt"), filepath.Join(dir, "sql.key")
	if _, err := p.a.tls(); err != nil {
		t.Fatal(err)
	}
	if c := p.a.status().SQLCert; c == nil || c.File != p.a.cfg.DM.SSLCert || c.Ours {
		t.Errorf("%+v", c)
	}
}
