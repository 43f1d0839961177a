package server

import (
	"context"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/ship"
	"datawatch/internal/storage/engine"
)

// replEngine shows the engine to the sending and the receiving side.
type replEngine struct{ *engine.Engine }

// LogEnd is the end of what is logged, archived and, with it, in the lineage.
func (e replEngine) LogEnd() base.Position { p, _ := e.HardState(); return p }

// Lineage goes with LogEnd.
func (e replEngine) Lineage() base.Lineage { _, l := e.HardState(); return l }

// Replayed is what readers may see.
func (e replEngine) Replayed() base.Position { return e.LogEnd() }

// Suspend hides nothing: ship only gives a reason.
func (e replEngine) Suspend(reason string) { e.Engine.Suspend(reason) }

// Archive is nil, not a nil pointer in an interface, without local archive.
func (e replEngine) Archive() ship.Archive {
	if a := e.Engine.Archive(); a != nil {
		return a
	}
	return nil
}

// malHandler gives what the network brings to the side it concerns.
type malHandler struct{ s *Server }

func (h malHandler) Serve(q *mal.Request) {
	if !h.s.recv.Serve(q) && !h.s.donor.Serve(q) {
		q.Fail(base.Errorf(mal.CodeUnknown, "unknown request type %d", q.Type))
	}
}

func (h malHandler) LinkUp(inst string, id mal.Identity) {
	h.s.ship.LinkUp(inst, id)
	h.s.notify()
}

func (h malHandler) LinkDown(inst string, err error) {
	h.s.ship.LinkDown(inst, err) // the watcher hears of it by mal.Config.Ended
}

func (h malHandler) PeerIdentity(inst string, id mal.Identity) {
	h.s.recv.PeerIdentity(inst, id)
	h.s.ship.PeerIdentity(inst, id)
}

// notify tells the watcher soon, if its port is up already.
func (s *Server) notify() {
	if s.dw != nil {
		s.dw.changed()
	}
}

// noTransport is the transport of an instance without MAL system.
type noTransport struct{}

func (noTransport) Go(string, uint16, ...[]byte) (*mal.Call, error) { return nil, errNoMAL }
func (noTransport) Call(context.Context, string, uint16, ...[]byte) ([]byte, error) {
	return nil, errNoMAL
}
func (noTransport) Notify(string, uint16, ...[]byte) error { return errNoMAL }
