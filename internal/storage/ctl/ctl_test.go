package ctl

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/vfs"
)

var update = flag.Bool("update", false, "rewrite golden files")

const path = "/db/dm.ctl"

func sample() *Control {
	return &Control{
		DBName: "DAMENG", PageSize: 4096, PmntMagic: 0x567891, DBMagic: 0x123456, OGUID: 453331, Mode: base.ModePrimary,
		DataFiles: []DataFile{{Tablespace: 0, File: 0, Path: "MAIN.DBF", Pages: 12}}, Clean: true,
		Lineage: base.Lineage{{ID: 1, TGUID: "00112233445566778899aabbccddeeff", OpenTime: time.Date(2019, 3, 20, 10, 35, 34, 0, time.UTC),
			SysMode: base.ModePrimary, SrcDBMagic: 0x123456, DBMagic: 0x123456, CurInst: "GRP1_RT_01", Apply: []base.Position{{Seq: 5, LSN: 77}}}},
		Position: base.Position{Seq: 9, LSN: 100}, Base: base.Position{Seq: 2, LSN: 30},
		Created: time.Date(2019, 3, 20, 10, 0, 0, 0, time.UTC),
	}
}

func newFS(t testing.TB) *vfs.Mem {
	m := vfs.NewMem()
	if err := m.MkdirAll("/db"); err != nil {
		t.Fatal(err)
	}
	return m
}

func put(t testing.TB, m *vfs.Mem, name string, b []byte) {
	t.Helper()
	f, err := m.Create(name, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
}

func TestSaveLoad(t *testing.T) {
	m := newFS(t)
	if _, err := Load(m, path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no file: %v", err)
	}
	c := sample()
	for gen := uint64(1); gen <= 3; gen++ {
		c.OGUID++
		if err := c.Save(m, path); err != nil {
			t.Fatal(err)
		}
		got, err := Load(m, path)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, c) || got.Generation != gen {
			t.Fatalf("loaded %+v\nsaved %+v", got, c)
		}
	}
	d := c.Clone()
	d.Lineage[0].Apply[0].LSN, d.DataFiles[0].Pages = 1, 1
	if c.Lineage[0].Apply[0].LSN == 1 || c.DataFiles[0].Pages == 1 {
		t.Error("Clone shares memory")
	}
}

func TestGolden(t *testing.T) {
	c := sample()
	c.Generation = 7
	b, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	const file = "testdata/v1.hex"
	if *update {
		os.MkdirAll("testdata", 0o755)
		os.WriteFile(file, []byte(hex.Dump(b)), 0o644)
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if hex.Dump(b) != string(want) {
		t.Errorf("the format changed; a new format needs a new version:\n%s", hex.Dump(b))
	}
}

func TestDamage(t *testing.T) {
	c := sample()
	good, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	reseal := func(b []byte) []byte {
		return binary.LittleEndian.AppendUint32(b[:len(b)-4], crc32.Checksum(b[:len(b)-4], castagnoli))
	}
	newer := bytes.Clone(good)
	newer[8] = 3
	newer = reseal(newer)
	unknown := reseal(bytes.Replace(bytes.Clone(good), []byte(`"clean"`), []byte(`"cleam"`), 1))
	badPage := reseal(bytes.Replace(bytes.Clone(good), []byte(`:4096`), []byte(`:4097`), 1))
	tests := []struct {
		name      string
		main, bak []byte // nil: missing
		want      error  // nil: loads from the copy
		text      string
	}{
		{"flipped byte", flip(good, 60), good, nil, "checksum"},
		{"empty", []byte{}, good, nil, "0 bytes"},
		{"missing", nil, good, nil, "file does not exist"},
		{"both damaged", flip(good, 60), flip(good, 61), ErrDamaged, path + BackupSuffix},
		{"damaged, no copy", flip(good, 60), nil, ErrDamaged, path},
		{"newer version", newer, good, ErrVersion, path + ": control file is newer than this program: version 3"},
		{"foreign", []byte("this is some other file of text"), nil, ErrForeign, path},
		{"huge", make([]byte, MaxSize+1), nil, ErrForeign, "at most"},
		{"unknown field", unknown, nil, ErrDamaged, "cleam"},
		{"impossible value", badPage, nil, ErrInvalid, "page size 4097"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newFS(t)
			if tt.main != nil {
				put(t, m, path, tt.main)
			}
			if tt.bak != nil {
				put(t, m, path+BackupSuffix, tt.bak)
			}
			got, err := Load(m, path)
			if tt.want == nil {
				if err != nil || !got.FromCopy || got.DBName != c.DBName || !strings.Contains(got.Damage.Error(), tt.text) {
					t.Fatalf("copy not used: %+v, %v", got, err)
				}
				return
			}
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("error %v, want %v with %q", err, tt.want, tt.text)
			}
		})
	}
	for i := range good {
		if _, err := Unmarshal(flip(good, i)); err == nil {
			t.Fatalf("byte %d flipped is not noticed", i)
		}
		if _, err := Unmarshal(good[:i]); err == nil {
			t.Fatalf("cut to %d bytes is not noticed", i)
		}
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 4
	return b
}

// Power cuts at every operation of a series of saves: what was saved is there, or
// what was being saved.
func TestPowerCut(t *testing.T) {
	m := newFS(t)
	rnd := rand.New(rand.NewPCG(1, 1))
	c := sample()
	saved, cuts := uint64(0), 0
	m.SetHook(func(op vfs.Op) error {
		if !op.Kind.Changes() {
			return nil
		}
		for range 20 {
			cuts++
			got, err := Load(m.CrashClone(rnd), path)
			if saved == 0 && errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil || got.FromCopy || got.Generation < saved || got.Generation > saved+1 || uint64(got.OGUID) != got.Generation {
				t.Fatalf("power cut at %v %s after save %d: %+v, %v", op.Kind, op.Path, saved, got, err)
			}
		}
		return nil
	})
	for saved < 5 {
		c.OGUID = uint32(saved + 1)
		if err := c.Save(m, path); err != nil {
			t.Fatal(err)
		}
		saved++
	}
	if cuts < 1000 {
		t.Fatalf("only %d cuts", cuts)
	}
}

func TestSaveFails(t *testing.T) {
	for _, k := range []vfs.OpKind{vfs.OpCreate, vfs.OpWrite, vfs.OpSync, vfs.OpRename, vfs.OpSyncDir} {
		for skip := range 2 {
			m := newFS(t)
			c := sample()
			if err := c.Save(m, path); err != nil {
				t.Fatal(err)
			}
			before := *c
			c.OGUID = 1
			remove := m.Inject(vfs.Fault{Kind: k, Skip: skip, Times: 1, Err: syscall.ENOSPC})
			if err := c.Save(m, path); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) {
				t.Fatalf("%v fails: %v", k, err)
			}
			remove()
			if c.Generation != before.Generation {
				t.Errorf("%v: a failed Save counts", k)
			}
			if got, err := Load(m, path); err != nil || got.FromCopy || got.OGUID != 1 && got.OGUID != before.OGUID {
				t.Errorf("after a failed %v: %+v, %v", k, got, err)
			}
			if err := c.Save(m, path); err != nil {
				t.Fatal(err)
			}
			if got, err := Load(m, path); err != nil || got.OGUID != 1 {
				t.Errorf("after repeating: %+v, %v", got, err)
			}
		}
	}
	bad := sample()
	bad.DataFiles = append(bad.DataFiles, bad.DataFiles[0])
	if err := bad.Save(newFS(t), path); !errors.Is(err, ErrInvalid) {
		t.Errorf("two data files with one number: %v", err)
	}
}

func FuzzUnmarshal(f *testing.F) {
	b, _ := sample().Marshal()
	f.Add(b)
	f.Add([]byte{})
	f.Add(b[:headerSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, in := range [][]byte{b, binary.LittleEndian.AppendUint32(bytes.Clone(b), crc32.Checksum(b, castagnoli))} {
			c, err := Unmarshal(in)
			if err != nil {
				continue
			}
			again, err := c.Marshal()
			if err != nil {
				t.Fatalf("decoded but cannot be encoded: %v", err)
			}
			d, err := Unmarshal(again)
			if err != nil || d.DBMagic != c.DBMagic || d.Position != c.Position {
				t.Fatalf("round trip: %+v, %v", d, err)
			}
		}
	})
}

// A restored database is not opened before the tools have completed it.
func TestPendingIsRefused(t *testing.T) {
	fsys := vfs.NewMem()
	if err := fsys.MkdirAll("/db"); err != nil {
		t.Fatal(err)
	}
	c := Control{DBName: "D", PageSize: 4096, PmntMagic: 1, DBMagic: 2, DataFiles: []DataFile{{Path: "a", Pages: 1}}, Pending: PendingMagic}
	if err := c.Save(fsys, "/db/dm.ctl"); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(fsys, "/db/dm.ctl"); !errors.Is(err, ErrPending) {
		t.Errorf("Load: %v", err)
	}
	p, err := LoadPending(fsys, "/db/dm.ctl")
	if err != nil || p.Pending != PendingMagic {
		t.Fatalf("LoadPending: %v, %v", p, err)
	}
	p.Pending = ""
	if err := p.Save(fsys, "/db/dm.ctl"); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(fsys, "/db/dm.ctl"); err != nil {
		t.Error(err)
	}
}
