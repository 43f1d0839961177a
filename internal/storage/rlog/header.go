package rlog

import (
	"encoding/binary"
	"fmt"

	"datawatch/internal/base"
	"datawatch/internal/storage/twin"
)

// fileKind identifies online log files.
var fileKind = twin.Kind{Magic: [8]byte{'D', 'W', 'R', 'L', 'O', 'G', 0, 0}, Version: 2}

const headerLen = 96

// header is the payload of a file's header block. File 0 is the main file: only
// its copy of the state is kept up to date.
type header struct {
	index, nfiles uint16
	logID         uint32
	fileSize      int64
	pmnt, db      base.Magic

	ckptLSN    base.LSN // CKPT_LSN
	ckptFile   uint32   // CKPT_FILE
	ckptOffset int64    // CKPT_OFFSET
	// What the package at that place must look like.
	ckptLSEQ    base.Seq
	ckptPrevLSN base.LSN
	ckptPrevSum uint32
	// The last package known to be on disk when the header was written.
	fileLSN  base.LSN // FILE_LSN
	fileLSEQ base.Seq
	fileGSEQ base.Seq
	// GSEQ of the package with which the large transaction begins that the
	// checkpoint is in, 0: it is in none. Version 1 has 0 there.
	ckptChain base.Seq
}

func (h *header) marshal() []byte {
	b := make([]byte, headerLen)
	le := binary.LittleEndian
	le.PutUint16(b[0:], h.index)
	le.PutUint16(b[2:], h.nfiles)
	le.PutUint32(b[4:], h.logID)
	le.PutUint64(b[8:], uint64(h.fileSize))
	le.PutUint32(b[16:], uint32(h.pmnt))
	le.PutUint32(b[20:], uint32(h.db))
	le.PutUint64(b[24:], uint64(h.ckptLSN))
	le.PutUint32(b[32:], h.ckptFile)
	le.PutUint32(b[36:], h.ckptPrevSum)
	le.PutUint64(b[40:], uint64(h.ckptOffset))
	le.PutUint64(b[48:], uint64(h.ckptLSEQ))
	le.PutUint64(b[56:], uint64(h.ckptPrevLSN))
	le.PutUint64(b[64:], uint64(h.fileLSN))
	le.PutUint64(b[72:], uint64(h.fileLSEQ))
	le.PutUint64(b[80:], uint64(h.fileGSEQ))
	le.PutUint64(b[88:], uint64(h.ckptChain))
	return b
}

func (h *header) unmarshal(b []byte) error {
	if len(b) != headerLen {
		return fmt.Errorf("%w: header of %d bytes, %d expected", ErrDamaged, len(b), headerLen)
	}
	le := binary.LittleEndian
	*h = header{
		index: le.Uint16(b[0:]), nfiles: le.Uint16(b[2:]), logID: le.Uint32(b[4:]), fileSize: int64(le.Uint64(b[8:])),
		pmnt: base.Magic(le.Uint32(b[16:])), db: base.Magic(le.Uint32(b[20:])),
		ckptLSN: base.LSN(le.Uint64(b[24:])), ckptFile: le.Uint32(b[32:]), ckptPrevSum: le.Uint32(b[36:]),
		ckptOffset: int64(le.Uint64(b[40:])), ckptLSEQ: base.Seq(le.Uint64(b[48:])), ckptPrevLSN: base.LSN(le.Uint64(b[56:])),
		fileLSN: base.LSN(le.Uint64(b[64:])), fileLSEQ: base.Seq(le.Uint64(b[72:])), fileGSEQ: base.Seq(le.Uint64(b[80:])),
		ckptChain: base.Seq(le.Uint64(b[88:])),
	}
	switch {
	case h.nfiles == 0 || h.index >= h.nfiles || h.nfiles > MaxFiles:
		return fmt.Errorf("%w: file %d of %d", ErrDamaged, h.index, h.nfiles)
	case h.fileSize < MinFileSize || h.fileSize%blockSize != 0 || h.fileSize > MaxFileSize:
		return fmt.Errorf("%w: file size %d", ErrDamaged, h.fileSize)
	case h.ckptFile >= uint32(h.nfiles) || h.ckptOffset < twin.Size || h.ckptOffset >= h.fileSize || h.ckptOffset%sectorSize != 0:
		return fmt.Errorf("%w: checkpoint at file %d, offset %d", ErrDamaged, h.ckptFile, h.ckptOffset)
	case h.ckptLSEQ == 0 || h.fileLSEQ+1 < h.ckptLSEQ:
		return fmt.Errorf("%w: checkpoint before LSEQ %d, last package %d", ErrDamaged, h.ckptLSEQ, h.fileLSEQ)
	}
	return nil
}
