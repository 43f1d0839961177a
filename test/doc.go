// Package test holds the tests that concern the whole tree: the layers of
// imports, the rules of purity and injection, the size of files. Whole clusters
// are tested in its subdirectories.
package test
