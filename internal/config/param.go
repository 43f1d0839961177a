package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Kind is the type of a parameter.
type Kind uint8

const (
	KindString   Kind = iota
	KindInt           // decimal
	KindBool          // 0 or 1
	KindEnum          // one of Enum, case-insensitive
	KindPath          // file or directory; relative to the directory of its file
	KindHost          // IPv4, IPv6 (perhaps %card) or a host name
	KindAddrs         // host:port, several joined by "/"
	KindTime          // 15:04:05[.000000]
	KindDateTime      // 2006-01-02 15:04:05[.000000]
	KindName          // a section name
)

var kindNames = [...]string{"string", "int", "bool", "enum", "path", "address", "addresses", "time", "timestamp", "section"}

func (k Kind) String() string { return kindNames[k] }

// Param declares one parameter.
type Param struct {
	File    string // "dm.ini"
	Section string // "" for the part before the first header, else the kind of section: "[MAL_NAME]"
	Name    string // as documented; for KindName equal to Section
	Kind    Kind
	// Min and Max bound KindInt; Also are values allowed outside of them.
	Min, Max int64
	Also     []int64
	Enum     []string
	MaxLen   int    // characters of a string, 0 no limit
	Default  string // value when absent; "" when there is none
	DefNote  string // documents a default that is not a constant
	Unit     string // "s", "ms", "min", "MB", "KB" ...
	Required bool   // must be present in its section
	Repeat   bool   // may be given several times in a section
	Dynamic  bool   // may change at run time
	// Effective says that the programs act on it today. One that is set in a
	// file without being effective is named at start (NotEffective).
	Effective bool
	notYet    []string // values of an effective parameter that are not effective yet
	Ours      bool     // not in the manual: added by this system
	Doc       string   // what it does
	Manual    string   // section of the manual
}

// Allowed words the range of values.
func (p *Param) Allowed() string {
	switch p.Kind {
	case KindInt:
		var parts []string
		for _, v := range p.Also {
			parts = append(parts, strconv.FormatInt(v, 10))
		}
		if p.Min != p.Max || len(p.Also) == 0 {
			parts = append(parts, fmt.Sprintf("%d-%d", p.Min, p.Max))
		}
		s := strings.Join(parts, " or ")
		if p.Unit != "" {
			s += " " + p.Unit
		}
		return s
	case KindBool:
		return "0 or 1"
	case KindEnum:
		return strings.Join(p.Enum, ", ")
	case KindString, KindName:
		if p.MaxLen > 0 {
			return fmt.Sprintf("at most %d characters", p.MaxLen)
		}
	case KindHost:
		return "IPv4, IPv6 or host name"
	case KindAddrs:
		return "HOST:PORT, several joined by /, IPv6 as [ADDRESS]:PORT"
	case KindTime:
		return "hh:mm:ss"
	case KindDateTime:
		return "YYYY-MM-DD hh:mm:ss"
	}
	return ""
}

// Check says whether v is a value of the parameter; the error has no position.
func (p *Param) Check(v string) *Error {
	bad := func(msg string) *Error {
		return &Error{Key: p.Name, Value: v, Msg: msg, Allowed: p.Allowed()}
	}
	if e := checkText(p.Name, v); e != nil {
		return e
	}
	if v == "" {
		if p.Required {
			return bad("value is missing")
		}
		return nil // same as absent
	}
	switch p.Kind {
	case KindInt:
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			if i := strings.IndexByte(v, '#'); i > 0 {
				return bad("not a whole number (a comment needs a blank before #)")
			}
			return bad("not a whole number")
		}
		for _, a := range p.Also {
			if n == a {
				return nil
			}
		}
		if n < p.Min || n > p.Max {
			return bad("out of range")
		}
	case KindBool:
		if v != "0" && v != "1" {
			return bad("not a switch")
		}
	case KindEnum:
		for _, e := range p.Enum {
			if strings.EqualFold(e, v) {
				return nil
			}
		}
		return bad("not a known value")
	case KindString, KindName:
		if p.MaxLen > 0 && len([]rune(v)) > p.MaxLen {
			return bad("too long")
		}
	case KindPath:
		if len(v) > 4096 {
			return bad("path is longer than 4096 bytes")
		}
	case KindHost:
		if !validHost(v) {
			return bad("not an address")
		}
	case KindAddrs:
		if _, err := ParseAddrs(v); err != nil {
			return bad(err.Error())
		}
	case KindTime:
		if _, err := time.Parse("15:04:05.999999", v); err != nil {
			return bad("not a time of day")
		}
	case KindDateTime:
		if _, err := ParseDateTime(v); err != nil {
			return bad("not a date with time")
		}
	}
	return nil
}

// ParseDateTime reads a TIMESTAMP of dmtimer.ini in local time.
func ParseDateTime(v string) (time.Time, error) {
	return time.ParseInLocation("2006-01-02 15:04:05.999999", v, time.Local)
}

// validHost accepts an IP address, perhaps with a zone, or a host name.
func validHost(h string) bool {
	if _, err := netip.ParseAddr(h); err == nil {
		return true
	}
	if len(h) > 253 || h == "" {
		return false
	}
	digits := true // a name of digits and dots only is a mistyped address
	for _, label := range strings.Split(h, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range label {
			switch {
			case c >= '0' && c <= '9':
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '-', c == '_':
				digits = false
			default:
				return false
			}
		}
	}
	return !digits
}

// Addr is a host and a port.
type Addr struct {
	Host string // without brackets
	Port int
}

// String joins them as net.JoinHostPort does.
func (a Addr) String() string {
	if strings.Contains(a.Host, ":") {
		return "[" + a.Host + "]:" + strconv.Itoa(a.Port)
	}
	return a.Host + ":" + strconv.Itoa(a.Port)
}

// ParseAddrs reads "HOST:PORT[/HOST:PORT...]" (MON_DW_IP, manual 5.5).
func ParseAddrs(v string) ([]Addr, error) {
	var out []Addr
	for _, s := range strings.Split(v, "/") {
		a, err := ParseAddr(strings.Trim(s, blanks))
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// ParseAddr reads "HOST:PORT" or "[IPV6%card]:PORT".
func ParseAddr(s string) (Addr, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return Addr{}, fmt.Errorf("%q has no port", clip(s))
	}
	host, ports := s[:i], s[i+1:]
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	} else if strings.Contains(host, ":") {
		return Addr{}, fmt.Errorf("IPv6 address in %q needs brackets", clip(s))
	}
	if !validHost(host) {
		return Addr{}, fmt.Errorf("%q is not an address", clip(host))
	}
	port, err := strconv.Atoi(ports)
	if err != nil || port < 1 || port > 65535 {
		return Addr{}, fmt.Errorf("%q is not a port", clip(ports))
	}
	return Addr{host, port}, nil
}

// Params returns the declared parameters of a file in the order of the
// documentation; nil for an unknown file.
func Params(file string) []*Param { return byFile[strings.ToLower(file)] }

// Files lists the files that have declared parameters, in order of documentation.
func Files() []string { return append([]string(nil), fileOrder...) }

// Lookup finds a parameter by file and name, ignoring case.
func Lookup(file, name string) (*Param, bool) {
	for _, p := range Params(file) {
		if p.Kind != KindName && strings.EqualFold(p.Name, name) {
			return p, true
		}
	}
	return nil, false
}

// CheckValue checks a value for a named parameter of a file, as SP_SET_PARA_VALUE
// and the monitor's set commands need it.
func CheckValue(file, name, value string) error {
	p, ok := Lookup(file, name)
	if !ok {
		return &Error{File: file, Key: name, Msg: "unknown parameter"}
	}
	if e := p.Check(value); e != nil {
		e.File = file
		return e
	}
	return nil
}

var (
	byFile    = map[string][]*Param{}
	fileOrder []string
)

func register(file string, ps []Param) {
	fileOrder = append(fileOrder, file)
	out := make([]*Param, len(ps))
	for i := range ps {
		ps[i].File = file
		out[i] = &ps[i]
	}
	byFile[strings.ToLower(file)] = out
}

func init() {
	register("dm.ini", dmParams)
	register("dmmal.ini", malParams)
	register("dmarch.ini", archParams)
	register("dmwatcher.ini", watcherParams)
	register("dmmonitor.ini", monitorParams)
	register("dmtimer.ini", timerParams)
	register("dmmpp.ini", mppParams)
	register("dmdcr.ini", dcrParams)
	register("dm_svc.conf", svcParams)
	register("dminit", initParams)
}
