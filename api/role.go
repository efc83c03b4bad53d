package api

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
