// Package vfs is the file system as the storage layer sees it: the operating
// system's (OS), or one in memory that can lose unsynced data, tear writes,
// clone itself as after a power cut and inject errors (Mem). Storage code
// opens no file except through an FS.
//
// It keeps no guarantee itself; it makes G1, G4 and G9 testable: a hook on Mem
// sees every operation before and after, CrashClone is the disk a restart could
// find at that moment, Inject fails operations (full disk, input/output error,
// short write, failed sync). What Mem does not model: sectors that rot, and
// writes that a disk reports as synced and loses.
package vfs

import (
	"io"
	"io/fs"
)

// FS opens, lists and removes files. Paths are the operating system's.
type FS interface {
	// Create opens a file for reading and writing, making it if it is missing;
	// it is truncated when trunc is true.
	Create(path string, trunc bool) (File, error)
	// Open opens an existing file for reading and writing; fs.ErrNotExist when missing.
	Open(path string) (File, error)
	Remove(path string) error
	Rename(from, to string) error
	MkdirAll(path string) error
	// ReadDir lists base names, sorted.
	ReadDir(path string) ([]string, error)
	Stat(path string) (fs.FileInfo, error)
	// SyncDir makes creations, renames and removals in a directory durable.
	SyncDir(path string) error
	// Lock takes an exclusive advisory lock on path (created if missing);
	// Close releases it. A lock held elsewhere is an error at once.
	Lock(path string) (io.Closer, error)
}

// File is an open file. ReadAt and WriteAt may run concurrently.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	Truncate(size int64) error
	// Sync makes data and the metadata needed to read it back durable
	// (fdatasync where the system has it).
	Sync() error
}
