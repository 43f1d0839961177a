// Package mutants breaks the rules by which watchers and monitors decide, one at
// a time, and demands that the tests of the decision packages notice: a test that
// cannot fail is a defect. The rules are broken in copies of the sources that
// `go test -overlay` compiles, so that the product carries no switch for it. All
// mutants are in one build; DW_MUTANT chooses. It keeps none of G1-G9 itself.
package mutants
