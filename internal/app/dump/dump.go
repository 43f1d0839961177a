// Package dump shows the files of a database, stopped or running: `dw dump
// redo|arch|page|ctl`. It opens files for reading only, verifies every checksum,
// and goes on behind damage, which it names with file and offset.
package dump

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"datawatch/internal/base"
	"datawatch/internal/config"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

// Usage lists the commands.
const Usage = `  dw dump redo  [-json] [-v] [-all] dm.ini | LOG...     packages of the online log from the checkpoint on; -all: every place
                                                       (or of SURPLUS_*.log, redo given up in a rejoin)
  dw dump arch  [-json] [-v] dm.ini | FILE... | DIR     packages of archive files
  dw dump page  [-json] [-v] [-page N[-M]] dm.ini | FILE   pages: damage and a summary, or those asked for
  dw dump ctl   [-json] dm.ini | dm.ctl                 the control file and its copy
            read only, also of a running database; -v shows transactions, records, bytes; exit code 1 when something is damaged
`

// ErrDamage is the error of a dump that found damage; all of it was printed.
var ErrDamage = errors.New("damage was found")

// UsageError is a mistake on the command line.
type UsageError struct{ error }

// printer writes what is found, as text or as one JSON object a line.
type printer struct {
	out    io.Writer
	json   bool
	v      bool
	damage int
	err    error // first write error
}

// put prints one thing.
func (p *printer) put(kind string, v any, format string, a ...any) {
	var err error
	if p.json {
		var b []byte
		if b, err = json.Marshal(map[string]any{"kind": kind, kind: v}); err == nil {
			_, err = p.out.Write(append(b, '\n'))
		}
	} else {
		_, err = fmt.Fprintf(p.out, format+"\n", a...)
	}
	if p.err == nil {
		p.err = err
	}
}

// damaged prints damage.
func (p *printer) damaged(file string, offset int64, text string) {
	p.damage++
	p.put("damage", map[string]any{"file": file, "offset": offset, "text": text}, "DAMAGE %s, offset %d: %s", file, offset, text)
}

// Main runs `dw dump` with what follows these words.
func Main(args []string, out io.Writer) error {
	if len(args) == 0 {
		return UsageError{errors.New("what? redo, arch, page or ctl")}
	}
	fs := flag.NewFlagSet("dump "+args[0], flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	p := &printer{out: out}
	var all bool
	var pages string
	fs.BoolVar(&p.json, "json", false, "")
	fs.BoolVar(&p.v, "v", false, "")
	fs.BoolVar(&all, "all", false, "")
	fs.StringVar(&pages, "page", "", "")
	if err := fs.Parse(args[1:]); err != nil {
		return UsageError{err}
	}
	files := fs.Args()
	if len(files) == 0 {
		return UsageError{errors.New("no file is named")}
	}
	var err error
	switch args[0] {
	case "redo":
		err = p.redo(files, all)
	case "arch":
		err = p.arch(files)
	case "page":
		err = p.page(files, pages)
	case "ctl":
		err = p.ctl(files)
	default:
		return UsageError{fmt.Errorf("%q: redo, arch, page or ctl", args[0])}
	}
	switch {
	case err != nil:
		return err
	case p.err != nil:
		return fmt.Errorf("write: %w", p.err)
	case p.damage > 0:
		return fmt.Errorf("%w in %d places", ErrDamage, p.damage)
	}
	return nil
}

// isIni reports whether a file is a dm.ini.
func isIni(path string) bool { return strings.EqualFold(filepath.Ext(path), ".ini") }

// instance loads what dm.ini says of the files.
func instance(path string) (*config.Instance, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	return config.LoadInstance(abs)
}

// readOnly is the operating system's files, opened for reading only. Nothing
// else is possible.
type readOnly struct{ vfs.FS }

var errReadOnly = errors.New("files are read only here")

func (readOnly) Create(path string, _ bool) (vfs.File, error) {
	return nil, fmt.Errorf("create %s: %w", path, errReadOnly)
}

func (readOnly) Open(path string) (vfs.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return roFile{f}, nil
}

type roFile struct{ *os.File }

func (f roFile) WriteAt([]byte, int64) (int, error) { return 0, errReadOnly }
func (f roFile) Truncate(int64) error               { return errReadOnly }
func (f roFile) Sync() error                        { return nil }
func (f roFile) Size() (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

// disk is where everything is read from.
var disk = readOnly{vfs.OS{}}

// pkg is a package as it is shown.
type pkg struct {
	File       string     `json:"file"`
	Offset     int64      `json:"offset"`
	GSEQ       base.Seq   `json:"gseq"`
	LSEQ       base.Seq   `json:"lseq"`
	PrevLSN    base.LSN   `json:"prev_lsn"`
	MinLSN     base.LSN   `json:"min_lsn"`
	MaxLSN     base.LSN   `json:"max_lsn"`
	NPTX       uint32     `json:"n_ptx"`
	RawLen     uint32     `json:"raw_len"`
	DataLen    uint32     `json:"data_len"`
	Compressed bool       `json:"compressed"`
	SrcDBMagic base.Magic `json:"src_db_magic"`
	OpenID     uint64     `json:"open_id"`
	Time       string     `json:"time"`
	Checksum   string     `json:"checksum"`
}

func shown(file string, off int64, h *redo.Header) pkg {
	return pkg{file, off, h.GSEQ, h.LSEQ, h.PrevLSN, h.MinLSN, h.MaxLSN, h.NPTX, h.RawLen, h.DataLen, h.Flags&redo.FlagS2 != 0, h.SrcDBMagic, h.OpenID,
		stamp(h.TimeNs), fmt.Sprintf("%08x", h.Checksum)}
}

func (p *printer) pkg(x pkg) {
	c := ""
	if x.Compressed {
		c = fmt.Sprintf(" (compressed %d)", x.DataLen)
	}
	p.put("package", x, "%s +%d  GSEQ %d LSEQ %d  LSN %d-%d  PTX %d  %d bytes%s  reign %d  %s", filepath.Base(x.File), x.Offset, x.GSEQ, x.LSEQ, x.MinLSN, x.MaxLSN, x.NPTX,
		x.RawLen, c, x.OpenID, x.Time)
}

// content shows the transactions of a package and their records, and verifies
// them in any case.
func (p *printer) content(file string, off int64, x *redo.Package) {
	for t, err := range x.PTXs() {
		if err != nil {
			p.damaged(file, off, err.Error())
			return
		}
		if p.v {
			p.put("ptx", map[string]any{"lsn": t.LSN, "type": t.Kind, "prev_lsn": t.PrevLSN, "time": stamp(t.TimeNs), "len": t.Len},
				"    PTX %d  %s  %d bytes  %s", t.LSN, ptxKind(t.Kind), t.Len, stamp(t.TimeNs))
		}
		for r, err := range t.Records() {
			if err != nil {
				p.damaged(file, off, err.Error())
				return
			}
			if p.v {
				p.record(t.LSN, r)
			}
		}
	}
}

func ptxKind(k redo.PTXKind) string {
	switch k {
	case redo.KindCommit:
		return "commit"
	case redo.KindFirst:
		return "first of a large transaction"
	case redo.KindNext:
		return "part of a large transaction"
	case redo.KindLast:
		return "commit of a large transaction"
	}
	return fmt.Sprintf("kind %d", k)
}

func (p *printer) record(lsn base.LSN, r redo.Record) {
	switch r.Type {
	case redo.RecPhysical:
		n, ranges := 0, []string{}
		_ = r.EachRange(func(off int, data []byte) { // checked when it was decoded
			n += len(data)
			ranges = append(ranges, fmt.Sprintf("%d+%d", off, len(data)))
		})
		p.put("record", map[string]any{"lsn": lsn, "type": "physical", "page": r.Addr.Page, "file": r.Addr.File, "tablespace": r.Addr.Tablespace, "ranges": ranges},
			"        page %v  %d bytes: %s", r.Addr, n, strings.Join(ranges, " "))
	case redo.RecResize:
		p.put("record", map[string]any{"lsn": lsn, "type": "resize", "file": r.Addr.File, "tablespace": r.Addr.Tablespace, "pages": r.NPages},
			"        size of file (%d,%d): %d pages", r.Addr.Tablespace, r.Addr.File, r.NPages)
	case redo.RecLogical:
		text := string(r.Payload)
		if r.Kind != redo.LogicalOpenRecord {
			text = fmt.Sprintf("%d bytes", len(r.Payload))
		}
		p.put("record", map[string]any{"lsn": lsn, "type": "logical", "logical_kind": r.Kind, "payload": text}, "        logical record of kind %d: %s", r.Kind, text)
	}
}

// gaps reports packages that are missing between those seen.
type gaps struct{ last base.Seq }

func (g *gaps) see(p *printer, file string, off int64, s base.Seq) {
	if g.last != 0 && s != g.last+1 {
		p.damaged(file, off, fmt.Sprintf("package %d follows %d", s, g.last))
	}
	g.last = s
}

// sorted returns names in order.
func sorted(names []string) []string {
	sort.Strings(names)
	return names
}
