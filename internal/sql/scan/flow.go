package scan

import "slices"

// span is a run of registers.
type span struct{ from, n int32 }

// uses tells which registers an instruction reads and writes; those of
// accumulators are not among them.
func (c *instr) uses() (reads, writes []span) {
	one := func(r int32) []span { return []span{{r, 1}} }
	switch c.op {
	case opInteger, opInt64, opReal, opString8, opVariable, opRowid, opSorterData:
		return nil, one(c.p2)
	case opNull:
		return nil, []span{{c.p2, max(c.p3-c.p2, 0) + 1}}
	case opCopy:
		return []span{{c.p1, c.p3 + 1}}, []span{{c.p2, c.p3 + 1}}
	case opMove:
		return []span{{c.p1, c.p3}}, []span{{c.p2, c.p3}, {c.p1, c.p3}}
	case opSCopy:
		return one(c.p1), one(c.p2)
	case opAdd, opSubtract, opMultiply, opDivide, opRemainder:
		return []span{{c.p1, 1}, {c.p2, 1}}, one(c.p3)
	case opEq, opNe, opLt, opLe, opGt, opGe:
		return []span{{c.p1, 1}, {c.p3, 1}}, nil
	case opIsNull, opNotNull, opIf, opIfNot, opReturn:
		return one(c.p1), nil
	case opIfPos, opDecrJumpZero, opRealAffinity:
		return one(c.p1), one(c.p1)
	case opAffinity:
		return []span{{c.p1, c.p2}}, []span{{c.p1, c.p2}}
	case opZeroOrNull:
		return []span{{c.p1, 1}, {c.p3, 1}}, one(c.p2)
	case opColumn, opField:
		return nil, one(c.p3)
	case opAggStep:
		return []span{{c.p2, int32(c.p5)}}, nil
	case opAggFinal, opGosub:
		return nil, one(c.p1)
	case opResultRow:
		return []span{{c.p1, c.p2}}, nil
	case opFunction:
		return []span{{c.p2, functionArgs(c.p4)}}, one(c.p3)
	case opCompare:
		n := int32(len(c.key))
		return []span{{c.p1, n}, {c.p2, n}}, nil
	case opMakeRecord:
		return []span{{c.p1, c.p2}}, one(c.p3)
	case opSorterInsert:
		return one(c.p2), nil
	case opFound, opNotFound:
		return one(c.p3), nil
	}
	return nil, nil
}

// jumps reports whether P2 is an address.
func (c *instr) jumps() bool {
	switch c.op {
	case opInit, opGoto, opGosub, opEq, opNe, opLt, opLe, opGt, opGe, opIsNull, opNotNull, opIf, opIfNot, opIfPos, opDecrJumpZero, opIfNullRow,
		opRewind, opNext, opSorterSort, opSorterNext, opFound, opNotFound:
		return true
	}
	return false
}

// maxRegs bounds the registers of a program.
const maxRegs = 1 << 14

// count checks the registers of an instruction and remembers how many there are.
func (p *Program) count(c *instr) error {
	reads, writes := c.uses()
	for _, s := range slices.Concat(reads, writes) {
		if s.from < 0 || s.n < 0 || int(s.from)+int(s.n) > maxRegs {
			return unsupported("register %d", s.from)
		}
		p.regs = max(p.regs, int(s.from)+int(s.n))
	}
	if c.op == opAggStep || c.op == opAggFinal {
		r := p.aggs[c.agg].reg
		if r < 0 || r >= maxRegs || c.op == opAggStep && (c.p5 > 1 || c.p5 == 0 != (p.aggs[c.agg].kind == aggCountRows)) {
			return unsupported("aggregate")
		}
		p.regs = max(p.regs, int(r)+1)
	}
	if c.op == opNull && c.p1 != 0 {
		return unsupported("cleared NULL")
	}
	return nil
}

// loop takes the instructions between Rewind and Next.
func (p *Program) loop(next int) error {
	first := p.rewind + 1
	raw := slices.Clone(p.code[first:next])
	if err := p.inLists(raw, first); err != nil {
		return err
	}
	end := len(raw)
	if n := len(raw); n >= 2 && raw[n-1].op == opSorterInsert && raw[n-2].op == opMakeRecord {
		rec, ins := &raw[n-2], &raw[n-1]
		if rec.p4 != "" || rec.p3 != ins.p2 {
			return unsupported("sorter")
		}
		if err := p.count(rec); err != nil {
			return err
		}
		p.group = &grouping{sorter: ins.p1, pseudo: -1, first: rec.p1, n: rec.p2}
		raw, end = raw[:n-2], n-2
	}
	for i := range raw {
		c := &raw[i]
		if !rowOps[c.op] {
			return unsupported("opcode %d in the loop", c.op)
		}
		if c.op == opCollSeq && c.p1 != 0 {
			return unsupported("bare column with min or max")
		}
		if p.group != nil && c.op == opAggStep {
			return unsupported("aggregate before the sorter")
		}
		if err := p.count(c); err != nil {
			return err
		}
		if c.jumps() {
			to := int(c.p2) - first
			if p.group != nil && to == end+2 {
				to = end + 1 // the row is not wanted
			} else if to <= i || to > end {
				return unsupported("jump")
			}
			c.p2 = int32(to)
		}
		if c.op == opColumn || c.op == opRowid || c.op == opIfNullRow {
			if c.p1 != p.cursor || c.op == opColumn && (c.p2 < 0 || c.p2 >= 4096) {
				return unsupported("another table")
			}
		}
		if c.op == opColumn && !slices.Contains(p.Columns, int(c.p2)) {
			p.Columns = append(p.Columns, int(c.p2))
		}
	}
	slices.Sort(p.Columns)
	p.Default = make([]bool, len(p.Columns))
	for i := range raw {
		if c := &raw[i]; c.op == opColumn {
			c.p2 = int32(slices.Index(p.Columns, int(c.p2)))
			p.Default[c.p2] = p.Default[c.p2] || c.hasP4
		}
	}
	p.body = raw
	var need []span
	if p.group != nil {
		need = []span{{p.group.first, p.group.n}}
	}
	return assigned(raw, need)
}

// assigned checks that no iteration of the loop reads what an earlier one wrote:
// a register that the loop writes must have been written, on every way, before it
// is read. need is read at the end.
func assigned(code []instr, need []span) error {
	written := map[int32]bool{}
	for i := range code {
		_, w := code[i].uses()
		for _, s := range w {
			for r := s.from; r < s.from+s.n; r++ {
				written[r] = true
			}
		}
	}
	// at[i]: registers written on every way to i; nil: no way yet.
	at := make([]map[int32]bool, len(code)+2)
	at[0] = map[int32]bool{}
	reach := func(i int, have map[int32]bool) {
		if at[i] == nil {
			at[i] = make(map[int32]bool, len(have))
			for r := range have {
				at[i][r] = true
			}
			return
		}
		for r := range at[i] {
			if !have[r] {
				delete(at[i], r)
			}
		}
	}
	check := func(have map[int32]bool, reads []span) error {
		for _, s := range reads {
			for r := s.from; r < s.from+s.n; r++ {
				if written[r] && !have[r] {
					return unsupported("register %d goes from row to row", r)
				}
			}
		}
		return nil
	}
	for i := range code {
		have := at[i]
		if have == nil {
			continue
		}
		reads, writes := code[i].uses()
		if err := check(have, reads); err != nil {
			return err
		}
		if code[i].jumps() {
			reach(int(code[i].p2), have)
		}
		if code[i].op == opGoto {
			continue
		}
		now := have
		if len(writes) > 0 {
			now = make(map[int32]bool, len(have)+1)
			for r := range have {
				now[r] = true
			}
			for _, s := range writes {
				for r := s.from; r < s.from+s.n; r++ {
					now[r] = true
				}
			}
		}
		reach(i+1, now)
	}
	if at[len(code)] == nil {
		return nil
	}
	return check(at[len(code)], need)
}

// inLists takes the lists of IN out of the loop: SQLite fills a table with the
// values when it comes there first.
func (p *Program) inLists(raw []instr, first int) error {
	sets := map[int32]int32{} // cursor -> index
	for i := 0; i < len(raw); i++ {
		c := &raw[i]
		switch c.op {
		case opBeginSubrtn:
			end := 0
			if i+1 < len(raw) && raw[i+1].op == opOnce {
				end = int(raw[i+1].p2) - first + 1
			}
			if end <= i+4 || end > len(raw) || raw[end-1].op != opReturn || raw[end-2].op != opNullRow || raw[i+2].op != opOpenEphemeral {
				return unsupported("subroutine")
			}
			s := set{}
			cur := raw[i+2].p1
			if len(raw[i+2].key) != 1 || sets[cur] != 0 {
				return unsupported("list")
			}
			for j := i + 3; j < end-2; j += 3 {
				if j+2 >= end-2 || raw[j+1].op != opMakeRecord || raw[j+2].op != opIdxInsert || raw[j+2].p1 != cur ||
					raw[j+1].p2 != 1 || raw[j+2].p2 != raw[j+1].p3 {
					return unsupported("list")
				}
				v := raw[j]
				switch v.op {
				case opInteger, opInt64, opReal, opString8, opNull, opVariable:
				default:
					return unsupported("list of other than constants")
				}
				if v.p2 != raw[j+1].p1 || len(raw[j+1].p4) > 1 || len(s.code) > 0 && raw[j+1].p4 != s.aff {
					return unsupported("list")
				}
				if err := p.count(&v); err != nil {
					return err
				}
				s.code, s.aff = append(s.code, v), raw[j+1].p4
			}
			p.sets = append(p.sets, s)
			sets[cur] = int32(len(p.sets))
			for j := i; j < end; j++ {
				raw[j] = instr{op: opNoop}
			}
			i = end - 1
		case opFound, opNotFound:
			if sets[c.p1] == 0 || c.p4 != "1" {
				return unsupported("look-up")
			}
			c.agg = sets[c.p1] - 1
		}
	}
	return nil
}

// control checks what is around the loop.
func (p *Program) control(next int) error {
	if g := p.group; g != nil {
		if err := p.groups(next); err != nil {
			return err
		}
	}
	inLoop := map[int32]bool{}
	for _, code := range [][]instr{p.body, p.region} {
		for i := range code {
			_, w := code[i].uses()
			for _, s := range w {
				for r := s.from; r < s.from+s.n; r++ {
					inLoop[r] = true
				}
			}
		}
	}
	sorters, pseudos := map[int32]bool{}, map[int32]bool{}
	for i := range p.code {
		c := &p.code[i]
		if i >= p.rewind && i <= next {
			continue
		}
		if c.op != opGroups && !controlOps[c.op] {
			return unsupported("opcode %d around the loop", c.op)
		}
		if err := p.count(c); err != nil {
			return err
		}
		for _, to := range p.targets(c) {
			if to < 0 || int(to) >= len(p.code) || int(to) >= p.rewind+1 && int(to) <= next {
				return unsupported("jump")
			}
		}
		switch c.op {
		case opSorterOpen:
			sorters[c.p1] = true
		case opOpenPseudo:
			pseudos[c.p1] = true
		case opSorterInsert, opSorterSort, opSorterData, opSorterNext:
			if !sorters[c.p1] {
				return unsupported("sorter")
			}
		case opColumn:
			if !pseudos[c.p1] || c.p2 < 0 {
				return unsupported("column outside of the loop")
			}
			if g := p.group; g != nil && g.last && c.p1 == g.pseudo && int(c.p2) >= len(g.key) {
				return unsupported("bare column with min or max")
			}
		case opFunction:
			if !pure[functionName(c.p4)] {
				return unsupported("function %s", c.p4)
			}
		case opVariable:
			if c.p1 < 1 {
				return unsupported("variable")
			}
		}
		// What the loop leaves in registers is a bare column.
		reads, _ := c.uses()
		if i <= next || i >= int(p.code[0].p2) {
			continue
		}
		until := i
		if p.group != nil { // subroutines may stand anywhere
			until = int(p.code[0].p2)
		}
		for _, s := range reads {
			for r := s.from; r < s.from+s.n; r++ {
				if inLoop[r] && !p.written(next+1, min(until, len(p.code)), r) {
					return unsupported("bare column")
				}
			}
		}
	}
	return nil
}

// written reports whether an instruction between two addresses writes r.
func (p *Program) written(from, to int, r int32) bool {
	for j := from; j < to; j++ {
		_, w := p.code[j].uses()
		for _, s := range w {
			if r >= s.from && r < s.from+s.n {
				return true
			}
		}
	}
	return false
}

func (p *Program) targets(c *instr) []int32 {
	switch {
	case c.op == opJump:
		return []int32{c.p1, c.p2, c.p3}
	case c.op == opGroups:
		return []int32{c.p1}
	case c.jumps():
		return []int32{c.p2}
	}
	return nil
}

// groups finds what the rows of a sorted group do, between the comparison of the
// key with that of the row before and the end of the last aggregate.
func (p *Program) groups(next int) error {
	g := p.group
	at, last := -1, -1
	for i := next + 1; i < len(p.code); i++ {
		switch c := &p.code[i]; {
		case c.op == opSorterSort && c.p1 == g.sorter:
			at = i
		case c.op == opAggStep:
			last = i
		case c.op == opOpenPseudo && at < 0 && i+1 < len(p.code) && p.code[i+1].op == opSorterSort && p.code[i+1].p1 == g.sorter:
			g.pseudo = c.p1
		}
	}
	for i := range p.rewind {
		if c := &p.code[i]; c.op == opSorterOpen && c.p1 == g.sorter {
			g.key = c.key
		}
	}
	if at < 0 || g.pseudo < 0 || len(g.key) == 0 || len(g.key) > int(g.n) {
		return unsupported("sorter")
	}
	i := at + 1
	if p.code[i].op != opSorterData || p.code[i].p1 != g.sorter {
		return unsupported("sorter")
	}
	for i++; i < len(p.code) && p.code[i].op == opColumn && p.code[i].p1 == g.pseudo; i++ {
	}
	if i+1 >= len(p.code) || p.code[i].op != opCompare || p.code[i+1].op != opJump || len(p.code[i].key) != len(g.key) {
		return unsupported("grouping")
	}
	start := int(p.code[i+1].p2)
	if start <= i+1 || start >= len(p.code) {
		return unsupported("grouping")
	}
	if last < 0 {
		return nil
	}
	if start > last {
		return unsupported("grouping")
	}
	p.region = slices.Clone(p.code[start : last+1])
	for j := range p.region {
		c := &p.region[j]
		if !rowOps[c.op] || c.op == opRowid || c.op == opFound || c.op == opNotFound || c.op == opIfNullRow ||
			c.op == opColumn && (c.p1 != g.pseudo || c.p2 < 0 || c.p2 >= g.n) {
			return unsupported("opcode %d in a group", c.op)
		}
		if c.op == opColumn {
			c.op = opField
		}
		g.last = g.last || c.op == opCollSeq && c.p1 != 0
		if err := p.count(c); err != nil {
			return err
		}
		_, writes := c.uses()
		for _, s := range writes {
			if s.from < g.first+g.n && s.from+s.n > g.first {
				return unsupported("record overwritten")
			}
		}
		if c.jumps() {
			to := int(c.p2) - start
			if to <= j || to > len(p.region) {
				return unsupported("jump")
			}
			c.p2 = int32(to)
		}
		p.code[start+j] = instr{op: opNoop}
	}
	p.code[start] = instr{op: opGroups, p1: int32(last + 1)}
	return assigned(p.region, nil)
}
