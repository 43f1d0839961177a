package session

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
)

// serverVersion is what drivers read as PostgreSQL's version: features are
// those of 15 as far as the protocol goes.
const serverVersion = "15.0"

// reported parameters go to the client at start and when they change.
var reported = []string{
	"server_version", "server_encoding", "client_encoding", "application_name", "DateStyle", "IntervalStyle", "TimeZone",
	"integer_datetimes", "standard_conforming_strings", "is_superuser", "session_authorization", "in_hot_standby",
	"default_transaction_read_only",
}

type checker func(v string) (string, error)

// variable is a run-time parameter.
type variable struct {
	def   string
	fixed bool // cannot be set
	check checker
}

// variables by lower-case name.
var variables = map[string]variable{
	"application_name": {}, "extra_float_digits": {def: "1", check: number(-15, 3)},
	"client_encoding": {def: "UTF8", check: encoding}, "client_min_messages": {def: "notice"},
	"datestyle": {def: "ISO, MDY", check: dateStyle}, "intervalstyle": {def: "postgres"},
	"timezone": {def: "UTC", check: timeZone}, "search_path": {def: `"$user", public`},
	"statement_timeout": {def: "0", check: milliseconds}, "lock_timeout": {def: "0", check: milliseconds},
	"idle_in_transaction_session_timeout": {def: "0", check: milliseconds}, "idle_session_timeout": {def: "0", check: milliseconds},
	"default_transaction_isolation":  {def: "read committed", check: isolation},
	"default_transaction_read_only":  {def: "off", check: boolean},
	"default_transaction_deferrable": {def: "off", check: boolean},
	"default_transaction_concurrent": {def: "off", check: boolean},
	"standard_conforming_strings":    {def: "on", check: only("on")},
	"bytea_output":                   {def: "hex", check: only("hex")}, "synchronous_commit": {def: "on"},
	"enable_aggscan": {def: "on", check: onOrAlways},
	"row_security":   {def: "on"}, "check_function_bodies": {def: "on"}, "xmloption": {def: "content"}, "jit": {def: "off"},
	"lc_messages": {def: "C"}, "lc_monetary": {def: "C"}, "lc_numeric": {def: "C"}, "lc_time": {def: "C"},
	"default_tablespace": {}, "default_table_access_method": {def: "heap"}, "escape_string_warning": {def: "on"},
	"backslash_quote": {def: "safe_encoding"}, "work_mem": {def: "4MB"}, "role": {def: "none"},
	"server_version": {def: serverVersion, fixed: true}, "server_version_num": {def: "150000", fixed: true},
	"server_encoding": {def: "UTF8", fixed: true}, "integer_datetimes": {def: "on", fixed: true},
	"is_superuser": {fixed: true}, "session_authorization": {}, "in_hot_standby": {fixed: true},
	"lc_collate": {def: "C", fixed: true}, "lc_ctype": {def: "C", fixed: true}, "max_identifier_length": {def: "63", fixed: true},
	"block_size": {def: "4096", fixed: true}, "wal_level": {def: "replica", fixed: true},
	"transaction_isolation": {}, "transaction_read_only": {}, "transaction_deferrable": {def: "off"},
	"max_index_keys": {def: "32", fixed: true}, "ssl": {def: "off", fixed: true},
}

// vars are the run-time parameters of a session: the values that differ from
// the defaults.
type vars struct {
	user       string
	startVals  map[string]string // set at session start; RESET goes back to them
	vals       map[string]string
	local      map[string]string // SET LOCAL, until the transaction ends
	hotStandby string
	limits     ownLimits // see own
	fresh      bool      // limits is up to date
}

func newVars(_ string, info sqlapi.Info) *vars {
	v := &vars{user: info.User}
	if info.App != "" {
		v.vals = map[string]string{"application_name": info.App}
	}
	return v
}

func (v *vars) resetToStart() { v.startVals = maps.Clone(v.vals) }
func (v *vars) clone() *vars  { return &vars{vals: maps.Clone(v.vals)} }

func (v *vars) isSet(name string) bool {
	_, a := v.local[name]
	_, b := v.vals[name]
	return a || b
}

func (v *vars) get(name string) string {
	if x, ok := v.local[name]; ok {
		return x
	}
	if x, ok := v.vals[name]; ok {
		return x
	}
	return variables[name].def
}

func unrecognized(name string) error {
	return &sqlapi.Error{Code: "42704", Message: fmt.Sprintf("unrecognized configuration parameter %q", name)}
}

// set checks and sets a value; local: until the end of the transaction.
func (v *vars) set(name, value string, local bool) error {
	name = strings.ToLower(name)
	v.fresh = false
	d, ok := variables[name]
	switch {
	case !ok && !strings.Contains(name, "."):
		return unrecognized(name)
	case d.fixed:
		return &sqlapi.Error{Code: "55P02", Message: fmt.Sprintf("parameter %q cannot be changed", name)}
	case d.check != nil:
		x, err := d.check(value)
		if err != nil {
			return &sqlapi.Error{Code: "22023", Message: fmt.Sprintf("invalid value for parameter %q: %q", name, value), Detail: err.Error()}
		}
		value = x
	case name == "session_authorization" && !strings.EqualFold(value, v.user):
		return &sqlapi.Error{Code: "42501", Message: "permission denied to set session authorization"}
	}
	v.put(name, value, local)
	return nil
}

// put sets a value that has been checked.
func (v *vars) put(name, value string, local bool) {
	v.fresh = false
	m := &v.vals
	if local {
		m = &v.local
	} else {
		delete(v.local, name)
	}
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[name] = value
}

// reset goes back to the value at session start.
func (v *vars) reset(name string) error {
	name = strings.ToLower(name)
	if _, ok := variables[name]; !ok && !strings.Contains(name, ".") {
		return unrecognized(name)
	}
	v.fresh = false
	delete(v.local, name)
	delete(v.vals, name)
	if x, ok := v.startVals[name]; ok {
		v.vals[name] = x
	}
	return nil
}

func (v *vars) resetAll(changed func(name string)) {
	old := v.vals
	v.fresh = false
	v.vals, v.local = maps.Clone(v.startVals), nil
	for n, x := range old {
		if v.get(n) != x {
			changed(n)
		}
	}
}

// end applies the end of a transaction: SET LOCAL ends, and on rollback every
// SET of the transaction.
func (v *vars) end(before *vars, committed bool, changed func(name string)) {
	was := map[string]string{}
	v.fresh = false
	maps.Copy(was, v.vals)
	maps.Copy(was, v.local)
	v.local = nil
	if !committed {
		v.vals = before.vals
	}
	for n, x := range was {
		if v.get(n) != x {
			changed(n)
		}
	}
}

func (v *vars) names() []string {
	names := slices.Collect(maps.Keys(variables))
	for n := range v.vals {
		if _, ok := variables[n]; !ok {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	return names
}

// changed reports a parameter to the client, if it is one of those.
func (s *Session) changed(name string) {
	if name == "role" || name == "session_authorization" {
		s.assumed()
		defer s.tellSuperuser()
	}
	if name == "application_name" {
		s.smu.Lock()
		s.info.App = s.vars.get(name)
		s.smu.Unlock()
	}
	if s.notify == nil {
		return
	}
	for _, r := range reported {
		if strings.EqualFold(r, name) {
			s.notify.ParameterChanged(r, s.show(name))
		}
	}
}

// assign is SET (or RESET) of one parameter.
func (s *Session) assign(name, value string, reset, local bool) error {
	name = strings.ToLower(name)
	switch name {
	case "transaction_isolation", "transaction_read_only":
		if reset {
			return nil
		}
		if !s.inBlock() {
			s.warn("25P01", "SET TRANSACTION can only be used in transaction blocks")
			return nil
		}
		if name == "transaction_isolation" {
			iso, err := isolation(value)
			if err != nil {
				return &sqlapi.Error{Code: "22023", Message: err.Error()}
			}
			s.setModes(dialect.Modes{Isolation: iso})
		} else {
			b, err := boolean(value)
			if err != nil {
				return &sqlapi.Error{Code: "22023", Message: err.Error()}
			}
			s.tx.readOnly = b == "on"
		}
		return nil
	}
	if local && !s.tx.active {
		s.warn("25P01", "SET LOCAL can only be used in transaction blocks")
		return nil
	}
	if err := s.steady(name); err != nil {
		return err
	}
	var err error
	if name == "role" || name == "session_authorization" {
		if value, err = s.assume(name, value, reset); err == nil {
			s.vars.put(name, value, local)
			if name != "role" {
				s.vars.put("role", "none", local)
			}
		}
	} else if reset {
		err = s.vars.reset(name)
	} else {
		err = s.vars.set(name, value, local)
	}
	if err == nil {
		s.changed(name)
	}
	return err
}

func (s *Session) set(st *parsed) error { return s.assign(st.Name, st.Value, st.Default, st.Local) }

// lookup is the value SHOW gives.
func (s *Session) lookup(name string) (string, bool) {
	name = strings.ToLower(name)
	if _, ok := variables[name]; !ok && !s.vars.isSet(name) {
		if s.b.cfg.Admin != nil {
			return s.b.cfg.Admin.GetPara(name)
		}
		return "", false
	}
	return s.show(name), true
}

func (s *Session) show(name string) string {
	name = strings.ToLower(name)
	switch name {
	case "in_hot_standby":
		return onOff(s.b.noWrites())
	case "transaction_read_only":
		return onOff(s.b.noWrites() || s.tx.active && s.tx.readOnly || !s.tx.active && s.vars.get("default_transaction_read_only") == "on")
	case "default_transaction_read_only":
		if !s.vars.isSet(name) {
			return onOff(s.b.noWrites())
		}
	case "default_transaction_concurrent":
		return onOff(s.defaultConcurrent())
	case "transaction_isolation":
		if s.tx.active {
			return s.tx.iso
		}
		return s.vars.get("default_transaction_isolation")
	case "session_authorization":
		return s.vars.user
	case "is_superuser":
		return s.superuser()
	case "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout":
		if d, ok := s.b.serverLimit(name); ok && !s.vars.isSet(name) {
			return showMilliseconds(d)
		}
		return showMilliseconds(s.vars.get(name))
	}
	return s.vars.get(name)
}

// options applies the startup parameter "options": -c name=value ...
func (s *Session) options(v string) error {
	f := strings.Fields(v)
	for i := 0; i < len(f); i++ {
		kv := ""
		switch {
		case f[i] == "-c" && i+1 < len(f):
			i++
			kv = f[i]
		case strings.HasPrefix(f[i], "-c"):
			kv = f[i][2:]
		case strings.HasPrefix(f[i], "--"):
			kv = f[i][2:]
		}
		n, val, ok := strings.Cut(kv, "=")
		if !ok {
			return &sqlapi.Error{Severity: "FATAL", Code: "42601", Message: fmt.Sprintf("invalid command-line argument for server process: %s", f[i])}
		}
		if err := s.vars.set(strings.ReplaceAll(n, "-", "_"), val, false); err != nil {
			return err
		}
	}
	return nil
}

func number(lo, hi int64) checker {
	return func(v string) (string, error) {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < lo || n > hi {
			return "", fmt.Errorf("expected a number from %d to %d", lo, hi)
		}
		return v, nil
	}
}

func only(want string) checker {
	return func(v string) (string, error) {
		if !strings.EqualFold(v, want) {
			return "", fmt.Errorf("only %q is supported", want)
		}
		return want, nil
	}
}

func encoding(v string) (string, error) {
	switch strings.ToUpper(strings.NewReplacer("-", "", "_", "").Replace(v)) {
	case "UTF8", "UNICODE":
		return "UTF8", nil
	}
	return "", fmt.Errorf("only UTF8 is supported")
}

func dateStyle(v string) (string, error) {
	for part := range strings.SplitSeq(strings.ToUpper(v), ",") {
		switch strings.TrimSpace(part) {
		case "ISO", "MDY", "DMY", "YMD", "":
		default:
			return "", fmt.Errorf("only ISO is supported")
		}
	}
	return "ISO, MDY", nil
}

func timeZone(v string) (string, error) {
	if _, err := time.LoadLocation(v); err != nil {
		if _, err := strconv.ParseFloat(v, 64); err != nil && !strings.EqualFold(v, "local") {
			return "", fmt.Errorf("unknown time zone")
		}
	}
	return v, nil
}

func boolean(v string) (string, error) {
	switch strings.ToLower(v) {
	case "on", "true", "yes", "1", "t", "y":
		return "on", nil
	case "off", "false", "no", "0", "f", "n":
		return "off", nil
	}
	return "", fmt.Errorf("%q is not a boolean", v)
}

// onOrAlways is a boolean, or always.
func onOrAlways(v string) (string, error) {
	if strings.EqualFold(v, "always") {
		return "always", nil
	}
	return boolean(v)
}

func isolation(v string) (string, error) {
	v = strings.ToLower(strings.Join(strings.Fields(v), " "))
	switch v {
	case "read committed", "read uncommitted", "repeatable read", serializable:
		return v, nil
	}
	return "", fmt.Errorf("unknown isolation level %q", v)
}

// milliseconds reads a number with an optional unit.
func milliseconds(v string) (string, error) {
	v = strings.TrimSpace(v)
	i := len(v)
	for i > 0 && (v[i-1] < '0' || v[i-1] > '9') {
		i--
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(v[:i]), 64)
	unit := map[string]float64{"": 1, "ms": 1, "s": 1000, "min": 60000, "h": 3600000, "d": 86400000}[strings.TrimSpace(v[i:])]
	if err != nil || unit == 0 || f < 0 || f*unit > 1<<31-1 {
		return "", fmt.Errorf("expected a time such as 500, 500ms, 10s or 5min")
	}
	return strconv.FormatInt(int64(f*unit), 10), nil
}

func showMilliseconds(v string) string {
	n, _ := strconv.ParseInt(v, 10, 64)
	switch {
	case n == 0:
		return "0"
	case n%60000 == 0:
		return strconv.FormatInt(n/60000, 10) + "min"
	case n%1000 == 0:
		return strconv.FormatInt(n/1000, 10) + "s"
	}
	return strconv.FormatInt(n, 10) + "ms"
}
