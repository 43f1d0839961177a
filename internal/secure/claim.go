package secure

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"datawatch/internal/certs"
	"datawatch/internal/wire"
)

// Frames of the exchange of claims, the first ones on a protected link.
const (
	typeClaim uint16 = 0xDA01 // of the side that dialled
	typeReply uint16 = 0xDA02
)

const (
	claimVersion = 1
	maxClaim     = 4 << 10
	maxName      = 128
	maxText      = 400
)

// claim is what one end says of itself, or why it goes no further.
type claim struct {
	V      int    `json:"v"`
	Auth   string `json:"auth"` // CERT or KEY
	Role   Role   `json:"role"`
	Name   string `json:"name"`
	OGUID  uint32 `json:"oguid"`
	ToRole Role   `json:"to_role,omitempty"` // whom the dialling side expects
	ToName string `json:"to_name,omitempty"`
	Key    string `json:"key,omitempty"` // id of the group key
	MAC    []byte `json:"mac,omitempty"`
	Refuse string `json:"refuse,omitempty"`
}

func (c claim) peer() Peer { return Peer{c.Role, c.Name, c.OGUID} }

// who names the end of a link that has only claimed to be somebody.
func (c claim) who() string { return clean(c.peer().String(), 2*maxName) }

func writeClaim(w io.Writer, typ uint16, c claim) error {
	c.Refuse = clean(c.Refuse, maxText)
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return wire.NewWriter(w).Write(typ, 0, b)
}

// readClaim reads exactly one frame: what follows belongs to the layer above.
func readClaim(r io.Reader, typ uint16) (claim, error) {
	var c claim
	f, err := wire.NewReader(r, maxClaim).Read()
	if err != nil {
		return c, err
	}
	if f.Type != typ {
		return c, fmt.Errorf("a message of type %d instead of the claim", f.Type)
	}
	if err := json.Unmarshal(f.Payload, &c); err != nil {
		return c, fmt.Errorf("the claim is not valid: %w", err)
	}
	switch {
	case c.V != claimVersion:
		return c, fmt.Errorf("version %d of the link protocol there, %d here", c.V, claimVersion)
	case len(c.Name) > maxName || len(c.ToName) > maxName:
		return c, errors.New("the name in the claim is too long")
	case c.Refuse != "":
		c.Refuse = clean(c.Refuse, maxText)
	case c.Role != Instance && c.Role != Watcher && c.Role != Monitor:
		return c, fmt.Errorf("unknown role %q", clean(string(c.Role), 20))
	}
	return c, nil
}

// exporterLabel separates this use of TLS keying material (RFC 8446, 7.5).
const exporterLabel = "EXPORTER-datawatch-group-key"

// proof is the HMAC by which one end shows that it has the key: over material
// of this TLS connection, so that nobody can use it on another, over the
// direction, so that it cannot be sent back, and over all of the claim.
func proof(k certs.GroupKey, cs tls.ConnectionState, typ uint16, c claim) ([]byte, error) {
	ekm, err := cs.ExportKeyingMaterial(exporterLabel, nil, 32)
	if err != nil {
		return nil, fmt.Errorf("keying material: %w", err)
	}
	m := hmac.New(sha256.New, k.Secret[:])
	field := func(b []byte) {
		var n [4]byte
		binary.LittleEndian.PutUint32(n[:], uint32(len(b)))
		m.Write(n[:])
		m.Write(b)
	}
	field([]byte("datawatch group key proof 1"))
	field(binary.LittleEndian.AppendUint16(nil, typ))
	field(ekm)
	field(binary.LittleEndian.AppendUint32(nil, c.OGUID))
	for _, s := range []string{c.Auth, string(c.Role), c.Name, string(c.ToRole), c.ToName, c.Key} {
		field([]byte(s))
	}
	return m.Sum(nil), nil
}

// claimOf builds our claim for one connection.
func (e *Endpoint) claimOf(s *secrets, oguid uint32, typ uint16, key certs.GroupKey, cs tls.ConnectionState, to Peer) (claim, error) {
	c := claim{V: claimVersion, Auth: e.cfg.Mode.String(), Role: e.cfg.Role, Name: e.cfg.Name, OGUID: oguid, ToRole: to.Role, ToName: to.Name}
	if e.cfg.Mode == Cert {
		return c, e.own(s, oguid)
	}
	var err error
	c.Key = key.ID
	c.MAC, err = proof(key, cs, typ, c)
	return c, err
}

// judge decides whether a claim of the other end is true: its certificate says
// the same, or it has the key. oguid is our group, 0 if we have none yet.
func (e *Endpoint) judge(s *secrets, cs tls.ConnectionState, typ uint16, c claim, oguid uint32) error {
	who := c.who()
	if c.Auth != e.cfg.Mode.String() {
		return fmt.Errorf("%s authenticates by %s, this side by %s: %s must be the same in the whole group", who, clean(c.Auth, 10), e.cfg.Mode, paramName(e.cfg.Param))
	}
	if e.cfg.Mode == Key {
		k, ok := s.keys.Find(c.Key)
		if !ok {
			return fmt.Errorf("%s uses group key %s, which is not in our group.key (it has %s)", who, clean(c.Key, 16), s.keys.IDs())
		}
		want, err := proof(k, cs, typ, c)
		if err != nil {
			return err
		}
		if !hmac.Equal(want, c.MAC) {
			return fmt.Errorf("%s does not know group key %s, whose id it gave", who, k.ID)
		}
		if oguid != 0 && c.OGUID != 0 && oguid != c.OGUID {
			return wrongOGUID(who, c.OGUID, oguid)
		}
		return nil
	}
	if err := certs.Verify(s.cas, cs.PeerCertificates, e.cfg.Clock.Now()); err != nil {
		if len(cs.PeerCertificates) == 0 {
			return fmt.Errorf("%s presented no certificate", who)
		}
		return err
	}
	leaf := cs.PeerCertificates[0]
	ours := map[uint32]bool{oguid: true}
	if oguid == 0 { // an instance that was not told its group yet: its certificate knows
		ours = e.oguids(s)
	}
	wrong := uint32(0)
	for _, id := range certs.Identities(leaf) {
		if id.Role != c.Role.kind() || !strings.EqualFold(id.Name, c.Name) {
			continue
		}
		if !ours[id.OGUID] {
			wrong = id.OGUID
			continue
		}
		if c.OGUID != 0 && c.OGUID != id.OGUID {
			return wrongOGUID(who, c.OGUID, id.OGUID)
		}
		return nil
	}
	if wrong != 0 {
		for og := range ours {
			return wrongOGUID(who, wrong, og)
		}
	}
	return fmt.Errorf("the certificate shown is for %s, not for %s", certs.Describe(leaf), who)
}

func wrongOGUID(who string, theirs, ours uint32) error {
	return fmt.Errorf("%s belongs to OGUID %d, this side to OGUID %d", who, theirs, ours)
}

// paramName is the name alone of "MAL_SSL_MODE of /dm/dmmal.ini".
func paramName(p string) string {
	name, _, _ := strings.Cut(p, " ")
	return name
}
