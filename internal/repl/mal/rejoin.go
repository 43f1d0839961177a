package mal

import (
	"encoding/binary"

	"datawatch/internal/base"
)

// TypeRejoin asks a primary for pages (docs/decisions/0008); PROTOCOL.md has the
// layouts.
const TypeRejoin uint16 = 19

// RejoinVersion is the version of these messages.
const RejoinVersion uint8 = 1

// RejoinOp says what a TypeRejoin message asks for.
type RejoinOp uint8

const (
	RejoinBegin    RejoinOp = 1 // JSON RejoinAsk; answer JSON RejoinOffer
	RejoinPackages RejoinOp = 2 // digests of packages of the primary's archive
	RejoinPages    RejoinOp = 3 // pages as of the offer's position
	RejoinEnd      RejoinOp = 4 // nothing more is wanted; empty answer
)

const (
	// RejoinHeaderSize is the length of what stands before the body.
	RejoinHeaderSize = 12
	// MaxDigests and MaxRejoinPages cap what one message may ask for; pages are
	// also limited to MaxRejoinBytes, but for a single one.
	MaxDigests     = 64
	MaxRejoinPages = 2048
	MaxRejoinBytes = 1 << 20
	// DigestSize is the length of an encoded Digest.
	DigestSize = 88
)

// CodeRejoin refuses a rejoin for good: trying again changes nothing.
const CodeRejoin base.Code = -6036

// RejoinAsk begins.
type RejoinAsk struct {
	PmntMagic base.Magic    `json:"pmnt_magic"`
	PageSize  int           `json:"page_size"`
	End       base.Position `json:"end"` // of the redo of who asks
}

// RejoinOffer answers: a snapshot of the primary is pinned, at Whole, until it is
// given back or has not been asked for anything for a minute.
type RejoinOffer struct {
	Token    uint64        `json:"token"`
	PageSize int           `json:"page_size"`
	Pages    uint32        `json:"pages"`
	Whole    base.Position `json:"whole"`
	Lineage  base.Lineage  `json:"lineage"` // open records up to Whole
	First    base.Seq      `json:"first"`   // oldest package of the archive
}

// RejoinRequest is a decoded message.
type RejoinRequest struct {
	Op    RejoinOp
	Token uint64
	From  base.Seq // RejoinPackages
	Count int      // RejoinPackages
	Pages []uint32 // RejoinPages, rising
	Body  []byte   // RejoinBegin
}

// Append encodes the request.
func (r RejoinRequest) Append(dst []byte) []byte {
	le := binary.LittleEndian
	dst = append(dst, RejoinVersion, byte(r.Op), 0, 0)
	dst = le.AppendUint64(dst, r.Token)
	switch r.Op {
	case RejoinBegin:
		dst = append(dst, r.Body...)
	case RejoinPackages:
		dst = le.AppendUint64(dst, uint64(r.From))
		dst = le.AppendUint32(dst, uint32(r.Count))
	case RejoinPages:
		dst = le.AppendUint32(dst, uint32(len(r.Pages)))
		for _, p := range r.Pages {
			dst = le.AppendUint32(dst, p)
		}
	}
	return dst
}

// DecodeRejoin reads a TypeRejoin message; Body points into b.
func DecodeRejoin(b []byte) (RejoinRequest, error) {
	var r RejoinRequest
	if len(b) < RejoinHeaderSize {
		return r, base.Errorf(CodeMessage, "rejoin message of %d bytes, its header alone has %d", len(b), RejoinHeaderSize)
	}
	le := binary.LittleEndian
	if b[0] != RejoinVersion {
		return r, base.Errorf(CodeRejoin, "rejoin message of version %d, this program knows %d", b[0], RejoinVersion)
	}
	if b[2]|b[3] != 0 {
		return r, base.Errorf(CodeMessage, "rejoin message with reserved bytes set")
	}
	r.Op, r.Token = RejoinOp(b[1]), le.Uint64(b[4:])
	body := b[RejoinHeaderSize:]
	switch r.Op {
	case RejoinBegin:
		r.Body = body
		return r, nil
	case RejoinPackages:
		if len(body) != 12 {
			break
		}
		r.From, r.Count = base.Seq(le.Uint64(body)), int(le.Uint32(body[8:]))
		if r.From == 0 || r.Count < 1 || r.Count > MaxDigests {
			return r, base.Errorf(CodeMessage, "rejoin message asks for %d packages from %d, at most %d", r.Count, r.From, MaxDigests)
		}
		return r, nil
	case RejoinPages:
		if len(body) < 4 {
			break
		}
		n := le.Uint32(body)
		if n == 0 || n > MaxRejoinPages || len(body) != 4+4*int(n) {
			return r, base.Errorf(CodeMessage, "rejoin message asks for %d pages in %d bytes, at most %d", n, len(body), MaxRejoinPages)
		}
		r.Pages = make([]uint32, n)
		for i := range r.Pages {
			r.Pages[i] = le.Uint32(body[4+4*i:])
			if r.Pages[i] == 0 || i > 0 && r.Pages[i] <= r.Pages[i-1] {
				return r, base.Errorf(CodeMessage, "rejoin message asks for page %d out of order", r.Pages[i])
			}
		}
		return r, nil
	case RejoinEnd:
		if len(body) == 0 {
			return r, nil
		}
	default:
		return r, base.Errorf(CodeMessage, "rejoin message asks for %d, which is not known", r.Op)
	}
	return r, base.Errorf(CodeMessage, "rejoin message %d with %d bytes", r.Op, len(body))
}

// Digest tells one package from all others, wherever it is stored and however
// it is compressed there.
type Digest struct {
	GSEQ                    base.Seq
	PrevLSN, MinLSN, MaxLSN base.LSN
	OpenID                  uint64
	SrcDBMagic              base.Magic
	NPTX, RawLen            uint32
	Sum                     [32]byte // SHA-256 of its redo
}

// AppendDigest encodes a digest.
func AppendDigest(dst []byte, d Digest) []byte {
	le := binary.LittleEndian
	for _, v := range [...]uint64{uint64(d.GSEQ), uint64(d.PrevLSN), uint64(d.MinLSN), uint64(d.MaxLSN), d.OpenID} {
		dst = le.AppendUint64(dst, v)
	}
	for _, v := range [...]uint32{uint32(d.SrcDBMagic), d.NPTX, d.RawLen, 0} {
		dst = le.AppendUint32(dst, v)
	}
	return append(dst, d.Sum[:]...)
}

// DecodeDigests reads an answer to RejoinPackages.
func DecodeDigests(b []byte) ([]Digest, error) {
	if len(b)%DigestSize != 0 || len(b) > MaxDigests*DigestSize {
		return nil, base.Errorf(CodeMessage, "digests of packages in %d bytes", len(b))
	}
	le := binary.LittleEndian
	out := make([]Digest, 0, len(b)/DigestSize)
	for ; len(b) > 0; b = b[DigestSize:] {
		d := Digest{GSEQ: base.Seq(le.Uint64(b)), PrevLSN: base.LSN(le.Uint64(b[8:])), MinLSN: base.LSN(le.Uint64(b[16:])),
			MaxLSN: base.LSN(le.Uint64(b[24:])), OpenID: le.Uint64(b[32:]), SrcDBMagic: base.Magic(le.Uint32(b[40:])),
			NPTX: le.Uint32(b[44:]), RawLen: le.Uint32(b[48:])}
		copy(d.Sum[:], b[56:])
		out = append(out, d)
	}
	return out, nil
}
