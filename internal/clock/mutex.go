package clock

import "sync"

// Mutex is a lock that may be held across waits: for a disk, a peer, or time.
// Whoever waits for it waits on a channel, first come first served. Under
// virtual time (testing/synctest) that counts as standing still, and time goes
// on; waiting for a sync.Mutex does not, so one held across a wait would stop
// the clock that the wait needs. The zero value is unlocked.
type Mutex struct {
	mu    sync.Mutex // never held across a wait
	held  bool
	queue []chan struct{}
}

// Lock waits for the lock.
func (m *Mutex) Lock() {
	m.mu.Lock()
	if !m.held {
		m.held = true
		m.mu.Unlock()
		return
	}
	c := make(chan struct{})
	m.queue = append(m.queue, c)
	m.mu.Unlock()
	<-c
}

// TryLock takes the lock if it is free.
func (m *Mutex) TryLock() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held {
		return false
	}
	m.held = true
	return true
}

// Unlock hands the lock to the one that has waited longest.
func (m *Mutex) Unlock() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.held {
		panic("clock: unlock of unlocked Mutex")
	}
	if len(m.queue) == 0 {
		m.held = false
		return
	}
	c := m.queue[0]
	m.queue = m.queue[1:]
	close(c)
}
