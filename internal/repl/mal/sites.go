package mal

// What V$MAL_SYS and V$MAL_SITE_INFO show (manual 10.1 #14, #15). In the manual's
// system letters are kept in mailboxes of statements; here a request under way
// stands for a mailbox, and messages are not kept.

// States of the MAL system.
const (
	SystemOpen        = 0
	SystemPreShutdown = 1 // its links are being closed
	SystemShutdown    = 2 // they are, or have not been opened yet
)

// System is what is known of the MAL system as a whole.
type System struct {
	State int
	Port  int    // listening
	Sites int    // in dmmal.ini
	Self  int    // our place there, from 0
	Next  uint64 // number of the next request
	Open  int    // requests whose answers are awaited
}

// Site is what is known of another instance.
type Site struct {
	Inst    string
	Seq     int    // its place in dmmal.ini, from 0
	Data    bool   // the link we dialled stands
	Sent    uint64 // messages since the start, without checks of links
	Handled uint64 // messages of it that were handled, likewise
	Links   int    // that stand, in both directions
	Free    int    // of these without a request under way
	Open    int    // requests to it whose answers are awaited
}

// System reports the whole.
func (n *Node) System() System {
	s := System{State: int(n.state.Load()), Port: n.self.Port, Sites: len(n.cfg.Entries), Next: n.requests.Load() + 1}
	for i, e := range n.cfg.Entries {
		if e.Inst == n.cfg.Self {
			s.Self = i
		}
	}
	for _, x := range n.SiteInfos() {
		s.Open += x.Open
	}
	return s
}

// SiteInfos reports every other instance, in the order of dmmal.ini.
func (n *Node) SiteInfos() []Site {
	var out []Site
	for i, e := range n.cfg.Entries {
		p := n.peers[e.Inst]
		if p == nil {
			continue
		}
		p.mu.Lock()
		dialled, taken := p.out, p.in
		p.mu.Unlock()
		s := Site{Inst: e.Inst, Seq: i, Data: dialled != nil, Sent: p.sent.Load(), Handled: p.handled.Load()}
		if dialled != nil {
			dialled.mu.Lock()
			s.Open = len(dialled.pending)
			dialled.mu.Unlock()
			s.Links++
			if s.Open == 0 {
				s.Free++
			}
		}
		if taken != nil {
			s.Links++
			if taken.serving.Load() == 0 {
				s.Free++
			}
		}
		out = append(out, s)
	}
	return out
}
