// Package dminit makes a database: data file, online logs, control file, system
// tables, dm.ini and examples of the other configuration files (manual 5.9,
// 7.2.2). It keeps its part of G8 and G9: a directory that holds a database is
// refused, and an interrupted run leaves no dm.ini that would start.
package dminit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"datawatch/internal/app/tools"
	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/config"
	"datawatch/internal/sql/session"
	"datawatch/internal/storage/engine"
	"datawatch/internal/vfs"
)

const usage = `dminit: makes a database in PATH/DB_NAME.

  dminit PATH=dir [KEY=value ...]
  dminit help | version

`

// spec is what the arguments ask for.
type spec struct {
	Dir          string // of the database
	DBName       string
	InstName     string
	Port         int
	PageSize     int // bytes
	LogSize      int64
	LogFiles     int
	Buffer       int // MB
	Password     string
	ArchFileSize int // MB
	logs         []string
}

var plainName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_$-]*$`)

// Main runs dminit and returns its exit status.
func Main(ctx context.Context, args []string, _ io.Reader, out, errOut io.Writer) int {
	err := run(ctx, args, out, vfs.OS{}, clock.Real{})
	if err != nil {
		fmt.Fprintln(errOut, "dminit:", err)
	}
	return tools.ExitCode(err)
}

func run(ctx context.Context, args []string, out io.Writer, fsys vfs.FS, ck clock.Clock) error {
	if len(args) == 0 || tools.IsHelp(args[0]) {
		fmt.Fprint(out, usage)
		for _, p := range config.Params("dminit") {
			def := p.Default
			if p.Required {
				def = "(required)"
			}
			fmt.Fprintf(out, "  %-18s %-10s %s\n", p.Name, def, p.Doc)
			if a := p.Allowed(); a != "" {
				fmt.Fprintf(out, "  %-18s %-10s allowed: %s\n", "", "", a)
			}
		}
		if len(args) == 0 {
			return tools.Usagef("PATH=dir is needed")
		}
		return nil
	}
	if tools.IsVersion(args[0]) {
		fmt.Fprintln(out, tools.Version("DMINIT"))
		return nil
	}
	s, unused, err := parse(args)
	if err != nil {
		return err
	}
	for _, name := range unused {
		fmt.Fprintf(out, "note: %s has no effect yet\n", name)
	}
	begin := ck.Now()
	if err := create(ctx, s, out, fsys, ck); err != nil {
		return err
	}
	ini := filepath.Join(s.Dir, "dm.ini")
	fmt.Fprintf(out, "database %s is in %s (%.1f s)\n", s.DBName, s.Dir, ck.Now().Sub(begin).Seconds())
	if s.Password == session.DefaultPassword {
		fmt.Fprintf(out, "warning: SYSDBA has its default password, which is accepted from this machine only\n")
	}
	fmt.Fprintf(out, "next: dmserver %s\nthen: disql SYSDBA/...@localhost:%d\n", ini, s.Port)
	return nil
}

// parse checks the arguments against the parameter table and returns those
// that were given and have no effect yet, too.
func parse(args []string) (spec, []string, error) {
	var s spec
	var known, unused []string
	for _, p := range config.Params("dminit") {
		known = append(known, p.Name)
	}
	a, err := tools.ParseArgs(args, known...)
	if err != nil {
		return s, nil, err
	}
	for _, p := range config.Params("dminit") {
		v, given := a[p.Name]
		if e := p.Check(v); e != nil && (given || p.Required) {
			e.File = "dminit"
			return s, nil, &tools.ExitError{Code: tools.ExitUsage, Err: e}
		}
		if given && !p.Effective {
			unused = append(unused, p.Name)
		}
		if v == "" {
			a[p.Name] = p.Default
		}
	}
	num := func(key string) int { n, _ := strconv.Atoi(a[key]); return n } // checked above
	s = spec{DBName: a["DB_NAME"], InstName: a["INSTANCE_NAME"], Port: num("PORT_NUM"), PageSize: num("PAGE_SIZE") << 10,
		LogSize: int64(num("LOG_SIZE")) << 20, LogFiles: num("LOG_FILES"), Buffer: num("BUFFER"), Password: a["SYSDBA_PWD"], ArchFileSize: num("ARCH_FILE_SIZE")}
	for key, v := range map[string]string{"DB_NAME": s.DBName, "INSTANCE_NAME": s.InstName} {
		if !plainName.MatchString(v) {
			return s, nil, tools.Usagef("%s=%s: must begin with a letter and hold letters, digits, _, $ and - only", key, v)
		}
	}
	path, err := filepath.Abs(a["PATH"])
	if err != nil {
		return s, nil, tools.Usagef("PATH=%s: %w", a["PATH"], err)
	}
	s.Dir = filepath.Join(path, s.DBName)
	for i := 1; i <= s.LogFiles; i++ {
		s.logs = append(s.logs, filepath.Join(s.Dir, fmt.Sprintf("%s%02d.log", s.DBName, i)))
	}
	return s, unused, nil
}

// create makes the files. What it made is removed again when it fails.
func create(ctx context.Context, s spec, out io.Writer, fsys vfs.FS, ck clock.Clock) (err error) {
	ctlPath := filepath.Join(s.Dir, "dm.ctl")
	data := filepath.Join(s.Dir, engine.DataFileName)
	made := append([]string{filepath.Join(s.Dir, "dm.ini"), ctlPath, data}, s.logs...)
	for _, p := range made {
		if _, err := fsys.Stat(p); err == nil {
			return tools.Refusedf("%s holds a database, or the remains of one (%s): choose another place or remove it", s.Dir, filepath.Base(p))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look for a database: %w", err)
		}
	}
	defer func() {
		if err != nil {
			for _, p := range append(made, ctlPath+".bak", data+".dwb") {
				_ = fsys.Remove(p)
			}
		}
	}()
	fmt.Fprintf(out, "creating data file and %d online logs of %d MB\n", s.LogFiles, s.LogSize>>20)
	if err := engine.Create(engine.CreateConfig{FS: fsys, Clock: ck, Dir: s.Dir, CtlPath: ctlPath, LogPaths: s.logs, LogSize: s.LogSize,
		DBName: s.DBName, PageSize: s.PageSize, Mode: base.ModeNormal}); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	fmt.Fprintln(out, "creating system tables")
	e, err := engine.Open(ctx, engine.Config{FS: fsys, Clock: ck, Dir: s.Dir, CtlPath: ctlPath, LogPaths: s.logs,
		BufferBytes: 16 << 20, InstName: s.InstName, CheckpointInterval: time.Hour})
	if err != nil {
		return err
	}
	if err = e.OpenDatabase(ctx); err == nil {
		err = session.InitSchema(ctx, session.FromEngine(e), session.DefaultUser, s.Password)
	}
	if err = errors.Join(err, e.Close(context.WithoutCancel(ctx))); err != nil {
		return err
	}
	fmt.Fprintln(out, "writing configuration")
	return writeConfig(fsys, s)
}
