package dialect

import (
	"fmt"
	"strconv"
	"strings"

	"datawatch/internal/sql/value"
)

// Type is a PostgreSQL type by its number, with its modifier (-1: none).
type Type value.Type

// Numbers of PostgreSQL's types.
const (
	Bool        = 16
	Bytea       = 17
	Name        = 19
	Int8        = 20
	Int2        = 21
	Int4        = 23
	Text        = 25
	OIDType     = 26
	JSON        = 114
	Float4      = 700
	Float8      = 701
	BPChar      = 1042
	VarChar     = 1043
	Date        = 1082
	Time        = 1083
	Timestamp   = 1114
	TimestampTZ = 1184
	Numeric     = 1700
	UUID        = 2950
	JSONB       = 3802
	Void        = 2278

	// Names of objects: text to clients, numbers in comparisons.
	RegProc      = 24
	RegClass     = 2205
	RegType      = 2206
	RegNamespace = 4089
)

// typeNames maps type names as declared in tables and written in casts.
// INTEGER is int8, not int4: it is SQLite's 64-bit row number type.
var typeNames = map[string]uint32{
	"BOOL": Bool, "BOOLEAN": Bool, "BIT": Bool,
	"TINYINT": Int2, "SMALLINT": Int2, "INT2": Int2, "BYTE": Int2,
	"INT": Int4, "INT4": Int4, "MEDIUMINT": Int4,
	"INTEGER": Int8, "BIGINT": Int8, "INT8": Int8, "UNSIGNED BIG INT": Int8, "SERIAL": Int8, "BIGSERIAL": Int8,
	"OID": OIDType, "REGCLASS": RegClass, "REGTYPE": RegType, "REGPROC": RegProc, "REGPROCEDURE": RegProc, "REGNAMESPACE": RegNamespace,
	"REAL": Float4, "FLOAT4": Float4, "FLOAT": Float8, "FLOAT8": Float8, "DOUBLE": Float8, "DOUBLE PRECISION": Float8,
	"NUMERIC": Numeric, "DECIMAL": Numeric, "DEC": Numeric, "NUMBER": Numeric,
	"TEXT": Text, "CLOB": Text, "LONG": Text, "LONGVARCHAR": Text, "NAME": Name, "CITEXT": Text,
	"VARCHAR": VarChar, "VARCHAR2": VarChar, "NVARCHAR": VarChar, "CHARACTER VARYING": VarChar, "NVARCHAR2": VarChar,
	"CHAR": BPChar, "CHARACTER": BPChar, "BPCHAR": BPChar, "NCHAR": BPChar,
	"BLOB": Bytea, "BYTEA": Bytea, "BINARY": Bytea, "VARBINARY": Bytea, "IMAGE": Bytea, "LONGVARBINARY": Bytea,
	"DATE": Date, "TIME": Time, "TIME WITHOUT TIME ZONE": Time,
	"TIMESTAMP": Timestamp, "DATETIME": Timestamp, "TIMESTAMP WITHOUT TIME ZONE": Timestamp,
	"TIMESTAMPTZ": TimestampTZ, "TIMESTAMP WITH TIME ZONE": TimestampTZ, "DATETIME WITH TIME ZONE": TimestampTZ,
	"JSON": JSON, "JSONB": JSONB, "UUID": UUID, "UNKNOWN": Text, "INTERVAL": Interval,
}

// TypeOf is the type of a declared column type such as "VARCHAR(20)"; OID 0
// when it is unknown.
func TypeOf(decl string) Type {
	t := Type{Mod: -1}
	if decl == "" {
		return t
	}
	base, args := decl, ""
	if i := strings.IndexByte(decl, '('); i >= 0 {
		base = decl[:i]
		if j := strings.IndexByte(decl[i:], ')'); j > 0 {
			args = decl[i+1 : i+j]
			base += decl[i+j+1:]
		}
	}
	base = strings.ToUpper(strings.Join(strings.Fields(base), " "))
	t.OID = typeNames[base]
	if t.OID == 0 { // SQLite's own rules of affinity
		switch {
		case strings.Contains(base, "INT"):
			t.OID = Int8
		case strings.Contains(base, "CHAR"), strings.Contains(base, "CLOB"), strings.Contains(base, "TEXT"):
			t.OID = Text
		case strings.Contains(base, "BLOB"):
			t.OID = Bytea
		case strings.Contains(base, "REAL"), strings.Contains(base, "FLOA"), strings.Contains(base, "DOUB"):
			t.OID = Float8
		}
	}
	t.Mod = typMod(t.OID, args)
	return t
}

// typMod packs length, or precision and scale, as PostgreSQL does.
func typMod(oid uint32, args string) int32 {
	a, b, two := strings.Cut(args, ",")
	n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.ToUpper(strings.TrimSpace(a)), " CHAR")))
	if err != nil || n <= 0 || n > 1<<20 {
		return -1
	}
	switch oid {
	case VarChar, BPChar:
		return int32(n + 4)
	case Numeric:
		scale := 0
		if two {
			if scale, err = strconv.Atoi(strings.TrimSpace(b)); err != nil {
				return -1
			}
		}
		if n > 1000 || scale < 0 || scale > n {
			return -1
		}
		return int32(n<<16|scale) + 4
	}
	return -1
}

// parseType reads a type name at token i; next is the token after it, -1 when
// there is none.
func parseType(t []token, i int) (typ Type, next int) {
	if i+1 < len(t) && t[i].isName() && strings.EqualFold(t[i].val, "pg_catalog") && t[i+1].is(".") {
		i += 2
	}
	if i >= len(t) || !t[i].isName() {
		return Type{}, -1
	}
	name := strings.ToUpper(t[i].val)
	i++
	word := func(ws ...string) bool {
		for k, w := range ws {
			if i+k >= len(t) || !t[i+k].is(w) {
				return false
			}
		}
		i += len(ws)
		name += " " + strings.Join(ws, " ")
		return true
	}
	switch name {
	case "DOUBLE":
		word("PRECISION")
	case "CHARACTER", "CHAR", "BIT":
		if word("VARYING") && name != "BIT VARYING" {
			name = "CHARACTER VARYING"
		}
	}
	args := ""
	if i < len(t) && t[i].is("(") {
		end := closing(t, i)
		if end < 0 {
			return Type{}, -1
		}
		for _, x := range t[i+1 : end] {
			args += x.val
		}
		i = end + 1
	}
	if name == "TIMESTAMP" || name == "TIME" {
		if !word("WITHOUT", "TIME", "ZONE") {
			word("WITH", "TIME", "ZONE")
		}
	}
	typ = TypeOf(name)
	typ.Mod = typMod(typ.OID, args)
	if typ.OID == Int8 && name == "INTEGER" { // in a cast, INTEGER is what PostgreSQL means
		typ.OID = Int4
	}
	for i+1 < len(t) && t[i].is("[") && t[i+1].is("]") {
		typ, i = Type{Text, -1}, i+2
	}
	if typ.OID == 0 {
		typ = Type{Text, -1}
	}
	return typ, i
}

// wrap returns what to write before and after an operand to cast it.
func (t Type) wrap() (open, shut string) {
	switch t.OID {
	case Bool, Bytea, Date, Time, Timestamp, TimestampTZ, UUID, JSON, JSONB, Int2, Int4, Int8, Float4, Float8, Numeric:
		return fmt.Sprintf("dw_cast(%d,%d,", t.OID, t.Mod), ")"
	case VarChar, BPChar:
		if t.Mod > 4 {
			return fmt.Sprintf("dw_cast(%d,%d,", t.OID, t.Mod), ")"
		}
	case OIDType:
		return "(", ")"
	case Interval:
		return "dw_interval(", ")"
	case RegClass:
		return "dw_regclass(", ")"
	case RegType:
		return "dw_regtype(", ")"
	case RegProc:
		return "dw_regproc(", ")"
	case RegNamespace:
		return "dw_regnamespace(", ")"
	}
	return "CAST(", " AS TEXT)"
}

// NameOf is PostgreSQL's name of a type, as column titles of casts show it.
func NameOf(oid uint32) string {
	switch oid {
	case Bool:
		return "bool"
	case Bytea:
		return "bytea"
	case Int2:
		return "int2"
	case Int4:
		return "int4"
	case Int8:
		return "int8"
	case Float4:
		return "float4"
	case Float8:
		return "float8"
	case Numeric:
		return "numeric"
	case Date:
		return "date"
	case Time:
		return "time"
	case Timestamp:
		return "timestamp"
	case TimestampTZ:
		return "timestamptz"
	case VarChar:
		return "varchar"
	case BPChar:
		return "bpchar"
	case JSON:
		return "json"
	case JSONB:
		return "jsonb"
	case UUID:
		return "uuid"
	case OIDType:
		return "oid"
	case Interval:
		return "interval"
	}
	return "text"
}

// SizeOf is the length in bytes of a type's values (pg_type.typlen), -1 when it
// varies.
func SizeOf(oid uint32) int16 {
	switch oid {
	case Bool:
		return 1
	case Int2:
		return 2
	case Int4, Float4, Date, OIDType:
		return 4
	case Int8, Float8, Time, Timestamp, TimestampTZ:
		return 8
	case UUID:
		return 16
	case Name:
		return 64
	}
	return -1
}
