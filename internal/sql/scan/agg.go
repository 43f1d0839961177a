package scan

import (
	"errors"
	"math"
)

// part is what a chunk has of one aggregate of one group.
type part struct {
	n        int64 // values that are not NULL; of count, rows
	sum      int64 // of integers
	min, max int64 // smallest and largest sum on the way
	best     Value // of min and max, with bytes of its own
}

// num is an integer or double that is added when chunks are merged.
type num struct {
	bits  uint64
	group int32
	real  bool
}

// errLog means that the chunk met a double and must be read again, logging.
var errLog = errors.New("a double among integers")

// step takes one value. log is where numbers go that must be added in order; nil:
// there has been no double so far.
func (a *part) step(kind aggKind, v *Value, log *[]num, group int32) error {
	switch kind {
	case aggCountRows:
		a.n++
		return nil
	}
	if v.Kind == Null {
		return nil
	}
	switch kind {
	case aggCount:
		a.n++
	case aggMin, aggMax:
		if a.n > 0 {
			if c := compare(&a.best, v); kind == aggMin && c <= 0 || kind == aggMax && c >= 0 {
				return nil
			}
		}
		a.n = 1
		a.best = v.clone(a.best.Bytes)
	default:
		if v.Kind > Real {
			return ErrUnsupported // SQLite reads numbers from text
		}
		a.n++
		switch {
		case log != nil:
			*log = append(*log, num{uint64(v.n), group, v.Kind == Real})
		case v.Kind == Real:
			return errLog
		default:
			s := a.sum + v.n
			if (s^a.sum)&(s^v.n) < 0 {
				return ErrUnsupported
			}
			a.sum = s
			if s < a.min {
				a.min = s
			} else if s > a.max {
				a.max = s
			}
		}
	}
	return nil
}

// total is an aggregate of a group over all rows, as SQLite has it: sum of
// integers, or of doubles with the error term of Kahan, Babuska and Neumaier.
type total struct {
	n         int64
	sum       int64
	approx    bool
	rsum, err float64
	best      Value
}

// merge adds a chunk, which did not log. false means that it must be read again,
// logging: its integers are added to doubles, one by one.
func (t *total) merge(kind aggKind, a *part) (bool, error) {
	switch kind {
	case aggCountRows, aggCount:
		t.n += a.n
	case aggMin, aggMax:
		if a.n == 0 {
			return true, nil
		}
		if t.n > 0 {
			if c := compare(&t.best, &a.best); kind == aggMin && c <= 0 || kind == aggMax && c >= 0 {
				return true, nil
			}
		}
		t.n = 1
		t.best = a.best.clone(t.best.Bytes)
	default:
		if a.n == 0 {
			return true, nil
		}
		if t.approx {
			return false, nil
		}
		for _, d := range [...]int64{a.min, a.max, a.sum} {
			if s := t.sum + d; (s^t.sum)&(s^d) < 0 {
				return true, ErrUnsupported // an overflow on the way: SQLite says what that means
			}
		}
		t.n += a.n
		t.sum += a.sum
	}
	return true, nil
}

// add takes one logged number.
func (t *total) add(x num) error {
	t.n++
	if x.real {
		if !t.approx {
			t.begin()
		}
		t.step(math.Float64frombits(x.bits))
		return nil
	}
	i := int64(x.bits)
	if !t.approx {
		s := t.sum + i
		if (s^t.sum)&(s^i) < 0 {
			return ErrUnsupported
		}
		t.sum = s
		return nil
	}
	if big(i) {
		low := i % 16384
		t.step(float64(i - low))
		t.step(float64(low))
	} else {
		t.step(float64(i))
	}
	return nil
}

// big: an integer that a double may not hold.
func big(i int64) bool { return i <= -4503599627370496 || i >= 4503599627370496 }

// begin goes from integers to doubles.
func (t *total) begin() {
	t.approx = true
	if big(t.sum) {
		low := t.sum % 16384
		t.rsum, t.err = float64(t.sum-low), float64(low)
	} else {
		t.rsum, t.err = float64(t.sum), 0
	}
}

func (t *total) step(r float64) {
	s := t.rsum
	sum := s + r
	if math.Abs(s) > math.Abs(r) {
		t.err += (s - sum) + r
	} else {
		t.err += (r - sum) + s
	}
	t.rsum = sum
}

// double is the sum as a double.
func (t *total) double() float64 {
	if !t.approx {
		return float64(t.sum)
	}
	if math.IsInf(t.err, 0) || t.err != t.err {
		return t.rsum
	}
	return t.rsum + t.err
}

// result is what AggFinal leaves.
func (t *total) result(kind aggKind) Value {
	switch kind {
	case aggCountRows, aggCount:
		return IntValue(t.n)
	case aggMin, aggMax:
		if t.n == 0 {
			return Value{}
		}
		return t.best
	case aggTotal:
		return RealValue(t.double())
	}
	switch {
	case t.n == 0:
		return Value{}
	case kind == aggAvg:
		return RealValue(t.double() / float64(t.n))
	case t.approx:
		return RealValue(t.double())
	}
	return IntValue(t.sum)
}
