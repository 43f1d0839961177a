package rejoin

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/repl/mal"
	"datawatch/internal/storage/arch"
	"datawatch/internal/storage/engine"
	"datawatch/internal/storage/redo"
)

// Codes of the manual that a donor refuses with.
const (
	codeMode  base.Code = -703 // server mode does not match
	codeState base.Code = -518 // invalid system state
	codeGap   base.Code = -718 // archive log does not continue
)

// Idle is how long a snapshot stays pinned for a database that asks for nothing.
const Idle = time.Minute

// DonorConfig of a Donor.
type DonorConfig struct {
	Engine *engine.Engine
	Clock  clock.Clock
	Log    *slog.Logger
	// Idle bounds how long a snapshot stays pinned without a request; 0: Idle.
	Idle time.Duration
}

// Donor is the primary's side: it serves the pages of one snapshot to each
// database that asks. Close ends it.
type Donor struct {
	cfg  DonorConfig
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu    sync.Mutex
	token uint64
	gifts map[string]*gift // by instance
	busy  map[string]bool
}

// gift is a snapshot pinned for one instance.
type gift struct {
	token uint64
	used  chan struct{}
	end   context.CancelFunc

	mu  sync.Mutex // held while a page is read
	bak *engine.Backup
}

// NewDonor makes a Donor.
func NewDonor(cfg DonorConfig) *Donor {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Idle == 0 {
		cfg.Idle = Idle
	}
	d := &Donor{cfg: cfg, gifts: map[string]*gift{}, busy: map[string]bool{}}
	d.ctx, d.stop = context.WithCancel(context.Background())
	return d
}

// Close releases every snapshot and waits for requests under way.
func (d *Donor) Close() {
	d.stop()
	d.wg.Wait()
}

// Serve takes a request; it reports false for other types. One request of an
// instance is served at a time, the next is refused meanwhile.
func (d *Donor) Serve(q *mal.Request) bool {
	if q.Type != mal.TypeRejoin {
		return false
	}
	d.mu.Lock()
	free := !d.busy[q.From] && d.ctx.Err() == nil
	if free {
		d.busy[q.From] = true
		d.wg.Add(1)
	}
	d.mu.Unlock()
	if !free {
		q.Fail(base.Errorf(codeState, "a request of %s is being served, or the instance is ending", q.From))
		return true
	}
	go func() {
		defer d.wg.Done()
		b, err := d.answer(q)
		d.mu.Lock()
		delete(d.busy, q.From) // before the answer: the next request follows it
		d.mu.Unlock()
		if err != nil {
			q.Fail(err)
			return
		}
		q.Reply(b)
	}()
	return true
}

func (d *Donor) answer(q *mal.Request) ([]byte, error) {
	r, err := mal.DecodeRejoin(q.Payload)
	if err != nil {
		return nil, err
	}
	if r.Op == mal.RejoinBegin {
		return d.begin(q, r)
	}
	d.mu.Lock()
	g := d.gifts[q.From]
	d.mu.Unlock()
	if g == nil || g.token != r.Token {
		return nil, base.Errorf(codeState, "nothing is pinned for %s under %d (any more)", q.From, r.Token)
	}
	select {
	case g.used <- struct{}{}:
	default:
	}
	switch r.Op {
	case mal.RejoinPackages:
		return d.packages(q.Context(), r)
	case mal.RejoinPages:
		return g.pages(r.Pages)
	}
	g.end()
	return nil, nil
}

// begin pins a snapshot.
func (d *Donor) begin(q *mal.Request, r mal.RejoinRequest) ([]byte, error) {
	var ask mal.RejoinAsk
	if err := mal.DecodeJSON(r.Body, &ask); err != nil {
		return nil, err
	}
	e := d.cfg.Engine
	c, a := e.Control(), e.Archive()
	switch {
	case e.Mode() != base.ModePrimary:
		return nil, base.Errorf(codeMode, "pages are given by a primary; this database is in mode %v", e.Mode())
	case e.Status() != base.StatusOpen:
		return nil, base.Errorf(codeState, "pages are given by an open database; this one is in status %v", e.Status())
	case ask.PmntMagic != c.PmntMagic:
		return nil, refuse("PERMANENT_MAGIC is %v, that of %s is %v", c.PmntMagic, q.From, ask.PmntMagic)
	case ask.PageSize != c.PageSize:
		return nil, refuse("page size is %d, that of %s is %d", c.PageSize, q.From, ask.PageSize)
	case a == nil:
		return nil, refuse("the primary has no local archive, from which %s could be recovered", q.From)
	}
	b, err := e.BeginBackup()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(d.ctx)
	g := &gift{used: make(chan struct{}, 1), end: cancel, bak: b}
	d.mu.Lock()
	d.token++
	g.token = d.token
	if old := d.gifts[q.From]; old != nil {
		old.end()
	}
	d.gifts[q.From] = g
	d.wg.Add(1)
	d.mu.Unlock()
	go d.keep(ctx, q, g)
	d.cfg.Log.Warn("giving pages to a database that rejoins", "inst", q.From, "its_end", ask.End.String(), "as_of", b.Hard.String())
	return mal.EncodeJSON(mal.RejoinOffer{Token: g.token, PageSize: c.PageSize, Pages: b.Pages(), Whole: b.Hard, Lineage: b.Control.Lineage, First: a.First()})
}

// keep releases the snapshot at the end: when it is given back, not asked for, or
// the link is gone.
func (d *Donor) keep(ctx context.Context, q *mal.Request, g *gift) {
	defer d.wg.Done()
	t := d.cfg.Clock.NewTimer(d.cfg.Idle)
	defer t.Stop()
	why := ""
	for why == "" {
		select {
		case <-g.used:
			t.Reset(d.cfg.Idle)
		case <-t.C:
			why = "nothing was asked for"
		case <-q.Context().Done():
			why = "the link is gone"
		case <-ctx.Done():
			why = "it has ended"
		}
	}
	g.end()
	d.mu.Lock()
	if d.gifts[q.From] == g {
		delete(d.gifts, q.From)
	}
	d.mu.Unlock()
	g.mu.Lock()
	g.bak.Close()
	g.bak = nil
	g.mu.Unlock()
	d.cfg.Log.Info("no more pages to a database that rejoins", "inst", q.From, "why", why)
}

// packages answers with digests of the archive.
func (d *Donor) packages(ctx context.Context, r mal.RejoinRequest) ([]byte, error) {
	a := d.cfg.Engine.Archive()
	if a == nil || !a.Has(r.From) {
		return nil, base.Errorf(codeGap, "the archive of the primary does not have package %d (any more)", r.From)
	}
	var out []byte
	n := 0
	err := a.Read(ctx, r.From, func(p *redo.Package) error {
		g, err := digest(p)
		if err != nil {
			return err
		}
		out = mal.AppendDigest(out, g)
		if n++; n == r.Count {
			return errEnough
		}
		return nil
	})
	switch {
	case errors.Is(err, arch.ErrGone):
		return nil, base.Errorf(codeGap, "the archive of the primary: %v", err)
	case err != nil && !errors.Is(err, errEnough):
		return nil, err
	}
	return out, nil
}

var errEnough = errors.New("enough")

// pages answers with pages of the snapshot, one behind the other.
func (g *gift) pages(want []uint32) ([]byte, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.bak == nil {
		return nil, base.Errorf(codeState, "the snapshot has been released")
	}
	ps := g.bak.Control.PageSize
	if len(want) > 1 && len(want)*ps > mal.MaxRejoinBytes {
		return nil, base.Errorf(mal.CodeMessage, "%d pages of %d bytes are more than %d", len(want), ps, mal.MaxRejoinBytes)
	}
	out := make([]byte, len(want)*ps)
	for i, p := range want {
		if p > g.bak.Pages() {
			return nil, base.Errorf(mal.CodeMessage, "page %d of %d", p, g.bak.Pages())
		}
		if err := g.bak.ReadPage(p, out[i*ps:(i+1)*ps]); err != nil {
			return nil, err
		}
	}
	return out, nil
}
