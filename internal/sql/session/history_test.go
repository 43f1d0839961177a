package session

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

// history is what committed transactions have read and written: every version of
// a key has a number of its own, and is written by a transaction that has read
// the one before.
type history struct {
	mu   sync.Mutex
	txns []txnRecord
}

type txnRecord struct {
	reads map[int]int // key: version
	write map[int]int // key: version that replaced the one read
}

// cycle looks for transactions that cannot be put in an order: each edge says
// that one is before another, because it wrote the version the other read or
// replaced, or read the version that the other replaced.
func (h *history) cycle() []int {
	writer := map[[2]int]int{} // key, version: transaction
	next := map[[2]int]int{}   // key, version: transaction that replaced it
	for i, t := range h.txns {
		for k, v := range t.write {
			if j, twice := next[[2]int{k, t.reads[k]}]; twice {
				return []int{i, j} // a lost update
			}
			writer[[2]int{k, v}] = i
			next[[2]int{k, t.reads[k]}] = i
		}
	}
	edges := make([][]int, len(h.txns))
	for i, t := range h.txns {
		for k, v := range t.reads {
			if w, ok := writer[[2]int{k, v}]; ok && w != i {
				edges[w] = append(edges[w], i)
			}
			if n, ok := next[[2]int{k, v}]; ok && n != i {
				edges[i] = append(edges[i], n)
			}
		}
	}
	state := make([]int, len(h.txns)) // 1: on the path, 2: done
	var path, found []int
	var visit func(i int) bool
	visit = func(i int) bool {
		state[i] = 1
		path = append(path, i)
		for _, j := range edges[i] {
			if state[j] == 1 {
				found = append(slices.Clone(path[slices.Index(path, j):]), j)
				return true
			}
			if state[j] == 0 && visit(j) {
				return true
			}
		}
		state[i] = 2
		path = path[:len(path)-1]
		return false
	}
	for i := range h.txns {
		if state[i] == 0 && visit(i) {
			return found
		}
	}
	return nil
}

// TestHistoryFindsCycles: the judge of TestConcurrentSerializable is not blind.
func TestHistoryFindsCycles(t *testing.T) {
	skew := history{txns: []txnRecord{{map[int]int{1: 0, 2: 0}, map[int]int{1: 1}}, {map[int]int{1: 0, 2: 0}, map[int]int{2: 2}}}}
	lost := history{txns: []txnRecord{{map[int]int{1: 0}, map[int]int{1: 1}}, {map[int]int{1: 0}, map[int]int{1: 2}}}}
	torn := history{txns: []txnRecord{{map[int]int{1: 0, 2: 0}, map[int]int{1: 1, 2: 2}}, {map[int]int{1: 1, 2: 0}, nil}}}
	for i, h := range []*history{&skew, &lost, &torn} {
		if h.cycle() == nil {
			t.Errorf("history %d is taken for serializable", i)
		}
	}
	if c := (&history{txns: []txnRecord{{map[int]int{1: 0, 2: 0}, map[int]int{1: 1, 2: 2}}, {map[int]int{1: 1, 2: 2}, nil}, {map[int]int{1: 0}, nil}}}).cycle(); c != nil {
		t.Errorf("a serial history has the cycle %v", c)
	}
}

// TestConcurrentSerializable: concurrent transactions, beside locking and
// read-only ones and with commits that harden late, can be put in an order.
func TestConcurrentSerializable(t *testing.T) {
	e := newEnv(t)
	const keys, clients, each = 6, 6, 60
	a := e.client()
	a.exec("create table n(k int primary key, v int)")
	for k := range keys {
		a.exec(fmt.Sprintf("insert into n values(%d, 0)", k))
	}
	stop := make(chan struct{})
	var late, wg sync.WaitGroup
	late.Go(func() {
		for on := true; ; on = !on {
			e.db.setHold(on)
			select {
			case <-stop:
				e.db.setHold(false)
				return
			default:
			}
		}
	})
	var h history
	for i := range clients {
		wg.Go(func() {
			c := e.client()
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			version := 1 + i*1_000_000
			for range each {
				begin := []string{"begin concurrent", "begin concurrent", "begin concurrent", "begin isolation level serializable", "begin isolation level serializable read only"}[rnd.IntN(5)]
				rec := txnRecord{map[int]int{}, map[int]int{}}
				err := func() error {
					if _, _, err := c.simpleQ(begin); err != nil {
						return err
					}
					for range 1 + rnd.IntN(3) {
						k := rnd.IntN(keys)
						if _, seen := rec.reads[k]; seen {
							continue
						}
						v, _, err := c.simpleQ(fmt.Sprintf("select v from n where k = %d", k))
						if err != nil {
							return err
						}
						n := 0
						fmt.Sscan(v, &n)
						rec.reads[k] = n
						if strings.HasSuffix(begin, "only") || rnd.IntN(3) == 0 {
							continue
						}
						version++
						rec.write[k] = version
						if _, err := c.ext("update n set v = $1 where k = $2", version, k); err != nil {
							return err
						}
						if rnd.IntN(12) == 0 {
							if _, _, err := c.simpleQ("lock table n"); err != nil {
								return err
							}
						}
					}
					_, _, err := c.simpleQ("commit")
					return err
				}()
				if err == nil {
					h.mu.Lock()
					h.txns = append(h.txns, rec)
					h.mu.Unlock()
					continue
				}
				if code := codeOf(t, err); code != "40001" {
					t.Errorf("%s: %v", begin, err)
				}
				c.exec("rollback")
			}
		})
	}
	wg.Wait()
	close(stop)
	late.Wait()
	if c := h.cycle(); c != nil {
		for _, i := range c {
			t.Logf("%d: %+v", i, h.txns[i])
		}
		t.Errorf("not serializable: %v", c)
	}
	if s := e.b.Stats(); s.ConcurrentCommits < 20 || s.Conflicts == 0 {
		t.Errorf("too little happened at the same time: %+v", s)
	}
}
