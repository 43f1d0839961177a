package dump

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/storage/engine"
	"datawatch/internal/vfs"
)

const ps = 1024

// database makes a stopped database with an archive and some commits; files are
// named as dm.ini names them.
func database(t *testing.T, commits int) string {
	t.Helper()
	dir := t.TempDir()
	logs := []string{filepath.Join(dir, "1.log"), filepath.Join(dir, "2.log")}
	ctl := filepath.Join(dir, "dm.ctl")
	if err := engine.Create(engine.CreateConfig{FS: vfs.OS{}, Dir: dir, CtlPath: ctl, LogPaths: logs, LogSize: 1 << 20, DBName: "T", PageSize: ps, Mode: base.ModeNormal, PmntMagic: 77}); err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(t.Context(), engine.Config{FS: vfs.OS{}, Log: slog.New(slog.DiscardHandler), Dir: dir, CtlPath: ctl, LogPaths: logs, InstName: "A",
		Arch: &engine.ArchConfig{Dir: filepath.Join(dir, "arch"), Name: "L", FileSize: 64 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.OpenDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range commits {
		commit(t, e, uint32(2+i%3), byte(i+1))
	}
	e.Abort() // the log keeps what a checkpoint would free
	put(t, filepath.Join(dir, "dm.ini"), fmt.Sprintf("INSTANCE_NAME = A\nLOG_PATH = 1.log\nLOG_PATH = 2.log\nARCH_INI = 1\nSYSTEM_PATH = %s\nCTL_PATH = %s\nCONFIG_PATH = %s\n", dir, ctl, dir))
	put(t, filepath.Join(dir, "dmarch.ini"), "[L]\nARCH_TYPE = LOCAL\nARCH_DEST = "+filepath.Join(dir, "arch")+"\nARCH_FILE_SIZE = 64\n")
	return dir
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func commit(t *testing.T, e *engine.Engine, page uint32, v byte) {
	t.Helper()
	h := e.Store().NewHandle(false)
	defer h.Close()
	if err := e.Store().LockWrite(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	b := bytes.Repeat([]byte{v}, ps)
	for lvl := 1; lvl <= 4; lvl++ {
		if lvl == 3 {
			continue
		}
		if err := h.Lock(lvl); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.WriteAt(b, int64(page-1)*ps); err != nil {
		t.Fatal(err)
	}
	if err := h.Sync(); err != nil {
		t.Fatal(err)
	}
	h.CommitPhaseTwo()
	if err := h.Unlock(0); err != nil {
		t.Fatal(err)
	}
	e.Store().UnlockWrite(h)
	if err := e.WaitHardened(t.Context(), h.LastCommit()); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var b bytes.Buffer
	err := Main(args, &b)
	return b.String(), err
}

// lines parses -json output and counts its kinds.
func lines(t *testing.T, out string) (all []map[string]any, kinds map[string]int) {
	t.Helper()
	kinds = map[string]int{}
	for _, l := range strings.Split(strings.TrimSpace(out), "\n") {
		var v map[string]any
		if err := json.Unmarshal([]byte(l), &v); err != nil {
			t.Fatalf("%v: %s", err, l)
		}
		all = append(all, v)
		kinds[v["kind"].(string)]++
	}
	return all, kinds
}

// state is every file with its content.
func state(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		fi, _ := d.Info()
		out[p] = string(b) + fi.ModTime().String()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSoundDatabase(t *testing.T) {
	dir := database(t, 10)
	ini := filepath.Join(dir, "dm.ini")
	before := state(t, dir)
	for what, want := range map[string][]string{
		"redo": {"file 1 of 2", "GSEQ 11", "PTX 1", "end of the log: nothing there continues it"},
		"arch": {"packages", "GSEQ 11", "being written"}, "ctl": {"database T", "dm.ctl.bak", "data file (0,0) SYSTEM.DBF"}, "page": {"0 damaged"},
	} {
		out, err := run(t, what, ini)
		if err != nil {
			t.Errorf("%s: %v\n%s", what, err, out)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in\n%s", what, w, out)
			}
		}
		out, err = run(t, what, "-json", "-v", ini)
		if err != nil {
			t.Errorf("%s -json: %v", what, err)
		}
		lines(t, out)
	}
	out, _ := run(t, "redo", "-json", "-v", ini)
	if _, k := lines(t, out); k["package"] < 10 || k["ptx"] != k["package"] || k["record"] < 10 || k["end"] != 1 {
		t.Errorf("redo: %v", k)
	}
	// The files in any order; one place after the other.
	if out, err := run(t, "redo", filepath.Join(dir, "2.log"), filepath.Join(dir, "1.log")); err != nil || !strings.Contains(out, "GSEQ 11") {
		t.Errorf("%v %s", err, out)
	}
	if out, err := run(t, "redo", "-all", filepath.Join(dir, "1.log")); err != nil || !strings.Contains(out, "GSEQ 11") {
		t.Errorf("%v %s", err, out)
	}
	if out, err := run(t, "page", "-page", "1", "-v", ini); err != nil || !strings.Contains(out, "table leaf") || !strings.Contains(out, "SQLite format 3") {
		t.Errorf("%v %s", err, out)
	}
	after := state(t, dir)
	for p, s := range before {
		if after[p] != s {
			t.Errorf("%s was changed", p)
		}
	}
	if len(after) != len(before) {
		t.Error("files were made")
	}
}

// flip changes one byte of a file.
func flip(t *testing.T, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

// TestDamage: damage is named with file and offset, what lies behind it is
// shown all the same, and the exit tells.
func TestDamage(t *testing.T) {
	damaged := func(what string, args []string, file string, wants ...string) {
		t.Helper()
		out, err := run(t, args...)
		if !errors.Is(err, ErrDamage) {
			t.Errorf("%s: %v\n%s", what, err, out)
		}
		for _, w := range append(wants, "DAMAGE "+file) {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in\n%s", what, w, out)
			}
		}
		out, _ = run(t, append([]string{args[0], "-json"}, args[1:]...)...)
		if _, k := lines(t, out); k["damage"] == 0 {
			t.Errorf("%s -json: %v", what, k)
		}
	}
	places := func(out string) (off []int64) {
		for _, m := range regexp.MustCompile(`(?m)^\S+ \+(\d+)  GSEQ`).FindAllStringSubmatch(out, -1) {
			var n int64
			fmt.Sscan(m[1], &n)
			off = append(off, n)
		}
		return off
	}

	dir := database(t, 10)
	ini := filepath.Join(dir, "dm.ini")
	out, err := run(t, "arch", ini)
	if err != nil {
		t.Fatal(err)
	}
	at := places(out)
	file, _ := filepath.Glob(filepath.Join(dir, "arch", "*.log"))
	// The header knows only of packages of the last sync: make it know all.
	e, err := engine.Open(t.Context(), engine.Config{FS: vfs.OS{}, Log: slog.New(slog.DiscardHandler), Dir: dir, CtlPath: filepath.Join(dir, "dm.ctl"),
		LogPaths: []string{filepath.Join(dir, "1.log"), filepath.Join(dir, "2.log")}, InstName: "A", Arch: &engine.ArchConfig{Dir: filepath.Join(dir, "arch"), Name: "L", FileSize: 64 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.OpenDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	flip(t, file[0], at[4]+130)
	damaged("archive", []string{"arch", ini}, file[0], fmt.Sprintf("offset %d to %d", at[4], at[5]), "GSEQ 4 ", "GSEQ 6 ", "GSEQ 11")
	flip(t, file[0], 20)
	flip(t, file[0], 4096+20)
	damaged("archive header", []string{"arch", file[0]}, file[0])

	dir = database(t, 10)
	ini = filepath.Join(dir, "dm.ini")
	out, err = run(t, "redo", ini)
	if err != nil {
		t.Fatal(err)
	}
	at = places(out)
	log := filepath.Join(dir, "1.log")
	flip(t, log, at[2]+140)
	damaged("log", []string{"redo", ini}, log, fmt.Sprintf("offset %d", at[2]))
	if out, err := run(t, "redo", "-all", ini); err != nil || !strings.Contains(out, "GSEQ 11") {
		t.Errorf("what lies behind: %v %s", err, out)
	}
	flip(t, filepath.Join(dir, "dm.ctl"), 40)
	damaged("control file", []string{"ctl", ini}, filepath.Join(dir, "dm.ctl"), "database T")
	if err := os.Remove(filepath.Join(dir, "dm.ctl.bak")); err != nil {
		t.Fatal(err)
	}
	damaged("missing copy", []string{"ctl", filepath.Join(dir, "dm.ctl")}, filepath.Join(dir, "dm.ctl.bak"), "no such file")

	dir = database(t, 10)
	data := filepath.Join(dir, "SYSTEM.DBF")
	fi, err := os.Stat(data)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, data, 500)
	damaged("page", []string{"page", data}, data, "offset 0: page 1", "1 damaged")
	if err := os.Truncate(data, fi.Size()+10); err != nil {
		t.Fatal(err)
	}
	damaged("rest", []string{"page", filepath.Join(dir, "dm.ini")}, data, "10 bytes are no whole page")
}

// TestRunningDatabase: a dump beside a writer shows a consistent log and no damage.
func TestRunningDatabase(t *testing.T) {
	dir := database(t, 1)
	e, err := engine.Open(t.Context(), engine.Config{FS: vfs.OS{}, Log: slog.New(slog.DiscardHandler), Dir: dir, CtlPath: filepath.Join(dir, "dm.ctl"),
		LogPaths: []string{filepath.Join(dir, "1.log"), filepath.Join(dir, "2.log")}, InstName: "A", Arch: &engine.ArchConfig{Dir: filepath.Join(dir, "arch"), Name: "L", FileSize: 64 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Abort()
	if err := e.OpenDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				commit(t, e, uint32(2+i%20), byte(i))
				if i%50 == 0 {
					_ = e.Checkpoint(t.Context())
				}
			}
		}
	}()
	for range 5 {
		for _, what := range []string{"redo", "arch", "page", "ctl"} {
			if out, err := run(t, what, filepath.Join(dir, "dm.ini")); err != nil {
				t.Errorf("%s: %v\n%.2000s", what, err, out)
			}
		}
	}
	close(stop)
	<-done
}

func TestUsage(t *testing.T) {
	dir := database(t, 1)
	ini := filepath.Join(dir, "dm.ini")
	for _, args := range [][]string{{}, {"x", "y"}, {"redo"}, {"redo", "-zz", ini}, {"page", ini, ini}, {"page", "-page", "0", ini}, {"page", "-page", "3-2", ini}, {"page", "-page", "99999", ini},
		{"redo", filepath.Join(dir, "1.log")}} {
		var u UsageError
		if _, err := run(t, args...); !errors.As(err, &u) {
			t.Errorf("%v: %v", args, err)
		}
	}
	for _, args := range [][]string{{"redo", "/nowhere"}, {"arch", "/nowhere"}, {"page", "/nowhere"}, {"page", filepath.Join(dir, "dm.ctl")}, {"redo", "/nowhere/dm.ini"}} {
		if _, err := run(t, args...); err == nil || !strings.Contains(err.Error(), "nowhere") && !strings.Contains(err.Error(), "dm.ctl") {
			t.Errorf("%v: %v", args, err)
		}
	}
	if out, err := run(t, "redo", filepath.Join(dir, "dm.ctl")); !errors.Is(err, ErrDamage) || !strings.Contains(out, "dm.ctl, offset 0") {
		t.Errorf("a foreign file: %v %s", err, out)
	}
}
