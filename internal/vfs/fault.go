package vfs

import (
	"path/filepath"
	"strings"
)

// OpKind is a kind of file operation, for hooks and faults.
type OpKind uint8

const (
	OpAny OpKind = iota // in a Fault: every kind
	OpCreate
	OpOpen
	OpRemove
	OpRename
	OpMkdir
	OpReadDir
	OpStat
	OpSyncDir
	OpRead
	OpWrite
	OpTruncate
	OpSync
)

var opNames = [...]string{"any", "create", "open", "remove", "rename", "mkdir", "readdir", "stat", "syncdir", "read", "write", "truncate", "sync"}

func (k OpKind) String() string {
	if int(k) < len(opNames) {
		return opNames[k]
	}
	return "unknown"
}

// Changes reports whether operations of this kind change what is on disk:
// those are the moments at which a power cut matters.
func (k OpKind) Changes() bool {
	switch k {
	case OpCreate, OpRemove, OpRename, OpMkdir, OpSyncDir, OpWrite, OpTruncate, OpSync:
		return true
	}
	return false
}

// Op is one operation as a hook sees it, before (After false) or after it took effect.
type Op struct {
	Kind  OpKind
	Path  string
	To    string // OpRename
	Off   int64  // OpRead, OpWrite; the new size for OpTruncate
	Len   int
	After bool
	// N counts, from 1, the changing operations (OpKind.Changes) of this Mem, this one included.
	N int64
}

// SetHook has fn called before and after every operation, outside all locks,
// so it may call CrashClone or PowerOff. An error returned before the operation
// fails it without effect; after, it is ignored. nil removes the hook.
func (m *Mem) SetHook(fn func(Op) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = fn
}

// Count returns how many changing operations were begun so far.
func (m *Mem) Count() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count
}

// Fault makes matching operations fail.
type Fault struct {
	Kind OpKind
	// Path is matched as a filepath.Match pattern against the whole path or the
	// base name; empty matches all.
	Path string
	// Skip lets that many matching operations pass first; Times limits how many
	// fail then (0: all).
	Skip, Times int
	Err         error
	// Short: bytes of a write that do get through before Err.
	Short int

	seen int // under Mem.mu
}

func (f *Fault) match(op Op) bool {
	if f.Kind != OpAny && f.Kind != op.Kind {
		return false
	}
	if f.Path != "" && !strings.HasSuffix(op.Path, f.Path) {
		whole, _ := filepath.Match(f.Path, op.Path)
		base, _ := filepath.Match(f.Path, filepath.Base(op.Path))
		if !whole && !base {
			return false
		}
	}
	f.seen++
	return f.seen > f.Skip && (f.Times == 0 || f.seen <= f.Skip+f.Times)
}

// Inject adds a fault and returns a function that removes it. Typical errors
// are syscall.ENOSPC and syscall.EIO. A failed Sync leaves what it should have
// written in doubt for ever, as on Linux: a later Sync does not save it.
func (m *Mem) Inject(f Fault) (remove func()) {
	p := &f
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = append(m.fault, p)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for i, q := range m.fault {
			if q == p {
				m.fault = append(m.fault[:i:i], m.fault[i+1:]...)
				return
			}
		}
	}
}

// begin counts op, asks hook and faults, and returns the error the operation
// must fail with and how many bytes a failing write still writes.
func (m *Mem) begin(op Op) (short int, err error) {
	m.mu.Lock()
	if op.Kind.Changes() {
		m.count++
	}
	op.N = m.count
	hook := m.hook
	off := m.off
	m.mu.Unlock()
	if off {
		return 0, ErrPowerOff
	}
	if hook != nil {
		if err := hook(op); err != nil {
			return 0, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.off { // the hook may have cut the power
		return 0, ErrPowerOff
	}
	for _, f := range m.fault {
		if f.match(op) {
			return f.Short, f.Err
		}
	}
	return 0, nil
}

func (m *Mem) end(op Op) {
	m.mu.Lock()
	hook := m.hook
	op.N, op.After = m.count, true
	m.mu.Unlock()
	if hook != nil {
		_ = hook(op)
	}
}
