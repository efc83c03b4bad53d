// Package dispatch serves the agents' connections: it sends a node its assignments and the ingress routes, takes its
// heartbeats, lets nodes join, and hands a project over from one node to the next. On the line of a push it is the watch
// between the scheduler's decision and the agent's step.
//
// What must hold:
//
//   - What an agent has to hear is worked out from the cache when it is sent, and never queued: an agent that reads slowly
//     gets the newest state, and not every step to it.
//   - A node has one session. A newer one ends it, and the older agent is told why.
//   - A project that leaves a reachable node is held by it until its agent says that nothing is left. So no two nodes
//     that can be reached run one project.
package dispatch

import (
	"context"

	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/apiserver/state"
)

// Dispatcher serves the agents. Its zero value has no agents yet.
type Dispatcher struct {
	DB      *state.DB
	Objects *objects.Service
	Guard   guard.Guard
	// Identity signs the certificates of nodes; without it no node can join.
	Identity *identity.Identity
	// ClusterID goes on every container's labels.
	ClusterID string
	// Authenticate says who calls over the network, from the credentials in ctx.
	Authenticate func(ctx context.Context) (identity.Actor, error)

	Sessions Sessions
}
