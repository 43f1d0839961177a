package standby

import (
	"context"
	"encoding/json"
	"fmt"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/storage/redo"
)

// Serve handles the messages of replication. It reports false for other types.
func (r *Receiver) Serve(q *mal.Request) bool {
	switch q.Type {
	case mal.TypeRedo:
		r.serveRedo(q)
	case mal.TypeHardened:
		h, err := mal.DecodeHardened(q.Payload)
		if err != nil {
			q.Fail(err)
			break
		}
		var done func(error)
		if !q.OneWay() {
			done = func(err error) {
				if err != nil {
					q.Fail(err)
					return
				}
				q.Reply()
			}
		}
		r.Hardened(q.From, h, done)
	case mal.TypeState:
		var s mal.State
		err := mal.DecodeJSON(q.Payload, &s)
		var info mal.StandbyInfo
		if err == nil {
			info, err = r.State(q.From, s)
		}
		if s.Over {
			r.promiseOver(q.Sender)
		}
		if s.Renew != nil {
			info.Promised = r.promiseAgain(q.From, q.Sender, *s.Renew)
		}
		var b []byte
		if err == nil {
			b, err = mal.EncodeJSON(info)
		}
		if err != nil {
			q.Fail(err)
			break
		}
		q.Reply(b)
	default:
		return false
	}
	return true
}

func (r *Receiver) serveRedo(q *mal.Request) {
	h, raw, err := mal.DecodeRedo(q.Payload)
	if err != nil {
		q.Fail(err)
		return
	}
	h.Sender = q.Sender
	pkgs := make([]*redo.Package, len(raw))
	for i, b := range raw {
		p, err := redo.Decode(b)
		if err == nil && p.EncodedLen() != len(b) {
			err = fmt.Errorf("package of %d bytes in a field of %d", p.EncodedLen(), len(b))
		}
		if err != nil {
			q.Fail(fmt.Errorf("package %d of %d: %w", i+1, len(raw), base.Errorf(CodeBadLog, "%v", err)))
			return
		}
		pkgs[i] = p
	}
	r.Accept(q.From, h, pkgs, func(a mal.Ack, err error) {
		if err != nil {
			q.Fail(err)
			return
		}
		var buf [mal.AckSize]byte
		q.Reply(a.Append(buf[:0]))
	})
}

// OpenRecordOf returns the open record in the first PTX of a package, where the
// first package of a reign has it.
func OpenRecordOf(p *redo.Package) (base.OpenRecord, bool, error) {
	for t, err := range p.PTXs() {
		if err != nil {
			return base.OpenRecord{}, false, err
		}
		for rec, err := range t.Records() {
			if err != nil {
				return base.OpenRecord{}, false, err
			}
			if rec.Type == redo.RecLogical && rec.Kind == redo.LogicalOpenRecord {
				var o base.OpenRecord
				if err := json.Unmarshal(rec.Payload, &o); err != nil {
					return o, false, fmt.Errorf("open record: %w", err)
				}
				return o, true, nil
			}
		}
		break
	}
	return base.OpenRecord{}, false, nil
}

// Hardened is the primary's notice how far its own log is: the kept package, if
// it lies within, is released (manual 2.2.9). done, unless nil, is called
// when the standby has replayed that far. A notice of anybody but the primary whose claim stands
// changes nothing.
func (r *Receiver) Hardened(from string, h mal.Hardened, done func(error)) {
	r.mu.Lock()
	err := r.ready()
	if err == nil && (!r.claim.Valid || r.claim.From != from || r.claim.OpenID != h.OpenID) {
		err = base.Errorf(CodeState, "notice of %s (open record %d), whose archive to us is not valid here", from, h.OpenID)
	}
	if err == nil {
		r.releaseUpTo(h.Pos, h.OpenID)
		if end := r.standTail().pos; end.Less(h.Pos) {
			err = base.Errorf(CodeNotNext, "the primary's log is at %v, ours can be replayed to %v", h.Pos, end)
		}
	}
	if err == nil && done != nil {
		r.whenReplayed(h.Pos.Seq, done)
	}
	r.mu.Unlock()
	if err != nil && done != nil {
		done(err)
	}
}

func (r *Receiver) releaseUpTo(pos base.Position, openID uint64) {
	if k := r.kept; k != nil && k.pkg.OpenID == openID && k.pkg.GSEQ <= pos.Seq && k.pkg.MaxLSN <= pos.LSN {
		r.kept = nil
		r.push(k)
	}
}

// State hears what a primary says of its archive to us and answers what we
// have. Valid is believed only where positions and lineage agree.
func (r *Receiver) State(from string, s mal.State) (mal.StandbyInfo, error) {
	r.mu.Lock()
	changed, err := r.state(from, s)
	info := r.standbyInfo()
	r.mu.Unlock()
	if changed {
		r.cfg.OnChange()
	}
	return info, err
}

func (r *Receiver) state(from string, s mal.State) (changed bool, err error) {
	mine := !r.claim.Valid || r.claim.From == from || s.OpenID >= r.claim.OpenID
	switch {
	case s.State == base.ArchInvalid && mine:
		return r.setClaim(Claim{}), nil
	case s.State != base.ArchValid:
		return false, nil
	}
	if err := r.ready(); err != nil {
		return false, err
	}
	end, stand := r.keepTail(), r.standTail()
	named := func(t tail) bool { return t.id == s.OpenID && t.guid == s.OpenGUID }
	switch {
	case end.pos == s.File && named(end): // the same, kept package included
		r.releaseUpTo(s.File, s.OpenID)
	case stand.pos == s.File && named(stand) && r.kept != nil && end.pos == s.Pending: // the pending one is kept
	case r.kept == nil && end.pos == s.Pending && named(end): // or, timely, here already
	default:
		if mine {
			changed = r.setClaim(Claim{})
		}
		return changed, base.Errorf(CodeNotNext, "%s (log at %v, open record %d) calls its archive to us valid; we have %v, received %v, record %d",
			from, s.File, s.OpenID, stand.pos, end.pos, end.id)
	}
	return r.setClaim(Claim{true, from, s.OpenID}), nil
}

func (r *Receiver) standbyInfo() mal.StandbyInfo {
	e, st := r.cfg.Engine, r.standTail()
	return mal.StandbyInfo{
		Mode: e.Mode(), Status: e.Status(), Incarnation: r.cfg.Incarnation,
		Stand: st.pos, Keep: r.keepTail().pos, HasKeep: r.kept != nil, Apply: e.LogEnd(), Replay: e.Replayed(),
		OpenID: st.id, OpenGUID: st.guid, Frozen: r.frozen,
	}
}

// PeerIdentity hears what another instance says of itself. The claim ends when
// another primary, not older than its author, is there.
func (r *Receiver) PeerIdentity(inst string, id mal.Identity) {
	r.mu.Lock()
	changed := false
	if r.claim.Valid && inst != r.claim.From && id.Mode == base.ModePrimary &&
		(id.Status == base.StatusOpen || id.Status == base.StatusSuspend) && id.Lineage.Last().ID >= r.claim.OpenID {
		changed = r.setClaim(Claim{})
	}
	r.mu.Unlock()
	if changed {
		r.cfg.OnChange()
	}
}

// ApplyKeep replays the kept package, whether or not the primary has it, and
// waits for everything queued (takeover, switchover; manual 2.2.9). From its
// start on nothing is accepted any more: an acknowledgement now could be for a
// commit that the new primary does not have. Thaw or DropKeep end that.
//
// It returns only when what was promised to the primary is over (Promise);
// ended are incarnations of instances whose processes are known to be gone (Ended).
// The kept package is replayed last, when that primary can acknowledge nothing any
// more: a takeover that is given up before leaves it kept (G7).
func (r *Receiver) ApplyKeep(ctx context.Context, ended ...string) error {
	r.Ended(ended...)
	r.mu.Lock()
	if m := r.cfg.Engine.Mode(); m != base.ModeStandby {
		r.mu.Unlock()
		return base.Errorf(CodeMode, "kept package is replayed in Standby mode only, this is %v", m)
	}
	r.frozen = true
	r.mu.Unlock()
	if err := r.Drain(ctx); err != nil {
		return fmt.Errorf("replay what is queued: %w", err)
	}
	if err := r.awaitPromise(ctx); err != nil {
		return fmt.Errorf("wait until the old primary can acknowledge nothing any more: %w", err)
	}
	r.mu.Lock()
	if !r.frozen { // what came since, and was acknowledged, could be missing in the new primary
		r.mu.Unlock()
		return base.Errorf(CodeChanging, "redo is taken again, the kept package is not replayed")
	}
	if k := r.kept; k != nil {
		r.kept = nil
		r.push(k)
	}
	r.mu.Unlock()
	if err := r.Drain(ctx); err != nil {
		return fmt.Errorf("replay the kept package: %w", err)
	}
	r.cfg.OnChange()
	return nil
}

// Drain waits until everything queued is replayed.
func (r *Receiver) Drain(ctx context.Context) error {
	done := make(chan error, 1)
	r.mu.Lock()
	if r.failed != nil {
		err := r.failed
		r.mu.Unlock()
		return err
	}
	if r.last == nil {
		r.mu.Unlock()
		return nil
	}
	r.whenReplayed(r.last.pkg.GSEQ, func(err error) { done <- err })
	r.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// DropKeep forgets the kept package and the claim; what is queued stays. It
// reports whether there was one.
func (r *Receiver) DropKeep() bool {
	r.mu.Lock()
	had := r.kept != nil
	r.kept, r.frozen = nil, false
	r.setClaim(Claim{})
	r.mu.Unlock()
	r.cfg.OnChange()
	return had
}

// Finish is the normal end of a standby: nothing is accepted any more, and what
// may be replayed is logged before it returns, so that an end loses only the
// kept package. The primary learns of that by its next send, or when the link
// comes up again.
func (r *Receiver) Finish(ctx context.Context) error {
	r.mu.Lock()
	r.frozen = true
	r.mu.Unlock()
	return r.Drain(ctx)
}

// Thaw lets redo in again after an ApplyKeep that led to nothing.
func (r *Receiver) Thaw() {
	r.mu.Lock()
	r.frozen = false
	r.mu.Unlock()
}

// Info reports the state.
func (r *Receiver) Info() Info {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.cfg.Engine
	i := Info{
		Stand: r.standTail().pos, Keep: r.keepTail().pos, HasKeep: r.kept != nil,
		Apply: e.LogEnd(), Replay: e.Replayed(), NTask: len(r.queue) + r.beingApplied(), TaskMem: r.mem,
		Claim: r.claim, Primary: r.stats.Primary, Frozen: r.frozen, Failed: r.failed,
	}
	if len(r.inflight) > 0 {
		i.Since = r.inflight[0].start
	}
	return i
}

// Kept describes the kept package (V$KEEP_RLOG_PKG).
func (r *Receiver) Kept() (redo.Header, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept == nil {
		return redo.Header{}, false
	}
	return r.kept.pkg.Header, true
}

// Task is a package waiting for replay (V$RAPPLY_LOG_TASK).
type Task struct {
	Kind   mal.Kind
	Header redo.Header
}

// Tasks lists what waits, oldest first.
func (r *Receiver) Tasks() []Task {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Task
	add := func(items []*item) {
		for _, it := range items {
			out = append(out, Task{it.kind, it.pkg.Header})
		}
	}
	for _, b := range r.inflight {
		add(b.items)
	}
	add(r.queue)
	return out
}
