// Package archtest holds the rules of the house as tests: which package may
// import which, what every package documents, and what no file may contain.
//
// It has no code of its own. Each rule stands in a file of its own with the
// reason beside it, and is tried on something that breaks it, so that a rule
// that has stopped biting is noticed:
//
//   - rooms_test.go is the import table. A package without a rule fails.
//   - imports_test.go holds the table against what the files import, on every
//     operating system, and against the modules that the build really reaches.
//   - docs_test.go asks for one package comment a package, a comment for every
//     exported name, and an Example that runs.
//   - text_test.go looks for words and names that must not be in the tree, and
//     at the files that are not Go.
//
// A failure says which rule it was and why there is one. To change a rule,
// change docs/design.md too.
package archtest
