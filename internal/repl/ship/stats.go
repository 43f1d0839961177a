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
}

type sample struct {
	len, ptx int64
	time     time.Duration
}

type sendStats struct {
	info SendInfo
	ring []sample
	n    int
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

// SendInfos reports every target.
func (s *Shipper) SendInfos() []SendInfo {
	var out []SendInfo
	for _, t := range s.targets {
		t.mu.Lock()
		i := t.stats.info
		i.Inst, i.Type = t.Inst, t.Type
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
			t.stats = newSendStats(s.cfg.Recent)
			t.mu.Unlock()
		}
	}
}
