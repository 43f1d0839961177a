// Package links turns configuration files into what protects the links of
// dmserver and dmwatcher. Both read dmmal.ini, so both come to the same answer;
// a program that would send plain text between machines without having been
// told so does not start. It keeps no guarantee of its own.
package links

import (
	"fmt"
	"log/slog"
	"net"
	"strings"

	"datawatch/internal/clock"
	"datawatch/internal/config"
	"datawatch/internal/secure"
)

// Error is a fault of the configuration, not of the world around it.
type Error struct{ Err error }

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// ForInstance is the protection of an instance or its watcher. oguid is the
// number of the group, 0 while the instance has none.
func ForInstance(in *config.Instance, role secure.Role, oguid func() uint32, clk clock.Clock, log *slog.Logger) (*secure.Endpoint, error) {
	m, name := in.MAL, in.DM.InstanceName
	if m == nil { // a watcher on loopback is the only other program
		return secure.New(secure.Config{Role: role, Name: name, Param: "MAL_INI = 0 of " + in.DM.Path, Clock: clk, Log: log})
	}
	c := secure.Choice{Value: m.SSLMode, Dir: m.SSLPath, Name: name, ModeParam: "MAL_SSL_MODE", DirParam: "MAL_SSL_PATH", AddrParam: "MAL_HOST", File: m.Path}
	for _, e := range m.Entries {
		c.Addrs = append(c.Addrs, e.Host)
	}
	mode, err := c.Decide()
	if err != nil {
		return nil, &Error{err}
	}
	e, err := secure.New(secure.Config{Mode: mode, Role: role, Name: name, Dir: m.SSLPath, Param: "MAL_SSL_MODE of " + m.Path, OGUID: oguid, Clock: clk, Log: log})
	if err != nil {
		return nil, &Error{err}
	}
	return e, nil
}

// DWHost is the address of the port for the watcher: that of dmmal.ini or,
// without it, loopback, where the watcher of such an instance is.
func DWHost(in *config.Instance) string {
	if in.Self.Host == "" {
		return "127.0.0.1"
	}
	return in.Self.Host
}

// CheckSQL refuses a SQL port that would serve other hosts in plain text
// without having been told so.
func CheckSQL(dm *config.DM) error {
	if dm.SSLCert != "" || !strings.EqualFold(dm.SSLRequire, "REMOTE") || dm.ListenIP != "" && secure.Loopback(dm.ListenIP) {
		return nil
	}
	where := "LISTEN_IP is not given, so SQL clients of every host are served"
	if dm.ListenIP != "" {
		where = fmt.Sprintf("LISTEN_IP = %s serves SQL clients of other hosts", dm.ListenIP)
	}
	return &Error{fmt.Errorf("%s: %s, and there is no TLS for them: set SSL_CERT and SSL_KEY (`dw certs issue` makes them), or LISTEN_IP = 127.0.0.1 to serve this host only; or let passwords and data pass in plain text: SSL_REQUIRE = NONE", dm.Path, where)}
}

// RequireTLS says whether a SQL client at an address must use TLS.
func RequireTLS(dm *config.DM) func(net.Addr) bool {
	switch strings.ToUpper(dm.SSLRequire) {
	case "ALL":
		return func(net.Addr) bool { return true }
	case "NONE":
		return func(net.Addr) bool { return false }
	}
	return func(a net.Addr) bool { return a.Network() == "tcp" && !secure.Loopback(a.String()) }
}
