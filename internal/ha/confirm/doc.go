// Package confirm holds the decisions of a confirm monitor (manual 4.2, 4.3,
// 6.9) as a pure function: Step(state, event, now) -> (state, actions). No
// goroutine, clock, socket, file or random number is used here; package monitor
// feeds events and performs actions.
//
// It owns the durable Record of a group's decisions and their exclusion; the
// conditions on what was heard are package cond's.
//
// # G3: at most one database acknowledges commits
//
// A primary P of reign n (the ID of its last open record) acknowledges a commit
// only when every standby whose archive is Valid has the package. Let a
// takeover of reign n by standby X be granted. X refuses redo of reign n from
// then on, so P can acknowledge nothing as long as its archive to X is Valid;
// it suspends at the next commit. So two databases could acknowledge only if P's
// archive to X is Invalid, or becomes so. It becomes Invalid in these ways:
//
//  1. By a Failover this monitor grants. Before the takeover: the grant was
//     written down first, and X stays excluded (Record.Dropped) until P itself
//     reports X Valid in a report made after it acted on, or gave up, the request:
//     watcher in OPEN or RECOVERY, instance Open, report number above that of
//     the request. A watcher uses a ConfirmReply only while it is still in
//     the CONFIRM (or STARTUP) stay in which it asked. After the takeover:
//     Record.Taken was written before the grant left, and every request of a
//     reign <= n is refused, also after a restart of the monitor, unless X
//     certainly did not open and cannot any more (didNotOpen, below).
//  2. By a Failover without leave, when X's own watcher reported X's instance
//     dead. It was asked first and has renounced (below).
//  3. By a Failover of a primary that heard no confirm monitor for 3 x
//     DW_ERROR_TIME while X's watcher answered it (DW_FAILOVER_FORCE). The
//     takeover needs X's watcher not to hear P's, and needs P silent here.
//  4. By command (set arch invalid, detach), refused in AUTO mode while the link
//     to X is broken, and told to X over that link: it loses its ValidClaim.
//  5. By a restart of P, which compares positions in Mount. It must see every
//     standby or ask here; both see the takeover.
//
// # What must have been heard
//
// X's watcher reports the claim to take over (ValidClaim) only while it holds it:
// it has renounced when the primary's watcher asked it to, before the primary
// went on without X; when it has declared X failed; and when it or X was
// restarted. The claim returns only with a report of the primary, Open, that the
// archive to X is Valid, and what the primary's watcher sends it arrives in order
// (package fsm, "Claims"). So X's claim is as good as its newest report, and the
// monitor must have one over the connection that stands now; for safety no time has
// to pass (backGrace, below, only avoids takeovers that nobody needs).
// If the newest report is already wrong, X's watcher refuses the grant.
//
// A grant names the era of the report it was made by (proto.WatcherStatus.Era),
// and X's watcher obeys it in that era and the next only. So a report of X two
// eras later, or of another incarnation of its watcher, that shows X Standby, in
// no takeover and in the old reign, proves that the grant led to nothing and that
// nothing of it is on its way; then another may be granted, or the primary of the
// reign may go on without somebody, if X has no redo that it is without.
//
// # Exclusion
//
// Decisions exclude each other because one State serves a group, at most one
// decision is being written at a time, and nothing is answered or sent before
// Persisted. A crash between writing and answering leaves a record of a decision
// nobody heard of, which only forbids.
//
// When the network of the monitor itself was away, it gets its watchers back one
// after the other: for a standby that was silent for DW_ERROR_TIME/2 and is heard
// again for less than a second (backGrace) it decides on a takeover only when the
// primary's watcher was heard since, too, so that a primary that waits is not taken
// for a dead one.
//
// A monitor that has just started, or whose process stood still for longer than
// DW_ERROR_TIME/2, knows nothing fresh: it decides on a takeover only after the
// primary itself has reported since, and on a request only after every other
// watcher has reported or has stayed unreachable for DW_ERROR_TIME since.
package confirm
