package scan

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// Options say how a program is executed.
type Options struct {
	// Params are the values of parameters, by SQLite's number from 1.
	Params []Value
	// Workers is how many goroutines read, at least 1.
	Workers int
	// Memory bounds groups, results and what is gathered of rows larger than a
	// page, in bytes; 0: 64 MiB.
	Memory int64
	// Defaults of Program.Columns where Program.Default says so; nil: not known,
	// then a row that needs one is ErrShort.
	Defaults []Value
	// Call calls a function of SQLite; nil: ErrUnsupported.
	Call func(name string, args []Value) (Value, error)
}

// defaultMemory is Options.Memory when it is 0.
const defaultMemory = 64 << 20

var (
	// ErrStale means that the schema is not the one that the program was made for.
	ErrStale  = fmt.Errorf("%w: schema changed", ErrUnsupported)
	errMemory = fmt.Errorf("%w: too much for the memory of a statement", ErrUnsupported)
)

// strict lets panics through; for tests.
var strict bool

// run is one execution.
type run struct {
	p                  *Program
	src                Source
	opt                Options
	pageSize, reserved int
	start              []Value // registers at the beginning of the loop
	sets               []setValues
	logged             []atomic.Bool // by aggregate: there are doubles

	totals []total // by group, then by aggregate
	groups map[string]int32
	rows   [][]Value // first row of each group
	bytes  int64
}

// Run executes the program on a snapshot and returns its rows, which stay valid.
// Any error but that of ctx means that SQLite must run the statement.
func (p *Program) Run(ctx context.Context, src Source, opt Options) ([][]Value, error) {
	if opt.Memory <= 0 {
		opt.Memory = defaultMemory
	}
	r := &run{p: p, src: src, opt: opt, logged: make([]atomic.Bool, len(p.aggs)), groups: map[string]int32{}}
	if err := r.header(); err != nil {
		return nil, err
	}
	c := newControl(ctx, r)
	if halted, err := c.run(0); err != nil || halted { // LIMIT 0
		return c.out, err
	}
	r.start = c.regs
	if err := r.makeSets(c); err != nil {
		return nil, err
	}
	if p.group == nil {
		r.totals = make([]total, len(p.aggs))
	}
	if err := r.scan(ctx); err != nil {
		return nil, err
	}
	c.sortGroups()
	if halted, err := c.run(int(p.code[p.rewind].p2)); err != nil || !halted {
		return nil, errors.Join(err, ErrUnsupported)
	}
	return c.out, nil
}

// header looks at page 1.
func (r *run) header() error {
	b, err := r.src.Page(1, make([]byte, 65536))
	if err != nil {
		return err
	}
	if len(b) < 512 {
		return errCorrupt
	}
	r.pageSize, r.reserved = len(b), int(b[20])
	if n := int(binary.BigEndian.Uint16(b[16:])); n != r.pageSize&0xffff|r.pageSize>>16 {
		return errCorrupt
	}
	if binary.BigEndian.Uint32(b[56:]) != 1 {
		return unsupported("encoding")
	}
	if binary.BigEndian.Uint32(b[40:]) != r.p.Cookie {
		return ErrStale
	}
	return nil
}

func (r *run) makeSets(c *control) error {
	r.sets = make([]setValues, len(r.p.sets))
	for i := range r.p.sets {
		s, out := &r.p.sets[i], &r.sets[i]
		ints := true
		for j := range s.code {
			v, err := c.constant(&s.code[j])
			if err != nil {
				return err
			}
			if s.aff != "" {
				if err := Affinity(&v, s.aff[0]); err != nil {
					return err
				}
			}
			ints = ints && v.Kind == Int
			out.values = append(out.values, v)
		}
		if ints {
			out.ints = map[int64]bool{}
			for _, v := range out.values {
				out.ints[v.n] = true
			}
		}
	}
	return nil
}

// ahead is how many chunks may wait to be merged, for each worker.
const ahead = 8

// crew is what the workers of a run share.
type crew struct {
	r      *run
	cancel context.CancelFunc

	mu     sync.Mutex // walker and numbers
	cond   *sync.Cond
	walk   *walker
	chunks []pending // read or being read, by number from merged on
	given  int
	merged int
	err    error

	merge sync.Mutex // totals; taken before mu
}

type pending struct {
	c    chunk
	res  *result
	done bool
}

func (r *run) scan(ctx context.Context) error {
	walk, err := newWalker(r.src, r.p.Root, r.pageSize, r.reserved)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cr := &crew{r: r, cancel: cancel, walk: walk}
	cr.cond = sync.NewCond(&cr.mu)
	n := max(1, r.opt.Workers)
	if walk.levels == 0 {
		n = 1
	}
	stop := context.AfterFunc(ctx, func() { // wakes those that wait
		cr.mu.Lock()
		defer cr.mu.Unlock()
		cr.cond.Broadcast()
	})
	defer stop()
	var wg sync.WaitGroup
	for range n - 1 {
		wg.Go(func() { cr.work(ctx, n) })
	}
	cr.work(ctx, n)
	wg.Wait()
	if cr.err != nil {
		return cr.err
	}
	return ctx.Err()
}

func (cr *crew) fail(err error) {
	cr.mu.Lock()
	if cr.err == nil {
		cr.err = err
	}
	cr.mu.Unlock()
	cr.cancel()
}

// work reads chunks until there are none.
func (cr *crew) work(ctx context.Context, workers int) {
	defer func() {
		if strict {
			return
		}
		if e := recover(); e != nil { // damage that no check has found; SQLite says what it is
			cr.fail(fmt.Errorf("%w: %v", errCorrupt, e))
		}
	}()
	w := newWorker(cr.r)
	for {
		no, c, ok, err := cr.take(ctx, workers)
		if err != nil {
			cr.fail(err)
		}
		if err != nil || !ok {
			return
		}
		res, err := w.read(ctx, c, cr.r.logs())
		if err == nil {
			cr.mu.Lock()
			p := &cr.chunks[no-cr.merged]
			p.res, p.done = res, true
			cr.mu.Unlock()
			err = cr.mergeReady(ctx, w)
		}
		if err != nil {
			cr.fail(err)
			return
		}
	}
}

// take gives out the next chunk.
func (cr *crew) take(ctx context.Context, workers int) (no int, c chunk, ok bool, err error) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	for cr.given-cr.merged >= ahead*workers && ctx.Err() == nil {
		cr.cond.Wait()
	}
	if ctx.Err() != nil {
		return 0, c, false, nil
	}
	if c, ok, err = cr.walk.next(); ok {
		no = cr.given
		cr.given++
		cr.chunks = append(cr.chunks, pending{c: c})
	}
	return no, c, ok, err
}

// logs says of each aggregate whether there have been doubles.
func (r *run) logs() []bool {
	l := make([]bool, len(r.logged))
	for i := range l {
		l[i] = r.logged[i].Load()
	}
	return l
}

// read reads a chunk, and again if doubles turn up.
func (w *worker) read(ctx context.Context, c chunk, logged []bool) (*result, error) {
	for {
		res, err := w.chunk(ctx, c, logged)
		if !errors.Is(err, errLog) {
			return res, err
		}
		logged = w.r.logs()
	}
}

// mergeReady merges the chunks whose turn it is.
func (cr *crew) mergeReady(ctx context.Context, w *worker) error {
	cr.merge.Lock()
	defer cr.merge.Unlock()
	for {
		cr.mu.Lock()
		if len(cr.chunks) == 0 || !cr.chunks[0].done {
			cr.mu.Unlock()
			return nil
		}
		p := cr.chunks[0]
		cr.mu.Unlock()
		if err := cr.r.add(ctx, w, p); err != nil {
			return err
		}
		cr.mu.Lock()
		cr.chunks = cr.chunks[1:]
		cr.merged++
		cr.cond.Broadcast()
		cr.mu.Unlock()
	}
}

// add merges one chunk.
func (r *run) add(ctx context.Context, w *worker, p pending) error {
	res := p.res
	if again := r.mustLog(res); again != nil {
		var err error
		if res, err = w.read(ctx, p.c, again); err != nil {
			return err
		}
	}
	where, err := r.place(res)
	if err != nil {
		return err
	}
	n := len(r.p.aggs)
	at := func(group int32, agg int) *total {
		if where == nil {
			return &r.totals[agg]
		}
		return &r.totals[int(where[group])*n+agg]
	}
	for i := range res.parts {
		agg := i % n
		if res.log[agg] != nil {
			continue
		}
		t := at(int32(i/n), agg)
		had := cap(t.best.Bytes)
		if ok, err := t.merge(r.p.aggs[agg].kind, &res.parts[i]); err != nil {
			return err
		} else if !ok {
			return unsupported("integers after doubles") // mustLog has seen to it
		}
		if r.bytes += int64(cap(t.best.Bytes) - had); r.bytes > r.opt.Memory/2 {
			return errMemory
		}
	}
	for agg, log := range res.log {
		for _, x := range log {
			if err := at(x.group, agg).add(x); err != nil {
				return err
			}
		}
	}
	return nil
}

// mustLog tells which aggregates a chunk should have logged and has not, because a
// chunk before it, read meanwhile, had the first double; nil: none.
func (r *run) mustLog(res *result) []bool {
	var again []bool
	for i := range r.p.aggs {
		if r.logged[i].Load() && res.log[i] == nil {
			again = r.logs()
		}
	}
	return again
}

// place finds the groups of a chunk among all groups, or adds them.
func (r *run) place(res *result) ([]int32, error) {
	if r.p.group == nil {
		return nil, nil
	}
	where := make([]int32, len(res.keys))
	for i, k := range res.keys {
		g, ok := r.groups[k]
		if !ok {
			g = int32(len(r.rows))
			r.groups[k] = g
			r.rows = append(r.rows, res.rows[i])
			r.bytes += 2*int64(len(k)) + 100 + int64(len(r.p.aggs))*totalSize
			for j := range res.rows[i] {
				r.bytes += valueSize + int64(len(res.rows[i][j].Bytes))
			}
			for range r.p.aggs {
				r.totals = append(r.totals, total{})
			}
			if r.bytes > r.opt.Memory/2 {
				return nil, errMemory
			}
		} else if r.p.group.last && !alike(r.rows[g], res.rows[i][:len(r.p.group.key)]) {
			return nil, ErrUnsupported
		}
		where[i] = g
	}
	return where, nil
}
