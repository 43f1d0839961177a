package server

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"datawatch/internal/clock"
	"datawatch/internal/ha/proto"
	"datawatch/internal/wire"
)

// FuzzWatcherPort sends frames to the port of the watcher, after a hello or
// instead of one. The port must let go of the connection when its peer has
// gone, whatever it was told.
func FuzzWatcherPort(f *testing.F) {
	cmd, _ := json.Marshal(proto.InstanceCommand{Cmd: proto.CmdOpen})
	f.Add(true, uint16(proto.TypeInstCmd), cmd)
	f.Add(true, uint16(proto.TypeInstCmd), []byte(`{"Cmd":"nonsense"}`))
	f.Add(true, uint16(proto.TypeInstStatus), []byte(`{}`))
	f.Add(false, uint16(proto.TypeHello), []byte(`{"Role":"monitor"}`))
	f.Add(false, uint16(proto.TypeInstCmd), cmd)
	f.Add(false, uint16(proto.TypeHello), []byte(`[[[[`))
	p := newDWPort(&counting{}, clock.Real{}, slog.New(slog.DiscardHandler))
	hello, err := json.Marshal(proto.Hello{Role: proto.RoleWatcher, GuardVersion: proto.GuardVersion, OGUID: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, greeted bool, typ uint16, payload []byte) {
		client, server := net.Pipe()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = p.handle(context.Background(), server)
		}()
		client.SetDeadline(time.Now().Add(10 * time.Second))
		go io.Copy(io.Discard, client)
		w := wire.NewWriter(client)
		if greeted {
			if err := w.Write(proto.TypeHello, 0, hello); err != nil {
				t.Fatal(err)
			}
		}
		_ = w.Write(typ, 1, payload) // refused, it may be closed already
		client.Write(payload)        // not a frame
		client.Close()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatal("the connection is still served")
		}
	})
}
