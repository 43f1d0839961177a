package config

import (
	"fmt"
	"strconv"
	"strings"
)

func upper(s string) string      { return strings.ToUpper(s) }
func equalFold(a, b string) bool { return strings.EqualFold(a, b) }

// SVC is dm_svc.conf: connection services for clients (manual 5.8).
type SVC struct {
	Path     string
	Services []Service // in the order of the file
}

// Service is one connection service.
type Service struct {
	Name           string
	Line           int
	Addrs          []Addr // Port 0: that of the connection
	LoginMode      int
	SwitchTime     int64
	SwitchInterval int64 // ms
	RWSeparate     bool
	RWPercent      int
}

// Find returns a service by name, ignoring case.
func (s *SVC) Find(name string) (Service, bool) {
	for _, v := range s.Services {
		if equalFold(v.Name, name) {
			return v, true
		}
	}
	return Service{}, false
}

// ParseSVC reads dm_svc.conf; name is its path. Options before the first
// section apply to every service; options in a section [NAME] to that service.
// Values may stand in parentheses.
func ParseSVC(name string, data []byte) (*SVC, error) {
	d, err := ParseDoc(name, data)
	if err != nil {
		return nil, err
	}
	out := &SVC{Path: name}
	var errs Errors
	fail := func(e Entry, msg, allowed string) {
		errs = append(errs, &Error{File: name, Line: e.Line, Section: e.Section, Key: e.Key, Value: e.Value, Msg: msg, Allowed: allowed})
	}
	global := map[string]string{}
	perService := map[string]map[string]string{}
	seen := map[string]int{}
	for _, e := range d.Entries() {
		id := upper(e.Section) + "\x00" + upper(e.Key)
		if first, dup := seen[id]; dup {
			fail(e, fmt.Sprintf("was already given in line %d", first), "")
			continue
		}
		seen[id] = e.Line
		value := e.Value
		if strings.HasPrefix(value, "(") && strings.HasSuffix(value, ")") {
			value = strings.Trim(value[1:len(value)-1], blanks)
		}
		if p, ok := Lookup("dm_svc.conf", e.Key); ok && p.Name != "SERVERNAME" && p.Name != "IP" && p.Name != "PORT" {
			if bad := p.Check(value); bad != nil {
				fail(e, bad.Msg, bad.Allowed)
				continue
			}
			if e.Section == "" {
				global[p.Name] = value
				continue
			}
			if perService[upper(e.Section)] == nil {
				perService[upper(e.Section)] = map[string]string{}
			}
			perService[upper(e.Section)][p.Name] = value
			continue
		}
		if e.Section != "" {
			fail(e, "unknown option", "LOGIN_MODE, SWITCH_TIME, SWITCH_INTERVAL, RW_SEPARATE, RW_PERCENT")
			continue
		}
		if !strings.HasPrefix(e.Value, "(") {
			fail(e, "unknown option, and not a service", "NAME=(IP[:PORT],IP[:PORT],...)")
			continue
		}
		s := Service{Name: e.Key, Line: e.Line}
		for _, part := range strings.Split(value, ",") {
			a, err := parseSvcAddr(strings.Trim(part, blanks))
			if err != nil {
				fail(e, err.Error(), "IP[:PORT], IPv6 as [IP]:PORT")
				continue
			}
			s.Addrs = append(s.Addrs, a)
		}
		out.Services = append(out.Services, s)
	}
	for _, sec := range d.Sections() {
		if _, ok := out.Find(sec.Section); !ok {
			errs = append(errs, &Error{File: name, Line: sec.Line, Section: sec.Section, Msg: "names no service of this file"})
		}
	}
	for i := range out.Services {
		s := &out.Services[i]
		opt := func(key string) int64 {
			v, ok := perService[upper(s.Name)][key]
			if !ok || v == "" {
				v, ok = global[key]
			}
			if !ok || v == "" {
				p, _ := Lookup("dm_svc.conf", key)
				v = p.Default
			}
			n, _ := strconv.ParseInt(v, 10, 64)
			return n
		}
		s.LoginMode, s.SwitchTime, s.SwitchInterval = int(opt("LOGIN_MODE")), opt("SWITCH_TIME"), opt("SWITCH_INTERVAL")
		s.RWSeparate, s.RWPercent = opt("RW_SEPARATE") == 1, int(opt("RW_PERCENT"))
	}
	if err := errs.err(); err != nil {
		return nil, err
	}
	return out, nil
}

func parseSvcAddr(s string) (Addr, error) {
	host := s
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		host = s[1 : len(s)-1]
	} else if strings.HasPrefix(s, "[") || strings.Count(s, ":") == 1 {
		return ParseAddr(s)
	}
	if !validHost(host) {
		return Addr{}, fmt.Errorf("%q is not an address", clip(s))
	}
	return Addr{Host: host}, nil
}
