package server

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// serviceInterval is how often a standby with DW_CONSISTENCY_CHECK looks at the
// link from its primary, beside every change it hears of.
const serviceInterval = 100 * time.Millisecond

// judgeService decides whether a standby serves reads. With
// DW_CONSISTENCY_CHECK = 1 it does not while the link from its primary is down or
// its archive is not known to be Valid (manual 5.1): what it has may then be old,
// and nobody would tell it. V$ views and administration go on.
func (s *Server) judgeService() {
	if !s.cfg.DM.DWConsistencyCheck || s.sess == nil {
		return
	}
	why := ""
	if s.eng.Mode() == base.ModeStandby {
		why = s.outdated()
	}
	if was := s.sess.Unserved(why); was != why {
		if why != "" {
			s.log.Warn("no reads are served: DW_CONSISTENCY_CHECK is 1", "why", why)
		} else {
			s.log.Info("reads are served again", "was", was)
		}
	}
}

// outdated tells why this standby may be behind its primary without knowing.
func (s *Server) outdated() string {
	c := s.recv.Info().Claim
	if !c.Valid {
		return "no primary says that the archive to this standby is Valid"
	}
	if s.node != nil {
		for _, l := range s.node.LinkStates() {
			if strings.EqualFold(l.Inst, c.From) && l.Ctl {
				return ""
			}
		}
	}
	return "the link from the primary " + c.From + " is down"
}

// watchService runs until the instance ends.
func (s *Server) watchService() {
	t := s.clock.NewTicker(serviceInterval)
	defer t.Stop()
	for {
		s.judgeService()
		select {
		case <-s.stopCh:
			return
		case <-t.C:
		}
	}
}

// awaitWatcher ends the instance when no watcher has appeared for
// DW_MAX_SVR_WAIT_TIME since it was started (manual 5.1). One that appeared and
// went away again is another matter: its instance goes on.
func (s *Server) awaitWatcher(limit time.Duration) {
	t := s.clock.NewTimer(limit)
	defer t.Stop()
	select {
	case <-s.stopCh:
	case <-t.C:
		if s.dw.everHeard() {
			return
		}
		why := fmt.Sprintf("no watcher has appeared within DW_MAX_SVR_WAIT_TIME, %v", limit)
		s.log.Error("HALT", "err", why)
		s.requestStop(stopHalt, why)
	}
}

// everHeard reports whether a watcher has ever been connected.
func (p *dwPort) everHeard() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.lastHeard.IsZero()
}

// startGuards begins what watches over the service for the whole life of the
// instance.
func (s *Server) startGuards() {
	if s.cfg.DM.DWConsistencyCheck {
		go s.watchService()
	}
	if limit := s.cfg.DM.DWMaxSvrWaitTime; limit > 0 && s.dwLis != nil && s.eng.Mode() != base.ModeNormal {
		go s.awaitWatcher(limit)
	}
}

// noteAlone says in the log when an open primary goes on without any standby,
// and when it has one again: what it acknowledges meanwhile only it has.
func (s *Server) noteAlone() {
	primary := s.eng.Mode() == base.ModePrimary
	states := s.ship.States()
	switch st := s.eng.Status(); {
	case primary && st == base.StatusSuspend, slices.ContainsFunc(states, func(a proto.ArchStatus) bool { return a.SendFailed }):
		return // the next opening tells
	default:
		primary = primary && st == base.StatusOpen
	}
	alone := primary && len(states) > 0 && valid(states) == ""
	if s.alone.Swap(alone) == alone {
		return
	}
	if alone {
		s.log.Warn("the primary goes on alone: every archive is Invalid, and what is committed now is on this machine only (V$ARCH_STATUS)")
	} else if primary {
		s.log.Info("the primary is not alone any more", "valid", valid(states))
	}
}

func valid(states []proto.ArchStatus) string {
	var out []string
	for _, a := range states {
		if a.State == base.ArchValid {
			out = append(out, a.Inst)
		}
	}
	return strings.Join(out, ",")
}
