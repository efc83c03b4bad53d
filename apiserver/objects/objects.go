// Package objects is what can be done to a project, a source, a node, a secret, a token and an event: the services of the
// contract that read and change objects, apply, overrides, snapshots, and the rules behind them. On the line of a push it
// is where a plan becomes an object: here the reconciler's apply is decided, before `apiserver/state` commits it.
//
// What must hold:
//
//   - A rule is a function over a state.Tx. It reads the transaction's own view, so that what it decided on is a condition
//     of the commit, and it never sees the cache or the server.
//   - A phase moves in movePhase alone, by the table in api.CheckMove; with it go the Phase condition and one event, in
//     the same transaction.
//   - A project, its tombstone, its override and its claims on hosts change together or not at all.
//   - What changes with every heartbeat, poll or delivery stays in Live, and is laid over answers.
//   - No value of a secret is in an answer, an event or an error.
package objects

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Service is what the services of this package share. New makes it.
type Service struct {
	DB    *state.DB
	Live  *Live
	Guard guard.Guard
	// Identity signs join tokens; nil for a server without one.
	Identity *identity.Identity
	// DeleteWait is how long DeleteProject waits for the project's end.
	DeleteWait time.Duration
	// MayCall says whether an actor may call a method of gRPC, by its full name: Apply asks it for each object.
	MayCall func(actor identity.Actor, method string) error

	appliers map[string]applier // by kind
	staging  chan struct{}      // has an element while staged claims are written or settled
}

// applier plans what Apply does with an object of one kind: it reads and writes through the transaction and returns
// the object before (nil where there was none) and after.
type applier func(t *state.Tx, m proto.Message, how applyTerms) (before, after proto.Message, err error)

type (
	// Projects serves the project service, except for what dispatch and relay serve.
	Projects struct{ *Service }
	// Nodes serves the node service, except for what dispatch serves.
	Nodes struct{ *Service }
	// Applier serves the apply service.
	Applier struct {
		*Service
		carav1.UnsafeApplyServiceServer
	}
	// Secrets serves the secret service.
	Secrets struct {
		*Service
		carav1.UnsafeSecretServiceServer
	}
	// Tokens serves the token service.
	Tokens struct {
		*Service
		carav1.UnsafeTokenServiceServer
	}
	// Sources serves the source service.
	Sources struct {
		*Service
		carav1.UnsafeSourceServiceServer
	}
	// Events serves the event service.
	Events struct {
		*Service
		carav1.UnsafeEventServiceServer
	}
	// Watches serves the watch service.
	Watches struct {
		*Service
		carav1.UnsafeWatchServiceServer
	}
)

// New returns a service with what s gives it, and nothing in memory yet.
func New(s Service) *Service {
	s.Live, s.appliers, s.staging = newLive(), appliers(), make(chan struct{}, 1)
	return &s
}

// appliers are the rules of the kinds that can be applied.
func appliers() map[string]applier {
	return map[string]applier{
		api.KindNode:    applyNode,
		api.KindSecret:  applySecret,
		api.KindProject: applyProject,
		api.KindSource:  applySource,
	}
}
