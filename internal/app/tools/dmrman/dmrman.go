// Package dmrman is the offline backup and restore tool (manual 7.1, 6.14): one
// statement from CTLSTMT="...", or a dialogue at RMAN>. The work is
// internal/storage/backup's.
package dmrman

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"datawatch/internal/app/tools"
	"datawatch/internal/clock"
	"datawatch/internal/config"
	"datawatch/internal/storage/backup"
	"datawatch/internal/storage/ctl"
	"datawatch/internal/storage/engine"
	"datawatch/internal/vfs"
)

const usage = `dmrman: offline backup, restore and recovery.

  dmrman CTLSTMT="STATEMENT"     execute one statement
  dmrman CTLFILE=FILE            execute the statements of a file, each ends with ;
  dmrman                         dialogue; statements end with ;
  help, version
`

const help = `  BACKUP DATABASE 'dm.ini' [FULL] [TO name] [BACKUPSET 'dir'] [WITHOUT LOG];
  RESTORE DATABASE 'dm.ini' FROM BACKUPSET 'dir';
  RECOVER DATABASE 'dm.ini' FROM BACKUPSET 'dir';
  RECOVER DATABASE 'dm.ini' WITH ARCHIVEDIR 'dir';
  RECOVER DATABASE 'dm.ini' UPDATE DB_MAGIC;
  CHECK BACKUPSET 'dir';      read all of it and compare the checksums
  SHOW BACKUPSET 'dir';
  CHECK DATABASE 'dm.ini';    read every page of a stopped database
  HELP;  EXIT;
The server must be stopped. Exit status: 0 done, 1 failed, 2 bad usage or
configuration, 3 refused because of the state of the database.
`

// program is one run of dmrman.
type program struct {
	out, errOut io.Writer
	fs          vfs.FS
	clock       clock.Clock
}

// Main runs dmrman and returns its exit status.
func Main(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	p := &program{out: out, errOut: errOut, fs: vfs.OS{}, clock: clock.Real{}}
	err := p.run(ctx, args, in)
	if err != nil {
		fmt.Fprintln(errOut, "dmrman:", err)
	}
	return tools.ExitCode(err)
}

func (p *program) run(ctx context.Context, args []string, in io.Reader) error {
	if len(args) == 1 && tools.IsHelp(args[0]) {
		fmt.Fprint(p.out, usage, "\n", help)
		return nil
	}
	if len(args) == 1 && tools.IsVersion(args[0]) {
		fmt.Fprintln(p.out, tools.Version("DMRMAN"))
		return nil
	}
	a, err := tools.ParseArgs(args, "CTLSTMT", "CTLFILE", "USE_AP", "DCR_INI")
	if err != nil {
		return err
	}
	if v := a["USE_AP"]; v != "" && v != "1" && v != "2" {
		return tools.Usagef("USE_AP=%s: must be 1 or 2 (no helper process is needed here)", v)
	}
	if a["DCR_INI"] != "" {
		return tools.Usagef("DCR_INI: DSC clusters cannot be backed up yet")
	}
	switch {
	case a["CTLSTMT"] != "" && a["CTLFILE"] != "":
		return tools.Usagef("CTLSTMT and CTLFILE exclude each other")
	case a["CTLSTMT"] != "":
		return p.execute(ctx, a["CTLSTMT"])
	case a["CTLFILE"] != "":
		b, err := config.ReadOS(a["CTLFILE"])
		if err != nil {
			return tools.Usagef("CTLFILE: %w", err)
		}
		for _, st := range strings.Split(string(b), ";") {
			if strings.TrimSpace(st) != "" {
				if err := p.execute(ctx, st); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return p.dialogue(ctx, in)
}

func (p *program) dialogue(ctx context.Context, in io.Reader) error {
	fmt.Fprint(p.out, "RMAN> ")
	sc := bufio.NewScanner(in)
	var text strings.Builder
	var last error
	for sc.Scan() {
		text.WriteString(sc.Text())
		text.WriteByte('\n')
		st := strings.TrimSpace(text.String())
		switch strings.ToUpper(strings.TrimSuffix(st, ";")) {
		case "EXIT", "QUIT":
			return last
		case "":
			text.Reset()
			fmt.Fprint(p.out, "RMAN> ")
			continue
		}
		if !strings.HasSuffix(st, ";") && !strings.EqualFold(st, "help") {
			fmt.Fprint(p.out, "   2> ")
			continue
		}
		text.Reset()
		if last = p.execute(ctx, st); last != nil {
			fmt.Fprintln(p.errOut, "error:", last)
		}
		fmt.Fprint(p.out, "RMAN> ")
	}
	fmt.Fprintln(p.out)
	if last != nil {
		return last
	}
	return sc.Err()
}

// execute runs one statement.
func (p *program) execute(ctx context.Context, text string) error {
	s, err := parse(text)
	if err != nil {
		return err
	}
	var dm *config.DM
	if s.ini != "" {
		if dm, err = config.LoadDM(s.ini); err != nil {
			return &tools.ExitError{Code: tools.ExitUsage, Err: err}
		}
	}
	begin := p.clock.Now()
	switch s.verb {
	case vHelp:
		fmt.Fprint(p.out, help)
		return nil
	case vExit:
		return nil
	case vBackup:
		err = p.backup(ctx, s, dm)
	case vRestore:
		var m *backup.Manifest
		fmt.Fprintf(p.out, "verifying backup set %s\n", s.dir)
		if m, err = backup.Restore(ctx, p.fs, s.dir, target(dm), begin, p.progress("restoring")); err == nil {
			fmt.Fprintf(p.out, "restored %s to position %v; next: RECOVER DATABASE '%s' UPDATE DB_MAGIC\n", m.Control.DBName, m.Position, s.ini)
		}
	case vRecoverSet:
		var m *backup.Manifest
		if m, err = backup.RecoverFromSet(ctx, p.fs, s.dir, target(dm)); err == nil {
			fmt.Fprintf(p.out, "database is consistent at position %v; next: RECOVER DATABASE '%s' UPDATE DB_MAGIC\n", m.Position, s.ini)
		}
	case vRecoverArch:
		err = p.recoverArch(ctx, s, dm)
	case vUpdateMagic:
		t := target(dm)
		a, err := localArch(dm)
		if err != nil {
			return err
		}
		if a != nil {
			t.ArchDir = a.Dir
		}
		magic, err := backup.UpdateMagic(ctx, p.fs, t)
		if err != nil {
			return classify(err)
		}
		fmt.Fprintf(p.out, "DB_MAGIC is now %v; the database may be started\n", magic)
	case vCheckSet:
		var m *backup.Manifest
		if m, err = backup.Verify(ctx, p.fs, s.dir, p.progress("verifying")); err == nil {
			p.show(m)
			fmt.Fprintln(p.out, "every checksum is right")
		}
	case vShowSet:
		var m *backup.Manifest
		if m, err = backup.Load(p.fs, s.dir); err == nil {
			p.show(m)
		}
	case vCheckDB:
		var n int64
		if n, err = backup.CheckData(ctx, p.fs, target(dm)); err == nil {
			fmt.Fprintf(p.out, "%d pages, every checksum is right\n", n)
		}
	}
	if err != nil {
		return classify(err)
	}
	fmt.Fprintf(p.out, "time used: %.3f s\n", p.clock.Now().Sub(begin).Seconds())
	return nil
}

// classify gives an error the exit status of its kind.
func classify(err error) error {
	switch {
	case errors.Is(err, backup.ErrInUse), errors.Is(err, backup.ErrState), errors.Is(err, backup.ErrExists), errors.Is(err, backup.ErrForeign), errors.Is(err, ctl.ErrPending):
		return &tools.ExitError{Code: tools.ExitRefused, Err: err}
	}
	return err
}

func target(dm *config.DM) backup.Target {
	return backup.Target{Dir: dm.SystemPath, CtlPath: dm.CtlPath, LogPaths: dm.LogPath}
}

// localArch is the local archive that dm.ini's neighbours configure; nil when
// there is none yet.
func localArch(dm *config.DM) (*engine.ArchConfig, error) {
	if !dm.ArchIni {
		return nil, nil
	}
	a, err := config.LoadArch(filepath.Join(dm.ConfigPath, "dmarch.ini"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &tools.ExitError{Code: tools.ExitUsage, Err: err}
	}
	l, ok := a.Local()
	if !ok {
		return nil, nil
	}
	return &engine.ArchConfig{Dir: l.Dest, Name: l.Name, FileSize: l.FileSize << 20, SpaceLimit: l.SpaceLimit << 20,
		FlushBuf: l.FlushBufSize << 20, ReserveTime: a.ReserveTime}, nil
}

// progress prints at most one line per tenth of the work.
func (p *program) progress(what string) func(done, total int64) {
	last := int64(-1)
	return func(done, total int64) {
		if total <= 0 {
			return
		}
		if tenth := done * 10 / total; tenth != last {
			last = tenth
			fmt.Fprintf(p.out, "%s: %3d%% of %.1f MB\n", what, tenth*10, float64(total)/(1<<20))
		}
	}
}

// backup opens the stopped database, which recovers it where it was not closed
// normally, and copies it.
func (p *program) backup(ctx context.Context, s stmt, dm *config.DM) (err error) {
	if s.dir == "" {
		name := s.name
		if name == "" {
			name = "DB_" + dm.InstanceName + "_FULL_" + p.clock.Now().Format("20060102_150405")
		}
		s.dir = filepath.Join(dm.BakPath, name)
	}
	if names, derr := p.fs.ReadDir(s.dir); derr == nil && len(names) > 0 {
		return fmt.Errorf("backup to %s: %w", s.dir, backup.ErrExists)
	}
	// The archive takes part: what a crash kept from it is still in the log.
	local, err := localArch(dm)
	if err != nil {
		return err
	}
	e, err := engine.Open(ctx, engine.Config{Arch: local, FS: p.fs, Clock: p.clock, Dir: dm.SystemPath, CtlPath: dm.CtlPath, LogPaths: dm.LogPath,
		BufferBytes: 16 << 20, InstName: dm.InstanceName, CheckpointInterval: time.Hour})
	if errors.Is(err, vfs.ErrLocked) {
		return fmt.Errorf("%w (%w)", backup.ErrInUse, err)
	}
	if err != nil {
		return classify(err)
	}
	m, err := backup.Online(ctx, p.fs, e, backup.Options{Dir: s.dir, Name: s.name, WithoutLog: s.withoutLog, Created: p.clock.Now(), Progress: p.progress("backing up")})
	if err := errors.Join(err, e.Close(context.WithoutCancel(ctx))); err != nil {
		return err
	}
	fmt.Fprintf(p.out, "backup set %s: %s at position %v\n", s.dir, m.Control.DBName, m.Position)
	return nil
}

func (p *program) recoverArch(ctx context.Context, s stmt, dm *config.DM) error {
	if st, err := os.Stat(s.dir); err != nil || !st.IsDir() {
		return tools.Usagef("ARCHIVEDIR '%s' is not a directory", s.dir)
	}
	was, pos, err := backup.RecoverWithArchive(ctx, p.fs, s.dir, target(dm), p.clock)
	switch {
	case err == nil && was == pos:
		fmt.Fprintf(p.out, "nothing to do: %s has nothing behind position %v; next: RECOVER DATABASE '%s' UPDATE DB_MAGIC\n", s.dir, pos, s.ini)
	case err == nil:
		fmt.Fprintf(p.out, "recovered from position %v to %v; next: RECOVER DATABASE '%s' UPDATE DB_MAGIC\n", was, pos, s.ini)
	}
	return err
}

func (p *program) show(m *backup.Manifest) {
	kind := "offline"
	if m.Online {
		kind = "online"
	}
	c := m.Control
	fmt.Fprintf(p.out, "name        %s\nkind        %s, full\ncreated     %s\ndatabase    %s\npage size   %d\nmode        %v\nOGUID       %d\nPMNT_MAGIC  %v\nDB_MAGIC    %v\nBEGIN_LSN   %v\nposition    %v\nopenings    %d\n",
		m.Name, kind, m.Created.Format(time.DateTime), c.DBName, c.PageSize, c.Mode, c.OGUID, c.PmntMagic, c.DBMagic, m.Position.LSN, m.Position, len(c.Lineage))
	for _, f := range m.Files {
		fmt.Fprintf(p.out, "file        %s  %d pages  %d bytes  sha256 %s\n", f.Name, f.Pages, f.Size, f.SHA256)
	}
}
