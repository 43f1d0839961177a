package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestManual72 follows manual 7.1.1 and 7.2 by hand, with the programs' own
// command lines, on loopback addresses: two databases, two watchers, a confirm
// monitor. It ends when `show` of a monitor reports everything Open and Valid.
func TestManual72(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	bin := func(name string) string { return filepath.Join(programs(t), name) }
	dir := t.TempDir()
	port := freePort(t, 2)
	names := []string{"GRP1_RT_01", "GRP1_RT_02"}
	db := func(i int, f ...string) string {
		return filepath.Join(append([]string{dir, names[i], "data", "DAMENG"}, f...)...)
	}
	sql := func(i int, q string) string {
		return run(t, 0, bin("disql"), fmt.Sprintf("SYSDBA/SYSDBA@127.0.0.1:%d", port+i), "-e", q)
	}

	// 7.2.2 with 7.1.1: initialise both, start the primary once normally and
	// stop it, back it up offline, restore it as the standby.
	for i := range names {
		run(t, 0, bin("dminit"), "path="+filepath.Join(dir, names[i], "data"), "LOG_SIZE=64", fmt.Sprintf("PORT_NUM=%d", port+i))
	}
	first := start(t, bin("dmserver"), db(0, "dm.ini"))
	waitSQL(t, port)
	first.stop(t)
	set := filepath.Join(dir, "BACKUP_FILE_01")
	run(t, 0, bin("dmrman"), fmt.Sprintf("CTLSTMT=BACKUP DATABASE '%s' FULL TO BACKUP_FILE_01 BACKUPSET '%s'", db(0, "dm.ini"), set))
	run(t, 0, bin("dmrman"), fmt.Sprintf("CTLSTMT=RESTORE DATABASE '%s' FROM BACKUPSET '%s'", db(1, "dm.ini"), set))
	wants(t, run(t, -1, bin("dmserver"), db(1, "dm.ini"), "mount"), "DB_MAGIC") // it refuses to start before
	run(t, 0, bin("dmrman"), fmt.Sprintf("CTLSTMT=RECOVER DATABASE '%s' UPDATE DB_MAGIC", db(1, "dm.ini")))

	// 7.2.3, 7.2.4: configuration as printed there.
	mal := "MAL_CHECK_INTERVAL   = 5  #MAL link check\nMAL_CONN_FAIL_INTERVAL  = 5\n"
	for i, n := range names {
		mal += fmt.Sprintf("[MAL_INST%d]\n  MAL_INST_NAME          = %s #as INSTANCE_NAME in dm.ini\n  MAL_HOST               = 127.0.0.1\n  MAL_PORT               = %d\n  MAL_INST_HOST          = 127.0.0.1\n  MAL_INST_PORT          = %d\n  MAL_DW_PORT   = %d\n  MAL_INST_DW_PORT  = %d\n",
			i+1, n, port+100+i, port+i, port+200+i, port+300+i)
	}
	for i, n := range names {
		for k, v := range map[string]string{"INSTANCE_NAME": n, "PORT_NUM": fmt.Sprint(port + i), "DW_INACTIVE_INTERVAL": "60",
			"ALTER_MODE_STATUS": "0", "ENABLE_OFFLINE_TS": "2", "MAL_INI": "1", "ARCH_INI": "1", "RLOG_SEND_APPLY_MON": "64"} {
			setIni(t, db(i, "dm.ini"), k, v)
		}
		write(t, db(i, "dmmal.ini"), mal)
		write(t, db(i, "dmarch.ini"), fmt.Sprintf("[ARCHIVE_REALTIME]\nARCH_TYPE     = REALTIME  #realtime\nARCH_DEST     = %s #target\n[ARCHIVE_LOCAL1]\nARCH_TYPE     = LOCAL\nARCH_DEST     = %s\nARCH_FILE_SIZE    = 128 #MB\nARCH_SPACE_LIMIT  = 0    #MB\n", names[1-i], db(i, "arch")))
		write(t, db(i, "dmwatcher.ini"), fmt.Sprintf("[GRP1]\nDW_TYPE    = GLOBAL   #global\nDW_MODE    = AUTO   #automatic\nDW_ERROR_TIME     = 10\nINST_RECOVER_TIME  = 60\nINST_ERROR_TIME   = 10\nINST_OGUID         = 453331\nINST_INI           = %s\nINST_AUTO_RESTART  = 1\nINST_STARTUP_CMD   = %s\nRLOG_SEND_THRESHOLD  = 0\nRLOG_APPLY_THRESHOLD = 0\n", db(i, "dm.ini"), bin("dmserver")))
	}
	// 7.2.3.5 - 7.2.4.7: start with mount, OGUID, mode.
	for i, mode := range []string{"primary", "standby"} {
		p := start(t, bin("dmserver"), db(i, "dm.ini"), "mount")
		t.Cleanup(func() { p.stop(t) })
		waitSQL(t, port+i)
		sql(i, "SP_SET_PARA_VALUE(1, 'ALTER_MODE_STATUS', 1)")
		sql(i, "sp_set_oguid(453331)")
		sql(i, "SP_SET_PARA_VALUE(1, 'ALTER_MODE_STATUS', 0)")
		sql(i, "alter database "+mode)
	}
	// 7.2.5 - 7.2.7: monitor configuration, watchers, monitors.
	monIni := func(confirm int) string {
		d := filepath.Join(dir, fmt.Sprintf("mon%d", confirm))
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		f := filepath.Join(d, "dmmonitor.ini")
		write(t, f, fmt.Sprintf("MON_DW_CONFIRM    = %d\nMON_LOG_PATH    = %s\nMON_LOG_INTERVAL  = 60\nMON_LOG_FILE_SIZE   = 32\nMON_LOG_SPACE_LIMIT  = 0\n[GRP1]\n MON_INST_OGUID    = 453331\n MON_DW_IP     = 127.0.0.1:%d\n MON_DW_IP     = 127.0.0.1:%d\n", confirm, d, port+200, port+201))
		return f
	}
	for i := range names {
		w := start(t, bin("dmwatcher"), db(i, "dmwatcher.ini"))
		t.Cleanup(func() { w.stop(t) })
	}
	m := start(t, bin("dmmonitor"), monIni(1), "-service")
	t.Cleanup(func() { m.stop(t) })

	plain := monIni(0)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var out string
	for ctx.Err() == nil {
		out = run(t, 0, bin("dmmonitor"), plain, "-e", "show")
		up := strings.ToUpper(out)
		if strings.Count(up, "OPEN") >= 4 && strings.Contains(up, "VALID") && !strings.Contains(up, "INVALID") &&
			!strings.Contains(up, "STARTUP") && !strings.Contains(up, "MOUNT") && !strings.Contains(up, "UNKNOWN") {
			break
		}
		pause(ctx, 300*time.Millisecond)
	}
	if ctx.Err() != nil {
		t.Fatalf("show never reported everything Open and Valid:\n%s", out)
	}
	t.Log(out)
	sql(0, "create table tx(c1 int); insert into tx values(1);")
	sql(0, "select * from tx")
	// Stop the group in order, so that the processes above end normally.
	run(t, 0, bin("dmmonitor"), plain, "-e", "login SYSDBA/SYSDBA; stop group GRP1")
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// setIni sets a key of a section-less ini file as a person with an editor
// would: change the line, or add one.
func setIni(t *testing.T, path, key, value string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	for i, l := range lines {
		k, _, ok := strings.Cut(l, "=")
		if ok && strings.EqualFold(strings.TrimSpace(k), key) {
			lines[i] = key + " = " + value
			write(t, path, strings.Join(lines, "\n"))
			return
		}
	}
	write(t, path, key+" = "+value+"\n"+string(b))
}
