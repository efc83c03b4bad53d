// Package confine runs a program that can open only the files that it needs. The agent uses it for rsync and restic, which read
// volumes as root while containers write to them: a container that replaces a directory of its volume by a symbolic link must
// not get other files of the node into a copy or a snapshot. It comes after the containers run, beside the line from a push to
// containers.
//
// A process can give up access to files, but only for itself and its children. So the agent starts its own program with the
// hidden command Command, which gives up the access and then becomes the other program (Exec). Linux enforces it with Landlock.
//
// Invariants:
//
//   - A confined program can open, list, create, rename and remove only what its Access names, whatever links a path contains.
//     It can still ask for the names, types and times of other files if it knows their paths, and connect to other machines.
//   - Landlock needs Linux 5.13, and Linux 5.19 for Access.Link. On an older kernel the program runs all the same, without
//     limits. Problem reports that, and the agent logs it when it starts.
//   - A confined program cannot look into processes that are not confined with it, such as the agent. So it gets secrets as open
//     files, never as paths into the agent.
//   - A confined program gets the signal that its command asks for when the agent dies, as an unconfined one does.
package confine

// Command is the name of the hidden command.
const Command = "confined"

// Texts that are replaced in the arguments of a confined program.
const (
	// Self becomes a path of the agent's own program, which the confined program can run. It is valid even if the agent's file
	// has been replaced since.
	Self = "{self}"
	// PID becomes the process ID of the confined program.
	PID = "{pid}"
)

// Access is what a program can open, in addition to its own file and the programs and libraries of the system. A path that does
// not exist is ignored.
type Access struct {
	// Read are files, and directories with everything below them.
	Read []string `json:"read,omitempty"`
	// Write are directories, with everything below them. Nothing can be moved or linked from one directory to another there.
	Write []string `json:"write,omitempty"`
	// Link are directories like those of Write, but files can be moved and linked from one directory to another.
	Link []string `json:"link,omitempty"`
	// Network adds what a program needs to find and to verify other machines: the names of users and hosts, the settings of the
	// resolver, and certificates.
	Network bool `json:"network,omitempty"`
}
