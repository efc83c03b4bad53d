package api

import (
	"strings"
)

// Prefixes of the names of actors and owners: `source/platform`, `user/ada`, `node/n1`, `system/gc`. Only sources and users
// own projects.
const (
	PrefixSource = "source/"
	PrefixUser   = "user/"
	PrefixNode   = "node/"
	PrefixSystem = "system/"
)

// SourceOf returns the source in an owner's name. ok is false for every other owner, and for an empty one.
func SourceOf(owner string) (source string, ok bool) {
	source, ok = strings.CutPrefix(owner, PrefixSource)
	if !ok {
		return "", false
	}
	return source, true
}

// OrNobody returns an owner for messages: "nobody" for a project without an owner.
func OrNobody(owner string) string {
	if owner == "" {
		return "nobody"
	}
	return owner
}

// Role determines which methods a caller may call, and which phase moves it may make.
type Role string

// Roles. The first three are for people and pipelines, RoleNode is for agents, and RoleJoin for the tokens with which an
// agent joins. The loops in the server have the others. The phase table also has roles for the server itself and for a
// project's agent.
const (
	RoleNone     = "" // unauthenticated: may only join
	RoleAdmin    = "admin"
	RoleDeployer = "deployer"
	RoleViewer   = "viewer"

	RoleNode = "node"
	RoleJoin = "join"

	RoleScheduler  = "scheduler"
	RoleGC         = "gc"
	RoleReconciler = "reconciler"
	RoleSources    = "sources"
	RoleCerts      = "certs"

	RoleServer = "server"
	RoleAgent  = "agent"
)
