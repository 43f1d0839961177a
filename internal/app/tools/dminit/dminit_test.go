package dminit

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"datawatch/internal/clock"
	"datawatch/internal/config"
	"datawatch/internal/vfs"
)

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"help"}, 0, "SYSDBA_PWD"},
		{[]string{"version"}, 0, "DMINIT V8"},
		{nil, 2, "PATH=dir is needed"},
		{[]string{"DB_NAME=X"}, 2, "PATH: value is missing"},
		{[]string{"PATH=" + dir, "PATH=" + dir}, 2, "given twice"},
		{[]string{"PATH=" + dir, "COLOUR=red"}, 2, "unknown argument COLOUR"},
		{[]string{"PATH=" + dir, "PAGE_SIZE=5"}, 2, "PAGE_SIZE = 5: not a known value (allowed: 4, 8, 16, 32)"},
		{[]string{"PATH=" + dir, "LOG_SIZE=1"}, 2, "allowed: 16-8192 MB"},
		{[]string{"PATH=" + dir, "INSTANCE_NAME=12345678901234567"}, 2, "at most 16 characters"},
		{[]string{"PATH=" + dir, "DB_NAME=../x"}, 2, "must begin with a letter"},
	} {
		var out bytes.Buffer
		if code := Main(t.Context(), c.args, nil, &out, &out); code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("%v: exit %d: %s", c.args, code, &out)
		}
	}
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Errorf("refused runs left %v", names)
	}
}

// What dminit writes is read back by every program without a complaint.
func TestConfigurationIsGood(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	args := []string{"PATH=" + dir, "INSTANCE_NAME=GRP1_RT_01", "PORT_NUM=32141", "LOG_SIZE=16", "LOG_FILES=3", "PAGE_SIZE=8"}
	if code := Main(t.Context(), args, nil, &out, &out); code != 0 {
		t.Fatalf("exit %d: %s", code, &out)
	}
	db := filepath.Join(dir, "DAMENG")
	i, err := config.LoadInstance(filepath.Join(db, "dm.ini"))
	if err != nil {
		t.Fatal(err)
	}
	if w := i.Warnings(); len(w) != 0 {
		t.Errorf("warnings: %v", w)
	}
	if i.DM.InstanceName != "GRP1_RT_01" || i.DM.PortNum != 32141 || len(i.DM.LogPath) != 3 || i.DM.CtlPath != filepath.Join(db, "dm.ctl") {
		t.Errorf("dm.ini: %+v", i.DM)
	}
	// The examples, taken as they are, fit together as far as one instance goes.
	for _, f := range []string{"dmmal", "dmarch"} {
		b, err := os.ReadFile(filepath.Join(db, f+"_example.ini"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(db, f+".ini"), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"MAL_INI", "ARCH_INI"} {
		if err := config.SetParam(vfs.OS{}, filepath.Join(db, "dm.ini"), "dm.ini", "", key, "1"); err != nil {
			t.Fatal(err)
		}
	}
	if i, err = config.LoadInstance(filepath.Join(db, "dm.ini")); err != nil || i.DWPort != 32341 {
		t.Errorf("with the examples: %v", err)
	}
	if _, err := config.LoadWatcher(filepath.Join(db, "dmwatcher_example.ini")); err != nil {
		t.Error(err)
	}
	before, _ := os.ReadFile(filepath.Join(db, "dm.ini"))
	out.Reset()
	if code := Main(t.Context(), args, nil, &out, &out); code != 3 || !strings.Contains(out.String(), "holds a database") {
		t.Errorf("a second time: exit %d: %s", code, &out)
	}
	if after, _ := os.ReadFile(filepath.Join(db, "dm.ini")); !bytes.Equal(before, after) {
		t.Error("the refused run changed dm.ini")
	}
}

// A run that fails part way leaves nothing that the next run would refuse.
func TestFailureLeavesNothing(t *testing.T) {
	fsys := vfs.NewMem()
	broken := errors.New("disk is broken")
	args := []string{"PATH=/data", "LOG_SIZE=16"}
	for _, victim := range []string{"SYSTEM.DBF", "DAMENG02.log", "dm.ctl", "dm.ini"} {
		fsys.SetHook(func(op vfs.Op) error {
			if op.Kind == vfs.OpWrite && strings.HasPrefix(filepath.Base(op.Path), victim) && !op.After {
				return broken
			}
			return nil
		})
		if err := run(t.Context(), args, &bytes.Buffer{}, fsys, clock.Real{}); !errors.Is(err, broken) {
			t.Errorf("%s: %v", victim, err)
		}
	}
	fsys.SetHook(nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, args, &bytes.Buffer{}, fsys, clock.Real{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := run(t.Context(), args, &bytes.Buffer{}, fsys, clock.Real{}); err != nil {
		t.Errorf("after the failures: %v", err)
	}
}
