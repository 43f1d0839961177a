package cluster

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"sort"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/monitor"
	"datawatch/internal/storage/engine"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/storage/redo"
)

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// watchAgain turns the guarding on, as whoever turned it off does.
func (w *world) watchAgain(m *monitor.Monitor) {
	for range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		err := m.StartupWatch(ctx, "", "")
		cancel()
		if err == nil || m.Err() != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

// finish lets the clients end, waits until every standby has what the primary
// has, and compares everything.
func (w *world) finish() {
	w.leave()
	if !w.settle(time.Minute) { // what a slow path delayed may have suspended the primary since
		return
	}
	var prim *engine.Engine
	for _, i := range w.primaries() {
		prim = i.engine()
	}
	if prim == nil {
		w.chain.fault("no primary after the clients have left")
		return
	}
	same := func() string {
		for _, h := range w.hosts {
			if w.split(h) {
				continue
			}
			e := h.engine()
			if e == nil {
				return h.name + " does not run"
			}
			// What is replayed, not what is logged: pages are compared.
			if a, _ := e.HardState(); a.LSN != prim.Positions().File.LSN {
				return fmt.Sprintf("%s is at %v, the primary at %v", h.name, a, prim.Positions().File)
			}
		}
		return ""
	}
	for end := time.Now().Add(time.Minute); same() != ""; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			w.chain.fault("a minute after the last commit %s\n%s", same(), w.explain())
			return
		}
	}
	c := newClient(w, 99)
	pages, packages := w.pages(prim), w.packages(prim)
	for _, h := range w.hosts {
		if w.split(h) {
			continue
		}
		e := h.engine()
		c.look(h.current(), e)
		if w.lenient {
			continue
		}
		other := w.pages(e)
		for n := range max(len(pages), len(other)) {
			if n >= len(pages) || n >= len(other) || !bytes.Equal(pages[n], other[n]) {
				w.chain.fault("G6: page %d of %s differs from the primary's at the same LSN", n+1, h.name)
				break
			}
		}
		w.sameArchive(h, packages, w.packages(e))
	}
	w.chain.mu.Lock()
	defer w.chain.mu.Unlock()
	if top := w.chain.settled[len(w.chain.settled)-1]; len(pages) >= pageA && top != first {
		if t := w.chain.all[le(pages[pageA-1][8:])]; t == nil || t.depth < top.depth {
			w.chain.bad("G1: the primary ends at %v, but %s was acknowledged or seen", t, top)
		}
	}
}

// leave ends the clients.
func (w *world) leave() {
	if !w.left {
		w.left = true
		close(w.end)
		w.clients.Wait()
	}
}

// pages of the newest hardened state.
func (w *world) pages(e *engine.Engine) (out [][]byte) {
	h := e.Store().NewHandle(true)
	defer h.Close()
	if h.Lock(pagestore.LockShared) != nil {
		return nil
	}
	defer h.Unlock(pagestore.LockNone)
	size, _ := h.Size()
	for n := range int(size / pageSize) {
		b, err := page(h, n+1)
		if err != nil {
			w.chain.fault("page %d: %v", n+1, err)
		}
		out = append(out, b)
	}
	return out
}

type pkg struct {
	prev, max base.LSN
	open      uint64
	src       base.Magic
	sum       uint32
}

// packages of an archive, by number.
func (w *world) packages(e *engine.Engine) map[base.Seq]pkg {
	out := map[base.Seq]pkg{}
	from := e.Archive().First()
	if from == 0 {
		return out
	}
	err := e.Archive().Read(context.Background(), from, func(p *redo.Package) error {
		raw, err := p.Raw()
		out[p.GSEQ] = pkg{p.PrevLSN, p.MaxLSN, p.OpenID, p.SrcDBMagic, crc32.ChecksumIEEE(raw)}
		return err
	})
	if err != nil {
		w.chain.fault("reading an archive: %v", err)
	}
	return out
}

// sameArchive compares an archive with the primary's where both have packages (G5, G7).
func (w *world) sameArchive(h *host, a, b map[base.Seq]pkg) {
	for n, p := range a {
		if q, ok := b[n]; ok && p != q {
			w.chain.fault("G5: package %d in the archive of %s is %+v, in the primary's %+v", n, h.name, q, p)
			return
		}
	}
	for n := range b {
		if _, ok := a[n]; !ok && n > 0 {
			if len(a) > 0 && n > maxSeq(a) {
				w.chain.fault("G7: package %d in the archive of %s is beyond the primary's", n, h.name)
				return
			}
		}
	}
}

func maxSeq(m map[base.Seq]pkg) (out base.Seq) {
	for n := range m {
		out = max(out, n)
	}
	return out
}
