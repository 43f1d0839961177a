package pgwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xdg-go/scram"
)

// raw is a client that sends bytes and looks at what comes back.
type raw struct {
	t  testing.TB
	nc net.Conn
}

func newRaw(t testing.TB, addr string) *raw {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &raw{t, nc}
}

func msg(typ byte, b []byte) []byte {
	out := []byte{typ}
	out = binary.BigEndian.AppendUint32(out, uint32(len(b)+4))
	return append(out, b...)
}

func msgStartup(version uint32, kv ...string) []byte {
	b := binary.BigEndian.AppendUint32(nil, version)
	for _, s := range kv {
		b = append(append(b, s...), 0)
	}
	b = append(b, 0)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b)+4)), b...)
}

func msgQuery(sql string) []byte { return msg('Q', append([]byte(sql), 0)) }
func msgParse(name, sql string) []byte {
	return msg('P', []byte(name+"\x00"+sql+"\x00\x00\x00"))
}
func msgBind(portal, stmt string) []byte {
	return msg('B', []byte(portal+"\x00"+stmt+"\x00\x00\x00\x00\x00\x00\x00"))
}
func msgDescribe(kind byte, name string) []byte { return msg('D', []byte(string(kind)+name+"\x00")) }
func msgClose(kind byte, name string) []byte    { return msg('C', []byte(string(kind)+name+"\x00")) }
func msgExecute(portal string, n int32) []byte {
	return msg('E', binary.BigEndian.AppendUint32([]byte(portal+"\x00"), uint32(n)))
}
func msgSync() []byte { return msg('S', nil) }
func cancelMsg(pid, secret uint32) []byte {
	b := []byte{0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e}
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, pid), secret)
}

func (r *raw) send(msgs ...[]byte) {
	r.t.Helper()
	if _, err := r.nc.Write(bytes.Join(msgs, nil)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw) bytes(n int) []byte {
	r.t.Helper()
	b := make([]byte, n)
	r.nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(r.nc, b); err != nil {
		r.t.Fatal(err)
	}
	return b
}

func (r *raw) read() (byte, []byte) {
	r.t.Helper()
	h := r.bytes(5)
	return h[0], r.bytes(int(binary.BigEndian.Uint32(h[1:])) - 4)
}

// tryRead is read for a connection that may be closed or reset.
func (r *raw) tryRead() (byte, []byte) {
	r.nc.SetReadDeadline(time.Now().Add(time.Second))
	h := make([]byte, 5)
	if _, err := io.ReadFull(r.nc, h); err != nil {
		return 0, nil
	}
	b := make([]byte, binary.BigEndian.Uint32(h[1:])-4)
	if _, err := io.ReadFull(r.nc, b); err != nil {
		return 0, nil
	}
	return h[0], b
}

// describe is a short form of a message: its type, and for errors the
// SQLSTATE, for ReadyForQuery the status, for CommandComplete the tag.
func describe(typ byte, b []byte) string {
	switch typ {
	case 'E':
		for _, f := range bytes.Split(b, []byte{0}) {
			if len(f) > 1 && f[0] == 'C' {
				return "E:" + string(f[1:])
			}
		}
	case 'Z':
		return "Z:" + string(b)
	case 'C':
		return "C:" + strings.ReplaceAll(strings.TrimRight(string(b), "\x00"), " ", "@")
	}
	return string(typ)
}

// expect reads as many messages as want has words, and compares.
func (r *raw) expect(want string) {
	r.t.Helper()
	var got []string
	for range strings.Fields(want) {
		typ, b := r.read()
		got = append(got, describe(typ, b))
	}
	if g := strings.Join(got, " "); g != want {
		r.t.Fatalf("got  %s\nwant %s", g, want)
	}
}

func (r *raw) expectClosed() {
	r.t.Helper()
	r.nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := io.Copy(io.Discard, r.nc)
	if n > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		r.t.Fatalf("connection not closed: %d bytes, %v", n, err)
	}
}

// login authenticates as SYSDBA and reads to the first ReadyForQuery.
func (r *raw) login() {
	r.t.Helper()
	r.send(msgStartup(3<<16, "user", "SYSDBA", "database", "DAMENG"))
	client, err := scram.SHA256.NewClient("", "SYSDBA", "")
	if err != nil {
		r.t.Fatal(err)
	}
	conv := client.NewConversation()
	for {
		typ, b := r.read()
		if typ == 'Z' {
			return
		}
		if typ == 'E' {
			r.t.Fatalf("login: %q", b)
		}
		if typ != 'R' {
			continue
		}
		switch binary.BigEndian.Uint32(b) {
		case 10:
			s, err := conv.Step("")
			if err != nil {
				r.t.Fatal(err)
			}
			m := binary.BigEndian.AppendUint32([]byte("SCRAM-SHA-256\x00"), uint32(len(s)))
			r.send(msg('p', append(m, s...)))
		case 11:
			s, err := conv.Step(string(b[4:]))
			if err != nil {
				r.t.Fatal(err)
			}
			r.send(msg('p', []byte(s)))
		case 12:
			if _, err := conv.Step(string(b[4:])); err != nil || !conv.Valid() {
				r.t.Fatal(fmt.Errorf("server signature: %v", err))
			}
		}
	}
}
