package server

import (
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/vfs"
)

// noRoom is a disk on which the archive cannot grow while full.
type noRoom struct {
	vfs.FS
	full *atomic.Bool
}

type noRoomFile struct {
	vfs.File
	full *atomic.Bool
}

func (n noRoom) wrap(path string, f vfs.File, err error) (vfs.File, error) {
	if err == nil && strings.HasPrefix(filepath.Base(path), "ARCHIVE_") {
		f = noRoomFile{f, n.full}
	}
	return f, err
}

func (n noRoom) Open(path string) (vfs.File, error) {
	f, err := n.FS.Open(path)
	return n.wrap(path, f, err)
}

func (n noRoom) Create(path string, trunc bool) (vfs.File, error) {
	f, err := n.FS.Create(path, trunc)
	return n.wrap(path, f, err)
}

func (n noRoomFile) WriteAt(b []byte, off int64) (int, error) {
	if n.full.Load() {
		return 0, syscall.ENOSPC
	}
	return n.File.WriteAt(b, off)
}

// TestArchStatusOfTheLocalArchive: V$ARCH_STATUS calls the local archive Invalid
// while it cannot be written (manual 10.1 #8), and Valid when it can be again.
func TestArchStatusOfTheLocalArchive(t *testing.T) {
	p := newPair(t)
	if err := p.end(p.a, stopAbort); err != nil {
		t.Fatal(err)
	}
	var full atomic.Bool
	p.a = p.startOn("A", noRoom{vfs.OS{}, &full})
	p.open()
	local := func(want base.ArchState) func() bool {
		return func() bool {
			r := source{p.a}.ArchStatus()
			return len(r) == 2 && r[0].Type == base.ArchLocal && r[0].Status == want && r[1].Status == base.ArchValid
		}
	}
	p.commit(p.a, 1)
	if !local(base.ArchValid)() {
		t.Fatalf("%+v", source{p.a}.ArchStatus())
	}
	full.Store(true)
	p.publish(p.a, 2)
	p.until("the local archive is Invalid", local(base.ArchInvalid))
	if st := p.a.eng.Status(); st != base.StatusSuspend {
		t.Errorf("the database is %v", st)
	}
	full.Store(false)
	p.until("the local archive is Valid again", local(base.ArchValid))
	p.commit(p.a, 3)
}
