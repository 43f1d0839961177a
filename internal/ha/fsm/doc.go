// Package fsm decides what a watcher does (manual 3.1-3.6, 6.2-6.11). It is
// pure: Step takes a state, an event and the local time, and returns the new
// state and the actions a driver has to perform. There are no goroutines,
// clocks, sockets, files or random numbers here, and maps are walked in order,
// so that equal inputs give equal outputs and a seed repeats any run.
//
// It owns the states of manual 3.4, the rules of rejoining and splitting (3.6),
// opening, failover, recovery, the watcher's half of takeover, exclusion of
// monitor commands, and restarting the instance. It leaves the choice of a
// takeover candidate to package confirm, and everything that touches the world
// to package watcher. docs/watcher-states.md is generated from its tables.
//
// # Why at most one database acknowledges commits in AUTO mode (G3)
//
// A primary acknowledges a commit only when every standby whose archive is
// Valid has acknowledged the redo (G1). A standby that takes over leaves
// Standby/Open first (mount) and from then on refuses redo. So two databases
// can acknowledge at once only if the primary's archive to the one that takes
// over was made Invalid without the taker knowing. This package makes an
// archive Invalid, and then opens, only
//
//  1. with the leave of the confirm monitor, which wrote down, before it
//     answered, that this standby is no candidate any more; or
//  2. after the standby's own watcher has answered drop_claim (or drop_keep):
//     it refuses when a takeover has begun there, and otherwise it has renounced.
//
// This holds for Failover and for the opening of a restarted primary, whose
// archives to standbys that are behind become Invalid: it asks every watcher
// of the group first, and a watcher that does not answer needs leave 1. An
// archive that stays Valid needs no question: the opening itself writes redo
// that this standby must acknowledge. Reopening from Suspend without changing
// an archive is safe for the same reason. Two things are outside: commands by
// which an operator makes archives Invalid or forces an opening or a takeover,
// and MANUAL mode, where an operator decides about takeovers.
//
// When every database of the group is heard and none is primary, the one whose
// log contains all the others becomes primary (lead), after a restarted primary
// that is behind a standby has become a standby itself (yield). Neither makes an
// archive Invalid or opens; the opening that follows obeys the rules above.
//
// # Claims
//
// A standby may take over only while its instance holds the primary's word
// that its archive is Valid (ValidClaim) and this watcher itself has heard the
// primary's watcher report so, with the primary Open. The second half is
// forgotten at drop_claim, when this watcher has declared its instance failed
// (others may act on that), and when this watcher is restarted; it returns only
// with a new report of the primary, Open, that the archive is Valid. Between
// the renunciation and the Open the primary is in Suspend or Mount, and reports
// arrive in order, so an older report cannot bring the claim back.
package fsm
