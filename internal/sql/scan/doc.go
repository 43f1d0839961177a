// Package scan executes SQLite programs that read one whole table and fold its
// rows into aggregates, with or without GROUP BY, on several processors and
// without SQLite: its interpreter, translated to Go, needs half a microsecond
// for a row. docs/decisions/0007-aggregate-scans.md has the why and the numbers.
//
// The statement stays SQLite's. SQLite parses it, resolves names, asks the
// authorizer and plans; Compile takes the program that SQLite made of it, as
// EXPLAIN lists it, and accepts the one shape that it understands: head, one
// loop over the rows of one table in order of their row numbers, tail. What an
// instruction means is SQLite's definition, affinities and collations with it.
// Anything unknown is ErrUnsupported: then SQLite runs the statement, as it does
// when a value turns up on the way whose treatment is not repeated here, when
// pages are damaged, and when memory runs out. Nothing has been sent by then.
//
// The loop runs in chunks, each the leaves below one page of the lowest interior
// level, by as many goroutines as the caller allows. Results are equal to
// SQLite's bit for bit: chunks are merged in the order of the table; sums of
// integers are merged when no running sum could have overflowed; doubles are
// logged by the chunk and added one by one, with SQLite's error term, by whoever
// merges.
//
// It keeps its part of G2 and G6 by reading one pinned snapshot. Sessions,
// privileges and connections are the caller's.
package scan
