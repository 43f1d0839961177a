package dialect

// arrayTypes maps the types of elements to those of their arrays.
var arrayTypes = map[uint32]uint32{Bool: 1000, Bytea: 1001, Int2: 1005, Int4: 1007, Int8: 1016, Text: 1009, VarChar: 1015,
	BPChar: 1014, Float4: 1021, Float8: 1022, Numeric: 1231, Timestamp: 1115, TimestampTZ: 1185, Date: 1182, UUID: 2951}

// ArrayOf is the type of arrays of a type, of text when there is none.
func ArrayOf(t Type) Type {
	if oid := arrayTypes[t.OID]; oid != 0 {
		return Type{oid, -1}
	}
	return Type{arrayTypes[Text], -1}
}

// arrayCast is the type that a parameter at token i is cast to with
// $n::type[]; false when it is not an array.
func arrayCast(t []token, i, next int) (Type, bool) {
	if next < i+3 || next > len(t) || !t[next-1].is("]") {
		return Type{}, false
	}
	end := next
	for end > i+1 && (t[end-1].is("]") || t[end-1].is("[")) {
		end--
	}
	elem, _ := parseType(t[:end], i)
	return ArrayOf(elem), true
}

// anyColumn: column = ANY ($n).
func anyColumn(t []token, i int) string {
	if i > 3 && t[i-1].is("(") && t[i-2].in("ANY", "SOME", "ALL") && t[i-3].in("=", "<>", "!=") && t[i-4].isName() {
		return t[i-4].val
	}
	return ""
}
