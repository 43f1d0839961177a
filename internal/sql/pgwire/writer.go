package pgwire

import (
	"encoding/binary"
	"strconv"

	"datawatch/internal/sql/sqlapi"
)

// Messages are appended to one output buffer and written when a series ends.

// begin appends the head of a message and returns where it starts.
func begin(b []byte, typ byte) ([]byte, int) {
	return append(b, typ, 0, 0, 0, 0), len(b)
}

// finish fills in the length of the message that starts at at.
func finish(b []byte, at int) []byte {
	binary.BigEndian.PutUint32(b[at+1:], uint32(len(b)-at-1))
	return b
}

func appendCStr(b []byte, s string) []byte { return append(append(b, s...), 0) }

// appendField appends one field of an ErrorResponse; nulls would end it early.
func appendField(b []byte, key byte, s string) []byte {
	if s == "" {
		return b
	}
	b = append(b, key)
	for i := range len(s) {
		if s[i] != 0 {
			b = append(b, s[i])
		}
	}
	return append(b, 0)
}

// appendError appends an ErrorResponse (typ 'E') or NoticeResponse ('N').
func appendError(b []byte, typ byte, e *sqlapi.Error) []byte {
	sev, code := e.Severity, e.Code
	if sev == "" {
		sev = "ERROR"
		if typ == 'N' {
			sev = "NOTICE"
		}
	}
	if len(code) != 5 {
		code = "XX000"
	}
	b, at := begin(b, typ)
	b = appendField(b, 'S', sev)
	b = appendField(b, 'V', sev)
	b = appendField(b, 'C', code)
	msg := e.Message
	if msg == "" {
		msg = "unspecified error"
	}
	b = appendField(b, 'M', msg)
	b = appendField(b, 'D', e.Detail)
	b = appendField(b, 'H', e.Hint)
	if e.Position > 0 {
		b = appendField(b, 'P', strconv.Itoa(e.Position))
	}
	return finish(append(b, 0), at)
}

// appendEmpty appends a message without a body.
func appendEmpty(b []byte, typ byte) []byte { return append(b, typ, 0, 0, 0, 4) }

func appendReady(b []byte, st sqlapi.TxStatus) []byte {
	if st == 0 {
		st = sqlapi.TxIdle
	}
	return append(b, 'Z', 0, 0, 0, 5, byte(st))
}

func appendComplete(b []byte, tag string) []byte {
	b, at := begin(b, 'C')
	return finish(appendCStr(b, tag), at)
}

func appendParameterStatus(b []byte, name, value string) []byte {
	b, at := begin(b, 'S')
	return finish(appendCStr(appendCStr(b, name), value), at)
}

// appendRowDescription describes cols in the given formats.
func appendRowDescription(b []byte, cols []sqlapi.Column, formats []int16) []byte {
	b, at := begin(b, 'T')
	b = binary.BigEndian.AppendUint16(b, uint16(len(cols)))
	for i, c := range cols {
		b = appendCStr(b, c.Name)
		b = binary.BigEndian.AppendUint32(b, c.Table)
		b = binary.BigEndian.AppendUint16(b, c.Number)
		b = binary.BigEndian.AppendUint32(b, c.OID)
		b = binary.BigEndian.AppendUint16(b, uint16(c.Size))
		b = binary.BigEndian.AppendUint32(b, uint32(c.TypeMod))
		b = binary.BigEndian.AppendUint16(b, uint16(format(formats, i)))
	}
	return finish(b, at)
}

func appendParameterDescription(b []byte, oids []uint32) []byte {
	b, at := begin(b, 't')
	b = binary.BigEndian.AppendUint16(b, uint16(len(oids)))
	for _, o := range oids {
		b = binary.BigEndian.AppendUint32(b, o)
	}
	return finish(b, at)
}

// format is the format code of column or parameter i: none given means text,
// one is for all.
func format(codes []int16, i int) int16 {
	switch len(codes) {
	case 0:
		return 0
	case 1:
		return codes[0]
	}
	if i < len(codes) {
		return codes[i]
	}
	return 0
}
