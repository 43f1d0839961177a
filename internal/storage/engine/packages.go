package engine

import (
	"datawatch/internal/base"
	"datawatch/internal/storage/redo"
	"datawatch/internal/storage/rlog"
)

// Kinds of a LogPackage, by what is in it.
const (
	PackageCommits = 0 // whole transactions
	PackageOpen    = 1 // an open record
	PackagePart    = 2 // its end is within a large transaction
)

// LogPackage is a package that is not hardened: under way, full and waiting, or
// being filled (V$RLOG_PKG). What is not made yet has the header that it would get
// now.
type LogPackage struct {
	redo.Header
	Kind     int
	Full     bool   // nothing is added any more
	Reserved uint32 // transactions that have reserved room and are not in it yet
}

// LogPackages lists them, oldest first. A package that failed in Suspend is the
// first of them.
func (e *Engine) LogPackages() []LogPackage {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := &e.buf
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []LogPackage
	seq := e.flush.Seq
	add := func(s *segment) {
		p := LogPackage{Full: true}
		switch {
		case s.open != nil:
			p.Kind = PackageOpen
		case s.chain != 0:
			p.Kind = PackagePart
		}
		if s.pkg != nil {
			p.Header = s.pkg.Header
		} else {
			seq++
			p.Header = redo.Header{HeaderLen: redo.HeaderSize, NNodes: 1, PmntMagic: e.pmnt, DBMagic: e.magic, SrcDBMagic: e.magic, GSEQ: seq,
				LSEQ: e.hardLSEQ + seq - e.hard.Seq, PrevLSN: s.min - 1, MinLSN: s.min, MaxLSN: s.max, NPTX: s.n,
				RawLen: uint32(len(s.raw)), DataLen: uint32(len(s.raw))}
		}
		out = append(out, p)
	}
	if b.flying != nil && b.flying.max > e.hard.LSN {
		add(b.flying)
	}
	for _, s := range b.segs {
		add(s)
	}
	if n := len(b.segs); n > 0 && b.segs[n-1].open == nil {
		out[len(out)-1].Full, out[len(out)-1].Reserved = false, uint32(b.reserved)
	}
	return out
}

// LogStats counts since the start (V$RLOG_PKG_STAT).
type LogStats struct {
	Requests int64 // commits, and parts of large transactions, that asked the flusher to work
	Waits    int64 // waits for a package to be hardened
	Taken    int64 // packages taken by the flusher
	Alloc    int64 // commits that waited for room in the redo buffer
	Parts    int64 // parts of large transactions that waited for room in it
	Waiting  int   // packages not hardened
	Written  rlog.Written
	NextLSEQ base.Seq
	NextGSEQ base.Seq // after what is in the online log
}

// LogStats counts what has become of packages.
func (e *Engine) LogStats() LogStats {
	b := &e.buf
	b.mu.Lock()
	s := b.stats
	s.Waiting = len(b.segs)
	if b.flying != nil && b.flying.max > e.Hardened() {
		s.Waiting++
	}
	b.mu.Unlock()
	s.Waits = b.waits.Load()
	s.Written, s.NextLSEQ = e.log.Written(), e.log.NextLSEQ()
	s.NextGSEQ = e.Positions().File.Seq + 1
	return s
}

// made notes the package that the flying segment has become. Under Engine.mu, with
// the positions.
func (b *redoBuffer) made(p *redo.Package) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flying.pkg = p
}
