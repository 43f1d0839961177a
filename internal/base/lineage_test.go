package base

import (
	"fmt"
	"testing"
)

func opened(first, last uint64, guid string) (l Lineage) {
	for id := first; id <= last; id++ {
		l = l.Append(OpenRecord{ID: id, TGUID: fmt.Sprint(guid, id)})
	}
	return l
}

// TestLineageCompare: the four results of manual 3.6, also for histories whose
// oldest records were dropped beyond the limit.
func TestLineageCompare(t *testing.T) {
	forked := append(opened(1, 2, "g"), opened(3, 3, "x")...)
	for name, c := range map[string]struct {
		local, remote Lineage
		rel           Relation
		n             int
	}{
		"both empty":                         {nil, nil, Equal, 0},
		"the same":                           {opened(1, 3, "g"), opened(1, 3, "g"), Equal, 0},
		"remote contained":                   {opened(1, 5, "g"), opened(1, 3, "g"), RemoteContained, 2},
		"local contained":                    {opened(1, 3, "g"), opened(1, 5, "g"), LocalContained, 2},
		"forked":                             {opened(1, 3, "g"), forked, Forked, 0},
		"forked, one goes on":                {opened(1, 5, "g"), forked, Forked, 0},
		"remote empty":                       {opened(1, 2, "g"), nil, RemoteContained, 2},
		"local empty":                        {nil, opened(1, 2, "g"), LocalContained, 2},
		"remote empty, the beginning gone":   {opened(2, 3, "g"), nil, Forked, 0},
		"local empty, the beginning gone":    {nil, opened(2, 3, "g"), Forked, 0},
		"nothing in common":                  {opened(1, 3, "g"), opened(4, 6, "g"), Forked, 0},
		"beginnings gone, the rest common":   {opened(3, 9, "g"), opened(1, 9, "g"), Equal, 0},
		"beginnings gone, one goes on":       {opened(3, 9, "g"), opened(5, 7, "g"), RemoteContained, 2},
		"the remote's end is gone locally":   {append(opened(1, 2, "g"), opened(9, 9, "g")...), opened(1, 4, "g"), Forked, 0},
		"the local end is gone at the other": {opened(1, 4, "g"), append(opened(1, 2, "g"), opened(9, 9, "g")...), Forked, 0},
	} {
		if rel, n := c.local.Compare(c.remote); rel != c.rel || n != c.n {
			t.Errorf("%s: %s, %d; want %s, %d", name, rel, n, c.rel, c.n)
		}
	}
	l := opened(1, 3, "g")
	if rel, _ := l.Compare(l); rel != Equal {
		t.Errorf("against itself: %s", rel)
	}
}

// TestLineageLimit: no more than MaxOpenRecords are kept, the newest (manual 3.6).
func TestLineageLimit(t *testing.T) {
	l := opened(1, MaxOpenRecords, "g")
	m := l.Append(OpenRecord{ID: MaxOpenRecords + 1, TGUID: "new"})
	if len(l) != MaxOpenRecords || len(m) != MaxOpenRecords || m[0].ID != 2 || m.Last().TGUID != "new" {
		t.Fatalf("%d records, then %d from %d to %q", len(l), len(m), m[0].ID, m.Last().TGUID)
	}
	if rel, n := m.Compare(l); rel != RemoteContained || n != 1 {
		t.Fatalf("%s %d", rel, n)
	}
	if Lineage(nil).Last().ID != 0 {
		t.Fatal("an empty lineage has a last record")
	}
}
