package pgwire

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMalformedBeforeAuth: whatever comes before authentication is answered
// by one ErrorResponse and a close, or by a close.
func TestMalformedBeforeAuth(t *testing.T) {
	_, addr := serve(t, newFake(), func(s *Server) { s.AuthTimeout = 2 * time.Second })
	hello := msgStartup(3<<16, "user", "SYSDBA")
	saslFirst := func(n int32, s string) []byte {
		return msg('p', append(binary.BigEndian.AppendUint32([]byte("SCRAM-SHA-256\x00"), uint32(n)), s...))
	}
	for name, tc := range map[string]struct {
		in   []byte
		want string
	}{
		"http":                       {[]byte("GET / HTTP/1.1\r\n\r\n"), "E:08P01"},
		"length 0":                   {[]byte{0, 0, 0, 0, 1, 1, 1, 1}, "E:08P01"},
		"length 7":                   {[]byte{0, 0, 0, 7, 0, 3, 0, 0}, "E:08P01"},
		"huge startup":               {[]byte{0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0}, "E:08P01"},
		"negative length":            {[]byte{0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0}, "E:08P01"},
		"protocol 2":                 {msgStartup(2<<16, "user", "x"), "E:0A000"},
		"protocol 4":                 {msgStartup(4<<16, "user", "x"), "E:0A000"},
		"no user":                    {msgStartup(3<<16, "database", "x"), "E:28000"},
		"no terminator":              {[]byte{0, 0, 0, 13, 0, 3, 0, 0, 'u', 's', 'e', 'r', 0}, "E:08P01"},
		"name without value":         {[]byte{0, 0, 0, 10, 0, 3, 0, 0, 'u', 0}, "E:08P01"},
		"empty startup":              {[]byte{0, 0, 0, 8, 0, 3, 0, 0}, "E:08P01"},
		"bad utf8":                   {msgStartup(3<<16, "user", "\xff"), "E:22021"},
		"long user":                  {msgStartup(3<<16, "user", strings.Repeat("x", 200)), "E:28000"},
		"query before auth":          {append(hello, msgQuery("insert")...), "R E:08P01"},
		"sync before auth":           {append(hello, msgSync()...), "R E:08P01"},
		"huge password":              {append(hello, msg('p', make([]byte, 100_000))...), "R E:08P01"},
		"password without a body":    {append(hello, msg('p', nil)...), "R E:08P01"},
		"length below 4":             {append(hello, 'p', 0, 0, 0, 3), "R E:08P01"},
		"announced 2 GB":             {append(hello, 'p', 0x7f, 0xff, 0xff, 0xff), "R E:08P01"},
		"plain password":             {append(hello, msg('p', []byte("SYSDBA\x00"))...), "R E:08P01"},
		"other mechanism":            {append(hello, msg('p', []byte("PLAIN\x00\x00\x00\x00\x00"))...), "R E:08P01"},
		"sasl length too long":       {append(hello, saslFirst(100, "n,,n=,r=x")...), "R E:08P01"},
		"sasl length -1":             {append(hello, saslFirst(-1, "")...), "R E:08P01"},
		"garbage scram":              {append(hello, saslFirst(4, "abcd")...), "R E:08P01"},
		"channel binding":            {append(hello, saslFirst(27, "p=tls-unique,,n=,r=abcdefgh")...), "R E:08P01"},
		"garbage as proof":           {append(append(hello, saslFirst(11, "n,,n=,r=abc")...), msg('p', []byte("c=biws,r=abc,p=AAAA"))...), "R R E:28P01"},
		"terminate during auth":      {append(hello, msg('X', nil)...), "R"},
		"many encryption requests":   {nil, ""},
		"unknown protocol extension": {append(msgStartup(3<<16, "user", "SYSDBA", "_pq_.x", "1"), msg('X', nil)...), "v R"},
		"minor version":              {append(msgStartup(3<<16|9999, "user", "SYSDBA"), msg('X', nil)...), "v R"},
		"cancel of a wrong length":   {[]byte{0, 0, 0, 12, 0x04, 0xd2, 0x16, 0x2e, 1, 2, 3, 4}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRaw(t, addr)
			if name == "many encryption requests" {
				for range 4 {
					r.send([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30})
					if b := r.bytes(1); b[0] != 'N' {
						t.Fatalf("answered %q", b)
					}
				}
				r.send([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30})
				tc.want = "E:08P01"
			}
			r.send(tc.in)
			r.expect(tc.want)
			r.expectClosed()
		})
	}
}

// TestMalformedAfterAuth: a broken message that leaves the stream readable is
// an ERROR and the session goes on; otherwise FATAL and a close.
func TestMalformedAfterAuth(t *testing.T) {
	_, addr := serve(t, newFake(), func(s *Server) { s.MaxMessage = 100_000 })
	big := bytes.Repeat([]byte{'x'}, 100_001)
	for name, tc := range map[string]struct {
		in     []byte
		want   string
		closed bool
	}{
		"unknown type":            {msg('z', nil), "E:08P01", true},
		"zero type":               {msg(0, nil), "E:08P01", true},
		"password again":          {msg('p', []byte("x\x00")), "E:08P01", true},
		"length 3":                {[]byte{'Q', 0, 0, 0, 3}, "E:08P01", true},
		"length -1":               {[]byte{'Q', 0xff, 0xff, 0xff, 0xff}, "E:08P01", true},
		"announced 2 GB":          {[]byte{'Q', 0x7f, 0xff, 0xff, 0xff}, "E:08P01", true},
		"query too long":          {msg('Q', big), "E:54000 Z:I", false},
		"parse too long":          {append(msg('P', big), msgSync()...), "E:54000 Z:I", false},
		"describe too long":       {append(msg('D', big), msgSync()...), "E:54000 Z:I", false},
		"query without end":       {msg('Q', []byte("insert")), "E:08P01 Z:I", false},
		"query with two ends":     {msg('Q', []byte("insert\x00x\x00")), "E:08P01 Z:I", false},
		"query without body":      {msg('Q', nil), "E:08P01 Z:I", false},
		"parse without body":      {append(msg('P', nil), msgSync()...), "E:08P01 Z:I", false},
		"parse, too few types":    {append(msg('P', []byte("\x00insert\x00\x00\x05")), msgSync()...), "E:08P01 Z:I", false},
		"parse, extra bytes":      {append(msg('P', []byte("\x00insert\x00\x00\x00x")), msgSync()...), "E:08P01 Z:I", false},
		"bind without body":       {append(msg('B', nil), msgSync()...), "E:08P01 Z:I", false},
		"bind, too many formats":  {append(msg('B', []byte("\x00\x00\xff\xff")), msgSync()...), "E:08P01 Z:I", false},
		"bind, odd format":        {append(append(msgParse("", "echo 25"), msg('B', []byte("\x00\x00\x00\x01\x00\x07\x00\x01\x00\x00\x00\x00\x00\x00"))...), msgSync()...), "1 E:22023 Z:I", false},
		"bind, long value":        {append(append(msgParse("", "echo 25"), msg('B', []byte("\x00\x00\x00\x00\x00\x01\x7f\xff\xff\xffab"))...), msgSync()...), "1 E:08P01 Z:I", false},
		"bind, negative length":   {append(append(msgParse("", "echo 25"), msg('B', []byte("\x00\x00\x00\x00\x00\x01\xff\xff\xff\xfe"))...), msgSync()...), "1 E:08P01 Z:I", false},
		"bind, count only":        {append(append(msgParse("", "echo 25"), msg('B', []byte("\x00\x00\x00\x00\x00\x01"))...), msgSync()...), "1 E:08P01 Z:I", false},
		"bind, result formats":    {append(append(msgParse("", "rows 1"), msg('B', []byte("\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00"))...), msgSync()...), "1 E:08P01 Z:I", false},
		"execute without count":   {append(msg('E', []byte{0}), msgSync()...), "E:08P01 Z:I", false},
		"execute nothing":         {append(msgExecute("", 0), msgSync()...), "E:34000 Z:I", false},
		"describe a table":        {append(msgDescribe('T', ""), msgSync()...), "E:08P01 Z:I", false},
		"close a table":           {append(msgClose('T', ""), msgSync()...), "E:08P01 Z:I", false},
		"function call":           {msg('F', make([]byte, 14)), "E:0A000 Z:I", false},
		"copy out of context":     {bytes.Join([][]byte{msg('d', big), msg('d', nil), msg('c', nil), msg('f', []byte("no\x00")), msgQuery("insert")}, nil), "C:INSERT@0@1 Z:I", false},
		"sync alone":              {msgSync(), "Z:I", false},
		"flush alone":             {append(msg('H', nil), msgSync()...), "Z:I", false},
		"long message is skipped": {append(append(msg('E', nil), msg('P', big)...), msgSync()...), "E:08P01 Z:I", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRaw(t, addr)
			r.login()
			r.send(tc.in)
			r.expect(tc.want)
			if tc.closed {
				r.expectClosed()
				return
			}
			r.send(msgQuery("insert"))
			r.expect("C:INSERT@0@1 Z:I")
		})
	}
}

// TestByteByByte: messages may arrive in any pieces.
func TestByteByByte(t *testing.T) {
	_, addr := serve(t, newFake())
	r := newRaw(t, addr)
	r.login()
	for _, b := range bytes.Join([][]byte{msgParse("", "rows 1"), msgBind("", ""), msgExecute("", 0), msgSync()}, nil) {
		r.send([]byte{b})
	}
	r.expect("1 2 D C:SELECT@1 Z:I")
	long := strings.Repeat("x", 300_000)
	r.send(msgQuery("insert " + long))
	r.expect("C:INSERT@0@1 Z:I")
}

// scriptConn gives out what it holds, then EOF.
type scriptConn struct {
	net.Conn
	io.Reader
}

func (c scriptConn) Read(b []byte) (int, error) { return c.Reader.Read(b) }

// TestAnnouncedLengthIsNotAllocated: the buffer grows with what arrives.
func TestAnnouncedLengthIsNotAllocated(t *testing.T) {
	for _, sent := range []int{100, 5000, 70_000} {
		in := append([]byte{'Q', 0x03, 0xff, 0xff, 0xff}, make([]byte, sent)...)
		rd := reader{nc: scriptConn{Reader: bytes.NewReader(in)}}
		_, _, err := rd.message(func(byte) int { return 64 << 20 })
		if err != io.ErrUnexpectedEOF {
			t.Errorf("after %d bytes: %v", sent, err)
		}
		if len(rd.buf) > max(minRead, 2*len(in)) {
			t.Errorf("%d bytes sent, buffer of %d", sent, len(rd.buf))
		}
	}
}

func TestIdleConnectionsAreSmall(t *testing.T) {
	_, addr := serve(t, newFake(), func(s *Server) { s.MaxSessions = 2000 })
	const n = 100
	measure := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := measure()
	for range n {
		r := newRaw(t, addr)
		r.login()
		r.send(msgQuery("rows 2000")) // idle after some work
		for typ, _ := r.read(); typ != 'Z'; typ, _ = r.read() {
		}
	}
	runtime.GC() // pools empty themselves over two collections
	per := (measure() - before) / n
	t.Logf("%d bytes per idle connection, client included", per)
	if per > 64<<10 {
		t.Errorf("%d bytes per idle connection", per)
	}
}

// pipeListener accepts what a test hands it.
type pipeListener struct {
	c    chan net.Conn
	done chan struct{}
	once sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.c:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// FuzzProtocol sends arbitrary bytes before or after authentication. The
// server must answer with well-formed messages only and close the connection
// once the client has stopped sending.
func FuzzProtocol(f *testing.F) {
	l := &pipeListener{c: make(chan net.Conn), done: make(chan struct{})}
	srv := &Server{Listener: l, Backend: newFake(), Log: slog.New(slog.DiscardHandler), MaxMessage: 1 << 20, AuthTimeout: time.Second}
	served := make(chan struct{})
	go func() { defer close(served); srv.Serve(context.Background()) }()
	f.Cleanup(func() { srv.Close(); <-served })
	hello := msgStartup(3<<16, "user", "SYSDBA")
	f.Add(false, hello)
	f.Add(false, []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f, 0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30})
	f.Add(false, append(hello, msg('p', []byte("SCRAM-SHA-256\x00\x00\x00\x00\x0bn,,n=,r=abc"))...))
	f.Add(true, bytes.Join([][]byte{msgQuery("rows 3; insert"), msgParse("a", "echo 23 1700"), msgDescribe('S', "a"), msgBind("", "a"), msgExecute("", 1), msgSync(), msg('X', nil)}, nil))
	f.Add(true, bytes.Join([][]byte{msgQuery("begin"), msgParse("", "rows 9"), msgBind("p", ""), msgExecute("p", 2), msg('H', nil), msgClose('P', "p"), msgSync(), msg('d', []byte("x")), msg('F', nil)}, nil))
	f.Fuzz(func(t *testing.T, authed bool, in []byte) {
		if bytes.Contains(in, []byte("hang")) || bytes.Contains(in, []byte("rows")) && len(in) > 2000 {
			t.Skip()
		}
		client, server := net.Pipe()
		defer client.Close()
		l.c <- server
		r := &raw{t, client}
		if authed {
			r.login()
		}
		go func() {
			client.SetWriteDeadline(time.Now().Add(5 * time.Second))
			client.Write(in)
			client.Write(msg('X', nil))
			// An unfinished message: nothing more will come.
			time.AfterFunc(20*time.Millisecond, func() { server.SetReadDeadline(time.Unix(1, 0)); server.Close() })
		}()
		client.SetReadDeadline(time.Now().Add(10 * time.Second))
		out, err := io.ReadAll(client)
		if err != nil {
			t.Fatalf("connection not closed: %v after %q", err, out)
		}
		for len(out) > 0 {
			if out[0] == 'N' && (len(out) < 5 || out[1] != 0) { // answer to an encryption request
				out = out[1:]
				continue
			}
			if len(out) < 5 {
				return // cut by the close above
			}
			n := int(binary.BigEndian.Uint32(out[1:]))
			if !strings.ContainsRune("12nstTDCEIKNRSZv3", rune(out[0])) || n < 4 {
				t.Fatalf("answer is not a message: %q", out)
			}
			if len(out) < n+1 {
				return
			}
			out = out[n+1:]
		}
	})
}
