package confirm

import (
	"slices"
	"time"

	"datawatch/internal/ha/cond"
	"datawatch/internal/ha/proto"
)

// Config of one group's decisions.
type Config struct {
	Group string
	// ViewOnly is an ordinary monitor: it keeps a view and decides nothing.
	ViewOnly bool
	// ErrorTime stands in for DW_ERROR_TIME until a watcher reports it.
	ErrorTime time.Duration
	// ShutdownWait is MON_TAKEOVER_SHUTDOWN; 0 turns it off (manual 5.5).
	ShutdownWait time.Duration
	// Addrs are the MON_DW_IP entries in file order.
	Addrs []string
}

// meta is what decisions need to know of a peer beside what a View shows.
type meta struct {
	fresh    bool      // reported since the epoch
	onLink   bool      // reported over the connection that stands now
	backAt   time.Time // its first report after a silence of DW_ERROR_TIME/2
	exitedAt time.Time // first report of a normal exit of its instance
}

type decisionKind uint8

const (
	decideNothing decisionKind = iota
	decideFailover
	decideTakeover
	decideManual
)

// pending is a decision that is being written.
type pending struct {
	kind  decisionKind
	seq   uint64 // of the Persist action
	reqID uint64 // Ask.ID or Reserve.ID
	next  Record
	grant proto.Grant
	inst  string // candidate
	inc   string // of its watcher
}

// attempt is a takeover grant that was sent, or may have been.
type attempt struct {
	inst string
	term uint64
	at   time.Time // sent; after a freeze or restart: learnt of again
	// The candidate's watcher obeys only in the era of the report the grant was
	// made by, or the next; based is false after a restart until it reports.
	based bool
	inc   string
	era   uint64
}

// State of one group. The zero State is not usable; call New.
type State struct {
	cfg      Config
	rec      Record
	peers    []cond.Peer
	meta     []meta    // of each peer
	epoch    time.Time // nothing heard before counts as fresh
	lastTick time.Time
	seq      uint64 // of Persist actions
	seen     uint64 // newest reign of an open primary, in memory
	pend     pending
	att      attempt
	busy     bool   // this monitor runs a manual command
	told     string // last reason reported for not taking over
	exitAt   time.Time
}

// New starts with the record read from disk. A takeover found in it may still
// be running somewhere: it counts as sent at now and unanswered.
func New(cfg Config, rec Record, now time.Time) State {
	s := State{cfg: cfg, rec: rec.clone(), epoch: now, lastTick: now, seen: rec.Seen}
	for _, a := range cfg.Addrs {
		s.peers = append(s.peers, cond.Peer{Addr: a})
	}
	s.meta = make([]meta, len(s.peers))
	if t := rec.Taken; t != nil && t.Reign >= s.seen {
		s.att = attempt{inst: t.Candidate, term: t.Term, at: now}
	}
	return s
}

// Record returns the decisions in force.
func (s State) Record() Record { return s.rec.clone() }

// View returns what the state knows, for conditions and displays.
func (s State) View(now time.Time) cond.View {
	v := s.view(now)
	v.Peers = slices.Clone(v.Peers)
	return v
}

// view is View for use until the next event.
func (s *State) view(now time.Time) cond.View {
	return cond.View{Group: s.cfg.Group, Now: now, Default: s.cfg.ErrorTime, Peers: s.peers}
}

// Deciding reports whether a decision is being written.
func (s State) Deciding() bool { return s.pend.kind != decideNothing }

// Event is an input of Step.
type Event interface{ event() }

type (
	// Report is a status message of the watcher at Addr.
	Report struct {
		Addr   string
		Status proto.WatcherStatus
	}
	// Link says that the connection to Addr came up or went down.
	Link struct {
		Addr string
		Up   bool
	}
	// Tick passes time; at least every DW_ERROR_TIME/10.
	Tick struct{}
	// Ask is a ConfirmRequest; ID identifies the answer.
	Ask struct {
		ID  uint64
		Req proto.ConfirmRequest
	}
	// Persisted and PersistFailed answer a Persist action.
	Persisted     struct{ Seq uint64 }
	PersistFailed struct {
		Seq uint64
		Why string
	}
	// GrantReply answers a SendGrant action. Err tells that no answer came.
	GrantReply struct {
		Term uint64
		OK   bool
		Err  bool
		Msg  string
	}
	// Stalled says that the driver saw the wall clock jump: the machine slept.
	Stalled struct{}
	// Busy says that this monitor begins or ends a manual command.
	Busy struct{ On bool }
	// Reserve asks to write down a manual takeover before its first step.
	Reserve struct {
		ID    uint64
		Inst  string
		Force bool
	}
)

func (Report) event()        {}
func (Link) event()          {}
func (Tick) event()          {}
func (Ask) event()           {}
func (Persisted) event()     {}
func (PersistFailed) event() {}
func (GrantReply) event()    {}
func (Busy) event()          {}
func (Stalled) event()       {}
func (Reserve) event()       {}

// Action is an output of Step.
type Action interface{ action() }

type (
	// Persist writes the record durably, then feeds Persisted or PersistFailed.
	Persist struct {
		Seq    uint64
		Record Record
	}
	// Answer answers an Ask.
	Answer struct {
		ID    uint64
		Reply proto.ConfirmReply
	}
	// SendGrant sends takeover_grant once to the watcher of Inst, then feeds GrantReply.
	SendGrant struct {
		Addr  string
		Inst  string
		Grant proto.Grant
	}
	// SendExitOld tells the watcher of an outdated primary to shut it down.
	SendExitOld struct {
		Addr, Inst, Evidence string
	}
	// Reserved answers a Reserve.
	Reserved struct {
		ID    uint64
		OK    bool
		Grant proto.Grant
		Why   string
	}
	// Reconnect drops every connection: what is buffered in them is of unknown age.
	Reconnect struct{}
	// Tell is a message for people.
	Tell struct{ Text string }
)

func (Persist) action()     {}
func (Answer) action()      {}
func (SendGrant) action()   {}
func (SendExitOld) action() {}
func (Reserved) action()    {}
func (Reconnect) action()   {}
func (Tell) action()        {}
