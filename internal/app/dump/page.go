package dump

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/storage/ctl"
	"datawatch/internal/storage/page"
	"datawatch/internal/vfs"
)

// rereads is how often a page is read that has a wrong checksum: a running
// database may have been writing it.
const (
	rereads  = 5
	rereadIn = 20 * time.Millisecond
)

// page shows pages of a data file.
func (p *printer) page(args []string, which string) error {
	if len(args) != 1 {
		return UsageError{errors.New("one dm.ini or data file")}
	}
	path, size := args[0], 0
	if isIni(path) {
		in, err := instance(path)
		if err != nil {
			return err
		}
		c, err := ctl.LoadPending(disk, in.DM.CtlPath)
		if err != nil {
			return err
		}
		if path = c.DataFiles[0].Path; !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(in.DM.CtlPath), path)
		}
		size = c.PageSize
	}
	f, err := disk.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if size == 0 {
		if size, err = pageSize(f); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	length, err := f.Size()
	if err != nil {
		return err
	}
	n := uint32(length / int64(size))
	from, to, err := pageRange(which, n)
	if err != nil {
		return UsageError{err}
	}
	if rest := length % int64(size); rest != 0 && which == "" {
		p.damaged(path, length-rest, fmt.Sprintf("%d bytes are no whole page of %d", rest, size))
	}
	sum := summary{File: path, PageSize: size, Pages: n, Types: map[string]uint32{}}
	buf := make([]byte, size)
	for no := from; no <= to; no++ {
		if err := p.onePage(f, path, no, buf, which != "", &sum); err != nil {
			return err
		}
	}
	if which == "" {
		p.put("pages", sum, "%s: %d pages of %d bytes, LSN %d to %d, %d never written, %d damaged\n  %s", path, n, size, sum.MinLSN, sum.MaxLSN, sum.Empty, sum.Damaged, sum.types())
	}
	return nil
}

type summary struct {
	File     string            `json:"file"`
	PageSize int               `json:"page_size"`
	Pages    uint32            `json:"pages"`
	Empty    uint32            `json:"empty"`
	Damaged  uint32            `json:"damaged"`
	MinLSN   base.LSN          `json:"min_lsn"`
	MaxLSN   base.LSN          `json:"max_lsn"`
	Types    map[string]uint32 `json:"types"`
}

func (s *summary) types() string {
	var names, out []string
	for n := range s.Types {
		names = append(names, n)
	}
	for _, n := range sorted(names) {
		out = append(out, fmt.Sprintf("%s %d", n, s.Types[n]))
	}
	return strings.Join(out, ", ")
}

// pageSize reads it from SQLite's header in page 1.
func pageSize(f vfs.File) (int, error) {
	var b [100]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return 0, err
	}
	if string(b[:16]) != "SQLite format 3\x00" {
		return 0, errors.New("not a data file (name its dm.ini if page 1 is damaged)")
	}
	n := int(binary.BigEndian.Uint16(b[16:]))
	if n == 1 {
		n = 65536
	}
	if !page.ValidSize(n) {
		return 0, fmt.Errorf("page 1 says that a page has %d bytes (name its dm.ini if page 1 is damaged)", n)
	}
	return n, nil
}

func pageRange(s string, n uint32) (from, to uint32, err error) {
	if s == "" {
		return 1, n, nil
	}
	a, b, two := strings.Cut(s, "-")
	if !two {
		b = a
	}
	x, err1 := strconv.ParseUint(a, 10, 32)
	y, err2 := strconv.ParseUint(b, 10, 32)
	if err1 != nil || err2 != nil || x == 0 || y < x || y > uint64(n) {
		return 0, 0, fmt.Errorf("-page %s: N or N-M, pages are 1 to %d", s, n)
	}
	return uint32(x), uint32(y), nil
}

var pageTypes = map[byte]string{2: "index interior", 5: "table interior", 10: "index leaf", 13: "table leaf"}

// onePage verifies a page and shows it when asked to.
func (p *printer) onePage(f vfs.File, path string, no uint32, buf []byte, show bool, sum *summary) error {
	off := int64(no-1) * int64(len(buf))
	var lsn base.LSN
	var bad error
	for try := 0; ; try++ {
		if _, err := f.ReadAt(buf, off); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s, offset %d: %w", path, off, err)
		}
		if lsn, bad = page.Verify(buf); bad == nil || try == rereads {
			break
		}
		time.Sleep(rereadIn)
	}
	at := 0
	if no == 1 {
		at = 100
	}
	kind, ok := pageTypes[buf[at]]
	if !ok {
		kind = "other" // overflow, free list: they do not say so themselves
	}
	t := buf[len(buf)-page.TrailerSize:]
	switch {
	case bad != nil:
		sum.Damaged++
		p.damaged(path, off, fmt.Sprintf("page %d: %v", no, bad))
	case lsn == 0 && t[14] == 0:
		sum.Empty++
		kind = "never written"
	default:
		sum.Types[kind]++
		if sum.MinLSN == 0 || lsn < sum.MinLSN {
			sum.MinLSN = lsn
		}
		sum.MaxLSN = max(sum.MaxLSN, lsn)
	}
	if !show {
		return nil
	}
	v := map[string]any{"page": no, "offset": off, "type": kind, "lsn": page.LSN(buf), "node": page.Node(buf), "checksum": fmt.Sprintf("%08x", binary.LittleEndian.Uint32(t[8:])), "ok": bad == nil}
	text := fmt.Sprintf("page %d, offset %d: %s, LSN %d, node %d, checksum %08x", no, off, kind, page.LSN(buf), page.Node(buf), binary.LittleEndian.Uint32(t[8:]))
	if ok {
		h := buf[at:]
		v["cells"], v["first_free_block"], v["cell_area"] = binary.BigEndian.Uint16(h[3:]), binary.BigEndian.Uint16(h[1:]), binary.BigEndian.Uint16(h[5:])
		text += fmt.Sprintf(", %d cells from byte %d", binary.BigEndian.Uint16(h[3:]), binary.BigEndian.Uint16(h[5:]))
		if buf[at] == 2 || buf[at] == 5 {
			v["right_child"] = binary.BigEndian.Uint32(h[8:])
			text += fmt.Sprintf(", right child %d", binary.BigEndian.Uint32(h[8:]))
		}
	}
	if p.v {
		v["bytes"] = hex.EncodeToString(buf)
		text += "\n" + strings.TrimRight(hex.Dump(buf), "\n")
	}
	p.put("page", v, "%s", text)
	return nil
}
