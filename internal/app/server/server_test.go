package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/config"
	"datawatch/internal/ha/proto"
	"datawatch/internal/repl/mal"
	"datawatch/internal/storage/engine"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

const (
	testPages = 1024
	testPmnt  = base.Magic(77)
	testOGUID = 453331
)

// pair is a primary A and a standby B in one process, without watchers.
type pair struct {
	t     *testing.T
	dir   string
	ports map[string][3]int // SQL, MAL, watcher
	a, b  *Server
	ended map[*Server]bool
	arch  string // REALTIME or TIMELY, and more lines of dmarch.ini before it
	extra map[string]string
	net   mal.Dialer // of instances started from now on; nil: TCP
}

func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var out []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out
}

// newPair makes the files of both and starts them; both are in Mount.
func newPair(t *testing.T) *pair { return newPairWith(t, "REALTIME", "", nil) }

// newPairWith takes the type of the archives, what stands before them in
// dmarch.ini, and what is added to the dm.ini of an instance.
func newPairWith(t *testing.T, typ, arch string, dm map[string]string) *pair {
	t.Helper()
	p := &pair{t: t, dir: t.TempDir(), ports: map[string][3]int{}, ended: map[*Server]bool{}, extra: dm,
		arch: arch + "\n[ARCHIVE_OUT]\nARCH_TYPE = " + typ}
	free := freePorts(t, 6)
	p.ports["A"], p.ports["B"] = [3]int(free[:3]), [3]int(free[3:])
	for _, n := range []string{"A", "B"} {
		dir := filepath.Join(p.dir, n)
		mode := base.ModePrimary
		if n == "B" {
			mode = base.ModeStandby
		}
		err := engine.Create(engine.CreateConfig{FS: vfs.OS{}, Dir: dir, CtlPath: filepath.Join(dir, "dm.ctl"),
			LogPaths: []string{filepath.Join(dir, "1.log"), filepath.Join(dir, "2.log")}, LogSize: 1 << 20, DBName: "T",
			PageSize: testPages, OGUID: testOGUID, Mode: mode, PmntMagic: testPmnt})
		if err != nil {
			t.Fatal(err)
		}
		p.write(n)
	}
	p.a, p.b = p.start("A"), p.start("B")
	return p
}

func (p *pair) write(n string) {
	p.t.Helper()
	dir, other := filepath.Join(p.dir, n), map[string]string{"A": "B", "B": "A"}[n]
	var mal strings.Builder
	mal.WriteString("MAL_CHECK_INTERVAL = 1\nMAL_CONN_FAIL_INTERVAL = 2\n")
	for i, x := range []string{"A", "B"} {
		q := p.ports[x]
		fmt.Fprintf(&mal, "[MAL_INST%d]\nMAL_INST_NAME = %s\nMAL_HOST = 127.0.0.1\nMAL_PORT = %d\nMAL_INST_HOST = 127.0.0.1\nMAL_INST_PORT = %d\nMAL_DW_PORT = %d\nMAL_INST_DW_PORT = %d\n",
			i+1, x, q[1], q[0], 65000+i, q[2])
	}
	for name, text := range map[string]string{
		"dmmal.ini": mal.String(),
		"dmarch.ini": fmt.Sprintf(p.arch+"\nARCH_DEST = %s\n[ARCHIVE_LOCAL1]\nARCH_TYPE = LOCAL\nARCH_DEST = %s\nARCH_FILE_SIZE = 64\nARCH_SPACE_LIMIT = 0\n",
			other, filepath.Join(dir, "arch")),
		"dm.ini": fmt.Sprintf("INSTANCE_NAME = %s\nPORT_NUM = %d\nLISTEN_IP = 127.0.0.1\nMAL_INI = 1\nARCH_INI = 1\nALTER_MODE_STATUS = 1\nBUFFER = 8\nCTL_PATH = %s\nSYSTEM_PATH = %s\nCONFIG_PATH = %s\nLOG_PATH = 1.log\nLOG_PATH = 2.log\n"+p.extra[n],
			n, p.ports[n][0], filepath.Join(dir, "dm.ctl"), dir, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *pair) start(n string) *Server { return p.startOn(n, vfs.OS{}) }

func (p *pair) startOn(n string, fs vfs.FS) *Server {
	p.t.Helper()
	cfg, err := config.LoadInstance(filepath.Join(p.dir, n, "dm.ini"))
	if err != nil {
		p.t.Fatal(err)
	}
	s, err := start(p.t.Context(), cfg, Options{FS: fs, Log: slog.New(slog.DiscardHandler), Dial: p.net})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if !p.ended[s] {
			_ = p.end(s, stopAbort)
		}
	})
	return s
}

// end stops an instance and returns what the program would.
func (p *pair) end(s *Server, how stopKind) error {
	p.ended[s] = true
	s.requestStop(how, "the test asked for it")
	return s.end()
}

func (p *pair) order(s *Server, c proto.InstanceCommand) {
	p.t.Helper()
	if err := s.execute(p.t.Context(), c); err != nil {
		p.t.Fatalf("%s: %s: %v", s.name, c.Cmd, err)
	}
}

// open opens the standby, then the primary with its archive Valid.
func (p *pair) open() {
	p.t.Helper()
	p.order(p.b, proto.InstanceCommand{Cmd: proto.CmdOpen})
	p.until("the links are up", func() bool { return p.linked(p.a) && p.linked(p.b) })
	p.order(p.a, proto.InstanceCommand{Cmd: proto.CmdOpen})
	p.until("B knows that its archive is Valid", func() bool { return p.b.recv.Info().Claim.Valid })
}

func (p *pair) linked(s *Server) bool {
	l := s.node.LinkStates()
	return len(l) == 1 && l[0].Ctl && l[0].Data
}

func (p *pair) until(what string, ok func() bool) {
	p.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("it does not come about that %s", what)
		}
	}
}

// publish changes a page on s without waiting for the commit.
func (p *pair) publish(s *Server, v byte) base.LSN {
	p.t.Helper()
	st := s.eng.Store()
	h := st.NewHandle(false)
	defer h.Close()
	page := make([]byte, testPages)
	page[0] = v
	err := st.LockWrite(p.t.Context(), h)
	for _, f := range []func() error{
		func() error { return h.Lock(pagestore.LockShared) },
		func() error { return h.Lock(pagestore.LockExclusive) },
		func() error { _, err := h.WriteAt(page, testPages); return err },
		h.Sync,
		func() error { h.CommitPhaseTwo(); return h.Unlock(pagestore.LockShared) },
	} {
		if err == nil {
			err = f()
		}
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return h.LastCommit()
}

// commit returns when the commit is acknowledged.
func (p *pair) commit(s *Server, v byte) {
	p.t.Helper()
	lsn := p.publish(s, v)
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	if err := s.eng.WaitHardened(ctx, lsn); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) value(s *Server) byte {
	p.t.Helper()
	h := s.eng.Store().NewHandle(true)
	defer h.Close()
	b := make([]byte, testPages)
	err := h.Lock(pagestore.LockShared)
	if err == nil {
		_, err = h.ReadAt(b, testPages)
	}
	if err != nil && !errors.Is(err, pagestore.ErrShortRead) {
		p.t.Fatal(err)
	}
	return b[0]
}

// TestNormalEndOfPrimary: an orderly end hardens what is committed, on the
// standby too, before the links go down (G1).
func TestNormalEndOfPrimary(t *testing.T) {
	p := newPair(t)
	p.open()
	p.commit(p.a, 1)
	p.publish(p.a, 2) // nobody waits for it
	if err := p.end(p.a, stopNormal); err != nil {
		t.Fatal(err)
	}
	p.order(p.b, proto.InstanceCommand{Cmd: proto.CmdApplyKeep})
	if v := p.value(p.b); v != 2 {
		t.Fatalf("the standby has %d, want 2", v)
	}
	a := p.start("A")
	if v := p.value(a); v != 2 {
		t.Fatalf("the primary has %d after its end, want 2", v)
	}
}

// TestStandbyMadePrimaryByHand: MOUNT, PRIMARY, OPEN FORCE on a standby whose
// primary is dead keeps what the standby has acknowledged (G1, manual 2.2.9).
func TestStandbyMadePrimaryByHand(t *testing.T) {
	p := newPair(t)
	p.open()
	p.commit(p.a, 20)
	p.until("the notice is there and all is replayed", func() bool {
		i := p.b.recv.Info()
		return !i.HasKeep && i.Apply == i.Keep
	})
	if err := p.end(p.a, stopAbort); err != nil {
		t.Fatal(err)
	}
	p.keep(20, 21)
	for _, verb := range []string{"MOUNT", "PRIMARY", "OPEN FORCE"} {
		if err := p.b.AlterDatabase(t.Context(), verb); err != nil {
			t.Fatalf("ALTER DATABASE %s: %v", verb, err)
		}
	}
	if v := p.value(p.b); v != 21 {
		t.Fatalf("the new primary has %d, want 21", v)
	}
	p.commit(p.b, 22)
	if p.b.eng.Mode() != base.ModePrimary || p.b.eng.Status() != base.StatusOpen {
		t.Fatal(p.b.eng.Mode(), p.b.eng.Status())
	}
}

// keep gives B the next package of A, which changes the value of the page, and
// returns when B has acknowledged it.
func (p *pair) keep(from, to byte) {
	p.t.Helper()
	pos, last := p.b.recv.Info().Keep, p.b.eng.Lineage().Last()
	var b redo.Builder
	b.Begin(redo.PTXHeader{LSN: pos.LSN + 1, Kind: redo.KindCommit, PrevLSN: pos.LSN})
	before, after := make([]byte, testPages), make([]byte, testPages)
	before[0], after[0] = from, to
	b.Diff(redo.Addr{Page: 2}, before, after)
	pkg, err := redo.NewPackage(redo.Header{NNodes: 1, PmntMagic: testPmnt, DBMagic: 1, SrcDBMagic: 1, GSEQ: pos.Seq + 1, LSEQ: 1,
		PrevLSN: pos.LSN, MinLSN: pos.LSN + 1, MaxLSN: pos.LSN + 1, OpenID: last.ID, NPTX: 1}, b.Finish(), false)
	if err != nil {
		p.t.Fatal(err)
	}
	h := mal.RedoHeader{Kind: mal.KindRealtime, Claim: base.ArchValid, Count: 1, OpenID: last.ID, OpenGUID: last.TGUID}
	done := make(chan error, 1)
	p.b.recv.Accept("A", h, []*redo.Package{pkg}, func(_ mal.Ack, err error) { done <- err })
	if err := <-done; err != nil {
		p.t.Fatal(err)
	}
}

// TestNormalEndOfStandby: what a standby has been given to replay is in its
// log when it has ended; only the kept package is not, and the primary does not
// take it for there (G1).
func TestNormalEndOfStandby(t *testing.T) {
	p := newPair(t)
	p.open()
	for v := range byte(50) {
		p.commit(p.a, v+1)
	}
	want := p.b.recv.Info().Stand
	if err := p.end(p.b, stopNormal); err != nil {
		t.Fatal(err)
	}
	b := p.start("B")
	if got := b.eng.Positions().File; got.Less(want) {
		t.Fatalf("the standby ends at %v, it had %v to replay", got, want)
	}
	lost := b.eng.Positions().File != p.a.eng.Positions().File
	p.order(b, proto.InstanceCommand{Cmd: proto.CmdOpen})
	if lost {
		p.until("the primary notices", func() bool { return p.a.eng.Status() == base.StatusSuspend })
		if st := p.a.ship.States()[0]; !st.SendFailed {
			t.Fatalf("suspended without a failed send: %+v", st)
		}
	}
}

// TestCommandOfGoneWatcher: a command that waited for another one is not begun
// when its watcher has gone meanwhile.
func TestCommandOfGoneWatcher(t *testing.T) {
	p := newPair(t)
	p.open()
	p.commit(p.a, 1)
	p.b.cmdMu.Lock()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.b.execute(ctx, proto.InstanceCommand{Cmd: proto.CmdApplyKeep}) }()
	cancel()
	p.b.cmdMu.Unlock()
	if err := <-done; base.CodeOf(err, 0) != codeInterupted {
		t.Fatalf("late command: %v", err)
	}
	if p.b.recv.Info().Frozen {
		t.Fatal("the command was performed")
	}
}

// TestEndedBesideApplyKeep: news that the old primary's process has ended is taken
// while another command is being carried out.
func TestEndedBesideApplyKeep(t *testing.T) {
	p := newPair(t)
	p.b.cmdMu.Lock()
	defer p.b.cmdMu.Unlock()
	p.order(p.b, proto.InstanceCommand{Cmd: proto.CmdEnded, Ended: []string{p.a.incarnation}})
	if l, _ := p.b.orders.snapshot(); len(l) != 1 || l[0].cmd != proto.CmdEnded || l[0].code != 0 {
		t.Fatalf("%+v", l)
	}
}

// TestAlterDatabaseOfGoneClient: a client that goes away must not leave the
// database half way.
func TestAlterDatabaseOfGoneClient(t *testing.T) {
	p := newPair(t)
	p.order(p.b, proto.InstanceCommand{Cmd: proto.CmdOpen})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.a.AlterDatabase(ctx, "OPEN FORCE"); err != nil {
		t.Fatal(err)
	}
	if st := p.a.eng.Status(); st != base.StatusOpen {
		t.Fatalf("status %v", st)
	}
}

// hanging is a disk whose writes to the online log wait while gate is held.
type hanging struct {
	vfs.FS
	gate *sync.RWMutex
}

type hangingFile struct {
	vfs.File
	gate *sync.RWMutex
}

func (h hanging) Open(path string) (vfs.File, error) {
	f, err := h.FS.Open(path)
	if err == nil && strings.HasSuffix(path, ".log") {
		f = hangingFile{f, h.gate}
	}
	return f, err
}

func (h hangingFile) WriteAt(b []byte, off int64) (int, error) {
	h.gate.RLock()
	defer h.gate.RUnlock()
	return h.File.WriteAt(b, off)
}

// TestHaltWithHangingDisk: the process ends although its disk does not answer.
func TestHaltWithHangingDisk(t *testing.T) {
	p := newPair(t)
	if err := p.end(p.b, stopAbort); err != nil {
		t.Fatal(err)
	}
	var gate sync.RWMutex
	p.b = p.startOn("B", hanging{vfs.OS{}, &gate})
	p.open()
	gate.Lock()
	p.commit(p.a, 1)
	p.commit(p.a, 2)
	p.until("B replays", func() bool { return p.b.recv.Info().NTask > 0 })
	p.b.patience = 20 * time.Millisecond
	if err := p.end(p.b, stopHalt); !errors.Is(err, ErrHalted) {
		t.Fatal(err)
	}
	gate.Unlock()
	p.until("it lets go of its files", func() bool {
		l, err := vfs.OS{}.Lock(filepath.Join(p.dir, "B", engine.LockName))
		return err == nil && l.Close() == nil
	})
}
