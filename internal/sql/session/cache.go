package session

import (
	"container/list"
	"sync"
	"sync/atomic"

	"datawatch/internal/sql/dialect"
)

// cache keeps recognised statements by their text, least recently used first
// out. Values are shared between sessions and never changed.
type cache struct {
	mu   sync.Mutex
	max  int
	m    map[string]*list.Element
	list *list.List
}

type parsed struct {
	*dialect.Statement
	items  []dialect.Item
	hints  map[int]dialect.ParamHint
	places []dialect.Place
	n      int    // largest parameter number
	shown  string // its text without passwords, for V$SESSIONS

	fold bool // it may be for the executor of aggregates

	took *atomic.Int64 // how long it ran last, as a job, in ns; 0: it has not yet
}

type entry struct {
	sql string
	p   *parsed
}

// maxCachedSQL keeps bulk inserts with literal values out of the cache.
const maxCachedSQL = 4096

func newCache(n int) *cache { return &cache{max: n, m: map[string]*list.Element{}, list: list.New()} }

// parse recognises a statement.
func (c *cache) parse(sql string) (*parsed, error) {
	c.mu.Lock()
	if e := c.m[sql]; e != nil {
		c.list.MoveToFront(e)
		p := e.Value.(*entry).p
		c.mu.Unlock()
		return p, nil
	}
	c.mu.Unlock()
	st, err := dialect.Parse(sql)
	if err != nil {
		return nil, err
	}
	p := &parsed{Statement: st, took: new(atomic.Int64)}
	p.shown, _ = dialect.Redact(st.Text, false)
	if st.Kind == dialect.SQL || st.Kind == dialect.Call {
		p.hints, p.n = st.Params()
		p.items = st.Items()
		p.places = st.Places()
		p.fold = mayFold(st)
	}
	if len(sql) > maxCachedSQL || st.Kind == dialect.Role {
		return p, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m[sql] == nil {
		c.m[sql] = c.list.PushFront(&entry{sql, p})
		if c.list.Len() > c.max {
			last := c.list.Back()
			delete(c.m, last.Value.(*entry).sql)
			c.list.Remove(last)
		}
	}
	return p, nil
}

func splitStatements(sql string) ([]string, error) { return dialect.Split(sql) }
