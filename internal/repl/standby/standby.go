// Package standby is the receiving side of replication: it decides which
// packages a standby takes, holds the kept package (manual 2.2.9) and feeds the
// rest, in order and in batches, to the engine, which logs and replays them.
//
// It keeps guarantees G5 (a package is taken only where it continues position
// and lineage of what is there, otherwise refused and nothing changes), G7 (a
// package of a realtime archive is replayed only when the next one, the
// primary's notice or the watcher's ApplyKeep shows or decides that the primary
// need not be asked any more) and, for what the network brings, G8. Its part of
// G1 is to acknowledge a realtime package only when it is the kept package.
//
// It leaves transport to mal, durability and replay to the engine, and the
// decision to take over to the watcher. Everything here is lost at a restart,
// by design: the primary finds that out when the link comes up again.
//
// Lock order: Receiver.mu, then whatever the engine's getters take. Answers are
// given without the lock.
package standby

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/repl/mal"
	"datawatch/internal/storage/redo"
)

// Codes of refusals (manual 10.2.8.3).
const (
	CodeMode      base.Code = -703  // server mode does not match
	CodeState     base.Code = -518  // invalid system state
	CodeChanging  base.Code = -517  // system is changing state
	CodePmntMagic base.Code = -533  // PERMANENT_MAGIC differs
	CodeNotNext   base.Code = -701  // log received does not continue the local log
	CodeBadLog    base.Code = -702  // archive log error
	CodeLineage   base.Code = -9713 // database magic (here: open history) check failed
	CodeDelay     base.Code = -6526 // replay timeout
)

// Engine is what the receiver needs of the database.
type Engine interface {
	Mode() base.Mode
	Status() base.Status
	Lineage() base.Lineage
	// LogEnd is the end of what is logged, archived and in Lineage (APPLY_LSN),
	// Replayed what readers may see.
	LogEnd() base.Position
	Replayed() base.Position
	// LogForeign logs (one sync) packages that continue LogEnd, and returns how
	// to wait until they are archived and replayed, which happens while the next
	// may be logged. After an error nothing more may be logged.
	LogForeign(ctx context.Context, pkgs []*redo.Package) (wait func() error, err error)
}

// Config of a Receiver.
type Config struct {
	Engine      Engine
	PmntMagic   base.Magic
	Incarnation string        // of this process
	BufBytes    int64         // REDOS_BUF_SIZE in bytes; 0 no limit
	BufNum      int           // REDOS_BUF_NUM; 0 no limit
	MaxDelay    time.Duration // REDOS_MAX_DELAY; 0 no limit
	Recent      int           // RLOG_SEND_APPLY_MON; default 64
	// ApplyDelay is how long packages that nobody waits for may gather for one
	// write of the log and one replay; default 3 ms, negative: they do not.
	ApplyDelay time.Duration
	Clock      clock.Clock
	Log        *slog.Logger
	// OnHalt is called once when replay failed or hangs: the standby must stop.
	OnHalt func(error)
	// OnChange is called after changes the watcher waits for: claim, kept
	// package dropped or applied. It must not block.
	OnChange func()
}

// Receiver is the receiving side of one instance. It exists on every instance
// and refuses while the database is no standby.
type Receiver struct {
	cfg  Config
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
	wake chan struct{}

	mu        sync.Mutex
	kept      *item
	queue     []*item
	inflight  []*batch      // being logged or replayed, oldest first
	mem       int64         // bytes of queue and inflight
	last      *item         // newest item queued, while it is not superseded by the engine's own state
	released  *item         // newest item ever released: a repetition of it is acknowledged again
	logged    base.Seq      // newest package that LogForeign took
	held      []func(error) // acknowledgements waiting for room in the queue
	waiters   []waiter
	frozen    bool
	gathering bool // applyLoop waits for a larger batch
	failed    error
	halted    bool
	claim     Claim
	promise   promise
	promised  chan struct{} // somebody waits for the end of promise, which closes it
	ended     []string      // incarnations known to have ended, oldest first
	stats     Stats
	recvRing  ring
	applRing  ring
	waitRing  ring
}

// item is one package accepted.
type item struct {
	pkg      *redo.Package
	size     int64
	kind     mal.Kind
	guid     string
	received time.Time
}

func (i *item) tail() tail { return tail{i.pkg.Pos(), i.pkg.OpenID, i.guid} }

// tail is a position and the open record in force there.
type tail struct {
	pos  base.Position
	id   uint64
	guid string
}

type waiter struct {
	seq    base.Seq // run when replayed this far
	logged bool     // or when logged
	fn     func(error)
}

// Claim is what a primary told this incarnation about its archive to us.
type Claim struct {
	Valid  bool
	From   string // instance name of the primary
	OpenID uint64 // of its last open record
}

// Info is the state a watcher sees (InstanceStatus) and V$RAPPLY_SYS shows.
type Info struct {
	Stand   base.Position // may be replayed: everything but the kept package
	Keep    base.Position // received
	HasKeep bool
	Apply   base.Position // in the standby's online log
	Replay  base.Position
	NTask   int   // packages waiting for replay, the running ones included
	TaskMem int64 // their bytes
	Claim   Claim
	Primary string // who sent last
	Frozen  bool   // ApplyKeep has been called: nothing is accepted until Thaw or DropKeep
	Since   time.Time
	Failed  error
}

// New starts a Receiver; Close ends it.
func New(cfg Config) *Receiver {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Recent <= 0 {
		cfg.Recent = 64
	}
	if cfg.ApplyDelay == 0 {
		cfg.ApplyDelay = 3 * time.Millisecond
	}
	if cfg.OnHalt == nil {
		cfg.OnHalt = func(error) {}
	}
	if cfg.OnChange == nil {
		cfg.OnChange = func() {}
	}
	r := &Receiver{cfg: cfg, wake: make(chan struct{}, 1)}
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.recvRing, r.applRing, r.waitRing = newRing(cfg.Recent), newRing(cfg.Recent), newRing(cfg.Recent)
	r.wg.Go(r.applyLoop)
	if cfg.MaxDelay > 0 {
		r.wg.Go(r.watchdog)
	}
	return r
}

// Close stops replay after the batch that is running and refuses everything
// from then on. Packages not replayed are forgotten; the log has what was acknowledged as logged.
func (r *Receiver) Close() {
	r.stop()
	r.wg.Wait()
	r.fail(base.Errorf(CodeState, "standby side is shut down"))
}

// standTail is where replayable redo ends.
func (r *Receiver) standTail() tail {
	if r.last != nil {
		return r.last.tail()
	}
	l := r.cfg.Engine.Lineage().Last()
	return tail{r.cfg.Engine.LogEnd(), l.ID, l.TGUID}
}

func (r *Receiver) keepTail() tail {
	if r.kept != nil {
		return r.kept.tail()
	}
	return r.standTail()
}

// ready tells whether redo can be taken at all.
func (r *Receiver) ready() error {
	switch m, s := r.cfg.Engine.Mode(), r.cfg.Engine.Status(); {
	case r.failed != nil:
		return r.failed
	case m != base.ModeStandby:
		return base.Errorf(CodeMode, "database is in %v mode, not Standby", m)
	case r.frozen:
		return base.Errorf(CodeChanging, "kept package is being replayed for a takeover or switchover")
	case s != base.StatusOpen:
		return base.Errorf(CodeState, "standby is %v, not Open", s)
	}
	return nil
}

// follows tells whether a package with the open record named in the message
// continues t.
func (r *Receiver) follows(p *redo.Package, guid string, t tail) error {
	switch {
	case p.PmntMagic != r.cfg.PmntMagic:
		return base.Errorf(CodePmntMagic, "PERMANENT_MAGIC of the package is %v, ours is %v", p.PmntMagic, r.cfg.PmntMagic)
	case p.GSEQ != t.pos.Seq+1 || p.PrevLSN != t.pos.LSN || p.MinLSN != t.pos.LSN+1:
		return base.Errorf(CodeNotNext, "package %d after LSN %d does not continue our log, which ends with package %d, LSN %d",
			p.GSEQ, p.PrevLSN, t.pos.Seq, t.pos.LSN)
	case p.OpenID == t.id && guid == t.guid:
		return nil
	case p.OpenID != t.id+1:
		return base.Errorf(CodeLineage, "package %d belongs to open record %d (%s), our log ends in record %d (%s)",
			p.GSEQ, p.OpenID, guid, t.id, t.guid)
	}
	rec, ok, err := OpenRecordOf(p)
	switch {
	case err != nil:
		return base.Errorf(CodeBadLog, "package %d: %v", p.GSEQ, err)
	case !ok:
		return base.Errorf(CodeLineage, "package %d belongs to open record %d (%s) without carrying it; our log ends in record %d (%s)",
			p.GSEQ, p.OpenID, guid, t.id, t.guid)
	case rec.ID != p.OpenID || rec.TGUID != guid:
		return base.Errorf(CodeLineage, "package %d carries open record %d (%s) and names %d (%s)", p.GSEQ, rec.ID, rec.TGUID, p.OpenID, guid)
	}
	return nil
}

// Accept takes the packages of one message, or refuses all of them. done is
// called once, perhaps before Accept returns, when the acknowledgement is due
// (see mal.Kind) or with the refusal, whose code is the manual's.
func (r *Receiver) Accept(from string, h mal.RedoHeader, pkgs []*redo.Package, done func(mal.Ack, error)) {
	start := r.cfg.Clock.Now()
	r.mu.Lock()
	now, err := r.accept(from, h, pkgs, start, done)
	changed := false
	if err == nil && h.Kind != mal.KindRecover {
		r.promise = promise{at: start, to: h.Sender}
	}
	if err != nil {
		changed = r.unclaim(from, h, err)
	} else if h.Kind == mal.KindRecover {
		changed = r.setClaim(Claim{})
	} else if h.Claim == base.ArchValid {
		changed = r.setClaim(Claim{true, from, h.OpenID})
	}
	ack := r.ack()
	if err == nil && now {
		r.received(len(pkgs), pkgs, start)
	}
	r.mu.Unlock()
	if err != nil {
		r.cfg.Log.Warn("redo refused", "from", from, "gseq", pkgs[0].GSEQ, "err", err)
		done(mal.Ack{}, err)
	} else if now {
		done(ack, nil)
	}
	if changed {
		r.cfg.OnChange()
	}
}

// accept does the work under the lock; now says that done is due at once.
func (r *Receiver) accept(from string, h mal.RedoHeader, pkgs []*redo.Package, start time.Time, done func(mal.Ack, error)) (now bool, err error) {
	if err := r.ready(); err != nil {
		return false, err
	}
	items := make([]*item, len(pkgs))
	for i, p := range pkgs {
		if p.OpenID != h.OpenID {
			return false, base.Errorf(mal.CodeMessage, "package %d of open record %d in a message of record %d", p.GSEQ, p.OpenID, h.OpenID)
		}
		items[i] = &item{pkg: p, size: int64(p.EncodedLen()), kind: h.Kind, guid: h.OpenGUID, received: start}
	}
	first := items[0]
	if same := r.repeats(first); same != nil && len(items) == 1 && h.Kind != mal.KindRecover {
		if h.Kind == mal.KindTimely && h.Flags&mal.FlagWaitApply != 0 {
			r.whenReplayed(first.pkg.GSEQ, r.answer(pkgs, start, done))
			return false, nil
		}
		return true, nil
	}
	// Where must the first package continue? Normally behind the kept one.
	// Catch-up repeats the kept one when the primary has it; and a package that
	// opens a new reign in the kept one's place shows that the primary lost it.
	t, release := r.keepTail(), r.kept != nil
	if r.kept != nil && first.pkg.GSEQ == r.kept.pkg.GSEQ {
		if h.Kind == mal.KindRecover && r.kept.guid == first.guid && r.kept.pkg.SameRedo(first.pkg) {
			items = items[1:]
		} else if t, release = r.standTail(), false; first.pkg.OpenID < r.kept.pkg.OpenID || first.guid == r.kept.guid {
			return false, base.Errorf(CodeNotNext, "package %d is not the one we keep under this number", first.pkg.GSEQ)
		}
	}
	for _, it := range items {
		if err := r.follows(it.pkg, it.guid, t); err != nil {
			return false, err
		}
		t = it.tail()
	}
	// Nothing can fail from here on.
	if release {
		r.push(r.kept)
	} else if r.kept != nil {
		r.cfg.Log.Info("kept package dropped, the primary opened without it", "gseq", r.kept.pkg.GSEQ, "from", from)
	}
	r.kept = nil
	r.stats.Primary = from
	if h.Kind == mal.KindRealtime {
		r.kept = first
		if !r.full() {
			return true, nil
		}
		r.held = append(r.held, r.answer(pkgs, start, done))
		return false, nil
	}
	for _, it := range items {
		r.push(it)
	}
	switch {
	case h.Kind == mal.KindRecover:
		r.await(waiter{t.pos.Seq, true, r.answer(pkgs, start, done)})
		return false, nil
	case h.Flags&mal.FlagWaitApply != 0:
		r.whenReplayed(t.pos.Seq, r.answer(pkgs, start, done))
		return false, nil
	case r.full():
		r.held = append(r.held, r.answer(pkgs, start, done))
		return false, nil
	}
	return true, nil
}

// answer wraps done for a later call without the lock.
func (r *Receiver) answer(pkgs []*redo.Package, start time.Time, done func(mal.Ack, error)) func(error) {
	return func(err error) {
		if err != nil {
			done(mal.Ack{}, err)
			return
		}
		r.mu.Lock()
		ack := r.ack()
		r.received(len(pkgs), pkgs, start)
		r.mu.Unlock()
		done(ack, nil)
	}
}

// repeats returns the item a package is a repetition of: the kept one, or the
// newest of those that were released.
func (r *Receiver) repeats(it *item) *item {
	for _, have := range []*item{r.kept, r.released} {
		if have == nil || have.guid != it.guid || !have.pkg.SameRedo(it.pkg) {
			continue
		}
		// A released one counts only while it is the end of what we have.
		if have == r.released && r.standTail() != have.tail() {
			continue
		}
		return have
	}
	return nil
}

func (r *Receiver) push(it *item) {
	r.queue = append(r.queue, it)
	r.mem += it.size
	r.last, r.released = it, it
	r.kick()
}

// kick wakes applyLoop, under the lock; not out of gather without need.
func (r *Receiver) kick() {
	if r.gathering && !r.urgent() {
		return
	}
	r.rouse()
}

// rouse wakes applyLoop.
func (r *Receiver) rouse() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *Receiver) full() bool {
	return r.cfg.BufBytes > 0 && r.mem > r.cfg.BufBytes ||
		r.cfg.BufNum > 0 && len(r.queue)+r.beingApplied() > r.cfg.BufNum
}

func (r *Receiver) ack() mal.Ack {
	a := mal.Ack{Stand: r.standTail().pos}
	a.Keep = a.Stand
	if r.kept != nil {
		a.Keep = r.kept.pkg.Pos()
	}
	return a
}

// whenReplayed runs fn, later and without the lock, when package seq has been
// logged and replayed.
func (r *Receiver) whenReplayed(seq base.Seq, fn func(error)) { r.await(waiter{seq: seq, fn: fn}) }

func (r *Receiver) await(w waiter) {
	r.waiters = append(r.waiters, w)
	r.kick()
}

// setClaim reports whether it changed anything.
func (r *Receiver) setClaim(c Claim) bool {
	old := r.claim
	r.claim = c
	return old != c
}

// unclaim drops the claim when its own primary sends what we cannot follow: we
// lack something it believes we have. A refusal for another reason says nothing.
func (r *Receiver) unclaim(from string, h mal.RedoHeader, err error) bool {
	if r.claim.From != from || h.OpenID < r.claim.OpenID {
		return false
	}
	if c := base.CodeOf(err, 0); c != CodeNotNext && c != CodeLineage {
		return false
	}
	return r.setClaim(Claim{})
}
