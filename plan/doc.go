// Package plan is the law of git as pure functions: what a source declares and what there is become a Plan. On the straight
// line of a push it stands between the snapshot that `sources` published and the `reconciler`, which carries the plan out.
//
// It decides who owns a project, which override is in force, what an expiry means for git, and what may be pruned. Each
// rule has one text here: the reconciler plans with it, the server asks it again in the transaction that writes and
// answers SourceService.PlanSource with it, and `caractrl diff source/X` prints that answer. The table of the law is Law;
// docs/law.md is made from it, and each of its rows names the test that fails without the row's code.
//
// Nothing here does I/O, keeps state, or reads a clock.
package plan
