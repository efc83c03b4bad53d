// Package backup copies the data of one project's Managed volumes to a restic repository, checks such copies, and restores
// them. The agent decides when; this package knows how. It comes after the containers run, beside the line from a push to containers.
//
// Invariants:
//
//   - Whatever happens, containers that a backup paused are resumed. The record of a pause is on disk before the first container
//     is paused, so that the next agent resumes them after a crash.
//   - No value of a Secret is in an argument, in a file on disk or in a log. Credentials are in restic's environment, and the
//     password and the ssh key are in memory files that only restic and the ssh that it starts can open.
//   - restic can open no file of the node but the volumes, the repository and its own files (agent/confine), so that no container
//     gets other files of the node into a snapshot.
//   - restic's environment has only what this package puts there. It never uses credentials of the machine.
//   - The snapshots of a project are found by their tags, and only these are ever removed.
//   - A restore only uses complete snapshots of the volume that it is asked for, and changes nothing outside of the directory that
//     it fills. The directory counts as restored only after its content was compared with the repository.
//   - A snapshot that was made while the project ran is marked with a tag, and is removed after each backup. A snapshot without
//     this tag is complete.
package backup
