package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"sort"
	"sync"
	"time"
)

// sector is the unit in which a power cut tears a write.
const sector = 512

// ErrPowerOff is what every operation on a Mem answers after PowerOff.
var ErrPowerOff = errors.New("power is off")

// Mem is a file system in memory that remembers, beside what the program sees,
// what a disk would still have after a power cut: file data is safe after
// File.Sync, names after SyncDir. CrashClone makes a file system as found after
// a cut. A hook sees every operation and can fail it. Safe for concurrent use.
type Mem struct {
	mu    sync.Mutex
	names map[string]*inode // what the program sees
	saved map[string]*inode // what is certainly on disk
	dirOp []nameOp          // name changes since, in order
	dirs  map[string]bool
	locks map[string]bool
	off   bool
	count int64
	hook  func(Op) error
	fault []*Fault
}

var _ FS = (*Mem)(nil)

// inode is a file's content: as seen, as certainly on disk, and the changes
// between the two.
type inode struct {
	data    []byte
	saved   []byte
	pending []change
	mtime   time.Time
}

// change is a write (data) or, when data is nil, a truncation to size.
type change struct {
	off  int64
	data []byte
	size int64
	// dropped: a sync that covered it failed. As on Linux the cache now calls the page clean,
	// so a later successful sync does not make it durable.
	dropped bool
}

// nameOp gives name "to" the file (nil: none) and takes name "from" away.
type nameOp struct {
	to, from string
	file     *inode
}

// NewMem returns an empty file system with a root directory.
func NewMem() *Mem {
	return &Mem{names: map[string]*inode{}, saved: map[string]*inode{},
		dirs: map[string]bool{"/": true, ".": true}, locks: map[string]bool{}}
}

// PowerOff makes every later operation fail with ErrPowerOff; what a restart
// finds is in CrashClone.
func (m *Mem) PowerOff() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.off = true
}

// CrashClone returns the file system as a restart could find it if the power
// went now: synced data is there; each unsynced write is there, missing, or
// torn at 512-byte sectors; each unsynced creation, rename and removal is
// there or missing. The receiver is not changed and goes on. The clone has no
// hook, faults or locks, and all it has counts as synced.
func (m *Mem) CrashClone(rnd *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMem()
	for d := range m.dirs { // lost directories would only add "file missing" cases of the same kind
		c.dirs[d] = true
	}
	names := make(map[string]*inode, len(m.saved))
	for n, f := range m.saved {
		names[n] = f
	}
	lose := rnd.IntN(3) // 0: every name change arrived, 1: each by chance, 2: none did
	for _, op := range m.dirOp {
		if lose == 2 || lose == 1 && rnd.IntN(2) == 0 {
			continue
		}
		op.apply(names)
	}
	order := make([]string, 0, len(names))
	for n := range names {
		order = append(order, n)
	}
	sort.Strings(order) // the same seed gives the same clone
	done := map[*inode]*inode{}
	for _, n := range order {
		f := names[n]
		if done[f] == nil {
			d := f.crash(rnd)
			done[f] = &inode{data: d, saved: append([]byte(nil), d...), mtime: f.mtime}
		}
		c.names[n], c.saved[n] = done[f], done[f]
	}
	return c
}

// Clone returns a copy in which everything arrived, synced or not: what a
// restart finds after the process was killed and the machine was not.
func (m *Mem) Clone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMem()
	for d := range m.dirs {
		c.dirs[d] = true
	}
	done := map[*inode]*inode{}
	for n, f := range m.names {
		if done[f] == nil {
			done[f] = &inode{data: append([]byte(nil), f.data...), saved: append([]byte(nil), f.data...), mtime: f.mtime}
		}
		c.names[n], c.saved[n] = done[f], done[f]
	}
	return c
}

func (op nameOp) apply(names map[string]*inode) {
	if op.from != "" {
		delete(names, op.from)
	}
	if op.to != "" {
		names[op.to] = op.file
	}
}

func (f *inode) crash(rnd *rand.Rand) []byte {
	d := append([]byte(nil), f.saved...)
	for _, c := range f.pending {
		switch keep := rnd.IntN(3); {
		case keep == 0:
		case c.data == nil || keep == 1:
			d = c.apply(d)
		default:
			d = c.tear(d, rnd)
		}
	}
	return d
}

func (c change) apply(d []byte) []byte {
	if c.data == nil {
		return resize(d, c.size)
	}
	if end := c.off + int64(len(c.data)); end > int64(len(d)) {
		d = resize(d, end)
	}
	copy(d[c.off:], c.data)
	return d
}

// tear writes each sector of the change by chance.
func (c change) tear(d []byte, rnd *rand.Rand) []byte {
	for i := int64(0); i < int64(len(c.data)); {
		n := min(sector-(c.off+i)%sector, int64(len(c.data))-i)
		if rnd.IntN(2) == 0 {
			d = change{off: c.off + i, data: c.data[i : i+n]}.apply(d)
		}
		i += n
	}
	return d
}

func resize(d []byte, size int64) []byte {
	n := int64(len(d))
	if size <= n {
		return d[:size:size] // the cap keeps a later growth from showing old bytes
	}
	if size > int64(cap(d)) {
		e := make([]byte, size, max(size, n+n/4))
		copy(e, d)
		return e
	}
	d = d[:size]
	clear(d[n:])
	return d
}

func clean(path string) string { return filepath.Clean(path) }

func pathErr(op, path string, err error) error {
	return &fs.PathError{Op: op, Path: path, Err: err}
}

func (m *Mem) Create(path string, trunc bool) (File, error) {
	path = clean(path)
	if _, err := m.begin(Op{Kind: OpCreate, Path: path}); err != nil {
		return nil, pathErr("create", path, err)
	}
	m.mu.Lock()
	if !m.dirs[filepath.Dir(path)] {
		m.mu.Unlock()
		return nil, pathErr("create", path, fs.ErrNotExist)
	}
	f := m.names[path]
	if f == nil {
		f = &inode{mtime: time.Unix(0, 0)}
		m.name(nameOp{to: path, file: f})
	} else if trunc {
		f.change(change{size: 0})
	}
	m.mu.Unlock()
	m.end(Op{Kind: OpCreate, Path: path})
	return &memFile{m: m, path: path, f: f}, nil
}

func (m *Mem) name(op nameOp) {
	op.apply(m.names)
	m.dirOp = append(m.dirOp, op)
}

func (m *Mem) Open(path string) (File, error) {
	path = clean(path)
	if _, err := m.begin(Op{Kind: OpOpen, Path: path}); err != nil {
		return nil, pathErr("open", path, err)
	}
	m.mu.Lock()
	f := m.names[path]
	m.mu.Unlock()
	if f == nil {
		return nil, pathErr("open", path, fs.ErrNotExist)
	}
	m.end(Op{Kind: OpOpen, Path: path})
	return &memFile{m: m, path: path, f: f}, nil
}

func (m *Mem) Remove(path string) error {
	path = clean(path)
	if _, err := m.begin(Op{Kind: OpRemove, Path: path}); err != nil {
		return pathErr("remove", path, err)
	}
	m.mu.Lock()
	switch {
	case m.names[path] != nil:
		m.name(nameOp{from: path})
	case m.dirs[path] && len(m.list(path)) == 0:
		delete(m.dirs, path)
	case m.dirs[path]:
		m.mu.Unlock()
		return pathErr("remove", path, errors.New("directory not empty"))
	default:
		m.mu.Unlock()
		return pathErr("remove", path, fs.ErrNotExist)
	}
	m.mu.Unlock()
	m.end(Op{Kind: OpRemove, Path: path})
	return nil
}

// Rename moves a file. Renaming a directory moves what is in it and counts as
// durable at once (no storage code depends on less).
func (m *Mem) Rename(from, to string) error {
	from, to = clean(from), clean(to)
	if _, err := m.begin(Op{Kind: OpRename, Path: from, To: to}); err != nil {
		return pathErr("rename", from, err)
	}
	m.mu.Lock()
	f := m.names[from]
	switch {
	case f != nil && !m.dirs[filepath.Dir(to)]:
		m.mu.Unlock()
		return pathErr("rename", to, fs.ErrNotExist)
	case f != nil:
		if from != to {
			m.name(nameOp{to: to, from: from, file: f})
		}
	case m.dirs[from]:
		m.renameDir(from, to)
	default:
		m.mu.Unlock()
		return pathErr("rename", from, fs.ErrNotExist)
	}
	m.mu.Unlock()
	m.end(Op{Kind: OpRename, Path: from, To: to})
	return nil
}

func (m *Mem) renameDir(from, to string) {
	move := func(p string) string {
		if rel, err := filepath.Rel(from, p); err == nil && filepath.IsLocal(rel) {
			return filepath.Join(to, rel)
		}
		return p
	}
	moved := func(in map[string]*inode) map[string]*inode {
		out := make(map[string]*inode, len(in))
		for p, f := range in {
			out[move(p)] = f
		}
		return out
	}
	dirs := map[string]bool{}
	for d := range m.dirs {
		dirs[move(d)] = true
	}
	m.names, m.saved, m.dirs = moved(m.names), moved(m.saved), dirs
	for i, op := range m.dirOp {
		if op.to != "" {
			m.dirOp[i].to = move(op.to)
		}
		if op.from != "" {
			m.dirOp[i].from = move(op.from)
		}
	}
}

func (m *Mem) MkdirAll(path string) error {
	path = clean(path)
	if _, err := m.begin(Op{Kind: OpMkdir, Path: path}); err != nil {
		return pathErr("mkdir", path, err)
	}
	m.mu.Lock()
	for p := path; !m.dirs[p]; p = filepath.Dir(p) {
		if m.names[p] != nil {
			m.mu.Unlock()
			return pathErr("mkdir", p, errors.New("not a directory"))
		}
		m.dirs[p] = true
	}
	m.mu.Unlock()
	m.end(Op{Kind: OpMkdir, Path: path})
	return nil
}

func (m *Mem) list(dir string) []string {
	var out []string
	add := func(p string) {
		if filepath.Dir(p) == dir && p != dir {
			out = append(out, filepath.Base(p))
		}
	}
	for p := range m.names {
		add(p)
	}
	for p := range m.dirs {
		add(p)
	}
	sort.Strings(out)
	return out
}

func (m *Mem) ReadDir(path string) ([]string, error) {
	path = clean(path)
	if _, err := m.begin(Op{Kind: OpReadDir, Path: path}); err != nil {
		return nil, pathErr("readdir", path, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirs[path] {
		return nil, pathErr("readdir", path, fs.ErrNotExist)
	}
	return m.list(path), nil
}

func (m *Mem) Stat(path string) (fs.FileInfo, error) {
	path = clean(path)
	if _, err := m.begin(Op{Kind: OpStat, Path: path}); err != nil {
		return nil, pathErr("stat", path, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.names[path]; f != nil {
		return memInfo{name: filepath.Base(path), size: int64(len(f.data)), mtime: f.mtime}, nil
	}
	if m.dirs[path] {
		return memInfo{name: filepath.Base(path), dir: true}, nil
	}
	return nil, pathErr("stat", path, fs.ErrNotExist)
}

func (m *Mem) SyncDir(path string) error {
	path = clean(path)
	if _, err := m.begin(Op{Kind: OpSyncDir, Path: path}); err != nil {
		return pathErr("sync directory", path, err)
	}
	m.mu.Lock()
	if !m.dirs[path] {
		m.mu.Unlock()
		return pathErr("sync directory", path, fs.ErrNotExist)
	}
	rest := m.dirOp[:0:0]
	for _, op := range m.dirOp {
		if op.to != "" && filepath.Dir(op.to) == path || op.from != "" && filepath.Dir(op.from) == path {
			op.apply(m.saved)
		} else {
			rest = append(rest, op)
		}
	}
	m.dirOp = rest
	m.mu.Unlock()
	m.end(Op{Kind: OpSyncDir, Path: path})
	return nil
}

func (m *Mem) Lock(path string) (io.Closer, error) {
	path = clean(path)
	f, err := m.Create(path, false)
	if err != nil {
		return nil, err
	}
	f.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[path] {
		return nil, fmt.Errorf("lock %s: %w", path, ErrLocked)
	}
	m.locks[path] = true
	return &memLock{m: m, path: path}, nil
}

type memLock struct {
	m    *Mem
	path string
	once sync.Once
}

func (l *memLock) Close() error {
	l.once.Do(func() {
		l.m.mu.Lock()
		defer l.m.mu.Unlock()
		delete(l.m.locks, l.path)
	})
	return nil
}

type memInfo struct {
	name  string
	size  int64
	dir   bool
	mtime time.Time
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) IsDir() bool        { return i.dir }
func (i memInfo) ModTime() time.Time { return i.mtime }
func (i memInfo) Sys() any           { return nil }
func (i memInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | dirMode
	}
	return fileMode
}
