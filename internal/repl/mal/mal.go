// Package mal is the transport between instances (manual 2.2.12): every
// instance listens on its MAL_HOST:MAL_PORT and dials every other entry of
// dmmal.ini. A link carries requests of the side that dialled and the answers
// to them; the other side's requests travel on the link it dialled itself.
//
// It owns the hello, heartbeats, reconnection, requests and answers, and the
// byte layout of the messages of replication (redo.go, PROTOCOL.md). It keeps
// guarantee G8 for what comes from the network: nothing is read before a valid
// hello but one frame of at most wire.MaxPreAuth bytes, large frames are
// accepted for redo only, and whatever cannot be decoded ends the link. What
// the messages mean is left to packages ship and standby.
//
// Order: the requests of one peer reach the Handler one after the other, in the
// order sent, over all its connections: a new connection of a peer is served
// only after the handler calls of its previous one have returned.
package mal

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/secure"
)

// Version is the version of the protocol in the hello; both ends must have the
// same.
const Version uint16 = 1

// Codes of the manual (10.2.8.3) that this package uses, and, from -6031 on,
// those it adds for refusals the manual has no number for.
const (
	CodeLost      base.Code = -6010 // MAL connection lost
	CodeTooLong   base.Code = -6018 // message longer than the network buffer
	CodeBroken    base.Code = -6021 // MAL link broken
	CodeNoPeer    base.Code = -6025 // data of the standby not found
	CodePmntMagic base.Code = -533  // PERMANENT_MAGIC differs
	CodeMessage   base.Code = -8145 // message check failed
	CodeVersion   base.Code = -6031 // protocol version differs
	CodeName      base.Code = -6032 // instance name unknown or not the one dialled
	CodeOGUID     base.Code = -6033 // OGUID differs
	CodeCompress  base.Code = -6034 // MAL_COMPRESS_LEVEL differs (manual table 5.2: no links then)
	CodeUnknown   base.Code = -6035 // request of a type nobody handles
)

// Entry is one [MAL_NAME] section of dmmal.ini.
type Entry struct {
	Inst string
	Host string
	Port int
}

// Addr is the address to dial or to listen on.
func (e Entry) Addr() string { return net.JoinHostPort(e.Host, strconv.Itoa(e.Port)) }

// Identity is what an instance says of itself in the hello and whenever it
// changes. Positions are by producing node, of length 1 today.
type Identity struct {
	PmntMagic base.Magic    `json:"pmnt_magic"`
	DBMagic   base.Magic    `json:"db_magic"`
	OGUID     uint32        `json:"oguid"` // 0: not set yet
	Mode      base.Mode     `json:"mode"`
	Status    base.Status   `json:"status"`
	Lineage   base.Lineage  `json:"lineage"`
	File      base.Position `json:"file"` // end of the online log
	Keep      base.Position `json:"keep"` // with the kept package, on a standby
	// Incarnation is random per process start.
	Incarnation string `json:"incarnation"`
}

// same tells whether a change is worth telling the peers: positions travel
// with redo and claims, not here.
func (id Identity) same(o Identity) bool {
	return id.PmntMagic == o.PmntMagic && id.DBMagic == o.DBMagic && id.OGUID == o.OGUID &&
		id.Mode == o.Mode && id.Status == o.Status && id.Incarnation == o.Incarnation &&
		len(id.Lineage) == len(o.Lineage) && id.Lineage.Last().TGUID == o.Lineage.Last().TGUID
}

// oguidFree tells whether an instance may be without OGUID: the manual's set-up
// order mounts the instances, then sets the OGUID, then the mode (7.2.6), so
// one that is Normal, or not open yet, may.
func (id Identity) oguidFree() bool {
	return id.Mode == base.ModeNormal || id.Status == base.StatusMount ||
		id.Status == base.StatusStartup || id.Status == base.StatusAfterRedo
}

// Dialer opens a connection to a MAL port.
type Dialer func(ctx context.Context, addr string) (net.Conn, error)

// Listener opens a MAL port.
type Listener func(ctx context.Context, addr string) (net.Listener, error)

// Config of a Node. Zero durations mean: CheckInterval none (manual), the
// others their defaults.
type Config struct {
	Self    string  // INSTANCE_NAME
	Entries []Entry // all of dmmal.ini, Self among them
	// CheckInterval is MAL_CHECK_INTERVAL: how often a link is checked, 0
	// never. ConnFailInterval is MAL_CONN_FAIL_INTERVAL: silence, after a
	// check, that makes a link broken; default 10 s.
	CheckInterval    time.Duration
	ConnFailInterval time.Duration
	LoginTimeout     time.Duration // MAL_LOGIN_TIMEOUT, for dialling and hello; default 15 s
	CompressLevel    int           // MAL_COMPRESS_LEVEL, must be equal everywhere
	Dial             Dialer        // nil: TCP
	Listen           Listener      // nil: TCP
	// Secure makes links that only programs of the group can open; nil: plain.
	Secure   *secure.Endpoint
	Clock    clock.Clock  // nil: clock.Real
	Log      *slog.Logger // nil: slog.Default
	Identity func() Identity
	// Ended is called when a connection of either direction has ended: then Links may
	// say something else. It must not block; nil: nobody asks.
	Ended func()
}

// Handler receives what the network brings.
type Handler interface {
	// Serve gets the requests and one-way messages of one peer in order. It
	// runs on the goroutine that reads the link and must not block for long:
	// it answers, or keeps the Request and answers later.
	Serve(*Request)
	// LinkUp and LinkDown report the link this instance dialled, by which it
	// sends its requests. They must not block. A request of another goroutine
	// may go out over a new link before LinkUp has been called.
	LinkUp(inst string, id Identity)
	LinkDown(inst string, err error)
	// PeerIdentity reports what a peer says of itself, at hello and on change.
	PeerIdentity(inst string, id Identity)
}

// check judges a peer's hello (or a later change of its identity) against our
// own identity.
func check(self, peer Identity, inst string) error {
	switch {
	case self.PmntMagic != peer.PmntMagic:
		return base.Errorf(CodePmntMagic, "PERMANENT_MAGIC of %s is %v, ours is %v", inst, peer.PmntMagic, self.PmntMagic)
	case self.OGUID != peer.OGUID && self.OGUID != 0 && peer.OGUID != 0:
		return base.Errorf(CodeOGUID, "OGUID of %s is %d, ours is %d", inst, peer.OGUID, self.OGUID)
	case self.OGUID != peer.OGUID && peer.OGUID == 0 && !peer.oguidFree():
		return base.Errorf(CodeOGUID, "%s has no OGUID although it is %v and %v", inst, peer.Mode, peer.Status)
	case self.OGUID != peer.OGUID && self.OGUID == 0 && !self.oguidFree():
		return base.Errorf(CodeOGUID, "we have no OGUID although we are %v and %v; %s has %d", self.Mode, self.Status, inst, peer.OGUID)
	}
	return nil
}

func (c *Config) fill() error {
	if c.ConnFailInterval <= 0 {
		c.ConnFailInterval = 10 * time.Second
	}
	if c.LoginTimeout <= 0 {
		c.LoginTimeout = 15 * time.Second
	}
	if c.Dial == nil {
		c.Dial = DialTCP
	}
	if c.Listen == nil {
		c.Listen = ListenTCP
	}
	if c.Clock == nil {
		c.Clock = clock.Real{}
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Identity == nil {
		return fmt.Errorf("mal: no identity")
	}
	seen := map[string]bool{}
	for _, e := range c.Entries {
		if seen[e.Inst] {
			return fmt.Errorf("mal: instance %s twice", e.Inst)
		}
		seen[e.Inst] = true
	}
	if !seen[c.Self] {
		return fmt.Errorf("mal: no entry for our own instance %s", c.Self)
	}
	return nil
}

// DialTCP is the Dialer for real networks. TCP_NODELAY is Go's default; buffer
// sizes are left to the kernel, whose auto-tuning goes further (4-6 MB) than an
// unprivileged process may set by hand.
func DialTCP(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: 15 * time.Second}
	return d.DialContext(ctx, "tcp", addr)
}

// ListenTCP is the Listener for real networks.
func ListenTCP(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", addr)
}
