package watcher

import (
	"strings"
	"testing"

	"datawatch/internal/ha/proto"
	"datawatch/internal/wire"
)

// FuzzDecode: a message of any type and content from any kind of peer is
// decoded or refused with an error that names its type (G8).
func FuzzDecode(f *testing.F) {
	for _, typ := range []uint16{proto.TypeInstStatus, proto.TypeInstReply, proto.TypeDWStatus, proto.TypeDWReply, proto.TypeDWCmd, proto.TypeMonStatus, proto.TypeConfirmRep, 0xffff} {
		for role := roleInstance; role <= roleMonitor; role++ {
			f.Add(uint8(role), typ, []byte(`{"Cmd":"noop","OGUID":1,"Cur":{"LSN":3}}`))
		}
	}
	f.Add(uint8(roleWatcher), uint16(proto.TypeDWStatus), []byte(`{"Instances":[{"Mode":99,"Archives":null}],"Seq":-1}`))
	f.Add(uint8(roleMonitor), uint16(proto.TypeDWCmd), []byte(strings.Repeat("[", 20000)))
	f.Fuzz(func(t *testing.T, who uint8, typ uint16, payload []byte) {
		c := &conn{role: roleInstance + role(who)%3}
		v, err := c.decode(wire.Frame{Type: typ, ID: 1, Payload: payload})
		if v == nil && err == nil {
			t.Fatalf("%v %v", v, err)
		}
		if err != nil && !strings.Contains(err.Error(), "type") {
			t.Fatalf("the error does not name the type: %v", err)
		}
	})
}
