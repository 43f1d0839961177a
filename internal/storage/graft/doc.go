// Package graft makes a database a standby again that has redo which its new
// primary is without (docs/decisions/0008): the pages which that redo touched
// are replaced by the primary's, and log and archive end where the histories
// fork. This package owns what happens on the disk of the database that rejoins:
//
//   - Touched collects the pages, from the redo that is given up;
//   - Writer makes the graft file that holds them, beside the control file;
//   - Install puts them in, with the database closed. FORMAT.md has the byte table.
//
// It keeps its part of G9: until the control file names a complete graft file
// nothing of the database has been changed, and from then on Install does the
// whole again however often it is cut off; the database does not open before
// it is done. Of G5 and G6 it leaves everything to others: package rejoin finds
// where histories fork, package engine keeps readers and other histories away
// until redo has brought all pages to one LSN.
//
// # Why the result is a database
//
// At the fork F the database is what the data file says, but for the pages that
// the redo after F touched. Those come from the primary as of the position W
// (Whole), sealed with the LSN of their last change. That is a database whose
// redo ends at F and of which some pages are ahead, up to W: what a crash within
// a checkpoint leaves. Replay from F skips what a page has, and at W all pages
// are of W. The size of the file is that of W from the beginning: redo that
// changes it on the way says so, and pages beyond are made from zeros.
package graft
