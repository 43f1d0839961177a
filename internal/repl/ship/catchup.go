package ship

import (
	"context"
	"errors"
	"fmt"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/standby"
	"datawatch/internal/storage/redo"
)

const (
	// A message of catch-up is closed at this size (and stays below the buffer
	// that wire keeps for reuse), so that the standby can log while the next
	// one is on its way.
	catchupBytes = 512 << 10
	// keepBytes is the largest buffer of messages that is used again.
	keepBytes = 8 << 20
	// archiveWait is how often a catch-up that has reached the archive's end
	// looks whether the archiver has written more.
	archiveWait = 2 * time.Millisecond
	// linkWait is how long a catch-up waits for a link: the watchers may know of a
	// standby that has just started before we do, and try again only after
	// INST_RECOVER_TIME.
	linkWait = 2 * time.Second
	linkLook = 20 * time.Millisecond
	// interruptWait is how long an interrupted catch-up may take to end.
	interruptWait = 100 * time.Millisecond
)

// CatchUp sends the archive to a standby until it has what the own log had at
// the start of the call (the manual's Recovery, 3.1.9). Several run at once for
// several standbys. Ended by ctx it leaves the standby where it got to; the
// next call goes on from there. The pending package of a suspended database is
// not in the archive and so not sent: it comes again when the database opens.
func (s *Shipper) CatchUp(ctx context.Context, inst string) error {
	t := s.byName[inst]
	if t == nil {
		return base.Errorf(CodeNoTarget, "no realtime or timely archive to %s", inst)
	}
	t.mu.Lock()
	if t.state == base.ArchValid {
		t.mu.Unlock()
		return nil // it gets every package as it is made
	}
	if t.recovering {
		t.mu.Unlock()
		return base.Errorf(CodeNotRun, "archive is being sent to %s already", inst)
	}
	t.recovering, t.sent, t.progress = true, base.Position{}, Progress{Inst: inst}
	t.mu.Unlock()
	s.cfg.OnChange()
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
	done := make(chan error, 1)
	s.wg.Go(func() {
		err := s.catchUp(ctx, t)
		if err != nil && ctx.Err() != nil {
			err = base.Errorf(CodeInterrupted, "interrupted: %v", context.Cause(ctx))
		}
		stop()
		cancel(nil)
		t.mu.Lock()
		t.recovering = false
		t.lastError = ""
		if err != nil {
			t.lastError = err.Error()
		}
		t.mu.Unlock()
		done <- err
		s.cfg.OnChange()
	})
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		// Not waiting for a write that blocks: until it ends, the target counts
		// as recovering.
		select {
		case err = <-done:
		case <-s.cfg.Clock.NewTimer(interruptWait).C:
			err = base.Errorf(CodeInterrupted, "interrupted: %v", context.Cause(ctx))
		}
	}
	if err != nil {
		return fmt.Errorf("send archive to %s: %w", inst, err)
	}
	return nil
}

func (s *Shipper) catchUp(ctx context.Context, t *target) error {
	e := s.cfg.Engine
	if m := e.Mode(); m != base.ModePrimary {
		return base.Errorf(standby.CodeMode, "database is in %v mode, not Primary", m)
	}
	arch := e.Archive()
	if arch == nil {
		return base.Errorf(CodeNoArchive, "no local archive is configured")
	}
	goal := e.LogEnd()
	for begun, linked := s.cfg.Clock.Now(), false; ; {
		info, err := s.sayQuick(ctx, t, base.ArchUnknown)
		if !linked && base.CodeOf(err, 0) == mal.CodeLost && s.cfg.Clock.Now().Sub(begun) < linkWait {
			if err := s.cfg.Clock.Sleep(ctx, linkLook); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		linked = true
		if err := s.joinable(info, goal); err != nil {
			return err
		}
		at := info.Stand
		t.mu.Lock()
		t.sent = at
		t.mu.Unlock()
		s.measure(ctx, t, arch, at, goal)
		if at.Seq >= goal.Seq {
			// The rest of the queue must be logged before the answer.
			if info.Apply.Seq >= goal.Seq {
				return nil
			}
		} else if arch.Has(at.Seq + 1) {
			if err := s.stream(ctx, t, arch, at, goal); err != nil {
				return err
			}
			continue
		} else if arch.End().Seq > at.Seq {
			return base.Errorf(CodeNoArchive, "the archive does not have package %d, from which the standby must go on", at.Seq+1)
		}
		if err := s.cfg.Clock.Sleep(ctx, archiveWait); err != nil {
			return err
		}
	}
}

// Progress is how far the sending of the archive to a standby is.
type Progress struct {
	Inst string
	Sent base.LSN // what the standby has, 0 before it has said so
	// Known says that the rest is: how much has to be sent in all, in how many
	// files it is, and how much the standby has acknowledged, bytes of packages.
	Known       bool
	Total, Done int64
	Files       int
}

// Recoveries reports the standbys to which the archive is being sent.
func (s *Shipper) Recoveries() []Progress {
	var out []Progress
	for _, t := range s.targets {
		t.mu.Lock()
		if t.recovering {
			p := t.progress
			p.Sent = t.sent.LSN
			out = append(out, p)
		}
		t.mu.Unlock()
	}
	return out
}

// measure finds out how much is to be sent to a standby that is at some
// position. What the archive does not have yet is added when it does.
func (s *Shipper) measure(ctx context.Context, t *target, arch Archive, at, goal base.Position) {
	var rest int64
	var files int
	if at.Seq < goal.Seq {
		var err error
		if rest, files, err = arch.Span(ctx, at.Seq+1, goal.Seq); err != nil {
			return // who sends it will say why
		}
		if rest == 0 {
			return
		}
	}
	t.mu.Lock()
	p := &t.progress
	p.Known, p.Total, p.Files = true, p.Done+rest, max(p.Files, files)
	t.mu.Unlock()
}

// joinable judges a standby before anything is sent.
func (s *Shipper) joinable(info mal.StandbyInfo, goal base.Position) error {
	switch {
	case info.Mode != base.ModeStandby:
		return base.Errorf(standby.CodeMode, "it is in %v mode, not Standby", info.Mode)
	case info.Status != base.StatusOpen:
		return base.Errorf(standby.CodeState, "it is %v, not Open", info.Status)
	case info.Frozen:
		return base.Errorf(standby.CodeChanging, "it is replaying its kept package for a takeover or switchover")
	case s.cfg.Engine.LogEnd().Less(info.Stand):
		return base.Errorf(standby.CodeNotNext, "it is at %v, ahead of us (%v)", info.Stand, goal)
	}
	if info.OpenID == 0 {
		return nil // it has no history yet; positions and lineage are checked there
	}
	for _, r := range s.cfg.Engine.Lineage() {
		if r.ID == info.OpenID && r.TGUID == info.OpenGUID {
			return nil
		}
	}
	return base.Errorf(standby.CodeLineage, "its last open record %d (%s) is not in our history", info.OpenID, info.OpenGUID)
}

// errReached ends the reading of the archive at the goal.
var errReached = errors.New("reached")

// stream sends packages after at up to goal, as far as the archive has them,
// with at most SendNum messages unanswered.
func (s *Shipper) stream(ctx context.Context, t *target, arch Archive, at, goal base.Position) error {
	st := &sender{s: s, t: t, ctx: ctx, start: s.cfg.Clock.Now()}
	defer st.forget()
	prev := at
	err := arch.Scan(ctx, at.Seq+1, func(p *redo.Package) error {
		if p.GSEQ > goal.Seq {
			return errReached
		}
		if p.GSEQ != prev.Seq+1 || p.PrevLSN != prev.LSN {
			return base.Errorf(CodeArchiveGap, "archived package %d after LSN %d does not continue %v", p.GSEQ, p.PrevLSN, prev)
		}
		prev = p.Pos()
		return st.add(p)
	})
	if err != nil && !errors.Is(err, errReached) {
		return err
	}
	if err := st.flush(); err != nil {
		return err
	}
	for len(st.calls) > 0 {
		if err := st.await(); err != nil {
			return err
		}
	}
	return nil
}

// sender packs packages into messages and keeps the window.
type sender struct {
	s     *Shipper
	t     *target
	ctx   context.Context
	start time.Time
	h     mal.RedoHeader
	buf   []byte
	ptx   int64
	redo  int64 // bytes of packages
	first base.LSN
	last  base.Position
	calls []sent
}

type sent struct {
	seq   uint64
	call  *mal.Call
	start time.Time
	bytes int
	ptx   int64
	redo  int64
	last  base.Position
}

func (x *sender) add(p *redo.Package) error {
	n := 4 + p.EncodedLen()
	if x.h.Count > 0 && (p.OpenID != x.h.OpenID || len(x.buf)+n > catchupBytes || x.h.Count == mal.MaxPackages) {
		if err := x.flush(); err != nil {
			return err
		}
	}
	if x.h.Count == 0 {
		guid, err := x.s.guid(p)
		if err != nil {
			return err
		}
		x.s.mu.Lock()
		x.h = mal.RedoHeader{Kind: mal.KindRecover, Claim: base.ArchInvalid, OpenID: p.OpenID, OpenGUID: guid, Hardened: x.s.hardened}
		x.s.mu.Unlock()
		if room := mal.RedoHeaderSize + max(catchupBytes, n); cap(x.buf) < room {
			x.buf = make([]byte, 0, room)
		}
		var room [mal.RedoHeaderSize]byte // the count is known at the end
		x.buf = append(x.buf[:0], room[:]...)
		x.first = p.MinLSN
	}
	x.buf = mal.PackageLen(x.buf, n-4)
	x.buf = p.Encode(x.buf)
	x.h.Count++
	x.ptx += int64(p.NPTX)
	x.redo += int64(n - 4)
	x.last = p.Pos()
	return nil
}

func (x *sender) flush() error {
	if x.h.Count == 0 {
		return nil
	}
	for len(x.calls) >= x.s.cfg.SendNum {
		if err := x.await(); err != nil {
			return err
		}
	}
	x.h.Append(x.buf[:0])
	start := x.s.cfg.Clock.Now()
	x.t.mu.Lock()
	seq := x.t.stats.begin(Send{Start: start, FirstLSN: x.first, LastLSN: x.last.LSN, Len: int64(len(x.buf)), PTX: x.ptx, ForRecovery: true})
	x.t.mu.Unlock()
	call, err := x.s.cfg.Transport.Go(x.t.Inst, mal.TypeRedo, x.buf)
	if err != nil {
		x.ended(seq, true)
		return err
	}
	x.calls = append(x.calls, sent{seq, call, start, len(x.buf), x.ptx, x.redo, x.last})
	x.h.Count, x.ptx, x.redo = 0, 0, 0
	if cap(x.buf) > keepBytes {
		x.buf = nil
	}
	return nil
}

// await waits for the oldest answer.
func (x *sender) await() error {
	c := x.calls[0]
	b, err := c.call.Wait(x.ctx)
	if err != nil {
		return err
	}
	x.calls = x.calls[1:]
	ack, err := mal.DecodeAck(b)
	if err != nil {
		return err
	}
	if ack.Stand.Less(c.last) {
		return base.Errorf(standby.CodeNotNext, "acknowledged up to %v only, sent %v", ack.Stand, c.last)
	}
	x.ended(c.seq, false)
	x.t.mu.Lock()
	x.t.sent = c.last
	x.t.progress.Done += c.redo
	x.t.stats.addRaw(int64(c.bytes), c.ptx, c.last.LSN, x.s.cfg.Clock.Now().Sub(c.start), c.start, true)
	x.t.mu.Unlock()
	return nil
}

// ended notes the end of a message in the statistics.
func (x *sender) ended(seq uint64, failed bool) {
	x.t.mu.Lock()
	x.t.stats.end(seq, x.s.cfg.Clock.Now(), failed)
	x.t.mu.Unlock()
}

func (x *sender) forget() {
	for _, c := range x.calls {
		c.call.Forget()
		x.ended(c.seq, true)
	}
}
