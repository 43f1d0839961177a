package dw

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"datawatch/dwmon"
	"datawatch/internal/certs"
)

// plainMonitor is the name of the monitor that people and dw itself use.
const plainMonitor = "monitor"

// tlsFlag is -tls, which stands for -tls=cert, or -tls=key.
type tlsFlag string

func (f *tlsFlag) String() string { return cmp.Or(string(*f), "false") }

func (f *tlsFlag) IsBoolFlag() bool { return true }

// Set takes the value of the flag; newSystem checks it.
func (f *tlsFlag) Set(v string) error {
	switch v {
	case "true":
		v = "cert"
	case "false":
		v = ""
	}
	*f = tlsFlag(v)
	return nil
}

func (s *System) sslDir() string { return filepath.Join(s.Dir, "ssl") }

// makeSecrets makes what `dw certs` would: an authority, a certificate for
// every instance (shown to SQL clients too) and monitor, and a group key for
// -tls=key.
func (s *System) makeSecrets(now time.Time) error {
	if s.TLS == "" {
		return nil
	}
	dir := s.sslDir()
	run := func(args ...string) error {
		if err := certsCommand(append(args, "-dir", dir), now, io.Discard); err != nil {
			return fmt.Errorf("dw certs %s: %w", args[0], err)
		}
		return nil
	}
	if err := run("ca", "-name", "Datawatch "+s.Group); err != nil {
		return err
	}
	og := fmt.Sprintf("-oguid=%d", s.OGUID)
	for _, d := range s.DBs {
		if err := run("issue", og, "-host=127.0.0.1,localhost,::1", d.Name); err != nil {
			return err
		}
	}
	if s.TLS == "key" {
		return run("key")
	}
	return run("issue", og, "-monitor", monitorName, plainMonitor)
}

// sqlTLS are the keys of dm.ini by which SQL clients must use TLS.
func (s *System) sqlTLS(d Database) [][2]string {
	if s.TLS == "" {
		return nil
	}
	return [][2]string{{"SSL_CERT", filepath.Join(s.sslDir(), d.Name+".crt")}, {"SSL_KEY", filepath.Join(s.sslDir(), d.Name+".key")}, {"SSL_REQUIRE", "ALL"}}
}

// MonitorTLS is how dw's own monitor knows the watchers.
func (s *System) MonitorTLS() dwmon.TLS {
	if s.TLS == "" {
		return dwmon.TLS{Mode: "OFF"}
	}
	return dwmon.TLS{Mode: s.TLS, Dir: s.sslDir(), Name: plainMonitor, File: "dw.json"}
}

// SQLOptions are the settings of a PostgreSQL client that decide about TLS.
func (s *System) SQLOptions() string {
	if s.TLS == "" {
		return "sslmode=disable"
	}
	return "sslmode=verify-full sslrootcert='" + filepath.Join(s.sslDir(), certs.CACertFile) + "'"
}

// Connect connects to a database of the system as its administrator with the
// initial password, past the network of its clients.
func (s *System) Connect(ctx context.Context, port int) (*pgconn.PgConn, error) {
	for _, d := range s.DBs {
		if d.Port == port {
			return login(ctx, d.addrs().Console, port, s.Password(), s.SQLOptions())
		}
	}
	return login(ctx, loopback, port, s.Password(), s.SQLOptions())
}

// Connect connects to the database on a local port as its administrator with
// the initial password, under TLS when it offers that.
func Connect(ctx context.Context, port int) (*pgconn.PgConn, error) {
	return login(ctx, loopback, port, defaultPassword, "sslmode=prefer")
}

func login(ctx context.Context, host string, port int, password, options string) (*pgconn.PgConn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return pgconn.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=DAMENG %s", host, port, defaultUser, password, options))
}
