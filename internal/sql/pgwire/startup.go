package pgwire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"datawatch/internal/sql/sqlapi"
)

// codes of messages without a type byte
const (
	codeSSL    = 80877103
	codeGSS    = 80877104
	codeCancel = 80877102
)

// startup takes a connection from its first byte to the first ReadyForQuery.
// It returns false when the connection is to be closed; what there was to say
// has been said then.
func (c *conn) startup(ctx context.Context) bool {
	info, err := c.hello(ctx)
	if err == nil {
		err = c.login(ctx, info)
	}
	if err == nil {
		return true
	}
	var e *sqlapi.Error
	var proto *protoError
	var long *tooLong
	var ne net.Error
	switch {
	case errors.As(err, &e):
	case errors.As(err, &proto):
		e = fatal(errLostFrame, proto.msg)
	case errors.As(err, &long):
		e = fatal(errLostFrame, long.Error()+" before authentication")
	case errors.As(err, &ne) && ne.Timeout():
		if e = c.terminated(); e == nil {
			if e = fatal("57014", "canceling authentication due to timeout"); c.srv.draining.Load() {
				e = &errShutdown
			}
		}
		c.nc.SetWriteDeadline(c.srv.Clock.Now().Add(closeGrace))
	}
	c.complain(err)
	if e != nil {
		c.send(e)
		c.flush()
	}
	return false
}

// hello reads up to and including the startup message: TLS and GSS requests
// are answered, a CancelRequest is served (errClose).
func (c *conn) hello(ctx context.Context) (info sqlapi.Info, err error) {
	secured, err := c.direct(ctx)
	if err != nil {
		return info, err
	}
	for asked := 0; ; {
		code, b, err := c.rd.startup()
		if err != nil {
			return info, err
		}
		switch {
		case code == codeSSL || code == codeGSS:
			if asked++; asked > 4 {
				return info, &protoError{"too many encryption requests"}
			}
			if c.rd.buffered() > 0 {
				// Plain text behind the request could be taken for
				// something that came encrypted.
				return info, &protoError{"received unencrypted data after encryption request"}
			}
			if code == codeGSS || c.srv.TLS == nil || secured {
				if _, err := c.nc.Write([]byte{'N'}); err != nil {
					return info, err
				}
				continue
			}
			if _, err := c.nc.Write([]byte{'S'}); err != nil {
				return info, err
			}
			if err := c.handshake(ctx, c.nc); err != nil {
				return info, err
			}
			secured = true
		case code == codeCancel:
			if len(b) == 8 {
				c.srv.cancel(binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]))
			}
			return info, errClose
		case code>>16 != 3:
			return info, fatal("0A000", fmt.Sprintf("unsupported frontend protocol %d.%d: server supports 3.0", code>>16, code&0xffff))
		default:
			if info, err = c.parameters(code, b); err == nil {
				err = c.mayBePlain()
			}
			return info, err
		}
	}
}

// parameters takes the startup message apart.
func (c *conn) parameters(code uint32, b []byte) (info sqlapi.Info, err error) {
	info = sqlapi.Info{RemoteAddr: c.nc.RemoteAddr().String(), Params: map[string]string{}}
	var unknown []string
	for m := (body{b: b}); ; {
		name := string(m.cstr())
		if name == "" {
			if !m.end() {
				return info, &protoError{"invalid startup packet layout: expected terminator as last byte"}
			}
			break
		}
		value := string(m.cstr())
		if m.bad {
			return info, &protoError{"invalid startup packet layout: expected terminator as last byte"}
		}
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return info, fatal("22021", "invalid byte sequence for encoding \"UTF8\" in startup packet")
		}
		if strings.HasPrefix(name, "_pq_.") {
			unknown = append(unknown, name)
			continue
		}
		info.Params[name] = value
	}
	info.User, info.Database, info.App = info.Params["user"], info.Params["database"], info.Params["application_name"]
	c.user = info.User
	if code&0xffff != 0 || len(unknown) > 0 {
		b, at := begin(c.buf(), 'v')
		b = binary.BigEndian.AppendUint32(b, 3<<16)
		b = binary.BigEndian.AppendUint32(b, uint32(len(unknown)))
		for _, u := range unknown {
			b = appendCStr(b, u)
		}
		c.out = finish(b, at)
	}
	switch enc := info.Params["client_encoding"]; {
	case info.User == "":
		return info, fatal("28000", "no PostgreSQL user name specified in startup packet")
	case len(info.User) > 128:
		return info, fatal("28000", "user name is longer than 128 bytes")
	case info.Params["replication"] != "" && info.Params["replication"] != "false":
		return info, fatal("0A000", "replication connections are not supported")
	case enc != "" && !isUTF8(enc):
		return info, &sqlapi.Error{Severity: "FATAL", Code: "22023", Message: fmt.Sprintf("client_encoding %q is not supported", enc), Hint: "The server speaks UTF8 only."}
	}
	if info.Database == "" {
		info.Database = info.User
	}
	return info, nil
}

func isUTF8(enc string) bool {
	switch strings.ToUpper(strings.Trim(enc, "'\" ")) {
	case "UTF8", "UTF-8", "UNICODE", "AUTO", "SQL_ASCII":
		return true
	}
	return false
}

// login authenticates, makes the session and greets.
func (c *conn) login(ctx context.Context, info sqlapi.Info) error {
	s := c.srv
	if s.draining.Load() {
		return &errShutdown
	}
	if s.starting.Load() {
		return &errStarting
	}
	if int(s.sessions.Load()) >= s.MaxSessions {
		return &errTooMany
	}
	if err := c.authenticate(ctx, info); err != nil {
		return err
	}
	if int(s.sessions.Add(1)) > s.MaxSessions {
		s.sessions.Add(-1)
		return &errTooMany
	}
	sess, err := s.Backend.NewSession(ctx, info, c)
	if err != nil {
		s.sessions.Add(-1)
		e := *asError(err)
		e.Severity = "FATAL"
		return &e
	}
	c.mu.Lock()
	c.sess = sess
	c.mu.Unlock()
	s.register(c)
	c.nc.SetDeadline(time.Time{})
	if e := c.terminated(); e != nil {
		c.nc.SetWriteDeadline(s.Clock.Now().Add(closeGrace))
		sess.Terminate(e)
	}
	s.Log.Debug("SQL client", "pid", c.pid, "user", info.User, "app", info.App, "remote", info.RemoteAddr)

	b, at := begin(c.buf(), 'R')
	c.out = finish(append(b, 0, 0, 0, 0), at)
	params := sess.Parameters()
	for _, name := range slices.Sorted(maps.Keys(params)) {
		c.out = appendParameterStatus(c.out, name, params[name])
	}
	b, at = begin(c.out, 'K')
	b = binary.BigEndian.AppendUint32(b, c.pid)
	c.out = finish(binary.BigEndian.AppendUint32(b, c.secret), at)
	c.ready() // a write error shows in the loop
	return nil
}

// ownHost reports whether the client is on this host: it comes from a loopback
// address, or from the very address it has connected to. A server with LISTEN_IP
// has no other for those who log in from its own host, and the system lets nobody
// else come from an address of its own.
func ownHost(nc net.Conn) bool {
	a := nc.RemoteAddr()
	switch a := a.(type) {
	case *net.TCPAddr:
		to, ok := nc.LocalAddr().(*net.TCPAddr)
		return a.IP.IsLoopback() || ok && a.IP.Equal(to.IP)
	case *net.UnixAddr:
		return true
	}
	return a.Network() == "pipe"
}
