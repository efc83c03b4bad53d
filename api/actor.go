package api

import (
	"strings"
)

// Prefixes of the names that say who acts and who owns: `source/platform`, `user/ada`, `node/n1`, `system/gc`. Only sources and users own
// projects.
const (
	PrefixSource = "source/"
	PrefixUser   = "user/"
	PrefixNode   = "node/"
	PrefixSystem = "system/"
)

// SourceOf returns the source that an owner names. ok is false for every other owner, and for none.
func SourceOf(owner string) (source string, ok bool) {
	source, ok = strings.CutPrefix(owner, PrefixSource)
	if !ok {
		return "", false
	}
	return source, true
}

// OrNobody is an owner as people read it: a project without one belongs to nobody.
func OrNobody(owner string) string {
	if owner == "" {
		return "nobody"
	}
	return owner
}

// Role is what somebody may do: who may call which method, and who may move a project from one phase to another.
type Role string

// Roles. The first three are of people and pipelines, RoleNode is of agents, and RoleJoin of the tokens that let an agent in once. The loops in
// the server have the others. In the phase table the server itself and an assigned project's agent have a role, too.
const (
	RoleNone     = "" // nobody: may only join
	RoleAdmin    = "admin"
	RoleDeployer = "deployer"
	RoleViewer   = "viewer"

	RoleNode = "node"
	RoleJoin = "join"

	RoleScheduler  = "scheduler"
	RoleGC         = "gc"
	RoleReconciler = "reconciler"
	RoleSources    = "sources"

	RoleServer = "server"
	RoleAgent  = "agent"
)
