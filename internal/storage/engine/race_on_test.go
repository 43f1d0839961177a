//go:build race

package engine

const raceFactor = 5 // the race detector makes everything that much slower
