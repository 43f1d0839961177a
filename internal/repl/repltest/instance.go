package repltest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/ship"
	"datawatch/internal/repl/standby"
	"datawatch/internal/storage/redo"
)

// Magic is the PMNT_MAGIC of every test database.
const Magic base.Magic = 0x567891

// Quiet is a logger that drops everything.
var Quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// Engine is a database that is only a log. What is in Log is on disk; LogEnd is
// what is hardened, as the server tells its replication.
type Engine struct {
	Name string

	mu       sync.Mutex
	mode     base.Mode
	status   base.Status
	lineage  base.Lineage
	log      []*redo.Package
	pending  *redo.Package
	written  *redo.Package // pending, on disk, and not with every timely standby
	reasons  []string
	opens    int
	NoArch   bool
	arched   int // packages in the archive; -1 all
	gate     chan struct{}
	lag      lag
	Fail     error // of AppendForeign
	Appended func(*redo.Package)
	Stall    func() // before a package is released: the process stands still
	OnChange func()
}

// NewEngine makes an empty database in Mount.
func NewEngine(name string, mode base.Mode) *Engine {
	return &Engine{Name: name, mode: mode, status: base.StatusMount, arched: -1, lag: newLag(nil)}
}

func (e *Engine) Mode() base.Mode {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mode
}

func (e *Engine) Status() base.Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status
}

func (e *Engine) Lineage() base.Lineage {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lineage
}

// Set changes mode and status as a watcher would.
func (e *Engine) Set(m base.Mode, s base.Status) {
	e.mu.Lock()
	e.mode, e.status = m, s
	f := e.OnChange
	e.mu.Unlock()
	if f != nil {
		f()
	}
}

func (e *Engine) end() base.Position {
	if len(e.log) == 0 {
		return base.Position{}
	}
	return e.log[len(e.log)-1].Pos()
}

func (e *Engine) LogEnd() base.Position {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.end()
}

func (e *Engine) Replayed() base.Position { return e.LogEnd() }

// SetGate makes AppendForeign wait for a value (or the end) of the channel; nil
// ends that.
func (e *Engine) SetGate(g chan struct{}) { e.mu.Lock(); e.gate = g; e.mu.Unlock() }

// Log is a copy of what is on disk.
func (e *Engine) Log() []*redo.Package {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := append([]*redo.Package(nil), e.log...)
	if e.written != nil {
		l = append(l, e.written)
	}
	return l
}

// Pending is the package sent and not hardened.
func (e *Engine) Pending() *redo.Package {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pending
}

func (e *Engine) Suspend(reason string) {
	e.mu.Lock()
	e.reasons = append(e.reasons, reason)
	changed := e.status == base.StatusOpen
	if changed {
		e.status = base.StatusSuspend
	}
	f := e.OnChange
	e.mu.Unlock()
	if changed && f != nil {
		f()
	}
}

// Reasons of all suspensions so far.
func (e *Engine) Reasons() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.reasons...)
}

func (e *Engine) Archive() ship.Archive {
	if e.NoArch {
		return nil
	}
	return archive{e}
}

// HoldArchive keeps the archive at its present end; ReleaseArchive lets it go on.
func (e *Engine) HoldArchive()    { e.mu.Lock(); e.arched = len(e.log); e.mu.Unlock() }
func (e *Engine) ReleaseArchive() { e.mu.Lock(); e.arched = -1; e.mu.Unlock() }

type archive struct{ e *Engine }

func (a archive) log() []*redo.Package {
	a.e.mu.Lock()
	defer a.e.mu.Unlock()
	if a.e.arched >= 0 {
		return a.e.log[:a.e.arched]
	}
	return a.e.log
}

func (a archive) End() base.Position {
	l := a.log()
	if len(l) == 0 {
		return base.Position{}
	}
	return l[len(l)-1].Pos()
}

func (a archive) Has(from base.Seq) bool {
	l := a.log()
	return len(l) > 0 && l[0].GSEQ <= from && from <= l[len(l)-1].GSEQ
}

func (a archive) Scan(ctx context.Context, from base.Seq, fn func(*redo.Package) error) error {
	for _, p := range a.log() {
		if p.GSEQ < from {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(p); err != nil {
			return err
		}
	}
	return nil
}

// Package builds a package that continues pos: one PTX with size bytes of
// logical-free redo, or the open record.
func Package(pos base.Position, openID uint64, src base.Magic, rec *base.OpenRecord, size int) *redo.Package {
	lsn := pos.LSN + 1
	var b redo.Builder
	b.Begin(redo.PTXHeader{LSN: lsn, Kind: redo.KindCommit, TimeNs: int64(lsn)})
	if rec != nil {
		j, err := json.Marshal(rec)
		if err != nil {
			panic(err)
		}
		b.Logical(redo.LogicalOpenRecord, j)
	}
	b.Resize(1, 0, uint32(lsn))
	for n := 0; n < size; n += 4096 {
		old, page := make([]byte, 4096), make([]byte, 4096)
		for i := range page[:min(size-n, 4000)] {
			page[i] = byte(i*7+n) | 1
		}
		b.Diff(redo.Addr{Tablespace: 1, Page: 1}, old, page)
	}
	raw := append([]byte(nil), b.Finish()...)
	p, err := redo.NewPackage(redo.Header{PmntMagic: Magic, DBMagic: src, SrcDBMagic: src, GSEQ: pos.Seq + 1, LSEQ: pos.Seq + 1,
		PrevLSN: pos.LSN, MinLSN: lsn, MaxLSN: lsn, OpenID: openID, TimeNs: int64(lsn), NPTX: 1}, raw, false)
	if err != nil {
		panic(err)
	}
	return p
}

// AppendForeign checks G5 once more and appends.
func (e *Engine) AppendForeign(ctx context.Context, pkgs []*redo.Package) error {
	e.mu.Lock()
	gate := e.gate
	e.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.Fail != nil {
		return e.Fail
	}
	if e.mode != base.ModeStandby {
		return errors.New("not a standby")
	}
	for _, p := range pkgs {
		end := e.end()
		if p.GSEQ != end.Seq+1 || p.PrevLSN != end.LSN {
			return fmt.Errorf("package %d after %d does not continue %v", p.GSEQ, p.PrevLSN, end)
		}
		rec, ok, err := standby.OpenRecordOf(p)
		if err != nil {
			return err
		}
		if ok {
			e.lineage = e.lineage.Append(rec)
		}
		if e.lineage.Last().ID != p.OpenID {
			return fmt.Errorf("package %d of record %d on lineage %d", p.GSEQ, p.OpenID, e.lineage.Last().ID)
		}
		e.log = append(e.log, p)
		if e.Appended != nil {
			e.Appended(p)
		}
	}
	return nil
}

// Next builds the next package of a primary.
func (e *Engine) next(rec *base.OpenRecord, size int) *redo.Package {
	return Package(e.end(), e.lineage.Last().ID, base.Magic(len(e.Name)), rec, size)
}

// Open opens a primary from Mount (with an open record) or from Suspend (the
// pending package goes first).
func (e *Engine) Open(ctx context.Context, s *ship.Shipper) error {
	e.mu.Lock()
	if e.mode == base.ModeStandby {
		e.status = base.StatusOpen
		f := e.OnChange
		e.mu.Unlock()
		if f != nil {
			f()
		}
		return nil
	}
	p := e.pending
	if p == nil && e.status == base.StatusMount {
		e.opens++
		rec := base.OpenRecord{ID: e.lineage.Last().ID + 1, TGUID: fmt.Sprintf("%s-%d-%d", e.Name, e.lineage.Last().ID+1, time.Now().UnixNano()), SysMode: base.ModePrimary, CurInst: e.Name}
		e.lineage = e.lineage.Append(rec)
		p = e.next(&rec, 0)
	}
	e.mu.Unlock()
	if p != nil {
		if err := e.flush(ctx, s, p); err != nil {
			return err
		}
	}
	e.mu.Lock()
	e.status = base.StatusOpen
	f := e.OnChange
	e.mu.Unlock()
	if f != nil {
		f()
	}
	return nil
}

// Commit makes, ships and hardens one package.
func (e *Engine) Commit(ctx context.Context, s *ship.Shipper, size int) (*redo.Package, error) {
	e.mu.Lock()
	if e.status != base.StatusOpen || e.mode != base.ModePrimary {
		e.mu.Unlock()
		return nil, fmt.Errorf("%s is %v", e.Name, e.status)
	}
	p := e.next(nil, size)
	e.mu.Unlock()
	return p, e.flush(ctx, s, p)
}

// Deliver ships and hardens a package made by the caller.
func (e *Engine) Deliver(ctx context.Context, s *ship.Shipper, p *redo.Package) error {
	return e.flush(ctx, s, p)
}

// Truncate forgets what is behind a package, as a database restored from a
// backup.
func (e *Engine) Truncate(seq base.Seq) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.log) > 0 && e.log[len(e.log)-1].GSEQ > seq {
		e.log = e.log[:len(e.log)-1]
	}
}

func (e *Engine) flush(ctx context.Context, s *ship.Shipper, p *redo.Package) error {
	e.mu.Lock()
	e.pending = p
	written := e.written == p
	e.mu.Unlock()
	if !written {
		if err := s.Ship(ctx, p); err != nil {
			return e.failed(err)
		}
		e.mu.Lock()
		e.written = p
		e.mu.Unlock()
	}
	if err := s.ShipTimely(ctx, p); err != nil {
		return e.failed(err)
	}
	if e.Stall != nil {
		e.Stall()
	}
	if _, err := s.Release(ctx, p); err != nil {
		return e.failed(err)
	}
	e.mu.Lock()
	e.log = append(e.log, p)
	e.pending, e.written = nil, nil
	e.mu.Unlock()
	s.Hardened(p.Pos())
	return nil
}

func (e *Engine) failed(err error) error {
	e.mu.Lock()
	if e.status == base.StatusMount {
		e.status = base.StatusSuspend
	}
	e.mu.Unlock()
	e.Suspend(err.Error())
	return err
}

// failInterval is the MAL_CONN_FAIL_INTERVAL of all instances.
const failInterval = 2 * time.Second

// Instance is an engine with its replication.
type Instance struct {
	*Engine
	Incarnation string
	Node        *mal.Node
	Ship        *ship.Shipper
	Recv        *standby.Receiver
}

// Options of Start.
type Options struct {
	Targets       []ship.Target
	CheckInterval time.Duration
	BufNum        int
	MaxDelay      time.Duration
	OnHalt        func(error)
	Dial          mal.Dialer
	Listen        mal.Listener
	Entries       []mal.Entry
	Magic         base.Magic
	OGUID         uint32
	SendNum       int
}

// Start builds an instance around an engine, as a process start does.
func Start(e *Engine, o Options) (*Instance, error) {
	i := &Instance{Engine: e, Incarnation: fmt.Sprintf("%s-%d", e.Name, time.Now().UnixNano())}
	if o.Magic == 0 {
		o.Magic = Magic
	}
	inc := i.Incarnation
	i.Recv = standby.New(standby.Config{Engine: e, PmntMagic: o.Magic, Incarnation: inc, BufNum: o.BufNum, MaxDelay: o.MaxDelay, OnHalt: o.OnHalt, Log: Quiet})
	h := &handler{i: i}
	var err error
	i.Node, err = mal.New(mal.Config{Self: e.Name, Entries: o.Entries, CheckInterval: o.CheckInterval, ConnFailInterval: failInterval,
		Dial: o.Dial, Listen: o.Listen, Log: Quiet, Identity: func() mal.Identity {
			return mal.Identity{PmntMagic: o.Magic, OGUID: o.OGUID, Mode: e.Mode(), Status: e.Status(), Lineage: e.Lineage(), File: e.LogEnd(), Incarnation: inc}
		}}, h)
	if err != nil {
		return nil, err
	}
	i.Ship = ship.New(ship.Config{Targets: o.Targets, Engine: e, Transport: i.Node, SendNum: o.SendNum, FailInterval: failInterval, Log: Quiet})
	e.mu.Lock()
	e.OnChange = func() { i.Node.IdentityChanged(); i.Ship.EngineChanged() }
	e.mu.Unlock()
	return i, i.Node.Start(context.Background())
}

// Stop ends the process; the engine keeps its log and loses everything else.
func (i *Instance) Stop() {
	i.Node.Close()
	i.Ship.Close()
	i.kill()
	i.Recv.Close()
	i.mu.Lock()
	i.OnChange = nil
	i.restarted()
	if i.written != nil { // a restart finds it in the log
		i.log = append(i.log, i.written)
	}
	i.pending, i.written = nil, nil
	// The lineage is what the log says.
	i.lineage = nil
	for _, p := range i.log {
		if rec, ok, err := standby.OpenRecordOf(p); err == nil && ok {
			i.lineage = i.lineage.Append(rec)
		}
	}
	i.mu.Unlock()
}

type handler struct{ i *Instance }

func (h *handler) Serve(q *mal.Request) {
	if !h.i.Recv.Serve(q) {
		q.Fail(base.Errorf(mal.CodeUnknown, "type %d", q.Type))
	}
}
func (h *handler) LinkUp(inst string, id mal.Identity) { h.i.Ship.LinkUp(inst, id) }
func (h *handler) LinkDown(inst string, err error)     { h.i.Ship.LinkDown(inst, err) }
func (h *handler) PeerIdentity(inst string, id mal.Identity) {
	h.i.Recv.PeerIdentity(inst, id)
	h.i.Ship.PeerIdentity(inst, id)
}
