// Package ship is the primary side of replication: it sends packages to the
// standbys of the realtime and timely archives, keeps the state of those
// archives, tells the standbys about it, and streams the archive to standbys
// that are behind.
//
// It keeps its part of guarantee G1: Ship returns nil only when every Valid
// realtime target has acknowledged the package. A standby that comes back
// without packages it has acknowledged suspends the primary; it is never
// quietly sent something else. It leaves transport to mal, local durability and
// the suspension itself to the engine, and the decision to go on without a
// standby (SetState Invalid) to the watcher.
//
// Archive states live in memory only and start Valid (manual 2.2.11.8).
//
// Lock order: Shipper.one, target.send, target.mu, Shipper.mu. target.mu and
// Shipper.mu are held for moments only, the first two while messages are out.
package ship

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/ha/proto"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/standby"
	"datawatch/internal/storage/redo"
)

// Codes this package adds to those of mal and standby (manual 10.2.8.3).
const (
	CodeNotRun      base.Code = 100   // not executed
	CodeNoArchive   base.Code = -715  // archive log does not exist on the source
	CodeArchiveGap  base.Code = -718  // archive log does not continue from the start LSN
	CodeInterrupted base.Code = -721  // recovery interrupted
	CodeNoTarget    base.Code = -968  // archive entry of the instance not found
	CodeUndecided   base.Code = -517  // system is changing state
	CodeLease       base.Code = -6010 // MAL connection lost: to be acknowledged by
)

// Transport sends to instances; *mal.Node is one.
type Transport interface {
	Go(inst string, typ uint16, parts ...[]byte) (*mal.Call, error)
	Call(ctx context.Context, inst string, typ uint16, parts ...[]byte) ([]byte, error)
	Notify(inst string, typ uint16, parts ...[]byte) error
}

// Archive is the local archive CatchUp reads.
type Archive interface {
	End() base.Position
	Has(from base.Seq) bool
	// Scan calls fn, which keeps nothing of a package, for those from there on.
	Scan(ctx context.Context, from base.Seq, fn func(*redo.Package) error) error
	// Span is how many bytes packages are, as far as they are there, and in how
	// many files.
	Span(ctx context.Context, from, to base.Seq) (bytes int64, files int, err error)
}

// Engine is what the shipper needs of the database.
type Engine interface {
	Mode() base.Mode
	Status() base.Status
	Lineage() base.Lineage
	LogEnd() base.Position // FILE_LSN
	Suspend(reason string)
	Archive() Archive // nil: no archive
}

// Target is one realtime or timely archive of dmarch.ini.
type Target struct {
	Inst      string // ARCH_DEST
	Type      base.ArchType
	WaitApply bool // ARCH_WAIT_APPLY = 1
}

// Config of a Shipper.
type Config struct {
	Targets   []Target
	Engine    Engine
	Transport Transport
	// SendNum is RLOG_PKG_SEND_NUM: messages of catch-up under way before an
	// answer is awaited. Messages hold many packages; less than 16 means 16.
	SendNum int
	Recent  int // RLOG_SEND_APPLY_MON; default 64
	// NoticeDelay is how long a hardened position waits for the next package to
	// carry it before a notice of its own goes out; default 5 ms.
	NoticeDelay time.Duration
	// ClaimTimeout bounds how long SetState Invalid tries to tell a standby
	// that may be dead; default 1 s.
	ClaimTimeout time.Duration
	// FailInterval is MAL_CONN_FAIL_INTERVAL: so long, and the lease, a standby may
	// go on answering too late; default 10 s.
	FailInterval time.Duration
	Clock        clock.Clock
	Log          *slog.Logger
	// OnChange is called after changes of archive states. It must not block.
	OnChange func()
}

// Shipper implements engine.Shipper.
type Shipper struct {
	cfg     Config
	ctx     context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup
	targets []*target
	byName  map[string]*target

	one chan struct{} // semaphore: one package, one check of positions at a time
	buf []byte        // of the message being sent; guarded by one

	mu       sync.Mutex
	hardened base.Position
	pending  *redo.Package // sent or being sent, not hardened
	failed   bool          // the last Ship of pending failed: it will come again
	started  base.Seq      // newest package given to Ship
	timely   base.Seq      // newest package that every Valid timely target has
}

// target is the state of one archive. Its goroutine tells the standby what can
// be told without anybody waiting: claims after link-up, notices.
type target struct {
	Target
	send chan struct{} // semaphore: state and what is written to the link agree
	wake chan struct{}

	mu         sync.Mutex
	state      base.ArchState // a timely one is Invalid with sendFailed: required, see holds
	invalid    chan struct{}  // closed when state has become Invalid and nothing need be waited for
	closed     bool           // invalid is
	sendFailed bool
	lastError  string
	acked      base.Position
	ackedID    uint64        // open record in force then
	leased     time.Time     // when the newest package it acknowledged was sent
	waiting    time.Duration // for its next lease, so far
	asking     bool          // whether it is late
	late       bool          // its answers come too late to acknowledge by (late.go)
	recovering bool
	sent       base.Position
	progress   Progress
	check      bool          // positions and claim to be settled with the standby
	notice     base.Position // to be told; zero: nothing
	stats      sendStats
}

// New starts a Shipper; Close ends it.
func New(cfg Config) *Shipper {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Recent <= 0 {
		cfg.Recent = 64
	}
	if cfg.NoticeDelay <= 0 {
		cfg.NoticeDelay = 5 * time.Millisecond
	}
	if cfg.ClaimTimeout <= 0 {
		cfg.ClaimTimeout = time.Second
	}
	if cfg.FailInterval <= 0 {
		cfg.FailInterval = 10 * time.Second
	}
	if cfg.OnChange == nil {
		cfg.OnChange = func() {}
	}
	cfg.SendNum = max(cfg.SendNum, 16)
	s := &Shipper{cfg: cfg, byName: map[string]*target{}, one: make(chan struct{}, 1)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	for _, c := range cfg.Targets {
		t := &target{Target: c, send: make(chan struct{}, 1), wake: make(chan struct{}, 1),
			state: base.ArchValid, invalid: make(chan struct{}), stats: newSendStats(cfg.Recent)}
		s.targets = append(s.targets, t)
		s.byName[c.Inst] = t
		s.wg.Go(func() { s.tell(t) })
	}
	return s
}

// Close stops telling and ends catch-ups. Close the transport first when a Ship
// may be under way.
func (s *Shipper) Close() {
	s.stop()
	s.wg.Wait()
}

func (s *Shipper) enter(ctx context.Context) error {
	select {
	case s.one <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Shipper) leave() { <-s.one }

// errInvalidated: the watcher made the archive Invalid while a send was under
// way; its acknowledgement is not needed any more.
var errInvalidated = errors.New("archive made Invalid meanwhile")

// Ship sends a package to all Valid realtime targets at once and returns when
// all have acknowledged it (manual 2.2.11.4). Otherwise the error names those
// that have not; their states stay as they are.
func (s *Shipper) Ship(ctx context.Context, pkg *redo.Package) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	s.mu.Lock()
	s.pending, s.failed, s.started = pkg, false, pkg.GSEQ
	s.mu.Unlock()
	err := s.shipAll(ctx, pkg, mal.KindRealtime)
	if err != nil {
		s.mu.Lock()
		s.failed = true
		s.mu.Unlock()
	}
	return err
}

// ShipTimely sends a package that is in the primary's own log to all Valid
// timely targets; a target that fails is Invalid from then on (manual
// 2.2.11.5), and until the watcher has decided about it (SetState) every further
// send fails too. For realtime targets with ARCH_WAIT_APPLY it waits until they have
// replayed the package: only now may they (G7).
func (s *Shipper) ShipTimely(ctx context.Context, pkg *redo.Package) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	s.mu.Lock()
	s.started = pkg.GSEQ
	s.mu.Unlock()
	if err := s.shipAll(ctx, pkg, mal.KindTimely); err != nil {
		return err
	}
	s.mu.Lock()
	s.timely = pkg.GSEQ
	s.mu.Unlock()
	return nil
}

// shipAll runs one send per target concerned and collects the failures.
func (s *Shipper) shipAll(ctx context.Context, pkg *redo.Package, kind mal.Kind) error {
	var todo []*target
	for _, t := range s.targets {
		if kind == mal.KindTimely {
			if err := t.holds(); err != nil {
				return err
			}
		}
		if t.Type == base.ArchRealtime && (kind == mal.KindRealtime || t.WaitApply) ||
			t.Type == base.ArchTimely && kind == mal.KindTimely {
			if t.valid() {
				todo = append(todo, t)
			}
		}
	}
	if len(todo) == 0 {
		return nil
	}
	msg, err := s.message(pkg, kind)
	if err != nil {
		return err
	}
	return s.send(ctx, todo, pkg, kind, len(msg), func(t *target) error { return s.sendOne(ctx, t, pkg, kind, msg) })
}

// send has one send a message of some size to several targets and books what
// came of it.
func (s *Shipper) send(ctx context.Context, todo []*target, pkg *redo.Package, kind mal.Kind, size int, one func(*target) error) error {
	errs := make([]error, len(todo))
	if len(todo) == 1 && size <= 64<<10 {
		errs[0] = one(todo[0]) // fits the socket's buffer: writing does not wait
	} else {
		errs = s.sendMany(ctx, todo, one)
	}
	var failed []error
	for i, err := range errs {
		if e := s.outcome(todo[i], pkg, kind, err); e != nil {
			failed = append(failed, e)
		}
	}
	return errors.Join(failed...)
}

// sendMany sends in parallel. A send that does not return although it should
// (its write blocks) is left behind, and with it the buffer.
func (s *Shipper) sendMany(ctx context.Context, todo []*target, one func(*target) error) []error {
	type result struct {
		i   int
		err error
	}
	ch := make(chan result, len(todo))
	for i, t := range todo {
		go func() { ch <- result{i, one(t)} }()
	}
	errs := make([]error, len(todo))
	got := make([]bool, len(todo))
	for {
		first := 0 // the first target without a result: it decides what else may end the wait
		for first < len(todo) && got[first] {
			first++
		}
		if first == len(todo) {
			return errs
		}
		select {
		case r := <-ch:
			if !got[r.i] {
				errs[r.i], got[r.i] = r.err, true
			}
		case <-todo[first].invalidated():
			errs[first], got[first] = errInvalidated, true
			s.buf = nil
		case <-ctx.Done():
			for i := range todo {
				if !got[i] {
					errs[i] = context.Cause(ctx)
				}
			}
			s.buf = nil
			return errs
		}
	}
}

// message encodes header and package into one buffer.
func (s *Shipper) message(pkg *redo.Package, kind mal.Kind) ([]byte, error) {
	guid, err := s.guid(pkg)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	h := mal.RedoHeader{Kind: kind, Claim: base.ArchValid, Count: 1, OpenID: pkg.OpenID, OpenGUID: guid, Hardened: s.hardened}
	s.mu.Unlock()
	b := h.Append(s.buf[:0])
	b = mal.PackageLen(b, pkg.EncodedLen())
	b = pkg.Encode(b)
	if cap(b) <= 4<<20 {
		s.buf = b
	}
	return b, nil
}

// guid names the open record in force for a package.
func (s *Shipper) guid(pkg *redo.Package) (string, error) {
	l := s.cfg.Engine.Lineage()
	for i := len(l) - 1; i >= 0 && l[i].ID >= pkg.OpenID; i-- {
		if l[i].ID == pkg.OpenID {
			return l[i].TGUID, nil
		}
	}
	rec, ok, err := standby.OpenRecordOf(pkg)
	if err == nil && (!ok || rec.ID != pkg.OpenID) {
		err = base.Errorf(standby.CodeLineage, "package %d belongs to open record %d, which our history does not have", pkg.GSEQ, pkg.OpenID)
	}
	return rec.TGUID, err
}

// sendOne sends to one target and waits for its acknowledgement.
func (s *Shipper) sendOne(ctx context.Context, t *target, pkg *redo.Package, kind mal.Kind, msg []byte) (err error) {
	start := s.cfg.Clock.Now()
	typ := mal.TypeRedo
	if kind == mal.KindTimely {
		if t.Type == base.ArchRealtime {
			typ = mal.TypeHardened
			msg = mal.Hardened{Pos: pkg.Pos(), OpenID: pkg.OpenID}.Append(nil)
		} else if t.WaitApply {
			msg = append([]byte(nil), msg...) // the flag is this target's own
			msg[1] |= mal.FlagWaitApply
		}
	}
	if typ == mal.TypeRedo {
		t.mu.Lock()
		seq := t.stats.begin(Send{Start: start, FirstLSN: pkg.MinLSN, LastLSN: pkg.MaxLSN, Len: int64(pkg.EncodedLen()), PTX: int64(pkg.NPTX)})
		t.mu.Unlock()
		defer func() {
			t.mu.Lock()
			t.stats.end(seq, s.cfg.Clock.Now(), err != nil)
			t.mu.Unlock()
		}()
	}
	b, err := s.exchange(ctx, t, typ, msg)
	if err != nil || typ == mal.TypeHardened {
		return err
	}
	ack, err := mal.DecodeAck(b)
	if err != nil {
		return err
	}
	if ack.Keep.Less(pkg.Pos()) {
		return base.Errorf(standby.CodeNotNext, "acknowledged up to %v only, package is %v", ack.Keep, pkg.Pos())
	}
	t.mu.Lock()
	t.leased = start
	t.stats.add(pkg, s.cfg.Clock.Now().Sub(start), start, false)
	t.mu.Unlock()
	return nil
}

// exchange sends a message to a target whose archive is Valid and waits for the
// answer.
func (s *Shipper) exchange(ctx context.Context, t *target, typ uint16, msg []byte) ([]byte, error) {
	t.send <- struct{}{}
	invalid := t.invalidated()
	if !t.valid() {
		<-t.send
		return nil, errInvalidated
	}
	call, err := s.cfg.Transport.Go(t.Inst, typ, msg)
	<-t.send
	if err != nil {
		return nil, err
	}
	return s.await(ctx, t, call, invalid)
}

// outcome books the result of a send; the error it returns suspends the
// database.
func (s *Shipper) outcome(t *target, pkg *redo.Package, kind mal.Kind, err error) error {
	if errors.Is(err, errInvalidated) {
		return nil
	}
	t.mu.Lock()
	if err == nil {
		t.acked, t.ackedID, t.sent = pkg.Pos(), pkg.OpenID, pkg.Pos()
		t.sendFailed, t.lastError = false, ""
		t.mu.Unlock()
		return nil
	}
	t.lastError = err.Error()
	t.sendFailed = true
	if t.Type == base.ArchTimely {
		t.setInvalid()
	}
	t.mu.Unlock()
	s.cfg.Log.Error("send failed", "peer", t.Inst, "type", t.Type, "gseq", pkg.GSEQ, "err", err)
	s.cfg.OnChange()
	return fmt.Errorf("%v archive to %s: %w", t.Type, t.Inst, err)
}

// Hardened notes that the primary's own log has everything up to pos. It does
// not block; the standbys hear of it with the next package, or by a notice when
// none follows at once.
func (s *Shipper) Hardened(pos base.Position) {
	s.mu.Lock()
	s.hardened = pos
	if s.pending != nil && s.pending.GSEQ <= pos.Seq {
		s.pending, s.failed = nil, false
	}
	s.mu.Unlock()
	for _, t := range s.targets {
		if t.Type != base.ArchRealtime {
			continue
		}
		t.mu.Lock()
		tell := t.state == base.ArchValid && t.acked == pos
		if tell {
			t.notice = pos
		}
		t.mu.Unlock()
		if tell {
			t.kick()
		}
	}
}

func (t *target) kick() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *target) valid() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state == base.ArchValid
}

// holds is the error of a timely archive that a failed send has made Invalid
// and nobody has decided about yet. Its standby still believes to have
// everything acknowledged, so nothing may be acknowledged without it (G1, G3):
// first a watcher, or a person, says Invalid, having made sure of the standby.
func (t *target) holds() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.Type != base.ArchTimely || t.state == base.ArchValid || !t.sendFailed {
		return nil
	}
	return base.Errorf(CodeUndecided, "timely archive to %s is Invalid since a send failed, and going on without it is not decided: %s", t.Inst, t.lastError)
}

// invalidated is closed when the archive is made Invalid.
func (t *target) invalidated() chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.invalid
}

// setInvalid needs t.mu. The standby is told by the target's goroutine, too.
func (t *target) setInvalid() {
	t.state, t.waiting = base.ArchInvalid, 0
	if !t.closed {
		t.closed = true
		close(t.invalid)
	}
	t.check = true
	t.kick()
}

// States reports the archives in the order of the configuration.
func (s *Shipper) States() []proto.ArchStatus {
	var out []proto.ArchStatus
	for _, t := range s.targets {
		t.mu.Lock()
		out = append(out, proto.ArchStatus{Inst: t.Inst, Type: t.Type, State: t.state, SendFailed: t.sendFailed,
			LastError: t.lastError, Late: t.late, Recovering: t.recovering, Sent: t.sent, Acked: t.acked,
			RecentSends: t.stats.info.RecentCnt, RecentTime: t.stats.info.RecentTime.Microseconds()})
		t.mu.Unlock()
	}
	return out
}
