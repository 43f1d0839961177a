package dump

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/storage/arch"
	"datawatch/internal/storage/ctl"
	"datawatch/internal/storage/redo"
	"datawatch/internal/storage/rlog"
)

func stamp(ns int64) string {
	if ns == 0 {
		return ""
	}
	return time.Unix(0, ns).Format("2006-01-02 15:04:05.000")
}

// isArch reports whether the files are of the archive format: redo that a
// database gave up to rejoin its group, say.
func isArch(files []string) (bool, error) {
	for _, path := range files {
		f, err := disk.Open(path)
		if err != nil {
			return false, err
		}
		ok, err := arch.IsArchive(f)
		if err = errors.Join(err, f.Close()); !ok || err != nil {
			return false, err
		}
	}
	return len(files) > 0, nil
}

// redo shows online log files.
func (p *printer) redo(files []string, all bool) error {
	if len(files) == 1 && isIni(files[0]) {
		in, err := instance(files[0])
		if err != nil {
			return err
		}
		files = in.DM.LogPath
	}
	if ok, err := isArch(files); ok || err != nil {
		if err == nil {
			err = p.arch(files)
		}
		return err
	}
	headers := map[string]rlog.FileHeader{}
	for _, path := range files {
		f, err := disk.Open(path)
		if err != nil {
			return err
		}
		h, err := rlog.ReadFileHeader(f)
		if err != nil {
			p.damaged(path, 0, err.Error())
		} else {
			headers[path] = h
			p.put("log_file", struct {
				File string `json:"file"`
				rlog.FileHeader
			}{path, h}, "%s: file %d of %d, %d bytes, log %08x, PMNT_MAGIC %v, DB_MAGIC %v", path, h.Index+1, h.Files, h.Size, h.LogID, h.PmntMagic, h.DBMagic)
			if h.Index == 0 && !p.json {
				fmt.Fprintf(p.out, "  checkpoint: LSN %d, LSEQ %d in file %d, offset %d; as of then written up to LSN %d, GSEQ %d\n", h.CkptLSN, h.CkptLSEQ, h.CkptFile+1, h.CkptOffset, h.FileLSN, h.FileGSEQ)
				if h.CkptChain != 0 {
					fmt.Fprintf(p.out, "  the checkpoint is within a large transaction, whose parts from package %d on recovery reads from the archive\n", h.CkptChain)
				}
			}
		}
		if all {
			err = p.scanLog(path)
		}
		f.Close()
		if err != nil && all {
			return err
		}
	}
	if all {
		return nil
	}
	if len(headers) < len(files) || len(headers) != headers[files[0]].Files {
		if len(headers) == len(files) {
			return UsageError{fmt.Errorf("the log has %d files, %d are named: name all of them, or use -all", headers[files[0]].Files, len(files))}
		}
		return nil // damaged headers were reported: there is no place to begin
	}
	sort.Slice(files, func(i, j int) bool { return headers[files[i]].Index < headers[files[j]].Index })
	return p.walkLog(files)
}

// tries is how often a log is read that looks damaged: a running database may
// have overwritten what the header, read before, spoke of.
const tries = 3

func (p *printer) walkLog(files []string) error {
	type found struct {
		at rlog.Place
		p  *redo.Package
	}
	for try := 1; ; try++ {
		l, err := rlog.Open(disk, files, rlog.Config{})
		if err != nil {
			return err
		}
		var list []found // so that only one of several attempts is shown
		show := func(f found) {
			p.pkg(shown(f.at.File, f.at.Offset, &f.p.Header))
			p.content(f.at.File, f.at.Offset, f.p)
		}
		bytes := 0
		streaming := false
		end, why, err := l.Walk(func(at rlog.Place, x *redo.Package) error {
			if streaming {
				show(found{at, x})
				return nil
			}
			list = append(list, found{at, x})
			if bytes += x.EncodedLen(); bytes > 64<<20 { // enough kept: it cannot be all overwritten behind us any more
				streaming = true
				for _, f := range list {
					show(f)
				}
				list = nil
			}
			return nil
		})
		l.Close()
		if errors.Is(err, rlog.ErrDamaged) && try < tries && !streaming {
			continue
		}
		for _, f := range list {
			show(f)
		}
		if err != nil {
			p.damaged(end.File, end.Offset, err.Error())
			return nil
		}
		text := fmt.Sprint(why)
		if errors.Is(why, redo.ErrCorrupt) { // what is there is of no interest: nothing known to be written is missing
			text = "nothing there continues it"
		}
		p.put("end", map[string]any{"file": end.File, "offset": end.Offset, "why": text}, "%s +%d  end of the log: %s", filepath.Base(end.File), end.Offset, text)
		return nil
	}
}

// scanLog shows every package that is anywhere in one file.
func (p *printer) scanLog(path string) error {
	f, err := disk.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return rlog.Scan(f, path, func(off int64, h redo.Header, whole bool, bad error) error {
		if bad != nil && h.GSEQ == 0 {
			p.put("remains", map[string]any{"file": path, "offset": off, "text": bad.Error()}, "%s +%d  (%v)", filepath.Base(path), off, bad)
			return nil
		}
		x := shown(path, off, &h)
		p.pkg(x)
		if bad != nil { // an earlier lap half overwritten, mostly
			p.put("remains", map[string]any{"file": path, "offset": off, "text": bad.Error()}, "    (%v)", bad)
		} else if !whole {
			p.put("remains", map[string]any{"file": path, "offset": off, "text": "goes on in the next file"}, "    (goes on in the next file)")
		}
		return nil
	})
}

// arch shows archive files.
func (p *printer) arch(args []string) error {
	var files []string
	for _, a := range args {
		dir := a
		if isIni(a) {
			in, err := instance(a)
			if err != nil {
				return err
			}
			if in.Arch == nil {
				return fmt.Errorf("%s: ARCH_INI is 0: there is no archive", a)
			}
			l, ok := in.Arch.Local()
			if !ok {
				return fmt.Errorf("%s: there is no local archive", in.Arch.Path)
			}
			dir = l.Dest
		}
		fi, err := disk.Stat(dir)
		if err != nil {
			return err
		}
		if !fi.IsDir() {
			files = append(files, dir)
			continue
		}
		names, err := disk.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, n := range sorted(names) {
			if strings.HasSuffix(n, ".log") {
				files = append(files, filepath.Join(dir, n))
			}
		}
	}
	type ordered struct {
		path  string
		first base.Seq
	}
	var list []ordered
	for _, path := range files {
		f, err := disk.Open(path)
		if errors.Is(err, fs.ErrNotExist) && len(files) > 1 {
			continue // removed by a running database
		}
		if err != nil {
			return err
		}
		h, _, err := arch.Inspect(f, path, func(int64, *redo.Package) error { return errStop })
		f.Close()
		if err != nil && !errors.Is(err, errStop) {
			p.damaged(path, 0, err.Error())
			continue
		}
		list = append(list, ordered{path, h.First})
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].first < list[j].first })
	var g gaps
	for _, x := range list {
		if err := p.archFile(x.path, &g); err != nil {
			return err
		}
	}
	return nil
}

var errStop = errors.New("enough")

func (p *printer) archFile(path string, g *gaps) error {
	f, err := disk.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h, _, err := arch.Inspect(f, path, func(int64, *redo.Package) error { return errStop })
	if err != nil && !errors.Is(err, errStop) {
		return err
	}
	state := "being written"
	if h.Closed {
		state = "closed"
	}
	p.put("arch_file", struct {
		File string `json:"file"`
		arch.FileHeader
	}{path, h}, "%s: %s, packages %d to %d, LSN %d to %d, PMNT_MAGIC %v, redo of %v", path, state, h.First, h.Last, h.FirstLSN, h.LastLSN, h.PmntMagic, h.SrcMagic)
	_, bad, err := arch.Inspect(f, path, func(off int64, x *redo.Package) error {
		g.see(p, path, off, x.GSEQ)
		p.pkg(shown(path, off, &x.Header))
		p.content(path, off, x)
		return nil
	})
	for _, d := range bad {
		p.damage++
		p.put("damage", map[string]any{"file": path, "offset": d.From, "to": d.To, "text": d.Text}, "DAMAGE %s, offset %d to %d: %s", path, d.From, d.To, d.Text)
	}
	return err
}

// ctl shows the control file and its copy.
func (p *printer) ctl(args []string) error {
	for _, path := range args {
		if isIni(path) {
			in, err := instance(path)
			if err != nil {
				return err
			}
			path = in.DM.CtlPath
		}
		var gen [2]uint64
		for i, file := range []string{path, path + ctl.BackupSuffix} {
			c, err := readCtl(file)
			if err != nil {
				p.damaged(file, 0, err.Error())
				continue
			}
			gen[i] = c.Generation
			p.put("control", struct {
				File       string `json:"file"`
				Generation uint64 `json:"generation"`
				*ctl.Control
			}{file, c.Generation, c}, "%s: generation %d\n  database %s, page size %d, PMNT_MAGIC %v, DB_MAGIC %v, OGUID %d, mode %v, created %s\n  closed normally: %v; checkpoint at GSEQ %d, LSN %d%s",
				file, c.Generation, c.DBName, c.PageSize, c.PmntMagic, c.DBMagic, c.OGUID, c.Mode, c.Created.Format(time.DateTime), c.Clean, c.Position.Seq, c.Position.LSN, pending(c.Pending)+rejoin(c.Rejoin))
			if p.json {
				continue
			}
			for _, f := range c.DataFiles {
				fmt.Fprintf(p.out, "  data file (%d,%d) %s, %d pages\n", f.Tablespace, f.File, f.Path, f.Pages)
			}
			for _, r := range c.Lineage {
				fmt.Fprintf(p.out, "  open record %d: %s as %v at %s, DB_MAGIC %v, after %v\n", r.ID, r.CurInst, r.SysMode, r.OpenTime.Format(time.DateTime), r.DBMagic, r.Apply)
			}
		}
		if gen[0] != 0 && gen[1] != 0 && gen[0] != gen[1] {
			p.put("note", fmt.Sprintf("generations differ: %d and %d", gen[0], gen[1]), "  the copy is of generation %d: a save was under way, or was cut off", gen[1])
		}
	}
	return nil
}

func rejoin(r *ctl.Rejoin) string {
	if r == nil {
		return ""
	}
	s := fmt.Sprintf("\n  rejoins %s: redo in common up to %v, pages as of %v, which redo has to reach; redo given up: %s", r.Primary, r.Fork, r.Whole, r.Surplus)
	if g := r.Graft; g != nil {
		s += fmt.Sprintf("\n  to be put in at the next start: %d pages of %s", g.Count, g.File)
	}
	return s
}

func pending(s string) string {
	if s == "" {
		return ""
	}
	return "\n  restored, and not complete before: " + s
}

func readCtl(path string) (*ctl.Control, error) {
	f, err := disk.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > ctl.MaxSize {
		return nil, fmt.Errorf("%d bytes are more than a control file has", size)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, err
	}
	return ctl.Unmarshal(b)
}
