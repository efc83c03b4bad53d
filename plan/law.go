package plan

// Rule is one row of the rules of git: what happens in one situation. docs/law.md shows the rows.
type Rule struct {
	// Situation is the name of the row. reconciler.TestLaw has a test with that name for each row without a Test.
	Situation string
	// Behaviour is what Cara does.
	Behaviour string
	// Test names the test if another package has the code: the folder, a dot, and the test's name.
	Test string
}

// Law returns the rules of git.
func Law() []Rule {
	return []Rule{
		{
			Situation: "repository unreachable, auth refused, ref missing, path missing, empty repository, directory unmounted",
			Behaviour: "The source gets condition `FetchFailed`, which says what is missing. The last good snapshot stays in force, drift is still put back, and nothing is pruned.",
		},
		{
			Situation: "any error while reading, of whatever kind",
			Behaviour: "`FetchFailed` says what and where. The source is not `Ready`.",
			Test:      "sources/git.TestServerFaults",
		},
		{
			Situation: "the branch moved between probe and fetch",
			Behaviour: "The source is fetched again at once. That is no error.",
			Test:      "sources.TestABranchThatMovedIsFetchedAgainAtOnce",
		},
		{
			Situation: "one bad file among many",
			Behaviour: "The valid projects are applied. Projects that were last seen in the bad file are kept. Nothing is pruned until the file is valid. The error is `file:line:column` in the source's status and in an event.",
		},
		{
			Situation: "a path that is not read is not gone",
			Behaviour: "If a file or folder is there and is not read (a symbolic link, a submodule, a hidden or skipped name), its projects are kept, and nothing is pruned. The condition names the path.",
		},
		{Situation: "the server refuses one project", Behaviour: "That project's claim carries the error. The others are applied."},
		{Situation: "same project twice in one source", Behaviour: "Neither manifest is applied, the existing project stays, and the error names both places."},
		{
			Situation: "project claimed by two sources",
			Behaviour: "The first owner keeps it. The second shows `Conflict` with the owner and its file. When the owner lets go and the other still declares the project, it is handed over: its containers keep running.",
		},
		{
			Situation: "project exists, made by hand",
			Behaviour: "It is adopted if the source's `adopt` allows it. Otherwise the claim shows `AdoptionRequired`, and `caractrl adopt` gives the project to the source.",
		},
		{
			Situation: "prune",
			Behaviour: "A project whose manifest left the source is deleted only if all of this holds: the snapshot was read whole at one revision; the source's stored inventory names the project; " +
				"the source still owns it; no other source declares it; no override holds; the deletions are within `pruneLimit`, or `caractrl confirm SOURCE@REVISION` released them; the source declares at least one project, " +
				"or has `allowEmpty`; the source is not suspended. Otherwise the source shows `PruneBlocked` with all the reasons and the projects.",
		},
		{
			Situation: "drift (spec changed behind git's back)",
			Behaviour: "The next pass puts it back, with an event that names the fields.",
		},
		{
			Situation: "manual change",
			Behaviour: "`caractrl apply` and `delete` on a project of a source are refused, and the answer says where it comes from (`source/platform, deploy/web.yaml at 1a2b3c4`). " +
				"With `--override --reason WHY`, and if wanted `--for 2h` or `--until-next-change`, the change is made and recorded. While the override holds, git's version is shown as a diff and not applied. " +
				"When it ends, git's version is applied. A project that was deleted so stays deleted.",
		},
		{Situation: "expireAt in the past at first sight", Behaviour: "The project is not created. Its claim shows `Expired`."},
		{
			Situation: "expires while still in git",
			Behaviour: "The project is deleted on time. A tombstone keeps polls and drift from creating it again. A later `expireAt` in git, or a manifest that was removed and declared again, clears it.",
		},
		{Situation: "caractrl extend pr-42 24h", Behaviour: "This is an override of the expiry alone, with an end of its own."},
		{Situation: "renamed or moved file, same project", Behaviour: "Nothing is written."},
		{Situation: "renamed project", Behaviour: "The new project is created, then the old one is pruned."},
		{
			Situation: "a Secret's value changed",
			Behaviour: "Exactly the services that use it are recreated, by their `update.order`, with an event that names the Secret. With `annotations: {cara.dev/secret-rollout: Manual}` the project only gets condition `SecretChanged`.",
			Test:      "agent/step.TestStepRollsOutSecrets",
		},
		{
			Situation: "several people ask to reconcile at once",
			Behaviour: "Each is answered when a pass that began after the request has ended.",
			Test:      "sources.TestEachRequestIsAnsweredByAPassThatBeganAfterIt",
		},
		{
			Situation: "nothing changed",
			Behaviour: "Nothing is written, and the engine is not called. Two specs are equal if their hashes are; the commit is not part of the hash. `metadata.origin` names the commit that last changed the project.",
		},
		{Situation: "many commits while busy", Behaviour: "The newest is applied. One that fails never holds up the next."},
		{Situation: "force-push, history rewrite", Behaviour: "They change nothing: snapshots are compared, not the ancestry of commits."},
		{
			Situation: "half-written file in a watched directory",
			Behaviour: "Changes are collected for 150 ms, at most 1 s. A file that cannot be read is tried again before it is reported. Nothing is pruned because of it.",
		},
		{Situation: "same apply ten times within a minute", Behaviour: "The claim shows `Stalled` with the fields that differ, and nothing is applied until the manifest changes."},
		{Situation: "suspend", Behaviour: "Nothing is fetched, applied or pruned. Projects still expire. `caractrl reconcile` fails and says that the source is suspended."},
		{Situation: "source deleted", Behaviour: "`onDelete: Orphan` leaves its projects running and owned by nobody. `onDelete: Delete` deletes them, except those that another source declares: they are handed over."},
		{Situation: "first pass after (re)creation", Behaviour: "It never prunes."},
	}
}
