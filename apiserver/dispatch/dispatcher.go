// Package dispatch serves the agents' connections. It sends a node its assignments and the ingress routes, receives its
// heartbeats, lets nodes join, and hands a project over from one node to the next. When a push is processed, it is the
// watch between the scheduler's decision and the agent's work.
//
// Invariants:
//
//   - A message for an agent is computed from the cache when it is sent, and never queued. A slow agent gets the newest
//     state and not every step.
//   - A change reaches the sessions that it concerns, and wakes no other. One goroutine of the server follows the cache for all of them.
//   - A node has one session, also in a cluster of several servers. A newer session ends it, and the older agent gets the reason.
//   - A session begins with a state that is at least as new as any that the node's earlier session was sent, at any server.
//   - What a session costs depends on what its own node runs and serves, and not on the size of the cluster. Routes are encoded
//     once, for all sessions. An agent with the capability RoutesOnDemand gets those of its node's projects and of the hosts that it
//     has asked for, and the credentials for these hosts. It is told each change until it forgets the host.
//   - After a recovery of the cluster, no node gets assignments until each node that is there has told what it has obeyed.
//   - When a project leaves a reachable node, that node holds it until its agent reports that nothing is left. So no two
//     reachable nodes run one project.
package dispatch

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/caravanserai/cara/apiserver/directory"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Dispatcher serves the agents. It begins without connected agents.
type Dispatcher struct {
	DB      *state.DB
	Objects *objects.Service
	Guard   guard.Guard
	// Identity signs the certificates of nodes. Without it no node can join.
	Identity *identity.Identity
	// Joins lets one join at a time write, because each one counts a use of its token: many nodes that join together would conflict until
	// their transactions give up.
	Joins *semaphore.Weighted
	// Directory says which other server has an agent; nil for a server alone.
	Directory directory.Directory
	// HearsAll reports whether all other servers tell this one what they know. It is set together with Directory.
	HearsAll func() bool
	// ClusterID is a label of every container.
	ClusterID string
	// Authenticate returns the caller from the network, from the credentials in ctx.
	Authenticate func(ctx context.Context) (identity.Actor, error)

	// Routes is shared by all sessions.
	Routes *RouteIndex

	Sessions Sessions

	deliveries deliveries
	servers    atomic.Pointer[carav1.Servers] // the addresses that agents are told; nil until they are known
}

// Values returns what reads the values of Secrets for agents.
func (d *Dispatcher) Values() Values { return Values{d.DB} }

// Holders returns what keeps the sessions and the directory in step.
func (d *Dispatcher) Holders() Holders {
	return Holders{d.DB, d.Objects.Live, d.Directory, &d.Sessions}
}
