// Package mutants breaks rules of the product, one at a time: those by which watchers
// and monitors decide (Decisions), which the tests of the decision packages have to
// notice, and those of the life of a commit (Commits), which are for the lives of
// test/cluster: a test that cannot fail is a defect. The rules are broken in copies of the sources that
// `go test -overlay` compiles, so that the product carries no switch for it. All
// mutants of a list are in one build; DW_MUTANT chooses. It keeps none of G1-G9 itself.
package mutants
