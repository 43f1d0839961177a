package scan

import (
	"context"
	"runtime"
)

// worker reads chunks: its own registers, buffers and results.
type worker struct {
	r    *run
	regs []Value
	rec  record
	leaf []byte
	tree []byte

	local  map[string]int32 // groups of the chunk
	keybuf []byte
}

// result is what one chunk found.
type result struct {
	parts []part // by group, then by aggregate
	log   []([]num)
	keys  []string  // of groups, as appendKey makes them
	rows  [][]Value // their first rows, as the sorter would have them
	bytes int64
}

func newWorker(r *run) *worker {
	p := r.p
	w := &worker{r: r, regs: make([]Value, p.regs), leaf: make([]byte, r.pageSize), tree: make([]byte, r.pageSize)}
	copy(w.regs, r.start)
	w.rec = record{src: r.src, reserved: r.reserved, pageSize: r.pageSize, columns: p.Columns, types: make([]uint64, len(p.Columns)),
		offs: make([]int, len(p.Columns)), page: make([]byte, r.pageSize), most: int(r.opt.Memory / 4 / int64(max(1, r.opt.Workers)))}
	if p.group != nil {
		w.local = map[string]int32{}
	}
	return w
}

// chunk reads the rows of a chunk. logged says of each aggregate whether its
// numbers are logged.
func (w *worker) chunk(ctx context.Context, c chunk, logged []bool) (*result, error) {
	p := w.r.p
	res := &result{log: make([][]num, len(p.aggs))}
	for i, l := range logged {
		if l {
			res.log[i] = []num{}
		}
	}
	if p.group == nil {
		res.parts = make([]part, len(p.aggs))
	} else {
		clear(w.local)
	}
	if c.to == 0 {
		return res, w.leafPage(c.page, res)
	}
	n, err := readNode(w.r.src, c.page, w.tree, w.r.reserved)
	if err != nil {
		return nil, err
	}
	if n.leaf || c.to > n.cells+1 {
		return nil, errCorrupt
	}
	for i := c.from; i < c.to; i++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		no, err := n.child(i)
		if err != nil {
			return nil, err
		}
		if err := w.leafPage(no, res); err != nil {
			return nil, err
		}
		if i&31 == 31 {
			runtime.Gosched() // commits are more urgent
		}
	}
	return res, nil
}

func (w *worker) leafPage(no uint32, res *result) error {
	n, err := readNode(w.r.src, no, w.leaf, w.r.reserved)
	if err != nil {
		return err
	}
	if !n.leaf {
		return errCorrupt
	}
	for i := range n.cells {
		cell, err := n.cell(i)
		if err != nil {
			return err
		}
		if err := w.rec.load(cell); err != nil {
			return err
		}
		end, err := w.exec(w.r.p.body, res, res.parts, 0)
		if err != nil {
			return err
		}
		if g := w.r.p.group; g != nil && end == len(w.r.p.body) {
			if err := w.grouped(g, res); err != nil {
				return err
			}
		}
	}
	return nil
}

// grouped does what a row does to its group.
func (w *worker) grouped(g *grouping, res *result) error {
	row := w.regs[g.first : g.first+g.n]
	key := w.keybuf[:0]
	for i := range g.key {
		key = appendKey(key, &row[i])
	}
	w.keybuf = key
	i, ok := w.local[string(key)]
	if !ok {
		i = int32(len(res.keys))
		k := string(key)
		w.local[k] = i
		res.keys = append(res.keys, k)
		first := make([]Value, len(row))
		res.bytes += 2*int64(len(k)) + int64(len(row))*valueSize + int64(len(w.r.p.aggs))*partSize + 100
		for j := range row {
			first[j] = row[j].clone(nil)
			res.bytes += int64(len(first[j].Bytes))
		}
		res.rows = append(res.rows, first)
		for range w.r.p.aggs {
			res.parts = append(res.parts, part{})
		}
		if res.bytes > w.r.opt.Memory/4 {
			return errMemory
		}
	} else if g.last && !alike(res.rows[i], row[:len(g.key)]) {
		return ErrUnsupported
	}
	n := int32(len(w.r.p.aggs))
	_, err := w.exec(w.r.p.region, res, res.parts[i*n:(i+1)*n], i)
	return err
}

// alike reports whether keys that are equal are also spelled the same: 1 and 1.0
// are not.
func alike(first, row []Value) bool {
	for i := range row {
		if a, b := &first[i], &row[i]; a.Kind != b.Kind || a.Kind < Text && a.Kind > Null && a.n != b.n {
			return false
		}
	}
	return true
}

const (
	valueSize = 40
	partSize  = 80
	totalSize = 96
)

// exec runs the instructions of a row, of which jumps go forward only, and returns
// where they ended.
func (w *worker) exec(code []instr, res *result, parts []part, group int32) (int, error) {
	regs := w.regs
	pc := 0
	for pc < len(code) {
		c := &code[pc]
		pc++
		switch c.op {
		case opColumn:
			if err := w.column(int(c.p2), &regs[c.p3]); err != nil {
				return 0, err
			}
		case opField:
			regs[c.p3] = regs[w.r.p.group.first+c.p2]
		case opRowid:
			regs[c.p2] = IntValue(w.rec.rowid)
		case opRealAffinity:
			if v := &regs[c.p1]; v.Kind == Int {
				*v = RealValue(float64(v.n))
			}
		case opEq, opNe, opLt, opLe, opGt, opGe:
			jump, err := c.compare(&regs[c.p3], &regs[c.p1])
			if err != nil {
				return 0, err
			}
			if jump {
				pc = int(c.p2)
			}
		case opAggStep:
			var v *Value
			if c.p5 > 0 {
				v = &regs[c.p2]
			}
			var log *[]num
			if res.log[c.agg] != nil {
				log = &res.log[c.agg]
			}
			part := &parts[c.agg]
			had := cap(part.best.Bytes)
			if err := part.step(w.r.p.aggs[c.agg].kind, v, log, group); err != nil {
				if err == errLog {
					w.r.logged[c.agg].Store(true)
				}
				return 0, err
			}
			if more := cap(part.best.Bytes) - had; more > 0 {
				if res.bytes += int64(more); res.bytes > w.r.opt.Memory/4 {
					return 0, errMemory
				}
			}
		case opCollSeq, opNoop, opIfNullRow: // a row of a scan is never the NULL row
		case opFound, opNotFound:
			in, err := w.r.sets[c.agg].has(&regs[c.p3])
			if err != nil {
				return 0, err
			}
			if in == (c.op == opFound) {
				pc = int(c.p2)
			}
		default:
			to, err := c.simple(regs, pc)
			if err != nil {
				return 0, err
			}
			pc = to
		}
	}
	return pc, nil
}

// column reads a field, or the default of one that the row is too old for.
func (w *worker) column(i int, v *Value) error {
	err := w.rec.value(i, v)
	if err == ErrShort {
		if !w.r.p.Default[i] {
			*v = Value{}
			return nil
		}
		if d := w.r.opt.Defaults; d != nil {
			*v = d[i]
			return nil
		}
	}
	return err
}

// compare does a comparison and reports whether it jumps: left is P3.
func (c *instr) compare(left, right *Value) (bool, error) {
	res := 0
	switch {
	case left.Kind == Int && right.Kind == Int:
		if left.n < right.n {
			res = -1
		} else if left.n > right.n {
			res = 1
		}
	case left.Kind == Null || right.Kind == Null:
		switch {
		case !c.nullEq:
			return c.jumpIfNull, nil
		case left.Kind == right.Kind:
		case left.Kind == Null:
			res = -1
		default:
			res = 1
		}
	default:
		var err error
		if res, err = compareWith(left, right, c.aff); err != nil {
			return false, err
		}
	}
	switch c.op {
	case opEq:
		return res == 0, nil
	case opNe:
		return res != 0, nil
	case opLt:
		return res < 0, nil
	case opLe:
		return res <= 0, nil
	case opGt:
		return res > 0, nil
	}
	return res >= 0, nil
}

// simple does the instructions that the loop and what is around it share; pc is
// the address after this one, and what is returned the one to go on with.
func (c *instr) simple(regs []Value, pc int) (int, error) {
	switch c.op {
	case opNoop:
	case opGoto:
		return int(c.p2), nil
	case opInteger, opInt64, opReal, opString8:
		regs[c.p2] = c.val
	case opNull:
		for r := c.p2; r <= max(c.p2, c.p3); r++ {
			regs[r] = Value{}
		}
	case opCopy:
		for i := range c.p3 + 1 {
			regs[c.p2+i] = regs[c.p1+i]
		}
	case opSCopy:
		regs[c.p2] = regs[c.p1]
	case opAdd, opSubtract, opMultiply, opDivide, opRemainder:
		v, err := arithmetic(c.op, &regs[c.p2], &regs[c.p1])
		if err != nil {
			return 0, err
		}
		regs[c.p3] = v
	case opIsNull:
		if regs[c.p1].Kind == Null {
			return int(c.p2), nil
		}
	case opNotNull:
		if regs[c.p1].Kind != Null {
			return int(c.p2), nil
		}
	case opIf, opIfNot:
		yes := false
		switch v := &regs[c.p1]; v.Kind {
		case Null:
			if c.p3 != 0 {
				return int(c.p2), nil
			}
			return pc, nil
		case Int:
			yes = v.n != 0
		case Real:
			yes = v.Float64() != 0
		default:
			return 0, ErrUnsupported
		}
		if yes == (c.op == opIf) {
			return int(c.p2), nil
		}
	case opZeroOrNull:
		v := Value{}
		if regs[c.p1].Kind != Null && regs[c.p3].Kind != Null {
			v = IntValue(0)
		}
		regs[c.p2] = v
	case opRealAffinity:
		if v := &regs[c.p1]; v.Kind == Int {
			*v = RealValue(float64(v.n))
		}
	case opAffinity:
		for i := range int(c.p2) {
			if i >= len(c.p4) {
				return 0, ErrUnsupported
			}
			if err := Affinity(&regs[int(c.p1)+i], c.p4[i]); err != nil {
				return 0, err
			}
		}
	default:
		return 0, unsupported("opcode %d", c.op)
	}
	return pc, nil
}

// setValues is the list of an IN while the program runs.
type setValues struct {
	ints   map[int64]bool // when all are integers
	values []Value
}

func (s *setValues) has(v *Value) (bool, error) {
	if v.Kind == Null {
		return false, ErrUnsupported
	}
	if s.ints != nil && v.Kind == Int {
		return s.ints[v.n], nil
	}
	for i := range s.values {
		if compare(&s.values[i], v) == 0 {
			return true, nil
		}
	}
	return false, nil
}
