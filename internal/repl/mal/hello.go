package mal

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"datawatch/internal/base"
	"datawatch/internal/wire"
)

// Frame types of the transport itself. Types from TypeApp on are the business
// of the Handler.
const (
	TypeHello      uint16 = 1
	TypeHelloReply uint16 = 2
	TypePing       uint16 = 3
	TypePong       uint16 = 4
	TypeReply      uint16 = 5 // answer to a request, same id
	TypeError      uint16 = 6 // refusal of a request: i32 code, text
	TypeIdentity   uint16 = 7 // the sender's identity changed
	TypeApp        uint16 = 16
)

// hello opens a link; both sides send one, the dialling side first.
type hello struct {
	Inst     string   `json:"inst"`
	To       string   `json:"to"`       // whom the sender believes to talk to
	Compress int      `json:"compress"` // MAL_COMPRESS_LEVEL
	Identity Identity `json:"identity"`
	// Reply only: anything but 0 is a refusal, followed by a close.
	Code base.Code `json:"code,omitempty"`
	Msg  string    `json:"msg,omitempty"`
}

// appendHello: version u16, reserved u16, JSON. The first four bytes stay as
// they are in every future version.
func appendHello(dst []byte, h *hello) ([]byte, error) {
	dst = binary.LittleEndian.AppendUint16(dst, Version)
	dst = binary.LittleEndian.AppendUint16(dst, 0)
	j, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("mal: encode hello: %w", err)
	}
	dst = append(dst, j...)
	if len(dst) > wire.MaxPreAuth {
		return nil, base.Errorf(CodeTooLong, "hello of %d bytes", len(dst))
	}
	return dst, nil
}

func decodeHello(b []byte) (*hello, error) {
	if len(b) < 4 {
		return nil, base.Errorf(CodeMessage, "hello of %d bytes", len(b))
	}
	if v := binary.LittleEndian.Uint16(b); v != Version {
		return nil, base.Errorf(CodeVersion, "protocol version %d, ours is %d", v, Version)
	}
	var h hello
	if err := json.Unmarshal(b[4:], &h); err != nil {
		return nil, base.Errorf(CodeMessage, "hello: %v", err)
	}
	if h.Inst == "" || len(h.Inst) > maxInstName || len(h.To) > maxInstName {
		return nil, base.Errorf(CodeMessage, "hello: instance name of %d bytes, 1 to %d allowed", len(h.Inst), maxInstName)
	}
	if len(h.Identity.Lineage) > base.MaxOpenRecords {
		return nil, base.Errorf(CodeMessage, "hello: %d open records", len(h.Identity.Lineage))
	}
	return &h, nil
}

const maxInstName = 128

// judge decides about a decoded hello. want is the instance we dialled, "" on
// the listening side.
func (n *Node) judge(h *hello, want string) error {
	switch {
	case h.To != n.cfg.Self:
		return base.Errorf(CodeName, "%s wanted to talk to %s, this is %s", h.Inst, h.To, n.cfg.Self)
	case want != "" && h.Inst != want:
		return base.Errorf(CodeName, "dialled %s and reached %s", want, h.Inst)
	case n.peers[h.Inst] == nil:
		return base.Errorf(CodeName, "instance %s is not in dmmal.ini", h.Inst)
	case h.Compress != n.cfg.CompressLevel:
		return base.Errorf(CodeCompress, "MAL_COMPRESS_LEVEL of %s is %d, ours is %d", h.Inst, h.Compress, n.cfg.CompressLevel)
	}
	return check(n.cfg.Identity(), h.Identity, h.Inst)
}

func (n *Node) hello(to string) *hello {
	return &hello{Inst: n.cfg.Self, To: to, Compress: n.cfg.CompressLevel, Identity: n.cfg.Identity()}
}

// appendError encodes a refusal: i32 code, text.
func appendError(dst []byte, code base.Code, msg string) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(int32(code)))
	return append(dst, msg...)
}

// refusal is how package secure tells a peer in plain text what this port
// takes, and the other way round.
func refusal(msg string) (uint16, []byte) { return TypeError, appendError(nil, CodeMessage, msg) }

func decodeError(b []byte) error {
	if len(b) < 4 {
		return base.Errorf(CodeMessage, "refusal of %d bytes", len(b))
	}
	return &base.Error{Code: base.Code(int32(binary.LittleEndian.Uint32(b))), Msg: string(b[4:])}
}
