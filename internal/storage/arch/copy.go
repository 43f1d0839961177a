package arch

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/storage/redo"
	"datawatch/internal/storage/twin"
	"datawatch/internal/vfs"
)

// partSuffix ends the name of a copy that is being written.
const partSuffix = ".part"

// Copy writes packages to files of the archive format that belong to no
// archive: redo that a database gives up, for people to look at. A file has its
// name only when it is whole and synced; one that is there is never written to.
// Not safe for concurrent use.
type Copy struct {
	fs   vfs.FS
	dir  string
	name string
	clk  clock.Clock
	pmnt base.Magic
	db   base.Magic

	f     vfs.File // nil: no file is being written
	h     header
	buf   []byte
	at    int64 // offset of buf
	paths []string
}

// NewCopy begins a copy in dir, which is made when it is missing. Files are named
// NAME_FIRST-LAST_0xMAGIC[NODE]_TIME.log: the packages, the database that produced
// the redo and the local time of making; one file for each database that did. An
// archive opened on a directory with such files reads them. What a copy left
// behind that was cut off is removed.
func NewCopy(fsys vfs.FS, dir, name string, pmnt, db base.Magic, clk clock.Clock) (*Copy, error) {
	if filepath.Base(name) != name || name == "" {
		return nil, fmt.Errorf("copy of redo: %q is no plain name", name)
	}
	if err := fsys.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("copy of redo: %w", err)
	}
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("copy of redo: %w", err)
	}
	for _, n := range names {
		if strings.HasSuffix(n, partSuffix) {
			if err := fsys.Remove(filepath.Join(dir, n)); err != nil {
				return nil, fmt.Errorf("copy of redo: %w", err)
			}
		}
	}
	return &Copy{fs: fsys, dir: dir, name: name, pmnt: pmnt, db: db, clk: clk}, nil
}

// Add adds the next package.
func (c *Copy) Add(p *redo.Package) error {
	if c.f != nil && (c.h.src != p.SrcDBMagic || c.h.node != p.Node || p.GSEQ != c.h.last+1) {
		if err := c.finish(); err != nil {
			return err
		}
	}
	if c.f == nil {
		f, err := c.fs.Create(c.part(), true)
		if err != nil {
			return fmt.Errorf("copy of redo: %w", err)
		}
		c.f, c.at, c.buf = f, twin.Size, c.buf[:0]
		c.h = header{pmnt: c.pmnt, db: c.db, src: p.SrcDBMagic, node: p.Node, flags: flagClosed, created: c.clk.Now().UnixNano(),
			first: p.GSEQ, firstLSN: p.MinLSN, prevLSN: p.PrevLSN}
	}
	off := c.at + int64(len(c.buf))
	c.buf = p.Encode(c.buf)
	c.h.add(&p.Header, off, c.at+int64(len(c.buf)))
	if len(c.buf) >= readChunk {
		return c.flush()
	}
	return nil
}

func (c *Copy) part() string { return filepath.Join(c.dir, c.name+partSuffix) }

func (c *Copy) flush() error {
	if _, err := c.f.WriteAt(c.buf, c.at); err != nil {
		return fmt.Errorf("copy of redo: %w", err)
	}
	c.at += int64(len(c.buf))
	c.buf = c.buf[:0]
	return nil
}

// finish makes the file whole and gives it its name.
func (c *Copy) finish() error {
	err := c.flush()
	if err == nil {
		err = c.f.Sync()
	}
	if err == nil {
		c.h.closed = c.clk.Now().UnixNano()
		err = twin.New(fileKind).Write(c.f, c.h.marshal())
	}
	if err == nil {
		err = c.f.Sync()
	}
	err = errors.Join(err, c.f.Close())
	c.f = nil
	if err != nil {
		return fmt.Errorf("copy of redo: %w", err)
	}
	path, err := c.free()
	if err == nil {
		err = c.fs.Rename(c.part(), path)
	}
	if err == nil {
		err = c.fs.SyncDir(c.dir)
	}
	if err != nil {
		return fmt.Errorf("copy of redo: %w", err)
	}
	c.paths = append(c.paths, path)
	return nil
}

// free is a name that no file has.
func (c *Copy) free() (string, error) {
	for n := 1; ; n++ {
		name := fmt.Sprintf("%s_%d-%d", c.name, c.h.first, c.h.last)
		if n > 1 {
			name = fmt.Sprintf("%s_%d", name, n)
		}
		path := filepath.Join(c.dir, fileName(name, c.h.src, c.h.node, time.Unix(0, c.h.created)))
		if _, err := c.fs.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return path, nil
		} else if err != nil {
			return "", err
		}
	}
}

// Close ends the copy and returns its files, which are on disk.
func (c *Copy) Close() ([]string, error) {
	if c.f != nil {
		if err := c.finish(); err != nil {
			return nil, err
		}
	}
	return c.paths, nil
}

// Abort removes the file that is being written.
func (c *Copy) Abort() {
	if c.f != nil {
		_ = c.f.Close() // it goes anyway
		c.f = nil
		_ = c.fs.Remove(c.part()) // the next copy removes it otherwise
	}
}
