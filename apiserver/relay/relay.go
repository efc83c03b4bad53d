// Package relay carries streams between callers and agents: exec, logs, port-forward and top. It stands beside the line of
// a push: people look at what runs through it.
//
// What must hold:
//
//   - The caller's goroutine reads the agent's stream itself. A slow caller slows the agent down, which sends no more than
//     the window of package flow.
//   - A stream is found by its own node alone, and it ends with its caller, its agent or the server.
package relay

import (
	"github.com/caravanserai/cara/apiserver/dispatch"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/state"
)

// Relay carries streams between callers and agents. Its zero value has no streams yet.
type Relay struct {
	DB       *state.DB
	Guard    guard.Guard
	Sessions *dispatch.Sessions // of the agents
	// MaxPerCaller bounds the streams of one caller.
	MaxPerCaller int

	meetings meetings
}

// Open is how many streams there are.
func (r *Relay) Open() int {
	r.meetings.mu.Lock()
	defer r.meetings.mu.Unlock()
	return len(r.meetings.waiting)
}
