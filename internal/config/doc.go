// Package config reads, checks and rewrites the configuration files of the
// manual's chapter 5: dm.ini, dmmal.ini, dmarch.ini, dmwatcher.ini,
// dmmonitor.ini, dmtimer.ini, dmmpp.ini, dmdcr.ini and dm_svc.conf.
//
// One table (table_*.go) declares every parameter: type, range, default, unit,
// whether it may change at run time, and whether it is effective yet. The
// parser, the typed structs, the rewriting of a file, the list of parameters
// that are set but not yet effective, and docs/parameters.md all come from it.
//
// It keeps G8 for configuration: a bad file is refused with every fault in it,
// each naming file, line, key, value and what is allowed, and nothing changes.
// It opens files only through a ReadFunc or a vfs.FS. What a parameter does is
// the business of the package that uses it.
package config
