// Package plan has the rules of git as pure functions: from what a source declares and what exists it computes a Plan. When
// a push is processed, it stands between the snapshot that `sources` published and the `reconciler`, which carries the plan
// out.
//
// It decides who owns a project, which override is active, how an expiry and git interact, and what may be pruned. Each
// rule has only one implementation: the reconciler plans with it, and the server checks it again in the transaction that
// writes. The server also answers SourceService.PlanSource with it, which `caractrl diff source/X` prints. Law is the table
// of the rules; docs/law.md is generated from it, and each row names the test that fails without the row's code.
//
// Nothing here does I/O, keeps state, or reads a clock.
package plan
