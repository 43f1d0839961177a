package disql

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"datawatch/internal/app/tools"
	"datawatch/internal/config"
)

// defaultPort is the SQL port of an instance that was not told another.
const defaultPort = 5236

// login is what a connection needs.
type login struct {
	User, Password string
	HasPassword    bool
	Host           string // "" for a service
	Port           int
	Database       string
	Service        string // name in dm_svc.conf
}

// parseLogin reads USER[/PASSWORD][@HOST[:PORT][/DB]] or [USER/PWD]@SERVICE. A
// name without a dot or a port that dm_svc.conf knows is a service. The user
// and password may stand in double quotes, which keep "/" and "@".
func parseLogin(s string) (login, error) {
	l := login{User: "SYSDBA", Host: "localhost", Port: defaultPort, Database: "DAMENG"}
	who, where := s, ""
	if i := lastOutside(s, '@'); i >= 0 {
		who, where = s[:i], s[i+1:]
		if where == "" {
			return l, tools.Usagef("%q names no server after @", mask(s))
		}
	}
	if who != "" {
		user, pwd := who, ""
		if i := firstOutside(who, '/'); i >= 0 {
			user, pwd, l.HasPassword = who[:i], who[i+1:], true
		}
		l.User, l.Password = unquote(user), unquote(pwd)
		if l.User == "" {
			return l, tools.Usagef("%q names no user", mask(s))
		}
	}
	if where == "" {
		return l, nil
	}
	if i := strings.IndexByte(where, '/'); i >= 0 {
		where, l.Database = where[:i], where[i+1:]
	}
	if a, err := config.ParseAddr(where); err == nil {
		l.Host, l.Port = a.Host, a.Port
		return l, nil
	} else if strings.Contains(where, ":") && !strings.HasSuffix(where, "]") {
		return l, tools.Usagef("server %q: %v", where, err)
	}
	l.Host = strings.Trim(where, "[]")
	if !strings.ContainsAny(where, ".:[") {
		l.Service = where
	}
	return l, nil
}

// mask hides a password in a message.
func mask(s string) string {
	if i := firstOutside(s, '/'); i >= 0 {
		if j := lastOutside(s, '@'); j > i {
			return s[:i] + "/***" + s[j:]
		}
		return s[:i] + "/***"
	}
	return s
}

func firstOutside(s string, c byte) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		if s[i] == '"' {
			quoted = !quoted
		}
		if s[i] == c && !quoted {
			return i
		}
	}
	return -1
}

func lastOutside(s string, c byte) int {
	last, quoted := -1, false
	for i := 0; i < len(s); i++ {
		if s[i] == '"' {
			quoted = !quoted
		}
		if s[i] == c && !quoted {
			last = i
		}
	}
	return last
}

func unquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}

// svcPath is where services are configured: $DM_SVC_CONF or /etc/dm_svc.conf.
func svcPath() string {
	if p := os.Getenv("DM_SVC_CONF"); p != "" {
		return p
	}
	return "/etc/dm_svc.conf"
}

// connect logs in; for a service it goes through the servers of dm_svc.conf.
func connect(ctx context.Context, l login, notice func(*pgconn.Notice)) (*pgconn.PgConn, login, error) {
	if l.Service != "" {
		svc, err := config.LoadSVC(svcPath())
		switch {
		case err == nil:
			if s, ok := svc.Find(l.Service); ok {
				return connectService(ctx, l, s, notice)
			}
		case !errors.Is(err, fs.ErrNotExist):
			return nil, l, &tools.ExitError{Code: tools.ExitUsage, Err: err}
		}
	}
	c, err := dial(ctx, l, notice)
	return c, l, err
}

func dial(ctx context.Context, l login, notice func(*pgconn.Notice)) (*pgconn.PgConn, error) {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(l.User, l.Password),
		Host: config.Addr{Host: l.Host, Port: l.Port}.String(), Path: "/" + l.Database}
	q := url.Values{}
	q.Set("application_name", "DIsql")
	if os.Getenv("PGCONNECT_TIMEOUT") == "" {
		q.Set("connect_timeout", "10")
	}
	u.RawQuery = q.Encode()
	cfg, err := pgconn.ParseConfig(u.String())
	if err != nil {
		return nil, tools.Usagef("connect to %s:%d: %w", l.Host, l.Port, err)
	}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notice(n) }
	c, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		var pe *pgconn.PgError
		if errors.As(err, &pe) {
			return nil, fmt.Errorf("login of %s to %s:%d: %w", l.User, l.Host, l.Port, pe)
		}
		return nil, fmt.Errorf("connect to %s:%d: %w", l.Host, l.Port, err)
	}
	return c, nil
}

// wanted ranks a server's mode for LOGIN_MODE (manual 5.8): 0 is best, -1 not
// acceptable.
func wanted(loginMode int, mode string) int {
	order := map[int][]string{
		0: {"PRIMARY", "NORMAL", "STANDBY"}, 1: {"PRIMARY"}, 2: {"STANDBY"},
		3: {"STANDBY", "PRIMARY", "NORMAL"}, 4: {"NORMAL", "PRIMARY", "STANDBY"},
	}[loginMode]
	for i, m := range order {
		if strings.EqualFold(m, mode) {
			return i
		}
	}
	return -1
}

// connectService tries the servers of a service in turn, from a random one on,
// keeps the best by LOGIN_MODE, and repeats up to SWITCH_TIME rounds.
func connectService(ctx context.Context, l login, s config.Service, notice func(*pgconn.Notice)) (*pgconn.PgConn, login, error) {
	var errs []error
	for round := int64(0); round < s.SwitchTime; round++ {
		if round > 0 {
			select {
			case <-ctx.Done():
				return nil, l, ctx.Err()
			case <-time.After(time.Duration(min(s.SwitchInterval, 60_000)) * time.Millisecond):
			}
		}
		errs = nil
		var best *pgconn.PgConn
		bestLogin, bestRank := l, 99
		first := rand.IntN(max(len(s.Addrs), 1))
		for i := range s.Addrs {
			a := s.Addrs[(first+i)%len(s.Addrs)]
			to := l
			to.Host = a.Host
			if a.Port != 0 {
				to.Port = a.Port
			}
			c, err := dial(ctx, to, notice)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			mode := serverMode(ctx, c)
			rank := wanted(s.LoginMode, mode)
			if rank < 0 || rank >= bestRank {
				if rank < 0 {
					errs = append(errs, fmt.Errorf("%s:%d is %s, not what LOGIN_MODE = %d asks for", to.Host, to.Port, mode, s.LoginMode))
				}
				_ = c.Close(ctx)
				continue
			}
			if best != nil {
				_ = best.Close(ctx)
			}
			best, bestLogin, bestRank = c, to, rank
			if rank == 0 {
				break
			}
		}
		if best != nil {
			return best, bestLogin, nil
		}
	}
	return nil, l, fmt.Errorf("service %s: %w", s.Name, errors.Join(errs...))
}

// serverMode asks an instance what it is; "" when it does not say.
func serverMode(ctx context.Context, c *pgconn.PgConn) string {
	r, err := c.Exec(ctx, "SELECT MODE$ FROM V$INSTANCE").ReadAll()
	if err != nil || len(r) == 0 || len(r[0].Rows) == 0 {
		return ""
	}
	return string(r[0].Rows[0][0])
}
