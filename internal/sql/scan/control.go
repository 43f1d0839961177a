package scan

import (
	"context"
	"sort"
	"strconv"
	"strings"
)

// pure are the functions that may be called around the loop: they depend on their
// arguments alone and change nothing.
var pure = map[string]bool{"round": true, "abs": true, "length": true, "lower": true, "upper": true, "substr": true, "dw_cast": true, "dw_assign": true,
	"to_char": true, "date_trunc": true, "nullif": true, "min": true, "max": true, "sign": true, "ceil": true, "floor": true}

func functionName(p4 string) string {
	name, _, _ := strings.Cut(p4, "(")
	return name
}

func functionArgs(p4 string) int32 {
	_, n, _ := strings.Cut(p4, "(")
	args, err := strconv.Atoi(strings.TrimSuffix(n, ")"))
	if err != nil || args < 0 {
		return maxRegs // refused by count
	}
	return int32(args)
}

// control executes what is around the loop.
type control struct {
	ctx     context.Context
	r       *run
	regs    []Value
	recs    map[int32][]Value // records in registers
	pseudo  map[int32]int32   // cursor -> register
	sorters map[int32]*sorter
	order   []int32 // groups as the sorter gives them
	at      int
	cmp     int // of Compare, for Jump
	now     []total
	out     [][]Value
	bytes   int64
}

// sorter is one of SQLite's, in memory.
type sorter struct {
	key  []keyPart
	rows [][]Value
	at   int
}

func (s *sorter) sort() {
	sort.SliceStable(s.rows, func(i, j int) bool { return compareKeys(s.key, s.rows[i], s.rows[j]) < 0 })
}

func compareKeys(key []keyPart, a, b []Value) int {
	for i := range key {
		if c := compare(&a[i], &b[i]); c != 0 {
			if key[i].desc {
				return -c
			}
			return c
		}
	}
	return 0
}

func newControl(ctx context.Context, r *run) *control {
	return &control{ctx: ctx, r: r, regs: make([]Value, r.p.regs), now: make([]total, len(r.p.aggs)), recs: map[int32][]Value{}, pseudo: map[int32]int32{}, sorters: map[int32]*sorter{}}
}

// constant is the value of an instruction that makes one.
func (c *control) constant(in *instr) (Value, error) {
	switch in.op {
	case opInteger, opInt64, opReal, opString8:
		return in.val, nil
	case opVariable:
		if int(in.p1) > len(c.r.opt.Params) || in.p1 < 1 {
			return Value{}, unsupported("parameter %d", in.p1)
		}
		return c.r.opt.Params[in.p1-1], nil
	}
	return Value{}, nil
}

// sortGroups brings the groups into the order of the sorter and leaves the totals
// where AggFinal looks for them.
func (c *control) sortGroups() {
	r := c.r
	c.now = r.totals
	g := r.p.group
	if g == nil {
		return
	}
	c.now = make([]total, len(r.p.aggs))
	c.order = make([]int32, len(r.rows))
	for i := range c.order {
		c.order[i] = int32(i)
	}
	sort.Slice(c.order, func(i, j int) bool { return compareKeys(g.key, r.rows[c.order[i]], r.rows[c.order[j]]) < 0 })
}

// run executes from pc to the loop, or to Halt.
func (c *control) run(pc int) (halted bool, err error) {
	code := c.r.p.code
	for steps := 0; ; steps++ {
		if steps&1023 == 1023 {
			if err := c.ctx.Err(); err != nil {
				return false, err
			}
		}
		if pc < 0 || pc >= len(code) {
			return false, unsupported("end of the program")
		}
		if pc == c.r.p.rewind {
			return false, nil
		}
		in := &code[pc]
		pc++
		switch in.op {
		case opHalt:
			return true, nil
		case opInit, opGosub:
			if in.op == opGosub {
				c.regs[in.p1] = IntValue(int64(pc))
			}
			pc = int(in.p2)
		case opReturn:
			switch v := &c.regs[in.p1]; {
			case v.Kind == Int && v.n > 0 && v.n < int64(len(code)):
				pc = int(v.n)
			case in.p3 == 0:
				return false, unsupported("return")
			}
		case opTransaction, opOpenRead:
		case opVariable:
			v, err := c.constant(in)
			if err != nil {
				return false, err
			}
			c.regs[in.p2] = v
		case opMove:
			for i := range in.p3 {
				c.regs[in.p2+i] = c.regs[in.p1+i]
				c.regs[in.p1+i] = Value{}
			}
		case opIfPos:
			if v := &c.regs[in.p1]; v.n > 0 {
				v.n -= int64(in.p3)
				pc = int(in.p2)
			}
		case opDecrJumpZero:
			if v := &c.regs[in.p1]; v.n > -1<<62 {
				if v.n--; v.n == 0 {
					pc = int(in.p2)
				}
			}
		case opEq, opNe, opLt, opLe, opGt, opGe:
			jump, err := in.compare(&c.regs[in.p3], &c.regs[in.p1])
			if err != nil {
				return false, err
			}
			if jump {
				pc = int(in.p2)
			}
		case opCompare:
			c.cmp = compareKeys(in.key, c.regs[in.p1:], c.regs[in.p2:])
		case opJump:
			switch {
			case c.cmp < 0:
				pc = int(in.p1)
			case c.cmp == 0:
				pc = int(in.p2)
			default:
				pc = int(in.p3)
			}
		case opAggFinal:
			c.regs[in.p1] = c.now[in.agg].result(c.r.p.aggs[in.agg].kind)
		case opFunction:
			if c.r.opt.Call == nil {
				return false, unsupported("function %s", in.p4)
			}
			v, err := c.r.opt.Call(functionName(in.p4), c.regs[in.p2:in.p2+functionArgs(in.p4)])
			if err != nil {
				return false, err
			}
			c.regs[in.p3] = v
		case opResultRow:
			if err := c.result(c.regs[in.p1 : in.p1+in.p2]); err != nil {
				return false, err
			}
		default:
			var done bool
			if pc, done, err = c.sorting(in, pc); err != nil {
				return false, err
			} else if !done {
				if pc, err = in.simple(c.regs, pc); err != nil {
					return false, err
				}
			}
		}
	}
}

// result keeps a row.
func (c *control) result(v []Value) error {
	row := append([]Value(nil), v...)
	return c.keep(row, &c.out)
}

func (c *control) keep(row []Value, to *[][]Value) error {
	c.bytes += int64(len(row))*valueSize + 24
	for i := range row {
		c.bytes += int64(len(row[i].Bytes))
	}
	if c.bytes > c.r.opt.Memory/2 {
		return errMemory
	}
	*to = append(*to, row)
	return nil
}

// sorting does the instructions of sorters, that of the groups and others.
func (c *control) sorting(in *instr, pc int) (int, bool, error) {
	g := c.r.p.group
	groups := g != nil && in.p1 == g.sorter
	s := c.sorters[in.p1]
	switch in.op {
	case opSorterOpen:
		c.sorters[in.p1] = &sorter{key: in.key}
	case opOpenPseudo:
		c.pseudo[in.p1] = in.p2
	case opMakeRecord:
		if in.p4 != "" {
			return 0, false, unsupported("affinity of a record")
		}
		c.recs[in.p3] = append([]Value(nil), c.regs[in.p1:in.p1+in.p2]...)
	case opSorterInsert:
		rec := c.recs[in.p2]
		if groups || s == nil || len(rec) < len(s.key) {
			return 0, false, unsupported("sorter")
		}
		return pc, true, c.keep(rec, &s.rows)
	case opSorterSort:
		n := len(c.order)
		if groups {
			c.at = 0
		} else if s == nil {
			return 0, false, unsupported("sorter")
		} else {
			s.sort()
			s.at, n = 0, len(s.rows)
		}
		if n == 0 {
			return int(in.p2), true, nil
		}
	case opSorterData:
		switch {
		case groups && c.at < len(c.order):
			c.recs[in.p2] = c.r.rows[c.order[c.at]]
		case !groups && s != nil && s.at < len(s.rows):
			c.recs[in.p2] = s.rows[s.at]
		default:
			return 0, false, unsupported("sorter")
		}
	case opSorterNext:
		more := false
		if groups {
			c.at++
			more = c.at < len(c.order)
		} else if s != nil {
			s.at++
			more = s.at < len(s.rows)
		}
		if more {
			return int(in.p2), true, nil
		}
	case opColumn:
		rec := c.recs[c.pseudo[in.p1]]
		if int(in.p2) >= len(rec) {
			return 0, false, unsupported("column")
		}
		c.regs[in.p3] = rec[in.p2]
	case opGroups:
		if c.at >= len(c.order) {
			return 0, false, unsupported("group")
		}
		n := len(c.r.p.aggs)
		i := int(c.order[c.at]) * n
		copy(c.now, c.r.totals[i:i+n])
		return int(in.p1), true, nil
	default:
		return pc, false, nil
	}
	return pc, true, nil
}
