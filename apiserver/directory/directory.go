// Package directory says which servers of a cluster run, and which of them has the session of each node's agent. The
// apiserver asks it where a call must go that needs an agent, such as logs after a push. A server alone has none.
//
// What a Directory says is bound to the lease of the server that it is about. When a server is lost, all of it vanishes.
package directory

import (
	"context"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Directory is what a server knows of the others. All methods are safe for concurrent use. Those without a context do no I/O.
type Directory interface {
	// Self returns the ID of this server.
	Self() string

	// Servers returns the servers that run, also this one, by ID. The messages are shared and immutable. An address can
	// be empty: then others cannot reach that server.
	Servers() map[string]*carav1.Server

	// Holder returns which server has the newest session of a node's agent; ok is false if none has. It may be older than the objects
	// that this server has: a write that depends on it has the record as a condition, see store.Txn. Since is that of the record,
	// also if it is about a server that does not run, and 0 if there is none.
	Holder(node string) (h Holder, ok bool)

	// Follow calls changed with the names of nodes whose Holder may have changed, and with nil when Servers may have. It
	// calls it first with the nodes of all holders. It returns when ctx ends.
	Follow(ctx context.Context, changed func(nodes []string)) error

	// Hold records that this server has the session of a node's agent. From then on no other server has it: the one that
	// had it hears that by Follow and ends its session. The record is written again if this server's lease had ended. A cache
	// that has reached the revision has all that was written before the record; it is 0 if the directory is not in the store.
	// Afterwards Holder returns this record or a newer one.
	Hold(ctx context.Context, node, instance string) (revision int64, err error)

	// Release removes the record of Hold, unless a newer one has replaced it. It does not wait until that is written.
	Release(node, instance string)

	// FreeServer frees all that a server holds, its loops and agents, so that nobody waits for the end of its lease. A server that had
	// a connection to it calls this when the connection has broken, and nothing listens at its address any more, or another start
	// of the server does. It is not called for a server that is only silent, and not again for one that is announced afterwards. An
	// error means that what is not freed ends with its lease.
	FreeServer(ctx context.Context, server string) error
}

// Holder is the server that has the session of a node's agent.
type Holder struct {
	Server   string // its ID
	Instance string // of the agent: see the rule of taken-over sessions in package dispatch
	Since    int64  // the revision of the record, increases with each Hold of the cluster
}
