package dmrman

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"datawatch/internal/app/tools"
	"datawatch/internal/app/tools/dminit"
	"datawatch/internal/config"
	"datawatch/internal/storage/ctl"
	"datawatch/internal/vfs"
)

func rman(t *testing.T, stdin string, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	code := Main(t.Context(), args, strings.NewReader(stdin), &out, &out)
	return code, out.String()
}

func initDB(t *testing.T, dir, name string) string {
	t.Helper()
	var out bytes.Buffer
	args := []string{"path=" + dir, "Db_Name=" + name, "LOG_SIZE=16", "INSTANCE_NAME=" + name, "PORT_NUM=6000", "SYSDBA_PWD=secret"}
	if code := dminit.Main(t.Context(), args, nil, &out, &out); code != 0 {
		t.Fatalf("dminit: exit %d\n%s", code, &out)
	}
	return filepath.Join(dir, name, "dm.ini")
}

// Manual 7.1.1, statement by statement, with the refusals in between.
func TestManual711(t *testing.T) {
	dir := t.TempDir()
	a, b := initDB(t, dir, "A"), initDB(t, dir, "B")
	set := filepath.Join(dir, "BACKUP_FILE_01")
	for _, c := range []struct {
		stmt string
		code int
		want string
	}{
		{"BACKUP DATABASE '" + a + "' FULL TO BACKUP_FILE1 BACKUPSET  '" + set + "'", 0, "backup set " + set},
		{"BACKUP DATABASE '" + a + "' FULL BACKUPSET '" + set + "'", 3, "not empty"},
		{"check backupset '" + set + "';", 0, "every checksum is right"},
		{"SHOW BACKUPSET '" + set + "'", 0, "BACKUP_FILE1"},
		{"RECOVER DATABASE '" + b + "' FROM BACKUPSET '" + set + "'", 3, "was not restored"},
		{"RESTORE DATABASE '" + b + "' FROM BACKUPSET '" + dir + "'", 3, "has no backup.meta"},
		{"RESTORE DATABASE '" + b + "' FROM BACKUPSET '" + set + "'", 0, "next: RECOVER DATABASE"},
		{"BACKUP DATABASE '" + b + "' BACKUPSET '" + dir + "/x'", 3, "UPDATE DB_MAGIC first"},
		{"RECOVER DATABASE '" + b + "' FROM BACKUPSET '" + set + "'", 0, "consistent"},
		{"RECOVER DATABASE '" + b + "' WITH ARCHIVEDIR '" + dir + "/none'", 2, "not a directory"},
		{"RECOVER DATABASE '" + b + "' UPDATE DB_MAGIC", 0, "DB_MAGIC is now"},
		{"CHECK DATABASE '" + b + "'", 0, "every checksum is right"},
		{"BACKUP DATABASE '" + b + "' WITHOUT LOG", 0, "backup set " + filepath.Join(dir, "B", "bak", "DB_B_FULL_")},
		{"RESTORE DATABASE '" + dir + "/none.ini' FROM BACKUPSET '" + set + "'", 2, "none.ini: cannot be read"},
	} {
		if code, out := rman(t, "", "CTLSTMT="+c.stmt); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s\nexit %d, want %d and %q:\n%s", c.stmt, code, c.code, c.want, out)
		}
	}
	load := func(ini string) *ctl.Control {
		dm, err := config.LoadDM(ini)
		if err != nil {
			t.Fatal(err)
		}
		c, err := ctl.Load(vfs.OS{}, dm.CtlPath)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ca, cb := load(a), load(b)
	if ca.PmntMagic != cb.PmntMagic || ca.DBMagic == cb.DBMagic || ca.Position != cb.Position {
		t.Errorf("A %v %v %v, B %v %v %v", ca.PmntMagic, ca.DBMagic, ca.Position, cb.PmntMagic, cb.DBMagic, cb.Position)
	}
}

func TestDialogue(t *testing.T) {
	code, out := rman(t, "help\nCHECK BACKUPSET\n'/does/not/exist';\n\nEXIT;\n")
	if code != 3 || !strings.Contains(out, "RMAN> ") || !strings.Contains(out, "RESTORE DATABASE 'dm.ini'") || !strings.Contains(out, "has no backup.meta") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	file := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(file, []byte("HELP;\nSHOW BACKUPSET '/none';\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := rman(t, "", "ctlfile="+file); code != 3 || !strings.Contains(out, "CHECK DATABASE") {
		t.Errorf("exit %d:\n%s", code, out)
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]stmt{
		"BACKUP DATABASE '/d/dm.ini' FULL TO b1 BACKUPSET '/s' WITHOUT LOG;": {verb: vBackup, ini: "/d/dm.ini", dir: "/s", name: "b1", withoutLog: true},
		"backup database \"/d/dm.ini\"":                                      {verb: vBackup, ini: "/d/dm.ini"},
		"RESTORE DATABASE'/d/dm.ini'FROM BACKUPSET'/it''s'":                  {verb: vRestore, ini: "/d/dm.ini", dir: "/it's"},
		"recover database '/d'\nwith archivedir '/a'":                        {verb: vRecoverArch, ini: "/d", dir: "/a"},
		"RECOVER DATABASE '/d' UPDATE DB_MAGIC":                              {verb: vUpdateMagic, ini: "/d"},
	} {
		if got, err := parse(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", ";", "BACKUP", "BACKUP DATABASE x", "BACKUP DATABASE ''", "RESTORE DATABASE '/d'", "RECOVER DATABASE '/d' NOW",
		"BACKUP DATABASE '/d' TO BACKUPSET '/s'", "BACKUP DATABASE '/d", "RESTORE DATABASE '/d' FROM BACKUPSET '/s' AND", "DROP DATABASE"} {
		if s, err := parse(text); err == nil || tools.ExitCode(err) != tools.ExitUsage {
			t.Errorf("%q: %+v, %v", text, s, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("BACKUP DATABASE '/d/dm.ini' FULL TO b1 BACKUPSET '/s'")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := parse(text); err == nil && s.verb <= vUpdateMagic && s.ini == "" {
			t.Error("a statement without dm.ini")
		}
	})
}

func TestArguments(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"help", 0, "CTLSTMT"}, {"version", 0, "DMRMAN V8"}, {"FOO=1", 2, "unknown argument FOO"}, {"CTLSTMT", 2, "not KEY=value"},
		{"USE_AP=7", 2, "must be 1 or 2"}, {"DCR_INI=x", 2, "not"},
	} {
		if code, out := rman(t, "", c.args); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit %d: %s", c.args, code, out)
		}
	}
}
