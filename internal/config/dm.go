package config

import (
	"path/filepath"
	"strings"
	"time"
)

// DM is dm.ini (manual 5.1). Paths are resolved against its directory.
type DM struct {
	Source

	InstanceName       string        `ini:"INSTANCE_NAME"`
	PortNum            int           `ini:"PORT_NUM"`
	DWPort             int           `ini:"DW_PORT"` // 0 when not given
	DWInactiveInterval time.Duration `ini:"DW_INACTIVE_INTERVAL"`
	AlterModeStatus    bool          `ini:"ALTER_MODE_STATUS"`
	EnableOfflineTS    int           `ini:"ENABLE_OFFLINE_TS"`
	SessFreeInSuspend  time.Duration `ini:"SESS_FREE_IN_SUSPEND"` // 0 never
	MALIni             bool          `ini:"MAL_INI"`
	ArchIni            bool          `ini:"ARCH_INI"`
	TimerIni           bool          `ini:"TIMER_INI"`
	MPPIni             bool          `ini:"MPP_INI"`
	DWMaxSvrWaitTime   time.Duration `ini:"DW_MAX_SVR_WAIT_TIME"`
	RedosBufSize       int           `ini:"REDOS_BUF_SIZE"`  // MB, 0 no limit
	RedosBufNum        int           `ini:"REDOS_BUF_NUM"`   // packages, 0 no limit
	RedosMaxDelay      time.Duration `ini:"REDOS_MAX_DELAY"` // 0 no limit
	RedosPreLoad       bool          `ini:"REDOS_PRE_LOAD"`
	RlogSendApplyMon   int           `ini:"RLOG_SEND_APPLY_MON"`
	MessageCheck       bool          `ini:"MESSAGE_CHECK"`
	RedosParallelNum   int           `ini:"REDOS_PARALLEL_NUM"`
	RedosEnableSelect  bool          `ini:"REDOS_ENABLE_SELECT"`
	DWConsistencyCheck bool          `ini:"DW_CONSISTENCY_CHECK"`
	DWArchSpaceCheck   bool          `ini:"DW_ARCH_SPACE_CHECK"`
	RlogPkgSendNum     int           `ini:"RLOG_PKG_SEND_NUM"`
	ConfigPath         string        `ini:"CONFIG_PATH"` // directory
	CtlPath            string        `ini:"CTL_PATH"`    // the control file itself, whatever the file says
	SystemPath         string        `ini:"SYSTEM_PATH"` // directory
	ListenIP           string        `ini:"LISTEN_IP"`   // "" every address
	TSMaxID            int           `ini:"TS_MAX_ID"`
	TSFilMaxID         int           `ini:"TS_FIL_MAX_ID"`
	UseAP              int           `ini:"USE_AP"`
	HAInstCheckIP      string        `ini:"HA_INST_CHECK_IP"`
	HAInstCheckPort    int           `ini:"HA_INST_CHECK_PORT"`
	Buffer             int           `ini:"BUFFER"`       // MB
	MemoryLimit        int           `ini:"MEMORY_LIMIT"` // MB, 0 none

	LogPath             []string      `ini:"LOG_PATH"` // online log files; never empty after loading
	BakPath             string        `ini:"BAK_PATH"`
	SvrLogDir           string        `ini:"SVR_LOG_DIR"`
	SvrLogLevel         string        `ini:"SVR_LOG_LEVEL"`
	MaxSessions         int           `ini:"MAX_SESSIONS"`
	ReservedSessions    int           `ini:"RESERVED_SESSIONS"`
	CkptInterval        time.Duration `ini:"CKPT_INTERVAL"`
	RlogCompress        bool          `ini:"RLOG_COMPRESS"`
	LockTimeout         time.Duration `ini:"LOCK_TIMEOUT"`         // 0 no limit
	IdleInTranTimeout   time.Duration `ini:"IDLE_IN_TRAN_TIMEOUT"` // 0 no limit
	ConcurrentTrx       bool          `ini:"CONCURRENT_TRX"`
	ConcurrentTrxNum    int           `ini:"CONCURRENT_TRX_NUM"`   // 0 none
	IdleSessionTimeout  time.Duration `ini:"IDLE_SESSION_TIMEOUT"` // 0 no limit
	StatementTimeout    time.Duration `ini:"STATEMENT_TIMEOUT"`    // 0 no limit
	SlowSQLTime         time.Duration `ini:"SLOW_SQL_TIME"`        // 0 off
	SlowSQLParams       bool          `ini:"SLOW_SQL_PARAMS"`
	AdminPort           int           `ini:"ADMIN_PORT"` // 0 not served
	AdminIP             string        `ini:"ADMIN_IP"`
	SvrLogFileSize      int64         `ini:"SVR_LOG_FILE_SIZE"`   // MB
	SvrLogSpaceLimit    int64         `ini:"SVR_LOG_SPACE_LIMIT"` // MB, 0 no limit
	LoginTimeout        time.Duration `ini:"LOGIN_TIMEOUT"`
	HBAFile             string        `ini:"HBA_FILE"` // "" dm_hba.conf beside dm.ini, if there is one
	PwdPolicy           int           `ini:"PWD_POLICY"`
	PwdMinLen           int           `ini:"PWD_MIN_LEN"`
	FailedLoginAttempts int           `ini:"FAILED_LOGIN_ATTEMPTS"`
	PasswordLockTime    time.Duration `ini:"PASSWORD_LOCK_TIME"`
	SSLCert             string        `ini:"SSL_CERT"` // "" TLS is off
	SSLKey              string        `ini:"SSL_KEY"`
	SSLRequire          string        `ini:"SSL_REQUIRE"`      // REMOTE, ALL or NONE
	StmtMemLimit        int64         `ini:"STMT_MEM_LIMIT"`   // MB
	TempSpaceLimit      int64         `ini:"TEMP_SPACE_LIMIT"` // MB, 0 no limit
}

// ParseDM reads dm.ini; name is its path.
func ParseDM(name string, data []byte) (*DM, error) {
	r := &reading{}
	dm := &DM{}
	blocks := r.open("dm.ini", name, data, nil)
	for _, b := range blocks {
		if b.line > 0 {
			r.fail(b.line, b.name, "", "", "dm.ini has no sections", "")
		}
	}
	if len(blocks) > 0 {
		r.fill(blocks[0], dm)
	}
	dm.Source = *r.src
	dm.resolve(r.dir)
	dm.check(r)
	if err := r.errs.err(); err != nil {
		return nil, err
	}
	return dm, nil
}

// resolve sets the paths that depend on others.
func (dm *DM) resolve(dir string) {
	for _, p := range []*string{&dm.ConfigPath, &dm.SystemPath, &dm.CtlPath} {
		if *p == "" {
			*p = dir
		}
	}
	if !strings.EqualFold(filepath.Ext(dm.CtlPath), ".ctl") {
		dm.CtlPath = filepath.Join(dm.CtlPath, "dm.ctl")
	}
	if len(dm.LogPath) == 0 {
		dm.LogPath = []string{
			filepath.Join(dm.SystemPath, "LOG01.log"),
			filepath.Join(dm.SystemPath, "LOG02.log"),
		}
	}
}

// check looks at parameters that must agree with each other.
func (dm *DM) check(r *reading) {
	at := func(key, value, msg string) { r.fail(dm.line("", key), "", key, value, msg, "") }
	if dm.DWPort != 0 && dm.DWPort == dm.PortNum {
		at("DW_PORT", itoa(dm.DWPort), "equals PORT_NUM")
	}
	if dm.AdminPort != 0 && (dm.AdminPort == dm.PortNum || dm.AdminPort == dm.DWPort) {
		at("ADMIN_PORT", itoa(dm.AdminPort), "equals PORT_NUM or DW_PORT")
	}
	if (dm.SSLCert == "") != (dm.SSLKey == "") {
		key := "SSL_CERT"
		if dm.SSLCert == "" {
			key = "SSL_KEY"
		}
		at(key, "", "SSL_CERT and SSL_KEY must be given together")
	}
	if dm.SSLCert == "" && strings.EqualFold(dm.SSLRequire, "ALL") {
		at("SSL_REQUIRE", dm.SSLRequire, "needs SSL_CERT and SSL_KEY")
	}
	if len(dm.LogPath) < 2 {
		at("LOG_PATH", dm.LogPath[0], "at least two online log files are needed")
	}
	seen := map[string]bool{}
	for _, p := range dm.LogPath {
		if seen[filepath.Clean(p)] {
			at("LOG_PATH", p, "is given twice")
		}
		seen[filepath.Clean(p)] = true
	}
	if (dm.HAInstCheckIP == "") != (dm.HAInstCheckPort == 0) {
		at("HA_INST_CHECK_IP", dm.HAInstCheckIP, "HA_INST_CHECK_IP and HA_INST_CHECK_PORT must be given together")
	}
}
