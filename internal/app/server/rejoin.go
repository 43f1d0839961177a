package server

import (
	"context"
	"path/filepath"

	"datawatch/internal/base"
	"datawatch/internal/repl/rejoin"
)

// surplusDir is where the redo goes that a rejoin gives up, in SYSTEM_PATH.
const surplusDir = "surplus"

// rejoin gives up the redo that the primary inst is without, and starts this
// instance anew, in the same process, as a standby that ends where the histories
// part (docs/decisions/0008). After an error everything is as it was.
func (s *Server) rejoin(ctx context.Context, inst string) error {
	if s.node == nil {
		return errNoMAL
	}
	if st := s.eng.Status(); st != base.StatusMount {
		return base.Errorf(codeBadStatus, "a database rejoins in Mount, this one is in status %s", st)
	}
	if err := s.awaitLink(ctx, inst); err != nil {
		return err
	}
	// The end of the instance ends it too, at any moment.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-s.stopCh:
			cancel()
		case <-done:
		}
	}()
	_, err := rejoin.Run(ctx, rejoin.Config{Engine: s.eng, Transport: s.node, Primary: inst, FS: s.fs,
		Dir: filepath.Join(s.cfg.DM.SystemPath, surplusDir), Name: s.name, Clock: s.clock, Log: s.log})
	if err != nil {
		return err
	}
	s.requestStop(stopAgain, "it rejoins its group: the next start puts in the pages of "+inst)
	return nil
}
