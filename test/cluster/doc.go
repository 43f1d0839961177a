// Package cluster runs whole clusters in one process and in virtual time: the
// instances of internal/app/server with their engines, page stores and links, the
// watchers and monitors with their drivers, on disks that lose unsynced data and
// a network with faults. A seed decides the life of a cluster; README.md says
// what is real, what is checked (G1-G3, G5-G7), and how a failing seed is
// repeated. There are only tests here.
package cluster
