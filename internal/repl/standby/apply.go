package standby

import (
	"fmt"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/storage/redo"
)

// A batch is one LogForeign: one sync of the online log.
const (
	batchNum   = 4096
	batchBytes = 16 << 20
	// gatherBytes of redo in the queue are a batch worth a sync of its own.
	gatherBytes = 1 << 20
)

// inFlight is how many batches the engine has at most: one is logged while the one
// before it is replayed.
const inFlight = 2

// applyLoop feeds the engine.
func (r *Receiver) applyLoop() {
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.wake:
		}
		for r.applyOne() {
		}
	}
}

// gather waits for packages that may share a batch, so that a stream of small
// ones does not cost a sync each, on the disk and the processors that the next
// acknowledgement needs. Packages in the queue are in the primary's log. It does
// not wait when somebody waits for replay or for room in the queue.
func (r *Receiver) gather() {
	if r.cfg.ApplyDelay < 0 {
		return
	}
	r.mu.Lock()
	r.gathering = !r.urgent()
	wait := r.gathering
	r.mu.Unlock()
	if !wait {
		return
	}
	t := r.cfg.Clock.NewTimer(r.cfg.ApplyDelay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.wake:
	case <-r.ctx.Done():
	}
	r.mu.Lock()
	r.gathering = false
	r.mu.Unlock()
}

// urgent tells, under the lock, whether the queue must not wait for more.
func (r *Receiver) urgent() bool {
	return len(r.waiters) > 0 || len(r.held) > 0 || len(r.queue) >= batchNum || r.mem >= gatherBytes || r.full() || r.failed != nil
}

// batch is what one LogForeign takes.
type batch struct {
	items    []*item
	size     int64
	start    time.Time // when it was taken, or the one before it was done
	replayed bool
	err      error // of replay
}

func (b *batch) name() string {
	return fmt.Sprintf("packages %d to %d", b.items[0].pkg.GSEQ, b.items[len(b.items)-1].pkg.GSEQ)
}

// applyOne takes note of what was replayed, has the next batch logged, and gives
// the answers that are due. It reports whether there may be more.
func (r *Receiver) applyOne() bool {
	if !r.settle() {
		return false
	}
	r.answerDue()
	r.mu.Lock()
	// Beside a replay only what is worth it: a stream of small packages had a sync each.
	ready := len(r.queue) > 0 && (len(r.inflight) == 0 || len(r.inflight) < inFlight && r.urgent())
	r.mu.Unlock()
	if !ready { // the end of a replay wakes
		return false
	}
	r.gather()
	r.mu.Lock()
	b := r.take()
	r.mu.Unlock()
	if b == nil || !r.log(b) {
		return false
	}
	r.answerDue()
	return true
}

// log has the engine log a batch.
func (r *Receiver) log(b *batch) bool {
	pkgs := make([]*redo.Package, len(b.items))
	for i, it := range b.items {
		pkgs[i] = it.pkg
	}
	wait, err := r.cfg.Engine.LogForeign(r.ctx, pkgs)
	if err != nil {
		return r.broken("log", b, err)
	}
	r.mu.Lock()
	r.logged = b.items[len(b.items)-1].pkg.GSEQ
	r.mu.Unlock()
	r.wg.Go(func() {
		err := wait()
		r.mu.Lock()
		b.replayed, b.err = true, err
		r.mu.Unlock()
		if r.settle() { // at once: the next batch may be logged for long
			r.answerDue()
		}
		r.rouse()
	})
	return true
}

// settle takes note of the batches that were replayed. It reports whether to go on.
func (r *Receiver) settle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.failed == nil && r.ctx.Err() == nil {
		if len(r.inflight) == 0 || !r.inflight[0].replayed {
			return true
		}
		b := r.inflight[0]
		if b.err != nil {
			r.mu.Unlock()
			r.broken("replay", b, b.err)
			r.mu.Lock()
			break
		}
		r.inflight = r.inflight[1:]
		if len(r.inflight) > 0 {
			r.inflight[0].start = r.cfg.Clock.Now()
		}
		r.mem -= b.size
		r.applied(b)
		if r.last == b.items[len(b.items)-1] {
			r.last = nil // from here on the engine itself says where the log ends
		}
	}
	return false
}

// broken ends everything because a batch was not logged or not replayed.
func (r *Receiver) broken(what string, b *batch, err error) bool {
	if r.ctx.Err() == nil {
		err = fmt.Errorf("%s %s: %w", what, b.name(), err)
		r.halt(base.Errorf(base.CodeOf(err, CodeBadLog), "%v", err))
	}
	return false
}

// answerDue gives the answers that wait for what is logged or replayed now, or for
// room in the queue.
func (r *Receiver) answerDue() {
	r.mu.Lock()
	var due []func()
	if !r.full() {
		for _, fn := range r.held {
			due = append(due, func() { fn(nil) })
		}
		r.held = nil
	}
	if len(r.waiters) > 0 {
		replayed := r.cfg.Engine.Replayed().Seq
		var keep []waiter
		for _, w := range r.waiters {
			if w.seq <= replayed || w.logged && w.seq <= r.logged {
				due = append(due, func() { w.fn(nil) })
			} else {
				keep = append(keep, w)
			}
		}
		r.waiters = keep
	}
	r.mu.Unlock()
	for _, fn := range due {
		fn()
	}
}

// take moves the next batch from the queue to inflight; nil: it is empty.
func (r *Receiver) take() *batch {
	n, size := 0, int64(0)
	for n < len(r.queue) && n < batchNum && (n == 0 || size+r.queue[n].size <= batchBytes) {
		size += r.queue[n].size
		n++
	}
	if n == 0 {
		return nil
	}
	b := &batch{items: r.queue[:n:n], size: size, start: r.cfg.Clock.Now()}
	r.queue = r.queue[n:]
	if len(r.queue) == 0 {
		r.queue = nil
	}
	r.inflight = append(r.inflight, b)
	return b
}

// beingApplied is the number of packages that are being logged or replayed.
func (r *Receiver) beingApplied() (n int) {
	for _, b := range r.inflight {
		n += len(b.items)
	}
	return n
}

// fail refuses everything from now on and answers what waits.
func (r *Receiver) fail(err error) {
	r.mu.Lock()
	if r.failed == nil {
		r.failed = err
	}
	held, waiters := r.held, r.waiters
	r.held, r.waiters = nil, nil
	r.mu.Unlock()
	for _, fn := range held {
		fn(err)
	}
	for _, w := range waiters {
		w.fn(err)
	}
}

// halt fails and asks for the end of the process, once.
func (r *Receiver) halt(err error) {
	r.fail(err)
	r.mu.Lock()
	first := !r.halted
	r.halted = true
	r.mu.Unlock()
	if first {
		r.cfg.Log.Error("standby must halt", "err", err)
		r.cfg.OnHalt(err)
	}
}

// watchdog enforces REDOS_MAX_DELAY.
func (r *Receiver) watchdog() {
	t := r.cfg.Clock.NewTicker(max(r.cfg.MaxDelay/10, time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-t.C:
		}
		r.mu.Lock()
		d := time.Duration(0)
		if len(r.inflight) > 0 {
			d = r.cfg.Clock.Now().Sub(r.inflight[0].start)
		}
		r.mu.Unlock()
		if d >= r.cfg.MaxDelay {
			r.halt(base.Errorf(CodeDelay, "replay of one batch takes %v already, REDOS_MAX_DELAY is %v", d, r.cfg.MaxDelay))
			return
		}
	}
}
