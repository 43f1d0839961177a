package rejoin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/repl/mal"
	"datawatch/internal/storage/arch"
	"datawatch/internal/storage/ctl"
	"datawatch/internal/storage/engine"
	"datawatch/internal/storage/graft"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

// around is how many packages up to the fork must be the same in both archives.
const around = 8

// Config of Run.
type Config struct {
	Engine    *engine.Engine // in Mount
	Transport Transport
	Primary   string // instance to follow
	FS        vfs.FS
	Dir       string // for the redo given up
	Name      string // of this instance
	Clock     clock.Clock
	Log       *slog.Logger
}

// Result says what was given up and fetched.
type Result struct {
	Fork, End, Whole base.Position
	Surplus          []string // files
	Packages         int
	Transactions     int
	First, Last      time.Time // of those; zero: there were none
	Bytes            int64     // of redo
	Pages            uint32    // fetched
}

// Run prepares a rejoin and binds the database to it: the redo that Primary is
// without is saved, the pages it touched are fetched, and the control file says
// so. The engine does nothing any more then; opening the database anew completes
// the rejoin. After an error the database is as it was, unless the engine halted;
// code mal.CodeRejoin says that trying again is of no use.
func Run(ctx context.Context, cfg Config) (res Result, err error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r, err := cfg.Engine.BeginRejoin(ctx)
	if err != nil {
		return res, err
	}
	defer r.Close()
	c := &client{cfg: cfg, db: r, ctl: r.Control()}
	if err := c.begin(ctx); err != nil {
		return res, fmt.Errorf("rejoin %s: %w", cfg.Primary, err)
	}
	defer c.finish(ctx)
	if res, err = c.run(ctx); err != nil {
		return res, fmt.Errorf("rejoin %s: %w", cfg.Primary, err)
	}
	return res, nil
}

type client struct {
	cfg   Config
	db    *engine.Rejoin
	ctl   ctl.Control
	offer mal.RejoinOffer
}

func (c *client) call(ctx context.Context, r mal.RejoinRequest) ([]byte, error) {
	r.Token = c.offer.Token
	b, err := c.cfg.Transport.Call(ctx, c.cfg.Primary, mal.TypeRejoin, r.Append(nil))
	if base.CodeOf(err, 0) == mal.CodeUnknown {
		return nil, refuse("the primary's program is older and gives no pages: %v", err)
	}
	return b, err
}

func (c *client) begin(ctx context.Context) error {
	body, err := mal.EncodeJSON(mal.RejoinAsk{PmntMagic: c.ctl.PmntMagic, PageSize: c.ctl.PageSize, End: c.db.End})
	if err != nil {
		return err
	}
	b, err := c.call(ctx, mal.RejoinRequest{Op: mal.RejoinBegin, Body: body})
	if err != nil {
		return err
	}
	if err := mal.DecodeJSON(b, &c.offer); err != nil {
		return err
	}
	if o := &c.offer; o.PageSize != c.ctl.PageSize || o.Pages == 0 || o.Whole.LSN == 0 || len(o.Lineage) == 0 || len(o.Lineage) > base.MaxOpenRecords {
		return base.Errorf(mal.CodeMessage, "offer of %d pages of %d bytes as of %v with %d open records", o.Pages, o.PageSize, o.Whole, len(o.Lineage))
	}
	return nil
}

// finish gives the snapshot back; it is released without that, only later.
func (c *client) finish(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if _, err := c.call(ctx, mal.RejoinRequest{Op: mal.RejoinEnd}); err != nil {
		c.cfg.Log.Debug("rejoin: the snapshot was not given back", "primary", c.cfg.Primary, "err", err)
	}
}

func (c *client) run(ctx context.Context) (res Result, err error) {
	fork, err := c.db.Lineage.Fork(c.db.End, c.offer.Lineage, c.offer.Whole)
	if err != nil {
		return res, refuse("%v", err)
	}
	res.Fork, res.End, res.Whole = fork, c.db.End, c.offer.Whole
	if !fork.Less(c.db.End) {
		return res, refuse("there is no redo after %v that the primary is without", fork)
	}
	if err := c.verify(ctx, fork); err != nil {
		return res, err
	}
	touched, err := c.save(ctx, &res)
	if err != nil {
		return res, err
	}
	g, err := c.fetch(ctx, touched, &res)
	if err != nil { // nothing is given up: the archive still has it
		for _, p := range res.Surplus {
			err = errors.Join(err, c.cfg.FS.Remove(p))
		}
		return res, err
	}
	err = c.db.Commit(ctl.Rejoin{Fork: fork, Whole: c.offer.Whole, Lineage: c.offer.Lineage, Primary: c.cfg.Primary,
		Surplus: strings.Join(res.Surplus, " "), Graft: &g})
	if err == nil {
		c.report(res)
	}
	return res, err
}

// report says loudly what was given up.
func (c *client) report(res Result) {
	c.cfg.Log.Error("[!!! this database rejoins its group and gives up transactions that it committed and the new primary is without. "+
		"Some may have been acknowledged to clients. They are in the file, dw dump redo shows them !!!]",
		"primary", c.cfg.Primary, "from", res.Fork.String(), "to", res.End.String(), "transactions", res.Transactions, "packages", res.Packages,
		"bytes", res.Bytes, "first_commit", stamp(res.First), "last_commit", stamp(res.Last), "file", strings.Join(res.Surplus, " "))
}

// verify compares the packages around the fork: those up to it must be the same
// in both archives, and the first after it must differ (G5).
func (c *client) verify(ctx context.Context, fork base.Position) error {
	from := fork.Seq - min(fork.Seq-1, around-1)
	if from < c.offer.First {
		from = c.offer.First
	}
	if from == 0 || from > fork.Seq {
		return base.Errorf(codeGap, "the primary's archive begins with package %d, the histories part after %v: it cannot recover this database", c.offer.First, fork)
	}
	b, err := c.call(ctx, mal.RejoinRequest{Op: mal.RejoinPackages, From: from, Count: int(fork.Seq-from) + 2})
	if err != nil {
		return err
	}
	theirs, err := mal.DecodeDigests(b)
	if err != nil {
		return err
	}
	seq := from
	err = c.db.Redo(ctx, from, func(p *redo.Package) error {
		if p.GSEQ != seq {
			return refuse("the local archive has package %d where %d should be", p.GSEQ, seq)
		}
		i := int(seq - from)
		if seq++; p.GSEQ > fork.Seq && i >= len(theirs) {
			return errEnough // the primary's own redo ends at the fork
		}
		if i >= len(theirs) {
			return refuse("the primary did not show package %d", p.GSEQ)
		}
		ours, err := digest(p)
		if err != nil {
			return err
		}
		switch same := ours == theirs[i]; {
		case p.GSEQ <= fork.Seq && !same:
			return refuse("package %d is another at the primary, and the open histories say that they part at %v only: the fork is not known", p.GSEQ, fork)
		case p.GSEQ == fork.Seq && p.MaxLSN != fork.LSN:
			return refuse("package %d ends at LSN %d, and the open histories part at %v: the fork is not known", p.GSEQ, p.MaxLSN, fork)
		case p.GSEQ > fork.Seq && same:
			return refuse("package %d is the same at the primary, and the open histories say that they part before, at %v: the fork is not known", p.GSEQ, fork)
		case p.GSEQ > fork.Seq:
			return errEnough
		}
		return nil
	})
	if err != nil && err != errEnough {
		return err
	}
	if seq <= fork.Seq+1 {
		return refuse("the local archive has no package after %d", fork.Seq)
	}
	return nil
}

// save writes the redo given up to files of its own, synced.
func (c *client) save(ctx context.Context, res *Result) (*graft.Touched, error) {
	w, err := arch.NewCopy(c.cfg.FS, c.cfg.Dir, "SURPLUS_"+c.cfg.Name, c.ctl.PmntMagic, c.ctl.DBMagic, c.cfg.Clock)
	if err != nil {
		return nil, err
	}
	t, err := c.db.Surplus(ctx, res.Fork, w.Add)
	if err != nil {
		w.Abort()
		return nil, err
	}
	if res.Surplus, err = w.Close(); err != nil {
		w.Abort()
		return nil, err
	}
	res.Packages, res.Transactions, res.Bytes = t.Packages, t.Transactions, t.Bytes
	if t.First != 0 {
		res.First, res.Last = time.Unix(0, t.First), time.Unix(0, t.Last)
	}
	return t, nil
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "none"
	}
	return t.Format(time.RFC3339Nano)
}

// fetch writes the graft file.
func (c *client) fetch(ctx context.Context, t *graft.Touched, res *Result) (g ctl.Graft, err error) {
	res.Pages = t.Count(c.offer.Pages)
	w, err := graft.NewWriter(c.cfg.FS, c.db.CtlPath(), graft.Head{PageSize: c.ctl.PageSize, PmntMagic: c.ctl.PmntMagic, Fork: res.Fork,
		Whole: res.Whole, Pages: c.offer.Pages, Count: res.Pages})
	if err != nil {
		return g, err
	}
	defer func() {
		if err != nil {
			_ = w.Abort() // the next start removes what is left
		}
	}()
	per := min(max(mal.MaxRejoinBytes/c.ctl.PageSize, 1), mal.MaxRejoinPages)
	want := make([]uint32, 0, per)
	get := func() error {
		if len(want) == 0 {
			return nil
		}
		b, err := c.call(ctx, mal.RejoinRequest{Op: mal.RejoinPages, Pages: want})
		if err != nil {
			return err
		}
		ps := c.ctl.PageSize
		if len(b) != len(want)*ps {
			return base.Errorf(mal.CodeMessage, "%d bytes for %d pages of %d", len(b), len(want), ps)
		}
		for i, p := range want {
			if err := w.Add(p, b[i*ps:(i+1)*ps]); err != nil {
				return err
			}
		}
		want = want[:0]
		return nil
	}
	begun := c.cfg.Clock.Now()
	for p := range t.Pages(c.offer.Pages) {
		if want = append(want, p); len(want) == per {
			if err := get(); err != nil {
				return g, err
			}
		}
	}
	if err := get(); err != nil {
		return g, err
	}
	if g, err = w.Finish(); err != nil {
		return g, err
	}
	c.cfg.Log.Info("rejoin: pages fetched", "primary", c.cfg.Primary, "pages", res.Pages, "of", c.offer.Pages, "as_of", res.Whole.String(),
		"took", c.cfg.Clock.Now().Sub(begun).String())
	return g, nil
}
