package pgwire

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

// FuzzCopy sends data to COPY FROM STDIN, cut in two anywhere. It must end with
// COPY or an error with a state, and the connection goes on.
func FuzzCopy(f *testing.F) {
	l := &pipeListener{c: make(chan net.Conn), done: make(chan struct{})}
	fake := newFake()
	fake.trust.Store(true)
	srv := &Server{Listener: l, Backend: &copyBackend{fakeBackend: fake}, Log: slog.New(slog.DiscardHandler), MaxMessage: 1 << 20, AuthTimeout: time.Second}
	served := make(chan struct{})
	go func() { defer close(served); srv.Serve(context.Background()) }()
	f.Cleanup(func() { srv.Close(); <-served })
	go func() { // the fake tells of each row
		for {
			select {
			case <-fake.hanging:
			case <-served:
				return
			}
		}
	}()
	for _, s := range []string{"1\tx\n2\t\\N\n\\.\n", "1\t\\x41\\101\\b\\\\\n", "1\tno end", "a\tb\n", "1\n", "1\t2\t3\n", "\r\n\r", "2147483648\t\xff\n", "1\ta\\\nb\n", "1,\"a\"\"b\nc\"\n", "\"1\",\n", "1,\"open", "a,b\n1,x\n", "\\."} {
		for way := range uint8(3) {
			f.Add(way, len(s)/2, []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, way uint8, cut int, in []byte) {
		if len(in) > 100_000 {
			t.Skip()
		}
		client, server := net.Pipe()
		defer client.Close()
		l.c <- server
		client.SetDeadline(time.Now().Add(4 * time.Second))
		cut = min(max(cut, 0), len(in))
		query := []string{"copyin", "copyin csv", "copyin csv header"}[way%3]
		go client.Write(bytes.Join([][]byte{msgStartup(3<<16, "user", "SYSDBA"), msgQuery(query), msg('d', in[:cut]), msg('d', in[cut:]), msg('c', nil), msgQuery("insert"), msg('X', nil)}, nil))
		out, err := io.ReadAll(client)
		if err != nil {
			t.Fatalf("%v after %q", err, out)
		}
		var got string
		for len(out) >= 5 {
			n := int(binary.BigEndian.Uint32(out[1:])) + 1
			if n > len(out) {
				t.Fatalf("cut off: %q", out)
			}
			if out[0] == 'E' && !bytes.Contains(out[:n], []byte("\x00C22")) {
				t.Fatalf("an error of another class: %q", out[:n])
			}
			if bytes.IndexByte([]byte("GCEZ"), out[0]) >= 0 {
				got += string(out[0])
			}
			out = out[n:]
		}
		if got != "ZGCZCZ" && got != "ZGEZCZ" {
			t.Fatalf("messages %s", got)
		}
	})
}
