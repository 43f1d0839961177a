package ship_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"datawatch/internal/vfs"
)

// countedFS counts what is written, read and synced, by the kind of file: on a
// machine with other work that says more than the time.
type countedFS struct {
	vfs.OS
	mu   sync.Mutex
	kind map[string]*ioCount
}

type ioCount struct{ wrote, read, writes, reads, syncs int64 }

func (c *countedFS) count(path string) *ioCount {
	kind := filepath.Base(path)
	if strings.Contains(path, "arch/") {
		kind = "arch"
	} else if filepath.Ext(kind) == ".log" {
		kind = "log"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kind == nil {
		c.kind = map[string]*ioCount{}
	}
	if c.kind[kind] == nil {
		c.kind[kind] = &ioCount{}
	}
	return c.kind[kind]
}

// reset forgets what was counted.
func (c *countedFS) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.kind {
		*n = ioCount{}
	}
}

// table tells it for each kind, for every byte of size.
func (c *countedFS) table(size int64) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for k, n := range c.kind {
		if n.wrote+n.read+n.syncs > 0 {
			out = append(out, fmt.Sprintf("%-14s written %4.2f (%d writes) read %4.2f (%d reads) syncs %d",
				k, float64(n.wrote)/float64(size), n.writes, float64(n.read)/float64(size), n.reads, n.syncs))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// Create implements vfs.FS.
func (c *countedFS) Create(path string, trunc bool) (vfs.File, error) {
	f, err := c.OS.Create(path, trunc)
	if err != nil {
		return nil, err
	}
	return &countedFile{f, c, c.count(path)}, nil
}

// Open implements vfs.FS.
func (c *countedFS) Open(path string) (vfs.File, error) {
	f, err := c.OS.Open(path)
	if err != nil {
		return nil, err
	}
	return &countedFile{f, c, c.count(path)}, nil
}

type countedFile struct {
	vfs.File
	c *countedFS
	n *ioCount
}

func (f *countedFile) add(fn func(n *ioCount)) {
	f.c.mu.Lock()
	fn(f.n)
	f.c.mu.Unlock()
}

// WriteAt implements io.WriterAt.
func (f *countedFile) WriteAt(b []byte, off int64) (int, error) {
	f.add(func(n *ioCount) { n.wrote += int64(len(b)); n.writes++ })
	return f.File.WriteAt(b, off)
}

// ReadAt implements io.ReaderAt.
func (f *countedFile) ReadAt(b []byte, off int64) (int, error) {
	f.add(func(n *ioCount) { n.read += int64(len(b)); n.reads++ })
	return f.File.ReadAt(b, off)
}

// Sync implements vfs.File.
func (f *countedFile) Sync() error {
	f.add(func(n *ioCount) { n.syncs++ })
	return f.File.Sync()
}
