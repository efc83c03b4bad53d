// Package objects implements the operations on projects, sources, nodes, secrets, tokens and events: the services that read
// and change objects, apply, overrides, snapshots, and their rules. When a push is processed, this package decides the
// reconciler's apply before `apiserver/state` commits it.
//
// Invariants:
//
//   - A rule is a function of a state.Tx. It reads the transaction's own view, so its input is a condition of the commit.
//     It never reads the cache or the server.
//   - Only movePhase changes a phase, by the table in api.CheckMove. The Phase condition and one event are in the same
//     transaction.
//   - A project, its tombstone, its override and its claims on hosts change together or not at all.
//   - State that changes with every heartbeat, poll or delivery stays in Live and is added to answers.
//   - Answers, events and errors never contain the value of a secret.
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

// Service is the shared state of the services in this package. New creates it.
type Service struct {
	DB    *state.DB
	Live  *Live
	Guard guard.Guard
	// Identity signs join tokens; nil for a server without one.
	Identity *identity.Identity
	// DeleteWait is how long DeleteProject waits until the project is gone.
	DeleteWait time.Duration
	// MayCall returns an error if an actor may not call a gRPC method, given by its full name. Apply calls it for each
	// object.
	MayCall func(actor identity.Actor, method string) error

	appliers map[string]applier // by kind
	staging  chan struct{}      // has an element while staged claims are written or settled
}

// applier plans the apply of an object of one kind. It reads and writes through the transaction and returns the object
// before, or nil, and after.
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
	// Volumes serves the volume service.
	Volumes struct {
		*Service
		carav1.UnsafeVolumeServiceServer
	}
	// Events serves the event service.
	Events struct {
		*Service
		carav1.UnsafeEventServiceServer
	}
	// Certificates serves the certificate service, except for what dispatch serves.
	Certificates struct{ *Service }
	// Files serves the file service.
	Files struct {
		*Service
		carav1.UnsafeFileServiceServer
	}
	// Watches serves the watch service.
	Watches struct {
		*Service
		carav1.UnsafeWatchServiceServer
	}
)

// New returns a service with the fields of s and no live state.
func New(s Service) *Service {
	s.Live, s.appliers, s.staging = newLive(s.DB.Now()), appliers(), make(chan struct{}, 1)
	return &s
}

// appliers returns the appliers of the kinds that can be applied.
func appliers() map[string]applier {
	return map[string]applier{
		api.KindNode:    applyNode,
		api.KindSecret:  applySecret,
		api.KindProject: applyProject,
		api.KindSource:  applySource,
	}
}
