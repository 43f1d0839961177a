package config

// timerParams are the parameters of dmtimer.ini (manual 5.6).
var timerParams = []Param{
	{Section: "[TIMER_NAME]", Name: "[TIMER_NAME]", Kind: KindName, Manual: "5.6",
		Doc: "One section per timer; ARCH_TIMER_NAME refers to its name."},
	{Section: "[TIMER_NAME]", Name: "TYPE", Kind: KindInt, Min: 1, Max: 10, Required: true, Manual: "5.6",
		Doc: "Schedule: 1 once at DURING_START_DATE, 2 by day, 3 by week, 4 on a day of the month, 5-8 in the first to fourth week of the month, 9 in its last week, 10 by REPEAT_INTERVAL."},
	{Section: "[TIMER_NAME]", Name: "FREQ_MONTH_WEEK_INTERVAL", Kind: KindInt, Max: 2147483647, Default: "0", Manual: "5.6",
		Doc: "Every how many days (TYPE 2: 1-100), weeks (3) or months (4-9)."},
	{Section: "[TIMER_NAME]", Name: "FREQ_SUB_INTERVAL", Kind: KindInt, Max: 127, Default: "0", Manual: "5.6",
		Doc: "Which days: TYPE 3 a sum of 1 Sunday, 2 Monday ... 64 Saturday; TYPE 4 the day of the month; TYPE 5-9 1 Monday to 7 Sunday."},
	{Section: "[TIMER_NAME]", Name: "FREQ_MINUTE_INTERVAL", Kind: KindInt, Max: 1439, Default: "0", Unit: "min", Manual: "5.6",
		Doc: "Within such a day: every how many minutes. 0: once."},
	{Section: "[TIMER_NAME]", Name: "REPEAT_INTERVAL", Kind: KindString, MaxLen: 4096, Manual: "5.6",
		Doc: "Calendar expression for TYPE 10, such as FREQ=SECONDLY;INTERVAL=1."},
	{Section: "[TIMER_NAME]", Name: "START_TIME", Kind: KindTime, Manual: "5.6",
		Doc: "Time of day at which a day's schedule starts."},
	{Section: "[TIMER_NAME]", Name: "END_TIME", Kind: KindTime, Manual: "5.6",
		Doc: "Time of day at which it ends."},
	{Section: "[TIMER_NAME]", Name: "DURING_START_DATE", Kind: KindDateTime, Required: true, Manual: "5.6",
		Doc: "First moment at which the timer acts."},
	{Section: "[TIMER_NAME]", Name: "DURING_END_DATE", Kind: KindDateTime, Manual: "5.6",
		Doc: "Last moment at which it acts; after DURING_START_DATE, or empty."},
	{Section: "[TIMER_NAME]", Name: "NO_END_DATE_FLAG", Kind: KindBool, Default: "0", Manual: "5.6",
		Doc: "1: the timer has no end, whatever DURING_END_DATE says."},
	{Section: "[TIMER_NAME]", Name: "DESCRIBE", Kind: KindString, MaxLen: 1024, Manual: "5.6",
		Doc: "Remark."},
	{Section: "[TIMER_NAME]", Name: "IS_VALID", Kind: KindBool, Default: "0", Manual: "5.6",
		Doc: "Whether the timer is switched on."},
}

// mppParams are the parameters of dmmpp.ini, the text form of dmmpp.ctl
// (manual 7.4.3.4).
var mppParams = []Param{
	{Section: "[SERVICE_NAME]", Name: "[SERVICE_NAME]", Kind: KindName, Manual: "7.4.3.4",
		Doc: "One section per node of the MPP system."},
	{Section: "[SERVICE_NAME]", Name: "MPP_SEQ_NO", Kind: KindInt, Max: 65535, Required: true, Manual: "7.4.3.4",
		Doc: "Number of the node, from 0 without gaps."},
	{Section: "[SERVICE_NAME]", Name: "MPP_INST_NAME", Kind: KindString, MaxLen: 16, Required: true, Manual: "7.4.3.4, 2.5.2",
		Doc: "Instance that is the node now; a switch puts the new primary's name here."},
}

// dcrParams are those parameters of dmdcr.ini that the manual names (7.5.10,
// 10.2.4, 4.4).
var dcrParams = []Param{
	{Name: "DMDCR_SEQNO", Kind: KindInt, Max: 65535, Default: "0", Manual: "4.4",
		Doc: "Number of this node (dcr_seqno): the cluster service starts the instance with its own number only."},
	{Name: "DMDCR_DB_RESTART_INTERVAL", Kind: KindInt, Max: 86400, Default: "0", Unit: "s", Manual: "7.5.10",
		Doc: "Interval at which the cluster service looks after its instance and starts it when it is down. 0: never. Shown as CSS_DB_RESTART_INTERVAL."},
	{Name: "DMDCR_DB_STARTUP_CMD", Kind: KindString, MaxLen: 4096, Manual: "7.5.10",
		Doc: "How it starts it; ends in mount."},
	{Name: "DMDCR_ASM_RESTART_INTERVAL", Kind: KindInt, Max: 86400, Default: "0", Unit: "s", Manual: "10.2.4",
		Doc: "The same interval for the storage server dmasmsvr. Shown as CSS_ASM_RESTART_INTERVAL."},
	{Name: "CSS_ASM_RESTART_INTERVAL", Kind: KindInt, Max: 86400, Unit: "s", Manual: "4.4",
		Doc: "Another name of DMDCR_ASM_RESTART_INTERVAL."},
	{Name: "CSS_DB_RESTART_INTERVAL", Kind: KindInt, Max: 86400, Unit: "s", Manual: "4.4",
		Doc: "Another name of DMDCR_DB_RESTART_INTERVAL."},
}

// svcParams are the parameters of dm_svc.conf (manual 5.8). A service is a line
// NAME=(IP:PORT,IP:PORT); the others follow it, or stand in a section [NAME].
var svcParams = []Param{
	{Name: "SERVERNAME", Kind: KindString, MaxLen: 128, Manual: "5.8",
		Doc: "A service: NAME=(IP[:PORT],IP[:PORT],...). Clients connect to NAME."},
	{Name: "IP", Kind: KindHost, Manual: "5.8",
		Doc: "Address of a database in that list, IPv6 in brackets."},
	{Name: "PORT", Kind: KindInt, Min: 1, Max: 65535, DefNote: "port of the connection", Manual: "5.8",
		Doc: "Port of a database in that list."},
	{Name: "LOGIN_MODE", Kind: KindInt, Max: 4, Default: "4", Manual: "5.8",
		Doc: "Which server to prefer: 0 Primary, Normal, Standby in this order; 1 Primary only; 2 Standby only; 3 Standby, Primary, Normal; 4 Normal, Primary, Standby."},
	{Name: "SWITCH_TIME", Kind: KindInt, Min: 1, Max: 1<<63 - 1, Default: "3", Manual: "5.8",
		Doc: "How many rounds through the servers are made before an attempt to connect fails."},
	{Name: "SWITCH_INTERVAL", Kind: KindInt, Min: 1, Max: 1<<63 - 1, Default: "200", Unit: "ms", Manual: "5.8",
		Doc: "Pause between rounds."},
	{Name: "RW_SEPARATE", Kind: KindBool, Default: "0", Manual: "5.8",
		Doc: "Whether read-only transactions go to standbys."},
	{Name: "RW_PERCENT", Kind: KindInt, Max: 100, Default: "25", Unit: "percent", Manual: "5.8",
		Doc: "Share of read-only transactions that stays on the primary."},
}

// initParams are the arguments of dminit (manual 5.9, 7.2.2, 9.2), then ours.
var initParams = []Param{
	{Name: "PATH", Kind: KindPath, Required: true, Effective: true, Manual: "7.2.2",
		Doc: "Directory in which the directory of the database is made."},
	{Name: "HUGE_WITH_DELTA", Kind: KindBool, Default: "1", Manual: "5.9",
		Doc: "Whether HUGE tables are always transactional. 1 is needed for HUGE tables in a guarded group."},
	{Name: "RLOG_GEN_FOR_HUGE", Kind: KindBool, Default: "0", Manual: "5.9",
		Doc: "Whether HUGE tables write redo. 1 is needed for HUGE tables in a guarded group."},
	{Name: "PSEG_MGR_FLAG", Kind: KindBool, Default: "0", Manual: "9.2",
		Doc: "Where rollback information is recorded in the manual's product; accepted, without meaning for this storage."},
	{Name: "DB_NAME", Kind: KindString, MaxLen: 128, Default: "DAMENG", Effective: true, Ours: true,
		Doc: "Name of the database and of its directory."},
	{Name: "INSTANCE_NAME", Kind: KindString, MaxLen: 16, Default: "DMSERVER", Effective: true, Ours: true,
		Doc: "INSTANCE_NAME of the new dm.ini."},
	{Name: "PORT_NUM", Kind: KindInt, Min: 1024, Max: 65534, Default: "5236", Effective: true, Ours: true,
		Doc: "PORT_NUM of the new dm.ini."},
	{Name: "PAGE_SIZE", Kind: KindEnum, Enum: []string{"4", "8", "16", "32"}, Default: "4", Unit: "KB", Effective: true, Ours: true,
		Doc: "Size of a page. Cannot be changed later; equal in a group."},
	{Name: "LOG_SIZE", Kind: KindInt, Min: 16, Max: 8192, Default: "256", Unit: "MB", Effective: true, Ours: true,
		Doc: "Size of one online log file."},
	{Name: "LOG_FILES", Kind: KindInt, Min: 2, Max: 8, Default: "2", Effective: true, Ours: true,
		Doc: "Number of online log files."},
	{Name: "BUFFER", Kind: KindInt, Min: 8, Max: 1048576, Default: "256", Unit: "MB", Effective: true, Ours: true,
		Doc: "BUFFER of the new dm.ini."},
	{Name: "SYSDBA_PWD", Kind: KindString, MaxLen: 128, Default: "SYSDBA", Effective: true, Ours: true,
		Doc: "Password of SYSDBA. Left at the default it is accepted from this machine only."},
	{Name: "ARCH_FILE_SIZE", Kind: KindInt, Min: 64, Max: 2048, Default: "128", Unit: "MB", Effective: true, Ours: true,
		Doc: "ARCH_FILE_SIZE of the new dmarch.ini."},
}
