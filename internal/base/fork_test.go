package base

import "testing"

func lin(recs ...OpenRecord) Lineage { return recs }
func rec(id uint64, guid string, seq Seq, lsn LSN) OpenRecord {
	return OpenRecord{ID: id, TGUID: guid, Apply: []Position{{seq, lsn}}}
}

// TestFork: the histories part where the first record that one of them is without
// was written, or where one ends.
func TestFork(t *testing.T) {
	one, two := rec(1, "a", 0, 0), rec(2, "b", 10, 20)
	end := Position{30, 60}
	tests := []struct {
		name             string
		local, remote    Lineage
		localEnd, theirs Position
		want             Position
		bad              bool
	}{
		{"new primary opened where ours goes on", lin(one), lin(one, two), end, Position{50, 90}, Position{10, 20}, false},
		{"both opened", lin(one, rec(2, "x", 12, 25)), lin(one, two), end, Position{50, 90}, Position{10, 20}, false},
		{"ours opened before", lin(one, rec(2, "x", 8, 15)), lin(one, two), end, Position{50, 90}, Position{8, 15}, false},
		{"many openings since", lin(one, rec(2, "x", 8, 15), rec(3, "y", 9, 17)), lin(one, two, rec(3, "c", 11, 21)), end, Position{50, 90}, Position{8, 15}, false},
		{"theirs ends first", lin(one, two), lin(one, two), end, Position{20, 40}, Position{20, 40}, false},
		{"contained", lin(one), lin(one, two), Position{10, 20}, end, Position{10, 20}, false},
		{"old records dropped", lin(two, rec(3, "x", 15, 30)), lin(one, two, rec(3, "c", 14, 28)), end, end, Position{14, 28}, false},
		{"nothing in common", lin(rec(1, "x", 0, 0)), lin(one, two), end, end, Position{}, true},
		{"empty", nil, lin(one), end, end, Position{}, true},
		{"a record is missing", lin(one), lin(one, rec(3, "c", 11, 21)), end, end, Position{}, true},
		{"no position", lin(one), lin(one, OpenRecord{ID: 2, TGUID: "b"}), end, end, Position{}, true},
		{"parts before it began", lin(one, two), lin(one, two, rec(3, "c", 9, 18)), end, end, Position{}, true},
	}
	for _, tt := range tests {
		got, err := tt.local.Fork(tt.localEnd, tt.remote, tt.theirs)
		if (err != nil) != tt.bad || got != tt.want {
			t.Errorf("%s: %v, %v; want %v", tt.name, got, err, tt.want)
		}
		back, err := tt.remote.Fork(tt.theirs, tt.local, tt.localEnd)
		if (err != nil) != tt.bad || back != got {
			t.Errorf("%s: from the other side it is %v, %v", tt.name, back, err)
		}
	}
}
