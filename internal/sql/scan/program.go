package scan

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrUnsupported means that SQLite must run the statement.
var ErrUnsupported = errors.New("not for the own executor")

// Instr is one line of EXPLAIN.
type Instr struct {
	Op         string
	P1, P2, P3 int
	P4         string
	HasP4      bool // P4 is not NULL
	P5         int
}

type opcode uint8

const (
	opNone opcode = iota
	opInit
	opGoto
	opGosub
	opReturn
	opTransaction
	opHalt
	opNoop
	opInteger
	opInt64
	opReal
	opString8
	opNull
	opVariable
	opCopy
	opSCopy
	opMove
	opAdd
	opSubtract
	opMultiply
	opDivide
	opRemainder
	opEq
	opNe
	opLt
	opLe
	opGt
	opGe
	opIsNull
	opNotNull
	opIf
	opIfNot
	opIfPos
	opDecrJumpZero
	opIfNullRow
	opZeroOrNull
	opColumn
	opRowid
	opRealAffinity
	opAffinity
	opCollSeq
	opAggStep
	opAggFinal
	opResultRow
	opOpenRead
	opRewind
	opNext
	opFunction
	opCompare
	opJump
	opMakeRecord
	opOpenPseudo
	opSorterOpen
	opSorterInsert
	opSorterSort
	opSorterData
	opSorterNext
	// of IN lists
	opBeginSubrtn
	opOnce
	opOpenEphemeral
	opIdxInsert
	opNullRow
	opFound
	opNotFound
	// made here
	opField  // of the record that goes to the sorter
	opGroups // take over the accumulators of a group
)

var opcodes = map[string]opcode{
	"Init": opInit, "Goto": opGoto, "Gosub": opGosub, "Return": opReturn, "Transaction": opTransaction, "Halt": opHalt, "Noop": opNoop,
	"Integer": opInteger, "Int64": opInt64, "Real": opReal, "String8": opString8, "Null": opNull, "Variable": opVariable,
	"Copy": opCopy, "SCopy": opSCopy, "Move": opMove, "Add": opAdd, "Subtract": opSubtract, "Multiply": opMultiply, "Divide": opDivide,
	"Remainder": opRemainder, "Eq": opEq, "Ne": opNe, "Lt": opLt, "Le": opLe, "Gt": opGt, "Ge": opGe, "IsNull": opIsNull, "NotNull": opNotNull,
	"If": opIf, "IfNot": opIfNot, "IfPos": opIfPos, "DecrJumpZero": opDecrJumpZero, "IfNullRow": opIfNullRow, "ZeroOrNull": opZeroOrNull,
	"Column": opColumn, "Rowid": opRowid, "RealAffinity": opRealAffinity, "Affinity": opAffinity, "CollSeq": opCollSeq, "AggStep": opAggStep,
	"AggFinal": opAggFinal, "ResultRow": opResultRow, "OpenRead": opOpenRead, "Rewind": opRewind, "Next": opNext, "Function": opFunction,
	"Compare": opCompare, "Jump": opJump, "MakeRecord": opMakeRecord, "OpenPseudo": opOpenPseudo, "SorterOpen": opSorterOpen,
	"SorterInsert": opSorterInsert, "SorterSort": opSorterSort, "SorterData": opSorterData, "SorterNext": opSorterNext,
	"BeginSubrtn": opBeginSubrtn, "Once": opOnce, "OpenEphemeral": opOpenEphemeral, "IdxInsert": opIdxInsert, "NullRow": opNullRow,
	"Found": opFound, "NotFound": opNotFound,
}

// rowOps may stand in the loop, controlOps around it.
var rowOps, controlOps = func() (r, c [opGroups + 1]bool) {
	for _, o := range []opcode{opGoto, opNoop, opInteger, opInt64, opReal, opString8, opNull, opCopy, opSCopy, opAdd, opSubtract, opMultiply, opDivide,
		opRemainder, opEq, opNe, opLt, opLe, opGt, opGe, opIsNull, opNotNull, opIf, opIfNot, opIfNullRow, opZeroOrNull, opColumn, opRowid,
		opRealAffinity, opAffinity, opCollSeq, opAggStep, opFound, opNotFound} {
		r[o] = true
	}
	for o := opInit; o <= opSorterNext; o++ {
		c[o] = o != opRewind && o != opNext && o != opAggStep && o != opRowid && o != opIfNullRow && o != opCollSeq
	}
	return r, c
}()

type instr struct {
	op         opcode
	aff        uint16 // of a comparison
	nullEq     bool
	jumpIfNull bool
	hasP4      bool
	p1, p2, p3 int32
	p5         int
	val        Value  // of a constant
	p4         string // affinities, function
	agg        int32  // index of the aggregate; of a set
	key        []keyPart
}

// keyPart is how one field of a key is ordered.
type keyPart struct{ desc bool }

type aggKind uint8

const (
	aggCountRows aggKind = iota
	aggCount
	aggSum
	aggTotal
	aggAvg
	aggMin
	aggMax
)

var aggKinds = map[string]aggKind{"count(0)": aggCountRows, "count(1)": aggCount, "sum(1)": aggSum, "total(1)": aggTotal, "avg(1)": aggAvg, "min(1)": aggMin, "max(1)": aggMax}

type aggregate struct {
	kind aggKind
	reg  int32 // accumulator
}

// set is the list of an IN: constants and the affinity they get.
type set struct {
	code []instr // of which each leaves a value in reg
	aff  string
}

// Program is a statement that this package can execute. It does not change and
// may be executed by many at the same time.
type Program struct {
	// Cookie is the schema cookie that SQLite compiled the statement for.
	Cookie uint32
	// Root is the first page of the table.
	Root uint32
	// Columns are the fields of records that the loop reads, by rising number.
	Columns []int
	// Default tells of each of Columns whether it has a default that is not NULL,
	// which rows have that are older than the column.
	Default []bool

	code   []instr // control; the loop is skipped
	rewind int
	body   []instr // the loop, jumps relative to it
	region []instr // with GROUP BY: what a row does to its group, jumps relative to it
	aggs   []aggregate
	sets   []set
	regs   int
	cursor int32
	group  *grouping
}

// grouping is a GROUP BY through SQLite's sorter.
type grouping struct {
	sorter, pseudo int32
	first, n       int32 // registers of the record
	key            []keyPart
	// last: columns of the group are those of the row that min or max found last,
	// not those of the first.
	last bool
}

// Grouped reports whether the statement has a GROUP BY.
func (p *Program) Grouped() bool { return p.group != nil }

func unsupported(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrUnsupported, fmt.Sprintf(format, a...))
}

// Compile makes a Program of what EXPLAIN lists. Every error is ErrUnsupported.
func Compile(list []Instr) (*Program, error) {
	p := &Program{rewind: -1}
	p.code = make([]instr, len(list))
	next := -1
	for i, in := range list {
		c := &p.code[i]
		if c.op = opcodes[in.Op]; c.op == opNone {
			return nil, unsupported("opcode %s", in.Op)
		}
		c.p1, c.p2, c.p3, c.p5, c.p4, c.agg = int32(in.P1), int32(in.P2), int32(in.P3), in.P5, in.P4, -1
		c.hasP4 = in.HasP4
		if err := p.operand(c, in); err != nil {
			return nil, err
		}
		switch c.op {
		case opRewind:
			if p.rewind >= 0 {
				return nil, unsupported("two loops")
			}
			p.rewind = i
		case opNext:
			if next >= 0 {
				return nil, unsupported("two loops")
			}
			next = i
		}
	}
	if p.rewind < 0 || next < p.rewind || int(p.code[p.rewind].p2) != next+1 || int(p.code[next].p2) != p.rewind+1 || p.code[next].p1 != p.code[p.rewind].p1 {
		return nil, unsupported("no loop over a table")
	}
	p.cursor = p.code[next].p1
	if err := p.loop(next); err != nil {
		return nil, err
	}
	if err := p.control(next); err != nil {
		return nil, err
	}
	if p.Root == 0 {
		return nil, unsupported("no table")
	}
	return p, nil
}

// operand reads what depends on the opcode.
func (p *Program) operand(c *instr, in Instr) error {
	for _, r := range []int{in.P1, in.P2, in.P3} {
		if r < -1<<31 || r > 1<<31-1 {
			return unsupported("operand %d", r)
		}
	}
	switch c.op {
	case opInteger:
		c.val = IntValue(int64(in.P1))
	case opInt64:
		c.val = IntValue(int64(uint64(uint32(in.P3))<<32 | uint64(uint32(in.P1))))
		if in.P4 != "" {
			n, err := strconv.ParseInt(in.P4, 10, 64)
			if err != nil {
				return unsupported("number %s", in.P4)
			}
			c.val = IntValue(n)
		}
	case opReal:
		if in.P4 != "" { // rounded for people
			return unsupported("number %s", in.P4)
		}
		c.val = Value{Kind: Real, n: int64(uint64(uint32(in.P3))<<32 | uint64(uint32(in.P1)))}
	case opString8:
		c.val = TextValue([]byte(in.P4))
	case opEq, opNe, opLt, opLe, opGt, opGe:
		if in.P4 != "" && in.P4 != "BINARY-8" {
			return unsupported("collation %s", in.P4)
		}
		if in.P5&^(affMask|0x10|0x80) != 0 {
			return unsupported("comparison %#x", in.P5)
		}
		c.aff, c.jumpIfNull, c.nullEq = uint16(in.P5&affMask), in.P5&0x10 != 0, in.P5&0x80 != 0
	case opCollSeq:
		if in.P4 != "BINARY-8" {
			return unsupported("collation %s", in.P4)
		}
	case opAggStep, opAggFinal:
		k, ok := aggKinds[in.P4]
		if !ok {
			return unsupported("aggregate %s", in.P4)
		}
		reg := c.p3
		if c.op == opAggFinal {
			reg = c.p1
		}
		for i, a := range p.aggs {
			if a.reg == reg {
				if a.kind != k {
					return unsupported("two aggregates in one register")
				}
				c.agg = int32(i)
			}
		}
		if c.agg < 0 {
			c.agg = int32(len(p.aggs))
			p.aggs = append(p.aggs, aggregate{k, reg})
		}
	case opTransaction:
		if in.P1 != 0 || in.P2 != 0 {
			return unsupported("another database, or a write")
		}
		p.Cookie = uint32(in.P3)
	case opOpenRead:
		if _, err := strconv.Atoi(in.P4); err != nil || in.P3 != 0 || in.P2 < 2 || in.P5 != 0 || p.Root != 0 {
			return unsupported("not one ordinary table")
		}
		p.Root = uint32(in.P2)
	case opSorterOpen, opCompare, opOpenEphemeral:
		if c.op != opCompare || in.P4 != "" {
			key, ok := parseKey(in.P4)
			if !ok {
				return unsupported("key %s", in.P4)
			}
			c.key = key
		}
	case opHalt:
		if in.P1 != 0 {
			return unsupported("an error")
		}
	}
	return nil
}

// parseKey reads k(2,B,-B).
func parseKey(s string) ([]keyPart, bool) {
	s, ok := strings.CutPrefix(s, "k(")
	s, ok2 := strings.CutSuffix(s, ")")
	parts := strings.Split(s, ",")
	n, err := strconv.Atoi(parts[0])
	if !ok || !ok2 || err != nil || n != len(parts)-1 {
		return nil, false
	}
	key := make([]keyPart, n)
	for i, p := range parts[1:] {
		p, key[i].desc = strings.CutPrefix(p, "-")
		if p != "B" && p != "" {
			return nil, false
		}
	}
	return key, true
}
