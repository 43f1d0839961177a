package vfs

import (
	"errors"
	"io"
	"io/fs"
)

type memFile struct {
	m      *Mem
	path   string // as opened; faults match it
	f      *inode
	closed bool // under m.mu
}

// change does c to what the program sees and remembers it as unsynced.
func (f *inode) change(c change) {
	f.data = c.apply(f.data)
	f.pending = append(f.pending, c)
}

func (f *memFile) open() error {
	if f.closed {
		return fs.ErrClosed
	}
	return nil
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	if _, err := f.m.begin(Op{Kind: OpRead, Path: f.path, Off: off, Len: len(b)}); err != nil {
		return 0, pathErr("read", f.path, err)
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.open(); err != nil {
		return 0, pathErr("read", f.path, err)
	}
	if off < 0 {
		return 0, pathErr("read", f.path, fs.ErrInvalid)
	}
	if off >= int64(len(f.f.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.f.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	op := Op{Kind: OpWrite, Path: f.path, Off: off, Len: len(b)}
	short, err := f.m.begin(op)
	if err != nil {
		if short > 0 {
			f.write(b[:min(short, len(b))], off)
		}
		return min(short, len(b)), pathErr("write", f.path, err)
	}
	if off < 0 {
		return 0, pathErr("write", f.path, fs.ErrInvalid)
	}
	if err := f.write(b, off); err != nil {
		return 0, pathErr("write", f.path, err)
	}
	f.m.end(op)
	return len(b), nil
}

func (f *memFile) write(b []byte, off int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.open(); err != nil {
		return err
	}
	if len(b) > 0 {
		f.f.change(change{off: off, data: append([]byte(nil), b...)})
	}
	return nil
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.open(); err != nil {
		return pathErr("close", f.path, err)
	}
	f.closed = true
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.open(); err != nil {
		return 0, pathErr("stat", f.path, err)
	}
	if f.m.off {
		return 0, pathErr("stat", f.path, ErrPowerOff)
	}
	return int64(len(f.f.data)), nil
}

func (f *memFile) Truncate(size int64) error {
	op := Op{Kind: OpTruncate, Path: f.path, Off: size}
	if _, err := f.m.begin(op); err != nil {
		return pathErr("truncate", f.path, err)
	}
	f.m.mu.Lock()
	if err := f.open(); err != nil || size < 0 {
		f.m.mu.Unlock()
		return pathErr("truncate", f.path, errors.Join(err, fs.ErrInvalid))
	}
	f.f.change(change{size: size})
	f.m.mu.Unlock()
	f.m.end(op)
	return nil
}

func (f *memFile) Sync() error {
	op := Op{Kind: OpSync, Path: f.path}
	if _, err := f.m.begin(op); err != nil {
		f.m.mu.Lock()
		for i := range f.f.pending {
			f.f.pending[i].dropped = true
		}
		f.m.mu.Unlock()
		return pathErr("sync", f.path, err)
	}
	f.m.mu.Lock()
	if err := f.open(); err != nil {
		f.m.mu.Unlock()
		return pathErr("sync", f.path, err)
	}
	rest := f.f.pending[:0:0]
	for _, c := range f.f.pending {
		if c.dropped {
			rest = append(rest, c)
		} else {
			f.f.saved = c.apply(f.f.saved)
			rest = without(rest, c)
		}
	}
	f.f.pending = rest
	f.m.mu.Unlock()
	f.m.end(op)
	return nil
}

// without takes what c wrote out of older changes whose sync failed: the newer
// bytes are on disk now.
func without(old []change, c change) []change {
	if len(old) == 0 {
		return old
	}
	if c.data == nil {
		return old[:0]
	}
	end := c.off + int64(len(c.data))
	var out []change
	for _, o := range old {
		oend := o.off + int64(len(o.data))
		if o.data == nil || oend <= c.off || o.off >= end {
			out = append(out, o)
			continue
		}
		if o.off < c.off {
			out = append(out, change{off: o.off, data: o.data[:c.off-o.off], dropped: true})
		}
		if oend > end {
			out = append(out, change{off: end, data: o.data[end-o.off:], dropped: true})
		}
	}
	return out
}
