package standby

import (
	"time"

	"datawatch/internal/storage/redo"
)

// Stats are the figures of V$RAPPLY_SYS and V$RAPPLY_STAT. Wait is the time
// between receipt of a package and the start of its replay. Recent figures are
// over the last Config.Recent packages.
type Stats struct {
	Primary string // who sent last

	RecvNum            int64
	RecvLen            int64
	RecvTime, RecvMax  time.Duration // receipt to answer
	LastRecvLen        int64
	LastRecvTime       time.Duration
	ApplyNum, ApplyLen int64
	ApplyTime          time.Duration
	ApplyMax           time.Duration
	ApplyMaxLen        int64 // of the replay in ApplyMax
	LastApplyLen       int64
	LastApplyTime      time.Duration
	WaitTime, WaitMax  time.Duration
	LastWaitTime       time.Duration

	RecentNum       int // replays counted in the recent figures
	RecentRecvLen   int64
	RecentRecvTime  time.Duration
	RecentApplyLen  int64
	RecentApplyTime time.Duration
	RecentWaitTime  time.Duration

	TaskMem    int64
	TaskStart  time.Time // of the batch being replayed, zero when idle
	LastCommit time.Time // primary's clock, newest package received
	Applied    time.Time // primary's clock, newest package replayed
}

// ring holds the last samples of one kind with their sums.
type ring struct {
	len  []int64
	time []time.Duration
	n    int // ever added
	sumL int64
	sumT time.Duration
}

func newRing(n int) ring { return ring{len: make([]int64, n), time: make([]time.Duration, n)} }

func (g *ring) add(l int64, d time.Duration) {
	i := g.n % len(g.len)
	g.sumL += l - g.len[i]
	g.sumT += d - g.time[i]
	g.len[i], g.time[i] = l, d
	g.n++
}

func (g *ring) count() int { return min(g.n, len(g.len)) }

// received counts a message of n packages at its answer.
func (r *Receiver) received(n int, pkgs []*redo.Package, start time.Time) {
	d := r.cfg.Clock.Now().Sub(start)
	var size int64
	for _, p := range pkgs {
		size += int64(p.EncodedLen())
	}
	s := &r.stats
	s.RecvNum += int64(n)
	s.RecvLen += size
	s.RecvTime += d
	s.RecvMax = max(s.RecvMax, d)
	s.LastRecvLen, s.LastRecvTime = size, d
	s.LastCommit = time.Unix(0, pkgs[n-1].TimeNs)
	r.recvRing.add(size, d)
}

// applied counts a batch; its time is shared out among its packages.
func (r *Receiver) applied(b *batch) {
	batch, size, start := b.items, b.size, b.start
	d := r.cfg.Clock.Now().Sub(start)
	each := d / time.Duration(len(batch))
	s := &r.stats
	for _, it := range batch {
		w := max(start.Sub(it.received), 0)
		s.WaitTime += w
		s.WaitMax = max(s.WaitMax, w)
		s.LastWaitTime = w
		r.waitRing.add(0, w)
		r.applRing.add(it.size, each)
	}
	s.ApplyNum += int64(len(batch))
	s.ApplyLen += size
	s.ApplyTime += d
	if each > s.ApplyMax {
		s.ApplyMax, s.ApplyMaxLen = each, size/int64(len(batch))
	}
	last := batch[len(batch)-1]
	s.LastApplyLen, s.LastApplyTime = last.size, each
	s.Applied = time.Unix(0, last.pkg.TimeNs)
}

// Stats returns a copy.
func (r *Receiver) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.RecentNum = r.applRing.count()
	s.RecentRecvLen, s.RecentRecvTime = r.recvRing.sumL, r.recvRing.sumT
	s.RecentApplyLen, s.RecentApplyTime = r.applRing.sumL, r.applRing.sumT
	s.RecentWaitTime = r.waitRing.sumT
	s.TaskMem = r.mem
	if len(r.inflight) > 0 {
		s.TaskStart = r.inflight[0].start
	}
	return s
}

// ClearStats forgets the recent and maximum figures (`clear ... apply stat`).
func (r *Receiver) ClearStats() {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.stats.Primary
	r.stats = Stats{Primary: p}
	n := r.cfg.Recent
	r.recvRing, r.applRing, r.waitRing = newRing(n), newRing(n), newRing(n)
}
