// Package relay carries streams between callers and agents: exec, logs, port-forward, top and the usage history. It has no
// part in the processing of a push; people use it to look at running projects.
//
// Invariants:
//
//   - The caller's goroutine reads the agent's stream itself. So a slow caller slows the agent down, which sends at most
//     the window of package flow.
//   - A stream goes through the server that the node's agent is connected to: the asked server copies its messages.
//   - Only the node of a stream can attach to it. A stream ends with its caller, its agent or the server.
package relay

import (
	"github.com/caravanserai/cara/apiserver/dispatch"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/state"
)

// Relay carries streams between callers and agents. The zero value has no streams.
type Relay struct {
	DB       *state.DB
	Guard    guard.Guard
	Sessions *dispatch.Sessions // of the agents
	// MaxPerCaller limits the streams of one caller.
	MaxPerCaller int
	// Servers finds the agents of other servers.
	Servers Servers

	streams agentStreams
}

// Open returns the number of open streams.
func (r *Relay) Open() int {
	r.streams.mu.Lock()
	defer r.streams.mu.Unlock()
	return len(r.streams.waiting) + r.streams.forwarded
}
