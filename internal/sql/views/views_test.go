package views

import (
	"bufio"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/base"
)

// fake is a Source whose views have one row each, except the empty ones.
type fake struct{ start time.Time }

func one[R any](r ...R) []R { return r }

func (f fake) Instance() []InstanceRow {
	return one(InstanceRow{Name: "GRP1_RT_01", InstanceName: "GRP1_RT_01", InstanceNumber: 1, StartTime: f.start,
		Status: base.StatusAfterRedo, Mode: base.ModePrimary, OGUID: 453331, PortNum: 5236})
}
func (f fake) Database() []DatabaseRow {
	return one(DatabaseRow{Name: "DAMENG", PageSize: 4096, DBMagic: 0xffffffff})
}
func (f fake) RLog() []RLogRow {
	return one(RLogRow{FileLSN: 106610, GlobalNextSeq: 4427, DBMagic: 460099052})
}
func (f fake) ArchStatus() []ArchStatusRow {
	return one(ArchStatusRow{base.ArchRealtime, "GRP1_RT_02", base.ArchValid, "GRP1_RT_01"},
		ArchStatusRow{base.ArchLocal, "/a/arch", base.ArchInvalid, "GRP1_RT_01"})
}
func (f fake) LogPkgs() []LogPkgRow        { return one(LogPkgRow{GSeqno: 5}, LogPkgRow{GSeqno: 6}) }
func (f fake) LogPkgStat() []LogPkgStatRow { return one(LogPkgStatRow{Flushed: 4}) }
func (f fake) ArchFiles() []ArchFileRow    { return nil }
func (f fake) ArchIni() []ArchIniRow {
	n := int64(1)
	return one(ArchIniRow{Name: "ARCHIVE_LOCAL1", Type: base.ArchLocal, HangFlag: &n})
}
func (f fake) MALIni() []MALIniRow        { return one(MALIniRow{Name: "MAL_INST1", Port: 5337}) }
func (f fake) MALLinks() []MALLinkRow     { return one(MALLinkRow{Src: "A", Dest: "B", Ctl: true}) }
func (f fake) MALSys() []MALSysRow        { return one(MALSysRow{NextID: 4, Sites: 2, BufSize: 100}) }
func (f fake) MALSites() []MALSiteRow     { return one(MALSiteRow{Dest: 1, BuildTime: 4}) }
func (f fake) RapplySys() []RapplySysRow  { return one(RapplySysRow{Applying: true}) }
func (f fake) KeepPkg() []KeepPkgRow      { return nil }
func (f fake) Parameters() []ParameterRow { return one(ParameterRow{Name: "PORT_NUM", Value: "5236"}) }
func (f fake) RapplyLSN() []RapplyLSNRow {
	return one(NewRapplyLSNRow(460099052, base.Position{Seq: 4426, LSN: 106610}))
}
func (f fake) RapplyTasks() []KeepPkgRow {
	return one(KeepPkgRow{Type: base.ArchRealtime, PkgSeqno: 7})
}
func (f fake) RapplyParallel() []RapplyParallelRow {
	return one(RapplyParallelRow{ParallelNum: 2, RedoLSN: []base.LSN{5, 5}})
}
func (f fake) OpenHistory() []OpenHistoryRow {
	return OpenHistoryRows(base.Lineage{
		{ID: 1, TGUID: "a", SysMode: base.ModePrimary, SrcDBMagic: 1, DBMagic: 1, CurInst: "A", Apply: []base.Position{{Seq: 0, LSN: 0}}},
		{ID: 2, TGUID: "b", SysMode: base.ModePrimary, SrcDBMagic: 1, DBMagic: 2, CurInst: "B", Apply: []base.Position{{Seq: 7, LSN: 9}}},
	})
}
func (f fake) Sessions() []SessionRow {
	return one(SessionRow{ID: 1, User: "SYSDBA", SQL: "it's \x00 a name", ClientIP: "[::1]:4711", State: "ACTIVE", WaitEvent: "write lock"},
		SessionRow{ID: 2, User: "U", State: "IDLE", TrxState: "FAILED", TrxID: 7})
}
func (f fake) Trx() []TrxRow {
	return one(TrxRow{ID: 7, SessID: 1, Writer: true, Isolation: "read committed"})
}
func (f fake) Locks() []LockRow {
	return one(LockRow{TrxID: 7, LType: "WRITE", LMode: "X", SessID: 1}, LockRow{LType: "WRITE", LMode: "X", Blocked: 1, SessID: 2, Blocker: 1, Since: f.start})
}
func (f fake) ArchSend() []ArchSendRow { return one(ArchSendRow{Dest: "B", Type: 3, TotalCnt: 5}) }
func (f fake) RecoverStatus() []RecoverStatusRow {
	n := int64(8)
	return one(RecoverStatusRow{Primary: "A", Standby: "B", PrimLSN: 9, SendLSN: &n, Percent: "60%"})
}
func (f fake) RapplyStat() []RapplyStatRow { return one(RapplyStatRow{ApplyNum: 9}) }
func (f fake) DBCheck() []DBCheckRow       { return one(DBCheckRow{State: "OK", Percent: 100}) }
func (f fake) DBProblems() []DBProblemRow  { return nil }
func (f fake) UtskInfo() []UtskInfoRow {
	return one(UtskInfoRow{Code: 100, Cmd: "arch_send", Inst: "B", SendLSN: 7, DSeq2: 3}, UtskInfoRow{Nth: 1, Cmd: "open", DSeq2: 4})
}
func (f fake) UtskSys() []UtskSysRow {
	return one(UtskSysRow{AutoSwitch: "TRUE", MaxWait: 30, LastMsg: f.start.Truncate(time.Second), Version: "4.0"})
}
func (f fake) DMWatcher() []DMWatcherRow {
	return one(DMWatcherRow{Group: "GRP1", State: "OPEN", LastMsg: f.start})
}
func (f fake) Version() []VersionRow {
	return one(VersionRow{"Datawatch"}, VersionRow{"DB Version: 1"})
}

func open(t testing.TB) *sqlite3.Conn {
	t.Helper()
	db, err := sqlite3.Open(":memory:")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if err := Register(db, fake{time.Date(2024, 2, 29, 23, 59, 58, 123456000, time.Local)}); err != nil {
		t.Fatal(err)
	}
	return db
}

// query returns rows as text, NULL as "NULL", columns joined by |.
func query(t testing.TB, db *sqlite3.Conn, sql string) []string {
	t.Helper()
	st, _, err := db.Prepare(sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	defer st.Close()
	var out []string
	for st.Step() {
		var cols []string
		for i := range st.ColumnCount() {
			if st.ColumnType(i) == sqlite3.NULL {
				cols = append(cols, "NULL")
			} else {
				cols = append(cols, st.ColumnText(i))
			}
		}
		out = append(out, strings.Join(cols, "|"))
	}
	if err := st.Err(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return out
}

// TestColumnsAreTheManuals compares the definitions with an extract of the
// manual's tables (10.1): same columns, same order, same types. Views that the
// manual only mentions must have the columns it mentions.
func TestColumnsAreTheManuals(t *testing.T) {
	f, err := os.Open("testdata/columns.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	checked := map[string]int{}
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		p := strings.Split(sc.Text(), "\t")
		if p[0] == "view" || strings.HasPrefix(p[2], "(") {
			continue
		}
		v, ok := Lookup(p[0])
		if !ok {
			t.Errorf("no view %s", p[0])
			continue
		}
		if p[1] == "mentioned" {
			found := false
			for _, c := range v.Columns {
				found = found || c.Name == p[2]
			}
			if !found {
				t.Errorf("%s lacks the column %s that the manual mentions", p[0], p[2])
			}
			continue
		}
		n, err := strconv.Atoi(p[1])
		if err != nil || n != checked[p[0]]+1 {
			t.Fatalf("testdata: %s column %q out of order", p[0], p[1])
		}
		checked[p[0]] = n
		if n > len(v.Columns) || v.Columns[n-1].Name != p[2] || v.Columns[n-1].Type != p[3] {
			t.Errorf("%s column %d: want %s %s", p[0], n, p[2], p[3])
		}
	}
	if len(checked) != 20 {
		t.Errorf("compared %d views, want 20: %v", len(checked), checked)
	}
	for name, n := range checked {
		if v, _ := Lookup(name); len(v.Columns) != n {
			t.Errorf("%s has %d columns, the manual %d", name, len(v.Columns), n)
		}
	}
}

func TestEveryViewAnswers(t *testing.T) {
	db := open(t)
	src := fake{}
	for _, v := range append(All(), Catalog()...) {
		t.Run(v.Name, func(t *testing.T) {
			got := query(t, db, "select * from "+strings.ToLower(v.Name))
			if want := len(v.Rows(src)); len(got) != want {
				t.Errorf("%d rows, want %d", len(got), want)
			}
			st, _, err := db.Prepare("select * from " + v.Name)
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			for i, c := range v.Columns {
				if st.ColumnName(i) != c.Name || !strings.EqualFold(st.ColumnDeclType(i), c.Type) {
					t.Errorf("column %d is %s %s, want %s %s", i, st.ColumnName(i), st.ColumnDeclType(i), c.Name, c.Type)
				}
			}
		})
	}
}

func TestValues(t *testing.T) {
	db := open(t)
	for sql, want := range map[string]string{
		"select name, status$, mode$, oguid, dsc_role, start_time from v$instance":                                  "GRP1_RT_01|AFTER REDO|PRIMARY|453331|NULL|2024-02-29 23:59:58.123456",
		"select running, break_flag, auto_switch, max_wait_time, last_msg_time, dw_version from v$utsk_sys2":        "FALSE|FALSE|TRUE|30|2024-02-29 23:59:58.000000|4.0",
		"select code, send_lsn, cmd, inst_name, auto_switch from v$utsk_info where nth = 0":                         "100|7|arch_send|B|NULL",
		"select MODE$ from V$INSTANCE where MODE$ = 'PRIMARY' and name like 'grp%'":                                 "PRIMARY",
		"select db_magic, create_time from v$database":                                                              "4294967295|NULL",
		"select P_DB_MAGIC, PKG_SEQ_ARR, APPLY_LSN_ARR from V$RAPPLY_LSN_INFO":                                      "460099052|(4426)|(106610)",
		"select DB_MAGIC, GLOBAL_NEXT_SEQ, FILE_LSN from V$RLOG":                                                    "460099052|4427|106610",
		"select arch_type, arch_status from v$arch_status order by arch_dest desc limit 1":                          "REALTIME|Valid",
		"select arch_hang_flag, arch_wait_apply from v$dm_arch_ini":                                                 "1|NULL",
		"select ctl_link_status, data_link_status from v$mal_link_status":                                           "CONNECTED|DISCONNECT",
		"select applying, has_keep_pkg, primary_name from v$rapply_sys":                                             "TRUE|FALSE|NULL",
		"select rowid, pri_inst_name, cur_inst_name, pkg_seqno_arr from sysopenhistory where n_ep=1 and rowid=2":    "2|A|B|(7)",
		"select value from v$dm_ini where name='PORT_NUM'":                                                          "5236",
		"select setting, context from pg_settings where name='port_num'":                                            "5236|",
		"select pid, client_addr, client_port, state, wait_event_type from pg_stat_activity where usename='SYSDBA'": "1|::1|4711|active|Lock",
		"select pid, state, wait_event, backend_xid, client_addr from pg_stat_activity where usename='U'":           "2|idle in transaction (aborted)|ClientRead|7|NULL",
		"select group_concat(pid || granted || coalesce(transactionid,'-')) from pg_locks":                          "1t7,2f-",
		"select writer, id from v$trx":                                                                              "TRUE|7",
		"select block_sess_id, since from v$lock where blocked=1":                                                   "1|2024-02-29 23:59:58.123456",
		"select typname, typelem from pg_type where oid=1007":                                                       "_int4|23",
		"select count(*) from v$instance a, v$version b, v$keep_rlog_pkg c":                                         "0",
		"select a.name || b.banner from v$instance a, v$version b order by 1 limit 1":                               "GRP1_RT_01DB Version: 1",
		"select count(distinct oid) = count(*) from pg_type":                                                        "1",
	} {
		if got := query(t, db, sql); len(got) != 1 || got[0] != want {
			t.Errorf("%s\n got %q\nwant %q", sql, got, want)
		}
	}
}

func TestViewsCannotBeChanged(t *testing.T) {
	db := open(t)
	for _, sql := range []string{
		"update v$instance set name='x'", "delete from v$rlog", "insert into v$version values ('x')",
		"create index i on v$instance(name)", "alter table v$instance rename to x", "drop table v$instance",
	} {
		if err := db.Exec(sql); err == nil {
			t.Errorf("%s succeeded", sql)
		}
	}
	if got := query(t, db, "select count(*) from v$instance"); got[0] != "1" {
		t.Errorf("v$instance has %s rows", got[0])
	}
}

func TestUsableInsideViews(t *testing.T) {
	db := open(t)
	if err := db.Exec("pragma trusted_schema=off; create view me as select name from v$instance"); err != nil {
		t.Fatal(err)
	}
	if got := query(t, db, "select * from me"); len(got) != 1 || got[0] != "GRP1_RT_01" {
		t.Errorf("got %q", got)
	}
}

// TestMemoryPerConnection bounds what the views cost a connection that uses
// none of them, and one that uses them.
func TestMemoryPerConnection(t *testing.T) {
	const n = 16
	measure := func(register, use bool) uint64 {
		var a, b runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&a)
		dbs := make([]*sqlite3.Conn, n)
		for i := range dbs {
			db, err := sqlite3.Open(":memory:")
			if err != nil {
				t.Fatal(err)
			}
			if register {
				if err := Register(db, fake{}); err != nil {
					t.Fatal(err)
				}
			}
			if use {
				query(t, db, "select * from v$instance")
			}
			dbs[i] = db
		}
		runtime.GC()
		runtime.ReadMemStats(&b)
		for _, db := range dbs {
			db.Close()
		}
		return (b.HeapAlloc - min(a.HeapAlloc, b.HeapAlloc)) / n
	}
	bare, registered, used := measure(false, false), measure(true, false), measure(true, true)
	t.Logf("Go heap per connection: bare %d, registered %d, used %d bytes", bare, registered, used)
	if registered > bare+64<<10 {
		t.Errorf("registering costs %d bytes a connection", registered-bare)
	}
}

func TestDocsAreCurrent(t *testing.T) {
	got, err := os.ReadFile("../../../docs/views.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != Markdown() {
		t.Error("docs/views.md is stale: run go generate ./internal/sql/views")
	}
}

func TestZeroValueRowsConvert(t *testing.T) {
	// Every row type's zero value must turn into SQL values.
	for _, v := range append(All(), Catalog()...) {
		if v.Alias != "" {
			continue
		}
		var src Source = fake{}
		zero := reflect.Zero(v.rows(src).Type().Elem())
		for i, f := range v.fields {
			switch x := value(zero.Field(f.index), f.zeroNull).(type) {
			case nil, int64, string:
			default:
				t.Errorf("%s.%s becomes %T", v.Name, v.Columns[i].Name, x)
			}
		}
	}
}
