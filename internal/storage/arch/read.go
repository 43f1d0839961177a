package arch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sort"

	"datawatch/internal/base"
	"datawatch/internal/storage/redo"
	"datawatch/internal/storage/twin"
	"datawatch/internal/vfs"
)

// End is the position of the last package appended, zero when there is none.
func (a *Archive) End() base.Position {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.end
}

// First is the GSEQ of the oldest package from which all up to End are there, 0
// when the archive is empty.
func (a *Archive) First() base.Seq {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.runStart()
}

func (a *Archive) runStart() base.Seq {
	var first base.Seq
	for i := len(a.files) - 1; i >= 0; i-- {
		h := &a.files[i].h
		if first != 0 && h.last+1 != first {
			break
		}
		first = h.first
	}
	return first
}

// Has reports whether every package with GSEQ >= from, up to End, is there.
func (a *Archive) Has(from base.Seq) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if from > a.end.Seq {
		return true
	}
	first := a.runStart()
	return first != 0 && from >= first
}

// part is what Read reads of one file.
type part struct {
	f     *file
	path  string
	from  entry // where to begin
	prev  base.LSN
	known bool // prev is known: from is the first package
	last  base.Seq
	end   int64
	src   base.Magic
}

// Read calls fn for each package from GSEQ from to End as of the call, in
// order. fn may keep the packages. It stops at fn's error, when ctx is done, at
// ErrGone (packages deleted or never there) and at ErrDamaged.
func (a *Archive) Read(ctx context.Context, from base.Seq, fn func(*redo.Package) error) error {
	return a.read(ctx, from, nil, fn)
}

// Scan is Read for an fn that keeps nothing of a package: they share one buffer.
func (a *Archive) Scan(ctx context.Context, from base.Seq, fn func(*redo.Package) error) error {
	var buf []byte
	return a.read(ctx, from, &buf, fn)
}

func (a *Archive) read(ctx context.Context, from base.Seq, buf *[]byte, fn func(*redo.Package) error) error {
	parts, err := a.plan(from)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err := a.readPart(ctx, p, from, buf, fn); err != nil {
			return err
		}
	}
	return nil
}

func (a *Archive) plan(from base.Seq) ([]part, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, ErrClosed
	}
	if from > a.end.Seq {
		return nil, nil
	}
	if first := a.runStart(); from < first {
		return nil, fmt.Errorf("package %d: %w: it begins with %d", from, ErrGone, first)
	}
	if err := a.flush(); err != nil {
		return nil, err
	}
	i := sort.Search(len(a.files), func(i int) bool { return a.files[i].h.last >= from })
	var parts []part
	for _, f := range a.files[i:] {
		if f.h.last < f.h.first {
			continue
		}
		p := part{f: f, path: f.path, prev: f.h.prevLSN, last: f.h.last, end: f.h.end, src: f.h.src}
		p.from, p.known = f.near(from)
		parts = append(parts, p)
	}
	return parts, nil
}

// near is the last known place in the file that is not behind a package; first
// says that it is the file's beginning.
func (f *file) near(seq base.Seq) (e entry, first bool) {
	j, ok := slices.BinarySearchFunc(f.index, seq, func(e entry, s base.Seq) int { return cmp.Compare(e.gseq, s) })
	if !ok {
		j--
	}
	if j > 0 {
		return f.index[j], false
	}
	return entry{f.h.first, twin.Size}, true
}

// Span tells how many bytes the packages from one GSEQ to another are, as far as
// they are there, and in how many files.
func (a *Archive) Span(ctx context.Context, from, to base.Seq) (bytes int64, files int, err error) {
	parts, err := a.plan(from)
	if err != nil {
		return 0, 0, err
	}
	for _, p := range parts {
		if p.from.gseq > to {
			break
		}
		begin, err := a.offset(ctx, p, from)
		if err != nil {
			return 0, 0, err
		}
		end := p.end
		if to < p.last {
			a.mu.Lock()
			p.from, p.known = p.f.near(to + 1)
			a.mu.Unlock()
			if end, err = a.offset(ctx, p, to+1); err != nil {
				return 0, 0, err
			}
		}
		bytes += end - begin
		files++
	}
	return bytes, files, nil
}

// offset is where a package begins in a file, or the first one that does not come
// before it. It walks over headers from the nearest known place.
func (a *Archive) offset(ctx context.Context, p part, seq base.Seq) (int64, error) {
	if p.from.gseq >= seq {
		return p.from.off, nil
	}
	var buf []byte
	s, err := a.scan(p, &buf)
	if err != nil {
		return 0, err
	}
	defer s.f.Close()
	var found []entry
	defer func() { a.learn(p, found) }()
	for s.next < seq && s.at < s.end {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		found = noted(found, entry{s.next, s.at})
		if _, err := s.step(false); err != nil {
			return 0, err
		}
	}
	return s.at, nil
}

func (a *Archive) readPart(ctx context.Context, p part, from base.Seq, buf *[]byte, fn func(*redo.Package) error) error {
	s, err := a.scan(p, buf)
	if err != nil {
		return err
	}
	defer s.f.Close()
	var found []entry
	defer func() { a.learn(p, found) }()
	for s.at < s.end {
		if err := ctx.Err(); err != nil {
			return err
		}
		off, gseq := s.at, s.next
		pkg, err := s.step(gseq >= from)
		if err != nil {
			return err
		}
		found = noted(found, entry{gseq, off})
		if gseq >= from {
			if err := fn(pkg); err != nil {
				return err
			}
		}
	}
	return nil
}

// scan opens a file to read it from p's place on.
func (a *Archive) scan(p part, buf *[]byte) (*scanner, error) {
	f, err := a.fs.Open(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("package %d: %w: %w", p.from.gseq, ErrGone, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	return &scanner{f: f, path: p.path, at: p.from.off, end: p.end, next: p.from.gseq, prev: p.prev, anyPrev: !p.known, src: p.src, pmnt: a.cfg.PmntMagic, buf: buf}, nil
}

// noted adds a place to those found when it is far enough from the last.
func noted(found []entry, e entry) []entry {
	if n := len(found); n == 0 || e.off-found[n-1].off >= indexEvery {
		found = append(found, e)
	}
	return found
}

// learn adds what a read found to the sparse index.
func (a *Archive) learn(p part, found []entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ix := p.f.index
	for _, e := range found {
		if n := len(ix); n == 0 && e.off == twin.Size || n > 0 && e.off-ix[n-1].off >= indexEvery {
			ix = append(ix, e)
		}
	}
	p.f.index = ix
}

// scanner reads packages of one file one after the other.
type scanner struct {
	f        vfs.File
	path     string
	at, end  int64
	next     base.Seq // GSEQ expected
	prev     base.LSN
	anyPrev  bool // prev is not known yet
	src      base.Magic
	pmnt     base.Magic
	chunk    []byte // packages point into it, so it is used again only with buf
	chunkOff int64
	buf      *[]byte // memory for all chunks; nil: each has its own
}

// peek returns up to n bytes at the scanner's place, fewer at the end. It reads
// no byte twice, and beyond n, so that the header behind a large package comes
// with it.
func (s *scanner) peek(n int64) ([]byte, error) {
	n = min(n, s.end-s.at)
	if s.at < s.chunkOff || s.at+n > s.chunkOff+int64(len(s.chunk)) {
		chunk, have := s.room(min(n+readChunk, s.end-s.at)), 0
		if s.at >= s.chunkOff && s.at < s.chunkOff+int64(len(s.chunk)) {
			have = copy(chunk, s.chunk[s.at-s.chunkOff:])
		}
		s.chunkOff, s.chunk = s.at, nil
		if got, err := s.f.ReadAt(chunk[have:], s.at+int64(have)); have+got < len(chunk) {
			if err == nil || errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("%w: %s, offset %d: the file ends", ErrDamaged, s.path, s.at+int64(have+got))
			}
			return nil, fmt.Errorf("read archive file %s, offset %d: %w", s.path, s.at+int64(have), err)
		}
		s.chunk = chunk
	}
	return s.chunk[s.at-s.chunkOff:][:n:n], nil
}

func (s *scanner) room(n int64) []byte {
	if s.buf == nil {
		return make([]byte, n)
	}
	if int64(cap(*s.buf)) < n {
		*s.buf = make([]byte, n, n+n/4) // the chunk before it stays as it is
	}
	return (*s.buf)[:n]
}

// step reads the next package, nil at the end. The data is verified only when
// whole is true; otherwise the package returned has none.
func (s *scanner) step(whole bool) (*redo.Package, error) {
	if s.at >= s.end {
		return nil, nil
	}
	b, err := s.peek(redo.HeaderSize)
	if err != nil {
		return nil, err
	}
	h, err := redo.DecodeHeader(b)
	if err != nil {
		return nil, s.fail(err)
	}
	size := int64(redo.HeaderSize) + int64(h.DataLen)
	p := &redo.Package{Header: h}
	switch {
	case h.GSEQ != s.next || !s.anyPrev && h.PrevLSN != s.prev:
		return nil, s.fail(fmt.Errorf("package %d following LSN %d where %d following %d should be", h.GSEQ, h.PrevLSN, s.next, s.prev))
	case h.PmntMagic != s.pmnt || h.SrcDBMagic != s.src:
		return nil, s.fail(fmt.Errorf("package %d of PMNT_MAGIC %v, SRC_DB_MAGIC %v in a file of %v, %v", h.GSEQ, h.PmntMagic, h.SrcDBMagic, s.pmnt, s.src))
	case size > s.end-s.at:
		return nil, s.fail(fmt.Errorf("package %d has %d bytes, %d are there", h.GSEQ, size, s.end-s.at))
	case whole:
		if b, err = s.peek(size); err != nil {
			return nil, err
		}
		if p, err = redo.Decode(b); err != nil {
			return nil, s.fail(err)
		}
	}
	s.at += size
	s.next, s.prev, s.anyPrev = h.GSEQ+1, h.MaxLSN, false
	return p, nil
}

func (s *scanner) fail(err error) error {
	if errors.Is(err, redo.ErrVersion) {
		return fmt.Errorf("archive file %s, offset %d: %w", s.path, s.at, err)
	}
	return fmt.Errorf("%w: %s, offset %d: %w", ErrDamaged, s.path, s.at, err)
}
