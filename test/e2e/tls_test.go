package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"datawatch/internal/app/dw"
	"datawatch/internal/certs"
	"datawatch/internal/secure"
	"datawatch/internal/wire"
)

// TestTLSGroup runs a group wholly with TLS: nobody without a certificate (or
// the group's key) gets into any port, the primary is killed under load, its
// standby takes over, the old primary rejoins, roles are swapped, and
// certificates or key are exchanged while all of it runs. The checks of the
// load are those of TestKillPrimary.
func TestTLSGroup(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	for _, mode := range []string{"cert", "key"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			sys := up(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true, TLS: mode})
			attack(t, sys)
			mustExec(t, sys, loadTable)
			l := newLoad(sys, 4, 2)
			l.start(t.Context())
			defer l.stop()

			// A confirm monitor trusts a standby a moment after it first saw it.
			if _, ok := l.waitAckAfter(t.Context(), time.Now().Add(1500*time.Millisecond), 60*time.Second); !ok {
				t.Fatal("no commit was acknowledged")
			}
			prim := primary(t, sys)
			at := time.Now()
			// One that is back before its standby has noticed stays primary: rare.
			for tries := 1; ; tries++ {
				kill(t, sys, prim)
				first, ok := l.waitAckAfter(t.Context(), at, 60*time.Second)
				if !ok {
					t.Fatal("no commit was acknowledged within 60 s of the kill")
				}
				t.Logf("kill to first acknowledged write: %v", first.Sub(at).Round(time.Millisecond))
				healthy(t, sys)
				if primary(t, sys) != prim {
					break
				} else if tries == 3 {
					t.Fatalf("%s is still the primary", prim)
				}
				at = time.Now()
			}

			m := monitor(t, sys) // logs in through the watchers
			ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
			defer cancel()
			if err := m.Switchover(ctx, sys.Group, prim); err != nil {
				t.Fatalf("switchover: %v\n%s", err, timeline(sys, at, time.Now()))
			}
			healthy(t, sys)

			rotate(t, sys, mode)
			// Only links made from now on use the new ones: make some.
			kill(t, sys, standbyOf(sys, prim))
			healthy(t, sys)
			l.stop()
			l.check(t, 2)
		})
	}
}

// attack tries every port without what it takes to get in.
func attack(t *testing.T, sys *dw.System) {
	ssl := filepath.Join(sys.Dir, "ssl")
	d := sys.DBs[0]
	// The group's authority is no secret; a certificate of another one is
	// what an attacker has.
	fake := t.TempDir()
	copyTo(t, filepath.Join(ssl, certs.CACertFile), filepath.Join(fake, certs.CACertFile))
	mine, err := certs.NewCA("Datawatch "+sys.Group, time.Now(), 10)
	if err != nil {
		t.Fatal(err)
	}
	signer := t.TempDir()
	if err := certs.WritePair(signer, "ca", mine); err != nil {
		t.Fatal(err)
	}
	a, err := certs.LoadAuthority(signer)
	if err != nil {
		t.Fatal(err)
	}
	other := sys.DBs[1].Name
	p, err := a.Issue(certs.Request{Identities: []certs.Identity{{OGUID: sys.OGUID, Role: certs.Instance, Name: other}, {OGUID: sys.OGUID, Role: certs.Instance, Name: d.Name}}, Now: time.Now(), Days: 5})
	if err == nil {
		err = certs.WritePair(fake, other, p)
	}
	if err == nil {
		err = certs.WritePair(fake, d.Name, p)
	}
	if err == nil {
		err = certs.WriteFile(filepath.Join(fake, certs.KeyFile), certs.GroupKeys{certs.NewGroupKey(time.Now())}.Format(), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	mode := map[string]secure.Mode{"cert": secure.Cert, "key": secure.Key}[sys.TLS]
	for _, port := range []struct {
		name  string
		port  int
		as    secure.Role
		whose string
		want  secure.Want
		log   string
	}{
		{"MAL_PORT", d.MAL, secure.Instance, other, secure.Want{Role: secure.Instance, Name: d.Name}, d.Name},
		{"MAL_INST_DW_PORT", d.InstDW, secure.Watcher, d.Name, secure.Want{Role: secure.Instance, Name: d.Name}, d.Name},
		{"MAL_DW_PORT", d.DW, secure.Watcher, other, secure.Want{Role: secure.Watcher, Name: d.Name}, "W_" + d.Name},
	} {
		addr := fmt.Sprintf("127.0.0.1:%d", port.port)
		// In plain text: told so in the port's own protocol, then closed.
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = wire.NewWriter(nc).Write(1, 0, []byte(`{"role":"watcher"}`))
		_ = nc.SetReadDeadline(time.Now().Add(10 * time.Second))
		if b, err := io.ReadAll(nc); err != nil || !strings.Contains(string(b), "takes TLS only") {
			t.Errorf("%s in plain text: %q, %v", port.name, b, err)
		}
		nc.Close()
		// TLS without a certificate or proof.
		tc, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"datawatch/1"}})
		if err != nil {
			t.Fatalf("%s: %v", port.name, err)
		}
		c, _ := json.Marshal(map[string]any{"v": 1, "auth": strings.ToUpper(sys.TLS), "role": port.as, "name": port.whose, "oguid": sys.OGUID, "to_role": port.want.Role, "to_name": port.want.Name})
		_ = wire.NewWriter(tc).Write(0xDA01, 0, c)
		_ = tc.SetReadDeadline(time.Now().Add(10 * time.Second))
		if b, err := io.ReadAll(tc); err != nil || !strings.Contains(string(b), `"refuse"`) {
			t.Errorf("%s without anything: %q, %v", port.name, b, err)
		}
		tc.Close()
		// With a certificate of another authority, or another key.
		e, err := secure.New(secure.Config{Mode: mode, Role: port.as, Name: port.whose, Dir: fake, Param: "attack", OGUID: func() uint32 { return sys.OGUID }})
		if err != nil {
			t.Fatal(err)
		}
		if nc, err = net.Dial("tcp", addr); err != nil {
			t.Fatal(err)
		}
		if c, err := e.Client(t.Context(), nc, port.want); err == nil {
			c.Close()
			t.Errorf("%s let in a stranger", port.name)
		} else if !strings.Contains(err.Error(), "refused by") {
			t.Errorf("%s: %v", port.name, err)
		}
		waitFor(t, port.name+": a line in its log", 5*time.Second, func() bool {
			return slices.ContainsFunc(logLines(sys, port.log), func(l string) bool {
				return strings.Contains(l, `msg="connection refused"`) && strings.Contains(l, "port="+port.name)
			})
		})
	}
	if _, err := pgconn.Connect(t.Context(), fmt.Sprintf("host=127.0.0.1 port=%d user=SYSDBA password=SYSDBA dbname=DAMENG sslmode=disable", d.Port)); err == nil || !strings.Contains(err.Error(), "must be encrypted") {
		t.Errorf("SQL in plain text: %v", err)
	}
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Log("psql is not installed (Debian package postgresql-client)")
		return
	}
	for _, c := range []struct {
		options string
		ok      bool
	}{
		{sys.SQLOptions() + " channel_binding=require", true},
		{"sslmode=verify-full sslrootcert=" + filepath.Join(signer, certs.CACertFile), false},
		{"sslmode=disable", false},
	} {
		cmd := exec.CommandContext(t.Context(), psql, "-X", "-A", "-t", "-c", "select 1", fmt.Sprintf("host=127.0.0.1 port=%d user=SYSDBA dbname=DAMENG %s", d.Port, c.options))
		cmd.Env = append(os.Environ(), "PGPASSWORD=SYSDBA")
		if out, err := cmd.CombinedOutput(); (err == nil) != c.ok {
			t.Errorf("psql with %s: %v %s", c.options, err, out)
		}
	}
}

// rotate exchanges everything secret while the group runs, as the runbook
// says, with dw itself. The files of all hosts are one directory here.
func rotate(t *testing.T, sys *dw.System, mode string) {
	dir := filepath.Join(sys.Dir, "ssl")
	bin := filepath.Join(programs(t), "dw")
	steps := [][]string{{"ca", "-next"}, {"renew"}, {"ca", "-retire"}}
	if mode == "key" {
		steps = append(steps, []string{"key", "-add"}, []string{"key", "-use"}, []string{"key", "-drop"})
	}
	for _, s := range steps {
		run(t, 0, bin, append([]string{"certs"}, append(s, "-dir", dir)...)...)
	}
	out := run(t, 0, bin, "certs", "show", "-dir", dir)
	t.Log(out)
	cas, err := certs.LoadCAs(filepath.Join(dir, certs.CACertFile))
	if err != nil || len(cas) != 1 {
		t.Fatalf("%d authorities, %v", len(cas), err)
	}
}

func copyTo(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
