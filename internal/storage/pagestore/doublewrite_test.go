package pagestore

import (
	"bytes"
	"errors"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/vfs"
)

// TestTornDoublewrite: a power failure while the doublewrite area is written for the
// first time can leave its header and zeros in place of the pages. They make no data
// file longer, whose size is that of the database, and hide no damage (G9).
func TestTornDoublewrite(t *testing.T) {
	fs := vfs.NewMem()
	newFile(t, fs, "/db")
	dw, err := openDoublewrite(fs, "/db.dwb", testPS)
	if err != nil {
		t.Fatal(err)
	}
	dw.begin(2)
	if err := errors.Join(dw.save([]uint32{2, 3}, 1), dw.close()); err != nil {
		t.Fatal(err)
	}
	open := func() *Store {
		return openStore(t, fs, &memLog{ptx: map[base.LSN][]byte{}}, 0, 0)
	}
	s := open()
	if n := s.Pages(); n != 1 {
		t.Errorf("a database of one page has %d", n)
	}
	if _, err := s.f.WriteAt(bytes.Repeat([]byte{7}, testPS), testPS); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	sn := s.Snapshot()
	defer s.Close()
	defer sn.Close()
	if err := sn.ReadPage(2, make([]byte, testPS)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a page that is damaged reads %v", err)
	}
}
