package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

// MAL is dmmal.ini (manual 5.2).
type MAL struct {
	Source

	CheckInterval    time.Duration `ini:"MAL_CHECK_INTERVAL"` // 0 no check
	SendThreshold    int           `ini:"MAL_SEND_THRESHOLD"`
	ConnFailInterval time.Duration `ini:"MAL_CONN_FAIL_INTERVAL"`
	LoginTimeout     time.Duration `ini:"MAL_LOGIN_TIMEOUT"`
	BufSize          int           `ini:"MAL_BUF_SIZE"`     // MB
	SysBufSize       int           `ini:"MAL_SYS_BUF_SIZE"` // MB
	VPoolSize        int           `ini:"MAL_VPOOL_SIZE"`   // MB
	CompressLevel    int           `ini:"MAL_COMPRESS_LEVEL"`
	TempPath         string        `ini:"MAL_TEMP_PATH"`
	CombinBufSize    int           `ini:"MAL_COMBIN_BUF_SIZE"` // KB; 0 or at least 128
	MessageCheck     bool          `ini:"MAL_MESSAGE_CHECK"`
	SSLMode          string        `ini:"MAL_SSL_MODE"` // AUTO, OFF, CERT or KEY
	SSLPath          string        `ini:"MAL_SSL_PATH"` // directory

	Entries []MALEntry // in the order of the file
}

// MALEntry is one instance of dmmal.ini.
type MALEntry struct {
	Name       string // of the section
	InstName   string `ini:"MAL_INST_NAME"`
	Host       string `ini:"MAL_HOST"`
	Port       int    `ini:"MAL_PORT"`
	InstHost   string `ini:"MAL_INST_HOST"`    // "" when not given
	InstPort   int    `ini:"MAL_INST_PORT"`    // 0 when not given
	DWPort     int    `ini:"MAL_DW_PORT"`      // 0 when not given
	InstDWPort int    `ini:"MAL_INST_DW_PORT"` // 0 when not given
	LinkMagic  int    `ini:"MAL_LINK_MAGIC"`
}

// Entry finds an instance by name, ignoring case.
func (m *MAL) Entry(inst string) (MALEntry, bool) {
	for _, e := range m.Entries {
		if strings.EqualFold(e.InstName, inst) {
			return e, true
		}
	}
	return MALEntry{}, false
}

// ParseMAL reads dmmal.ini; name is its path.
func ParseMAL(name string, data []byte) (*MAL, error) {
	r := &reading{}
	m := &MAL{}
	for _, b := range r.open("dmmal.ini", name, data, func(block) string { return "[MAL_NAME]" }) {
		if b.line == 0 {
			r.fill(b, m)
			continue
		}
		e := MALEntry{Name: b.name}
		r.fill(b, &e)
		m.Entries = append(m.Entries, e)
	}
	m.Source = *r.src
	if m.CombinBufSize > 0 && m.CombinBufSize < 128 {
		m.CombinBufSize = 128 // manual 5.2
	}
	m.check(r)
	if err := r.errs.err(); err != nil {
		return nil, err
	}
	return m, nil
}

// check: names and ports must not collide (manual 5.2, 5.7).
func (m *MAL) check(r *reading) {
	names := map[string]string{}
	ports := map[string]string{}
	for _, e := range m.Entries {
		at := func(key, value, msg string) { r.fail(m.line(e.Name, key), e.Name, key, value, msg, "") }
		if e.InstName != "" {
			key := strings.ToUpper(e.InstName)
			if other, dup := names[key]; dup {
				at("MAL_INST_NAME", e.InstName, "is also the instance of ["+other+"]")
			}
			names[key] = e.Name
		}
		for _, p := range []struct {
			key, host string
			port      int
		}{
			{"MAL_PORT", e.Host, e.Port},
			{"MAL_INST_PORT", e.Host, e.InstPort},
			{"MAL_DW_PORT", e.Host, e.DWPort},
			{"MAL_INST_DW_PORT", e.Host, e.InstDWPort},
		} {
			if p.port == 0 || p.host == "" {
				continue
			}
			// MAL_INST_HOST is another card of the same host, so all four
			// ports of an entry share one name space.
			id := strings.ToUpper(p.host) + " " + itoa(p.port)
			if other, dup := ports[id]; dup {
				at(p.key, itoa(p.port), fmt.Sprintf("is also %s on host %s", other, p.host))
				continue
			}
			ports[id] = "[" + e.Name + "] " + p.key
		}
	}
}
