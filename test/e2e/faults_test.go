package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"datawatch/internal/app/dw"
	"datawatch/internal/ha/proto"
	"datawatch/internal/repl/mal"
	"datawatch/internal/wire"
)

// smallDisk mounts a tmpfs for one database of the system that will be made in
// the returned directory.
func smallDisk(t *testing.T, name string, mb int) (dir, disk string) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk to fill")
	}
	dir = filepath.Join(t.TempDir(), "run")
	disk = filepath.Join(dir, name)
	if err := os.MkdirAll(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, fmt.Sprintf("size=%dm", mb)); err != nil {
		t.Skipf("mounting a small disk to fill is not possible here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Errorf("unmount: %v", err)
			_ = syscall.Unmount(disk, syscall.MNT_DETACH)
		}
	})
	return dir, disk
}

// fill takes all but the given space of a disk and returns what gives it back.
func fill(t *testing.T, disk string, leave int64) (free func()) {
	t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(disk, &s); err != nil {
		t.Fatal(err)
	}
	n := int64(s.Bavail)*s.Bsize - leave
	if n <= 0 {
		t.Fatalf("the disk has %d bytes left only", int64(s.Bavail)*s.Bsize)
	}
	path := filepath.Join(disk, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	for ; n > 0; n -= int64(len(buf)) {
		if _, err := f.Write(buf[:min(n, int64(len(buf)))]); err != nil {
			break
		}
	}
	f.Close()
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// fullDisk fills the disk of one database under load, sees what happens, gives
// the space back and expects everything to work again with nothing lost.
func fullDisk(t *testing.T, victim int, during func(sys *dw.System, l *load, at time.Time)) {
	t.Parallel()
	name := fmt.Sprintf("GRP1_RT_%02d", victim+1)
	dir, disk := smallDisk(t, name, 330)
	sys, l := underLoad(t, dw.Options{Dir: dir, Standbys: 1, Mode: "auto", Monitors: 1})
	l.setPatience(60 * time.Second)
	prim, pid := primary(t, sys), sys.PID(name)
	at := time.Now()
	free := fill(t, disk, 2<<20)
	during(sys, l, at)
	if now := sys.PID(name); now != pid {
		t.Errorf("%s had pid %d and has %d: it must wait for space\n%s", name, pid, now, timeline(sys, at, time.Now()))
	}
	free()
	t.Logf("space is back; the next commit was acknowledged after %v", l.flows(t, 30*time.Second))
	healthy(t, sys)
	if now := primary(t, sys); now != prim {
		t.Errorf("%s became primary", now)
	}
	l.stop()
	l.check(t, 0)
}

// TestFullDiskPrimary: manual 2.2.11.1: without space the database hangs until
// there is some again. Commits wait, reads go on, nobody takes over.
func TestFullDiskPrimary(t *testing.T) {
	fullDisk(t, 0, func(sys *dw.System, l *load, at time.Time) {
		logged(t, sys, at, "disk is full", 60*time.Second)
		seen := time.Now()
		reads := l.reads.Load()
		waitFor(t, "reads to go on", 10*time.Second, func() bool { return l.reads.Load() > reads+20 })
		// Longer than every error time: the watchers must not act.
		pause(t.Context(), 5*time.Second)
		if l.last.Load() > seen.Add(2*time.Second).UnixNano() {
			t.Error("commits were acknowledged on a full disk")
		}
	})
}

// TestFullDiskStandby: manual 6.26 with DW_ARCH_SPACE_CHECK = 0: the standby
// waits for space; the primary goes on, or waits with it.
func TestFullDiskStandby(t *testing.T) {
	fullDisk(t, 1, func(sys *dw.System, l *load, at time.Time) {
		logged(t, sys, at, "disk is full", 60*time.Second)
		pause(t.Context(), 5*time.Second)
	})
}

// TestFullDiskStandbyShutdown: manual 6.26 with DW_ARCH_SPACE_CHECK = 1: the
// standby's watcher goes to Shutdown and the standby ends, the primary goes on;
// with room again, startup dmwatcher brings it back.
func TestFullDiskStandbyShutdown(t *testing.T) {
	t.Parallel()
	dir, disk := smallDisk(t, "GRP1_RT_02", 330)
	sys, l := underLoad(t, dw.Options{Dir: dir, Standbys: 1, Mode: "auto", Monitors: 1})
	l.setPatience(60 * time.Second)
	name := "GRP1_RT_02"
	setIni(t, filepath.Join(disk, "DAMENG", "dm.ini"), "DW_ARCH_SPACE_CHECK", "1")
	old := sys.PID(name)
	kill(t, sys, name) // it takes effect with the start by the watcher
	waitFor(t, "the watcher to start the standby again", 30*time.Second, func() bool { pid := sys.PID(name); return pid != 0 && pid != old })
	healthy(t, sys)
	prim, at := primary(t, sys), time.Now()
	free := fill(t, disk, 2<<20)
	logged(t, sys, at, "the local archive of the standby has no space left", 60*time.Second)
	waitFor(t, "the standby to end", 20*time.Second, func() bool { return sys.PID(name) == 0 })
	t.Logf("the next commit was acknowledged after %v", l.flows(t, 30*time.Second))
	pause(t.Context(), 3*time.Second)
	if pid := sys.PID(name); pid != 0 {
		t.Errorf("%s was started although its disk is full", name)
	}
	ini, dmmonitor := monitorIni(t, sys), filepath.Join(programs(t), "dmmonitor")
	tip := run(t, -1, dmmonitor, ini, "-e", "tip")
	if !strings.Contains(tip, "no space left") || !strings.Contains(tip, "startup dmwatcher") {
		t.Errorf("tip says\n%s", tip)
	}
	free()
	run(t, 0, dmmonitor, ini, "-e", "login SYSDBA/SYSDBA; startup dmwatcher database "+sys.Group+"."+name)
	healthy(t, sys)
	if now := primary(t, sys); now != prim {
		t.Errorf("%s became primary", now)
	}
	l.stop()
	l.check(t, 0)
}

// TestWrongVersions: a watcher, monitor or instance of another version is
// refused, with both versions in the message on both sides.
func TestWrongVersions(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	t.Parallel()
	sys := up(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true})
	d := sys.DBs[0]
	at := time.Now()
	for _, c := range []struct {
		name  string
		port  int
		hello proto.Hello
		want  string
	}{
		{"old watcher at the watcher", d.DW, proto.Hello{Role: proto.RoleWatcher, GuardVersion: "3.0", Name: sys.DBs[1].Name, OGUID: sys.OGUID}, "3.0"},
		{"old monitor at the watcher", d.DW, proto.Hello{Role: proto.RoleMonitor, GuardVersion: "3.0", MonID: "x", OGUID: sys.OGUID}, "3.0"},
		{"old watcher at the instance", d.InstDW, proto.Hello{Role: proto.RoleWatcher, GuardVersion: "3.0", Name: d.Name, OGUID: sys.OGUID}, "3.0"},
		{"foreign watcher at the watcher", d.DW, proto.Hello{Role: proto.RoleWatcher, GuardVersion: proto.GuardVersion, Name: sys.DBs[1].Name, OGUID: 4711}, "4711"},
		{"foreign monitor at the watcher", d.DW, proto.Hello{Role: proto.RoleMonitor, GuardVersion: proto.GuardVersion, MonID: "x", OGUID: 4711}, "4711"},
		{"foreign watcher at the instance", d.InstDW, proto.Hello{Role: proto.RoleWatcher, GuardVersion: proto.GuardVersion, Name: d.Name, OGUID: 4711}, "4711"},
		{"stranger at the watcher", d.DW, proto.Hello{Role: proto.RoleWatcher, GuardVersion: proto.GuardVersion, Name: "STRANGER", OGUID: sys.OGUID}, "STRANGER"},
	} {
		t.Run(c.name, func(t *testing.T) {
			nc, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", c.port), 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
			b, err := json.Marshal(c.hello)
			if err != nil {
				t.Fatal(err)
			}
			if err := wire.NewWriter(nc).Write(proto.TypeHello, 0, b); err != nil {
				t.Fatal(err)
			}
			f, err := wire.NewReader(nc, wire.MaxPreAuth).Read()
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			var r proto.HelloReply
			if err := json.Unmarshal(f.Payload, &r); err != nil {
				t.Fatal(err)
			}
			if r.Code >= 0 || !strings.Contains(r.Msg, c.want) {
				t.Errorf("answer %d %q, want a refusal that names %s", r.Code, r.Msg, c.want)
			}
			logged(t, sys, at, c.want, 5*time.Second) // on its side
		})
	}
	t.Run("instance of another version at the instance", func(t *testing.T) {
		nc, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", d.MAL), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
		if err := wire.NewWriter(nc).Write(mal.TypeHello, 0, []byte("\x09\x00\x00\x00{}")); err != nil {
			t.Fatal(err)
		}
		f, err := wire.NewReader(nc, wire.MaxPreAuth).Read()
		if err != nil || f.Type != mal.TypeError || !strings.Contains(string(f.Payload), "version 9") {
			t.Errorf("answer type %d %q %v, want a refusal that names version 9", f.Type, f.Payload, err)
		}
		logged(t, sys, at, "version 9", 5*time.Second)
	})
	t.Run("a peer watcher of another version answers", func(t *testing.T) {
		wp, other := "W_"+sys.DBs[0].Name, sys.DBs[1]
		kill(t, sys, "W_"+other.Name)
		ln := listen(t, other.DW)
		defer ln.Close()
		at := time.Now()
		go answerHellos(ln, proto.HelloReply{GuardVersion: "5.0", Name: other.Name, OGUID: sys.OGUID})
		waitFor(t, wp+" to name both versions", 20*time.Second, func() bool {
			l := timeline(sys, at, time.Now())
			return strings.Contains(l, "5.0") && strings.Contains(l, proto.GuardVersion)
		})
		ln.Close()
		dwCommand(t, sys, "start", "W_"+other.Name)
		healthy(t, sys)
	})
}

func listen(t *testing.T, port int) net.Listener {
	t.Helper()
	var ln net.Listener
	waitFor(t, fmt.Sprintf("port %d to be free", port), 10*time.Second, func() (ok bool) {
		var err error
		ln, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		return err == nil
	})
	return ln
}

// answerHellos is a listener of another version: it answers until it is closed.
func answerHellos(ln net.Listener, r proto.HelloReply) {
	b, _ := json.Marshal(r)
	for {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := wire.NewReader(nc, wire.MaxPreAuth).Read(); err == nil {
			_ = wire.NewWriter(nc).Write(proto.TypeHelloReply, 0, b)
		}
		nc.Close()
	}
}

// TestForeignInstance: a database of another origin (PMNT_MAGIC) in the place
// of a standby is refused by the primary, which says why, and changes nothing;
// the right one back in its place is taken again.
func TestForeignInstance(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	t.Parallel()
	sys := up(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true})
	mustExec(t, sys, "CREATE TABLE f(a INTEGER PRIMARY KEY); INSERT INTO f VALUES (1)")
	prim := primary(t, sys)
	var sby dw.Database
	for _, d := range sys.DBs {
		if d.Name != prim {
			sby = d
		}
	}
	wn := "W_" + sby.Name
	kill(t, sys, wn, sby.Name)
	waitFor(t, sby.Name+" to end", 10*time.Second, func() bool { return sys.PID(sby.Name) == 0 })
	data := filepath.Join(sys.Dir, sby.Name, "DAMENG")
	if err := os.Rename(data, data+".right"); err != nil {
		t.Fatal(err)
	}
	run(t, 0, filepath.Join(programs(t), "dminit"), "PATH="+filepath.Dir(data), "DB_NAME=DAMENG", "INSTANCE_NAME="+sby.Name,
		fmt.Sprintf("PORT_NUM=%d", sby.Port), "LOG_SIZE=64")
	for _, f := range []string{"dm.ini", "dmmal.ini", "dmarch.ini", "dmwatcher.ini"} {
		b, err := os.ReadFile(filepath.Join(data+".right", f))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(data, f), string(b))
	}
	at := time.Now()
	dwCommand(t, sys, "start", sby.Name)
	logged(t, sys, at, "PERMANENT_MAGIC", 20*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := dw.Connect(ctx, sby.Port)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Exec(ctx, "SELECT * FROM f").ReadAll()
	if err == nil {
		t.Errorf("the foreign database has rows of the group: %v", res)
	}
	c.Close(ctx)
	mustExec(t, sys, "INSERT INTO f VALUES (2)") // the primary works without it
	dwCommand(t, sys, "stop", sby.Name)
	waitFor(t, sby.Name+" to end", 10*time.Second, func() bool { return sys.PID(sby.Name) == 0 })
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(data+".right", data); err != nil {
		t.Fatal(err)
	}
	dwCommand(t, sys, "start", wn)
	healthy(t, sys)
	waitFor(t, "both rows on "+sby.Name, 10*time.Second, func() bool { return count(t, sby.Port, "f") == 2 })
}

// monitorIni makes the file of one more monitor, which does not confirm.
func monitorIni(t *testing.T, sys *dw.System) string {
	t.Helper()
	ini := filepath.Join(t.TempDir(), "dmmonitor.ini")
	text := fmt.Sprintf("MON_DW_CONFIRM = 0\nMON_LOG_PATH = %s\n[%s]\nMON_INST_OGUID = %d\n", filepath.Dir(ini), sys.Group, sys.OGUID)
	for _, d := range sys.DBs {
		text += fmt.Sprintf("MON_DW_IP = 127.0.0.1:%d\n", d.DW)
	}
	write(t, ini, text)
	return ini
}
