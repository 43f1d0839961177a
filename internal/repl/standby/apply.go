package standby

import (
	"fmt"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/storage/redo"
)

// A batch is one AppendForeign: one sync of the online log.
const (
	batchNum   = 4096
	batchBytes = 16 << 20
	// gatherBytes of redo in the queue are a batch worth a sync of its own.
	gatherBytes = 1 << 20
)

// applyLoop feeds the engine.
func (r *Receiver) applyLoop() {
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.wake:
		}
		for r.gather(); r.applyOne(); r.gather() {
			if r.ctx.Err() != nil {
				return
			}
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

// applyOne takes one batch through the engine and gives the answers that are
// due then. It reports whether there may be more.
func (r *Receiver) applyOne() bool {
	r.mu.Lock()
	if r.failed != nil {
		r.mu.Unlock()
		return false
	}
	batch, size := r.take()
	r.since = r.cfg.Clock.Now()
	start := r.since
	r.mu.Unlock()
	if len(batch) > 0 {
		pkgs := make([]*redo.Package, len(batch))
		for i, it := range batch {
			pkgs[i] = it.pkg
		}
		if err := r.cfg.Engine.AppendForeign(r.ctx, pkgs); err != nil {
			if r.ctx.Err() == nil {
				err = fmt.Errorf("replay packages %d to %d: %w", pkgs[0].GSEQ, pkgs[len(pkgs)-1].GSEQ, err)
				r.halt(base.Errorf(base.CodeOf(err, CodeBadLog), "%v", err))
			}
			return false
		}
	}
	r.mu.Lock()
	r.inflight = nil
	r.mem -= size
	if len(batch) > 0 {
		r.applied(batch, size, start)
		if r.last == batch[len(batch)-1] {
			r.last = nil // from here on the engine itself says where the log ends
		}
	}
	var due []func()
	if !r.full() {
		for _, fn := range r.held {
			due = append(due, func() { fn(nil) })
		}
		r.held = nil
	}
	end := r.cfg.Engine.LogEnd().Seq
	if len(r.waiters) > 0 {
		var keep []waiter
		for _, w := range r.waiters {
			if w.seq <= end {
				due = append(due, func() { w.fn(nil) })
			} else {
				keep = append(keep, w)
			}
		}
		r.waiters = keep
	}
	more := len(r.queue) > 0
	r.mu.Unlock()
	for _, fn := range due {
		fn()
	}
	return more
}

// take moves the next batch from queue to inflight.
func (r *Receiver) take() ([]*item, int64) {
	n, size := 0, int64(0)
	for n < len(r.queue) && n < batchNum && (n == 0 || size+r.queue[n].size <= batchBytes) {
		size += r.queue[n].size
		n++
	}
	batch := r.queue[:n:n]
	r.queue = r.queue[n:]
	if len(r.queue) == 0 {
		r.queue = nil
	}
	r.inflight = batch
	return batch, size
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
		busy, since := len(r.inflight) > 0, r.since
		r.mu.Unlock()
		if d := r.cfg.Clock.Now().Sub(since); busy && d >= r.cfg.MaxDelay {
			r.halt(base.Errorf(CodeDelay, "replay of one batch takes %v already, REDOS_MAX_DELAY is %v", d, r.cfg.MaxDelay))
			return
		}
	}
}
