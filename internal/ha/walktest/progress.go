package walktest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
)

// every is how many seeds are done between two writes of the file.
const every = 100

// Progress remembers in a file which seed is next, so that a run, also one that
// was cut off, goes on where the one before it stopped. Safe for concurrent use.
type Progress struct {
	file string // "": nowhere

	mu    sync.Mutex
	next  uint64 // all before it are done
	wrote uint64
	done  map[uint64]bool // of those from next on
}

// Begin reads the next seed from a file, 1 when there is none.
func Begin(file string) (*Progress, error) {
	p := &Progress{file: file, next: 1, done: map[uint64]bool{}}
	b, err := os.ReadFile(file)
	if file != "" && err == nil {
		if p.next, err = strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	p.wrote = p.next
	return p, nil
}

// Next is the first seed that is not done.
func (p *Progress) Next() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next
}

// Done says that a seed was lived without fault; seeds may end in any order.
func (p *Progress) Done(seed uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done[seed] = true
	for p.done[p.next] {
		delete(p.done, p.next)
		p.next++
	}
	if p.next < p.wrote+every {
		return nil
	}
	return p.write()
}

// End writes what is done.
func (p *Progress) End() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.write()
}

func (p *Progress) write() error {
	if p.file == "" {
		return nil
	}
	// Renamed, so that a run that is cut off leaves the number before.
	tmp := p.file + ".new"
	if err := os.WriteFile(tmp, []byte(fmt.Sprintln(p.next)), 0o644); err != nil {
		return err
	}
	p.wrote = p.next
	return os.Rename(tmp, p.file)
}
