package pagestore

import (
	"sync"

	"datawatch/internal/base"
)

const cacheShards = 16

// cache holds pages as they are in the data file, at most a fixed number,
// replaced by the clock algorithm. Its buffers are never changed nor reused, so
// readers copy without a lock.
type cache struct {
	shard [cacheShards]cacheShard
	limit int // pages per shard
}

type cacheShard struct {
	mu           sync.Mutex
	gen          uint64 // moves whenever a page of the shard is overwritten in the file
	at           map[uint32]int
	ents         []cacheEntry
	hand         int
	hits, misses uint64
}

type cacheEntry struct {
	page uint32
	ref  bool
	lsn  base.LSN
	data []byte
}

func newCache(bytes int64, pageSize int) *cache {
	c := &cache{limit: int(bytes / int64(pageSize) / cacheShards)}
	for i := range c.shard {
		c.shard[i].at = map[uint32]int{}
	}
	return c
}

// get returns page p, or the generation with which put must be called, and
// whether another page would have to go for it. mark says that the page is wanted
// again, which keeps it longer.
func (c *cache) get(p uint32, mark bool) (data []byte, lsn base.LSN, gen uint64, full, ok bool) {
	sh := &c.shard[p%cacheShards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if i, ok := sh.at[p]; ok {
		e := &sh.ents[i]
		e.ref = e.ref || mark
		sh.hits++
		return e.data, e.lsn, sh.gen, false, true
	}
	sh.misses++
	return nil, 0, sh.gen, len(sh.ents) >= c.limit, false
}

// put adds a page read from the file, unless the file was overwritten meanwhile.
func (c *cache) put(p uint32, data []byte, lsn base.LSN, gen uint64) {
	sh := &c.shard[p%cacheShards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.gen == gen {
		c.set(sh, p, data, lsn)
	}
}

// overwrite says that the file now has data at page p; nil: forget the page.
func (c *cache) overwrite(p uint32, data []byte, lsn base.LSN) {
	sh := &c.shard[p%cacheShards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.gen++
	if data == nil {
		c.drop(sh, p)
		return
	}
	c.set(sh, p, data, lsn)
}

// truncate forgets the pages beyond n.
func (c *cache) truncate(n uint32) {
	for i := range c.shard {
		sh := &c.shard[i]
		sh.mu.Lock()
		sh.gen++
		for j := len(sh.ents) - 1; j >= 0; j-- {
			if sh.ents[j].page > n {
				c.drop(sh, sh.ents[j].page)
			}
		}
		sh.mu.Unlock()
	}
}

func (c *cache) set(sh *cacheShard, p uint32, data []byte, lsn base.LSN) {
	e := cacheEntry{page: p, lsn: lsn, data: data}
	if i, ok := sh.at[p]; ok {
		sh.ents[i] = e
		return
	}
	if c.limit == 0 {
		return
	}
	if len(sh.ents) < c.limit {
		sh.at[p] = len(sh.ents)
		sh.ents = append(sh.ents, e)
		return
	}
	for sh.ents[sh.hand].ref {
		sh.ents[sh.hand].ref = false
		sh.hand = (sh.hand + 1) % len(sh.ents)
	}
	delete(sh.at, sh.ents[sh.hand].page)
	sh.ents[sh.hand] = e
	sh.at[p] = sh.hand
	sh.hand = (sh.hand + 1) % len(sh.ents)
}

func (c *cache) drop(sh *cacheShard, p uint32) {
	i, ok := sh.at[p]
	if !ok {
		return
	}
	delete(sh.at, p)
	last := len(sh.ents) - 1
	if i != last {
		sh.ents[i] = sh.ents[last]
		sh.at[sh.ents[i].page] = i
	}
	sh.ents[last] = cacheEntry{}
	sh.ents = sh.ents[:last]
	if sh.hand >= last {
		sh.hand = 0
	}
}

func (c *cache) stats() (pages int, hits, misses uint64) {
	for i := range c.shard {
		sh := &c.shard[i]
		sh.mu.Lock()
		pages += len(sh.ents)
		hits += sh.hits
		misses += sh.misses
		sh.mu.Unlock()
	}
	return pages, hits, misses
}
