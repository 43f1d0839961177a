package pgwire

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"datawatch/internal/sql/sqlapi"
)

// The binary format of COPY: a signature, flags and an extension; for each row
// the number of fields, and each field with its length before it; -1 at the end.

const (
	copySignature = "PGCOPY\n\xff\r\n\x00"
	copyHasOIDs   = 1 << 16 // flag
	maxCopyHeader = 1 << 16 // length of the extension
)

// binaryHeader begins COPY TO STDOUT.
func (w *copyWriter) binaryHeader() {
	b, at := begin(w.c.buf(), 'd')
	b = append(b, copySignature...)
	w.c.out = finish(append(b, 0, 0, 0, 0, 0, 0, 0, 0), at)
}

// binaryEnd ends it.
func (w *copyWriter) binaryEnd() {
	b, at := begin(w.c.buf(), 'd')
	w.c.out = finish(append(b, 0xff, 0xff), at)
}

func (w *copyWriter) binaryRow(r sqlapi.Row) error {
	b, at := begin(w.c.buf(), 'd')
	b = binary.BigEndian.AppendUint16(b, uint16(len(w.f.Columns)))
	for i := range w.f.Columns {
		if r.Kind(i) == sqlapi.Null {
			b = append(b, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		pos := len(b)
		b = append(b, 0, 0, 0, 0)
		var err error
		if b, err = appendBinary(b, r, i, &w.f.Columns[i]); err != nil {
			w.c.out = b[:at]
			return err
		}
		binary.BigEndian.PutUint32(b[pos:], uint32(len(b)-pos-4))
	}
	w.c.out = finish(b, at)
	if len(w.c.out) >= flushAt {
		return w.c.flush()
	}
	return nil
}

func badCopy(format string, a ...any) error {
	return sqlErr("22P04", fmt.Sprintf(format, a...))
}

// have waits until n bytes from pos on are in buf.
func (r *copyReader) have(ctx context.Context, n int) error {
	if n > r.c.srv.MaxMessage {
		return r.where(sqlErr("54000", fmt.Sprintf("a row of COPY is longer than %d bytes", r.c.srv.MaxMessage)), "")
	}
	for len(r.buf)-r.pos < n {
		if r.ended {
			return r.where(badCopy("unexpected end of COPY data"), "")
		}
		r.scan = r.pos
		if err := r.fill(ctx); err != nil {
			return err
		}
	}
	return nil
}

// binaryStart reads the header.
func (r *copyReader) binaryStart(ctx context.Context) error {
	const fixed = len(copySignature) + 8
	if err := r.have(ctx, fixed); err != nil {
		return err
	}
	b := r.buf[r.pos:]
	flags, ext := binary.BigEndian.Uint32(b[len(copySignature):]), binary.BigEndian.Uint32(b[len(copySignature)+4:])
	switch {
	case string(b[:len(copySignature)]) != copySignature:
		return badCopy("COPY file signature not recognized")
	case flags&copyHasOIDs != 0:
		return sqlErr("0A000", "OIDs in binary COPY data are not supported")
	case flags>>16 != 0:
		return badCopy("unrecognized critical flags in COPY file header")
	case ext > maxCopyHeader:
		return badCopy("invalid COPY file header (wrong length)")
	}
	if err := r.have(ctx, fixed+int(ext)); err != nil {
		return err
	}
	r.pos += fixed + int(ext)
	return nil
}

// binaryNext returns the next row; its values lie in buf until the following
// call.
func (r *copyReader) binaryNext(ctx context.Context) ([]sqlapi.Value, error) {
	if !r.start {
		r.start = true
		if err := r.binaryStart(ctx); err != nil {
			return nil, err
		}
	}
	r.lines++
	for !r.ended && r.pos == len(r.buf) {
		r.scan = r.pos
		if err := r.fill(ctx); err != nil {
			return nil, err
		}
	}
	if r.pos == len(r.buf) { // the -1 at the end may be missing, as pgx leaves it out
		return nil, io.EOF
	}
	if err := r.have(ctx, 2); err != nil {
		return nil, err
	}
	n := int(int16(binary.BigEndian.Uint16(r.buf[r.pos:])))
	switch {
	case n == -1:
		if len(r.buf)-r.pos > 2 {
			return nil, r.where(badCopy("received copy data after EOF marker"), "")
		}
		r.ended, r.buf, r.pos, r.scan = true, nil, 0, 0
		return nil, r.drain(ctx)
	case n != len(r.f.Columns):
		return nil, r.where(badCopy("row field count is %d, expected %d", n, len(r.f.Columns)), "")
	}
	size := 2
	for range n {
		if err := r.have(ctx, size+4); err != nil {
			return nil, err
		}
		l := int32(binary.BigEndian.Uint32(r.buf[r.pos+size:]))
		if l < -1 {
			return nil, r.where(badCopy("invalid field size"), "")
		}
		if size += 4; l > 0 {
			if err := r.have(ctx, size+int(l)); err != nil {
				return nil, err
			}
			size += int(l)
		}
	}
	b := r.buf[r.pos+2 : r.pos+size]
	r.pos += size
	r.vals, r.scratch = r.vals[:0], r.scratch[:0]
	for i := range n {
		l := int32(binary.BigEndian.Uint32(b))
		b = b[4:]
		var v sqlapi.Value
		if l >= 0 {
			var err error
			if v, r.scratch, err = decodeValue(r.scratch, r.f.Columns[i].OID, 1, b[:l]); err != nil {
				return nil, r.where(err, strings.TrimSpace(r.f.Columns[i].Name))
			}
			b = b[l:]
		}
		r.vals = append(r.vals, v)
	}
	return r.vals, nil
}
