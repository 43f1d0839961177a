package mal

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"datawatch/internal/base"
)

// Messages of replication. The layouts are in PROTOCOL.md.
const (
	TypeRedo     uint16 = 16 // request: packages, primary -> standby; answer Ack
	TypeHardened uint16 = 17 // one-way, or request answered when replayed: Hardened
	TypeState    uint16 = 18 // request: State (JSON); answer StandbyInfo (JSON)
)

// Kind says how packages are sent, and so what their acknowledgement means.
type Kind uint8

const (
	// KindRealtime packages are not yet in the primary's log: one per message,
	// kept by the standby, acknowledged when in its memory.
	KindRealtime Kind = 1
	// KindTimely packages are in the primary's log: one per message, logged and
	// replayed by the standby, acknowledged on receipt or after replay.
	KindTimely Kind = 2
	// KindRecover packages come from the primary's archive: any number per
	// message, acknowledged when in the standby's log.
	KindRecover Kind = 3
)

// FlagWaitApply asks for the acknowledgement after replay (ARCH_WAIT_APPLY = 1).
const FlagWaitApply uint8 = 1

// RedoHeaderSize is the length of a RedoHeader.
const RedoHeaderSize = 72

// MaxPackages is the largest number of packages in one message.
const MaxPackages = 4096

// RedoHeader stands before the packages of a TypeRedo message.
type RedoHeader struct {
	Kind  Kind
	Flags uint8
	// Claim is the state the sender's archive to the receiver is in.
	Claim base.ArchState
	Count uint16 // of packages
	// OpenID and OpenGUID name the open record in force for all packages of
	// the message: the last one of their producer. A package that carries an
	// open record stands first in its message and is named by that record.
	OpenID   uint64
	OpenGUID string // 1 to 32 bytes
	// Hardened is the newest position in the primary's own log.
	Hardened base.Position
	// Sender is the incarnation of the process that sent it: from the hello of
	// the connection, no part of the message.
	Sender string
}

// Append encodes the header.
func (h RedoHeader) Append(dst []byte) []byte {
	dst = append(dst, byte(h.Kind), h.Flags, byte(h.Claim), 0)
	dst = binary.LittleEndian.AppendUint16(dst, h.Count)
	dst = binary.LittleEndian.AppendUint16(dst, 0)
	dst = binary.LittleEndian.AppendUint64(dst, h.OpenID)
	var g [32]byte
	copy(g[:], h.OpenGUID)
	dst = append(dst, g[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.Hardened.Seq))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.Hardened.LSN))
	return binary.LittleEndian.AppendUint64(dst, 0) // reserved
}

// DecodeRedo takes a TypeRedo message apart. The encoded packages are parts of
// b, not decoded.
func DecodeRedo(b []byte) (RedoHeader, [][]byte, error) {
	var h RedoHeader
	if len(b) < RedoHeaderSize {
		return h, nil, base.Errorf(CodeMessage, "redo message of %d bytes, its header alone has %d", len(b), RedoHeaderSize)
	}
	le := binary.LittleEndian
	h = RedoHeader{
		Kind: Kind(b[0]), Flags: b[1], Claim: base.ArchState(b[2]), Count: le.Uint16(b[4:]),
		OpenID:   le.Uint64(b[8:]),
		OpenGUID: string(trimZero(b[16:48])),
		Hardened: base.Position{Seq: base.Seq(le.Uint64(b[48:])), LSN: base.LSN(le.Uint64(b[56:]))},
	}
	switch {
	case h.Kind < KindRealtime || h.Kind > KindRecover:
		return h, nil, base.Errorf(CodeMessage, "redo message of unknown kind %d", h.Kind)
	case h.Flags&^FlagWaitApply != 0:
		return h, nil, base.Errorf(CodeMessage, "redo message with unknown flags %#x", h.Flags)
	case h.Claim > base.ArchInvalid:
		return h, nil, base.Errorf(CodeMessage, "redo message with unknown archive state %d", h.Claim)
	case b[3] != 0 || le.Uint16(b[6:]) != 0 || le.Uint64(b[64:]) != 0:
		return h, nil, base.Errorf(CodeMessage, "redo message with reserved bytes set")
	case h.Count == 0 || h.Count > MaxPackages || h.Kind != KindRecover && h.Count != 1:
		return h, nil, base.Errorf(CodeMessage, "redo message with %d packages", h.Count)
	case h.OpenID == 0 || h.OpenGUID == "":
		return h, nil, base.Errorf(CodeMessage, "redo message without open record")
	}
	rest := b[RedoHeaderSize:]
	pkgs := make([][]byte, 0, min(int(h.Count), len(rest)/4))
	for range h.Count {
		if len(rest) < 4 {
			return h, nil, base.Errorf(CodeMessage, "redo message ends after %d of %d packages", len(pkgs), h.Count)
		}
		n := le.Uint32(rest)
		if uint64(n) > uint64(len(rest)-4) {
			return h, nil, base.Errorf(CodeMessage, "package %d of %d in a redo message: %d bytes announced, %d there", len(pkgs)+1, h.Count, n, len(rest)-4)
		}
		pkgs = append(pkgs, rest[4:4+n:4+n])
		rest = rest[4+n:]
	}
	if len(rest) != 0 {
		return h, nil, base.Errorf(CodeMessage, "%d bytes after the last package of a redo message", len(rest))
	}
	return h, pkgs, nil
}

func trimZero(b []byte) []byte {
	for i, c := range b {
		if c == 0 {
			return b[:i]
		}
	}
	return b
}

// PackageLen is what stands before each package of a message.
func PackageLen(dst []byte, n int) []byte { return binary.LittleEndian.AppendUint32(dst, uint32(n)) }

// AckSize is the length of an Ack.
const AckSize = 32

// Ack answers TypeRedo: what the standby has.
type Ack struct {
	Stand base.Position // known to be replayable
	Keep  base.Position // received
}

// Append encodes the answer.
func (a Ack) Append(dst []byte) []byte {
	for _, v := range [...]uint64{uint64(a.Stand.Seq), uint64(a.Stand.LSN), uint64(a.Keep.Seq), uint64(a.Keep.LSN)} {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	return dst
}

// DecodeAck reads an answer to TypeRedo.
func DecodeAck(b []byte) (Ack, error) {
	if len(b) != AckSize {
		return Ack{}, base.Errorf(CodeMessage, "acknowledgement of %d bytes instead of %d", len(b), AckSize)
	}
	le := binary.LittleEndian
	return Ack{
		Stand: base.Position{Seq: base.Seq(le.Uint64(b)), LSN: base.LSN(le.Uint64(b[8:]))},
		Keep:  base.Position{Seq: base.Seq(le.Uint64(b[16:])), LSN: base.LSN(le.Uint64(b[24:]))},
	}, nil
}

// Hardened tells a standby how far the primary's own log is (manual 2.2.9, "the
// primary sends its FILE_LSN"). As a request it is answered when the standby
// has replayed that far.
type Hardened struct {
	Pos    base.Position
	OpenID uint64 // of the primary's last open record
}

// HardenedSize is the length of a Hardened.
const HardenedSize = 24

// Append encodes the notice.
func (h Hardened) Append(dst []byte) []byte {
	for _, v := range [...]uint64{uint64(h.Pos.Seq), uint64(h.Pos.LSN), h.OpenID} {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	return dst
}

// DecodeHardened reads the notice.
func DecodeHardened(b []byte) (Hardened, error) {
	if len(b) != HardenedSize {
		return Hardened{}, base.Errorf(CodeMessage, "hardened notice of %d bytes instead of %d", len(b), HardenedSize)
	}
	le := binary.LittleEndian
	return Hardened{Pos: base.Position{Seq: base.Seq(le.Uint64(b)), LSN: base.LSN(le.Uint64(b[8:]))}, OpenID: le.Uint64(b[16:])}, nil
}

// State tells a standby the state of the sender's archive to it. With Unknown
// it only asks for the standby's StandbyInfo.
type State struct {
	State    base.ArchState `json:"state"`
	OpenID   uint64         `json:"open_id"`
	OpenGUID string         `json:"open_guid"`
	// Over: the sender holds no package that it could still acknowledge, and
	// sends a new one before it acknowledges again: it needs no promise that is
	// older than this message.
	Over bool `json:"over,omitempty"`
	// File is the sender's log end; Pending, not zero, the package it has sent
	// and could not harden yet.
	File    base.Position `json:"file"`
	Pending base.Position `json:"pending"`
	// Renew asks for another promise for the newest package that the standby has.
	Renew *Renewal `json:"renew,omitempty"`
}

// Renewal names a package.
type Renewal struct {
	Pos base.Position `json:"pos"`
	// OpenID and OpenGUID name its open record.
	OpenID   uint64 `json:"open_id"`
	OpenGUID string `json:"open_guid"`
}

// StandbyInfo answers State.
type StandbyInfo struct {
	Mode        base.Mode     `json:"mode"`
	Status      base.Status   `json:"status"`
	Incarnation string        `json:"incarnation"`
	Stand       base.Position `json:"stand"`
	Keep        base.Position `json:"keep"`
	HasKeep     bool          `json:"has_keep"`
	Apply       base.Position `json:"apply"`
	Replay      base.Position `json:"replay"`
	// OpenID and OpenGUID name the open record in force at Stand.
	OpenID   uint64 `json:"open_id"`
	OpenGUID string `json:"open_guid"`
	Frozen   bool   `json:"frozen,omitempty"` // ApplyKeep: a takeover may be under way
	// Promised answers Renew; without it the package has to be sent again.
	Promised bool `json:"promised,omitempty"`
}

// EncodeJSON and DecodeJSON carry State and StandbyInfo.
func EncodeJSON(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("mal: encode %T: %w", v, err)
	}
	return b, nil
}

// DecodeJSON refuses what is not a value of the type with CodeMessage.
func DecodeJSON(b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return base.Errorf(CodeMessage, "message %T: %v", v, err)
	}
	return nil
}
