// Package objects implements the services that read and change objects: projects, sources, nodes, secrets, volumes, tokens,
// certificates and events, and apply, watches and snapshots. When a push is processed, this package answers the reconciler's
// apply: it decides with `apiserver/rules`, and `apiserver/state` commits.
//
// Invariants:
//
//   - A call checks its own form and its caller here. What an object may become is decided in apiserver/rules.
//   - State that changes with every heartbeat, poll or delivery stays in Live and is added to answers.
//   - Answers, events and errors never contain the value of a secret.
package objects

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/live"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Service is the shared state of the services in this package. New creates it.
type Service struct {
	DB    *state.DB
	Live  *live.State
	Guard guard.Guard
	// Identity signs join tokens; nil for a server without one.
	Identity *identity.Identity
	// DeleteWait is how long DeleteProject waits until the project is gone.
	DeleteWait time.Duration
	// MayCall returns an error if an actor may not call a gRPC method, given by its full name. Apply calls it for each
	// object.
	MayCall func(actor identity.Actor, method string) error

	// SessionActor returns the caller that a stored session authenticates.
	SessionActor func(session *carav1.Session) (identity.Actor, error)

	appliers  map[string]applier // by kind
	snapshots publisher
}

// applier plans the apply of an object of one kind. It reads and writes through the transaction and returns the object
// before, or nil or an invalid message, and after.
type applier func(t *state.Tx, m proto.Message, how rules.ApplyTerms) (before, after proto.Message, err error)

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
	// Sessions serves the session service, except for logins.
	Sessions struct{ *Service }
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
	s.Live, s.appliers, s.snapshots = live.New(s.DB.Now()), appliers(), newPublisher(s.DB, s.Guard)
	return &s
}

// appliers returns the appliers of the kinds that can be applied.
func appliers() map[string]applier {
	return map[string]applier{
		api.KindNode:    apply(declareNode),
		api.KindSecret:  applySecret,
		api.KindProject: rules.ApplyProject,
		api.KindSource:  applySource,
	}
}
