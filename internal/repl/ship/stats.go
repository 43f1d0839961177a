package ship

import (
	"time"

	"datawatch/internal/base"
	"datawatch/internal/storage/redo"
)

// SendInfo is a row of V$ARCH_SEND_INFO. The Max figures belong to the longest
// send, the Recent ones to the last RecentCnt sends.
type SendInfo struct {
	Inst        string
	Type        base.ArchType
	ForRecovery bool

	TotalCnt, TotalLen, TotalPTX int64
	TotalTime                    time.Duration

	MaxTime        time.Duration
	MaxEnd         time.Time
	MaxPTX, MaxLen int64
	MaxLSN         base.LSN

	// Largest of any send, each on its own (`show arch send info`).
	TopPTX, TopLen int64
	TopLSN         base.LSN

	LastLen, LastPTX   int64
	LastLSN            base.LSN
	LastTime           time.Duration
	LastStart, LastEnd time.Time

	RecentCnt            int
	RecentLen, RecentPTX int64
	RecentTime           time.Duration

	// Newest is the newest send of all: the figures above are of those that were
	// acknowledged.
	Newest Send
}

// Send is one message of redo on its way to a target.
type Send struct {
	Start, End        time.Time     // End zero: it is under way
	Time              time.Duration // so far, when it is under way
	FirstLSN, LastLSN base.LSN
	Len, PTX          int64
	ForRecovery       bool
	Failed            bool // it ended without an acknowledgement
}

type sample struct {
	len, ptx int64
	time     time.Duration
}

type sendStats struct {
	info SendInfo
	ring []sample
	n    int
	seq  uint64 // of info.Newest
}

func newSendStats(recent int) sendStats { return sendStats{ring: make([]sample, recent)} }

func (s *sendStats) add(p *redo.Package, d time.Duration, start time.Time, recovery bool) {
	s.addRaw(int64(p.EncodedLen()), int64(p.NPTX), p.MaxLSN, d, start, recovery)
}

func (s *sendStats) addRaw(size, ptx int64, lsn base.LSN, d time.Duration, start time.Time, recovery bool) {
	i := &s.info
	i.ForRecovery = recovery
	i.TotalCnt++
	i.TotalLen += size
	i.TotalPTX += ptx
	i.TotalTime += d
	end := start.Add(d)
	if d >= i.MaxTime {
		i.MaxTime, i.MaxEnd, i.MaxPTX, i.MaxLen, i.MaxLSN = d, end, ptx, size, lsn
	}
	i.TopPTX, i.TopLen, i.TopLSN = max(i.TopPTX, ptx), max(i.TopLen, size), max(i.TopLSN, lsn)
	i.LastLen, i.LastPTX, i.LastLSN, i.LastTime, i.LastStart, i.LastEnd = size, ptx, lsn, d, start, end
	old := &s.ring[s.n%len(s.ring)]
	i.RecentLen += size - old.len
	i.RecentPTX += ptx - old.ptx
	i.RecentTime += d - old.time
	*old = sample{size, ptx, d}
	s.n++
	i.RecentCnt = min(s.n, len(s.ring))
}

// begin notes a send that goes out now; end takes the number it returns. Several
// may be under way, of which the newest is shown.
func (s *sendStats) begin(x Send) uint64 {
	s.info.Newest = x
	s.seq++
	return s.seq
}

func (s *sendStats) end(seq uint64, at time.Time, failed bool) {
	if x := &s.info.Newest; seq == s.seq && !x.Start.IsZero() {
		x.End, x.Time, x.Failed = at, at.Sub(x.Start), failed
	}
}

// SendInfos reports every target.
func (s *Shipper) SendInfos() []SendInfo {
	var out []SendInfo
	for _, t := range s.targets {
		t.mu.Lock()
		i := t.stats.info
		i.Inst, i.Type = t.Inst, t.Type
		if x := &i.Newest; !x.Start.IsZero() && x.End.IsZero() {
			x.Time = s.cfg.Clock.Now().Sub(x.Start)
		}
		t.mu.Unlock()
		out = append(out, i)
	}
	return out
}

// ClearStats forgets the figures of one target, "" of all (`clear ... arch send
// info`).
func (s *Shipper) ClearStats(inst string) {
	for _, t := range s.targets {
		if inst == "" || t.Inst == inst {
			t.mu.Lock()
			seq := t.stats.seq // a send under way must not be taken for one that begins now
			t.stats = newSendStats(s.cfg.Recent)
			t.stats.seq = seq
			t.mu.Unlock()
		}
	}
}
