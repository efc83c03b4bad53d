package apiserver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/fullstorydev/grpchan/inprocgrpc"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Server is the door. New makes it, Run serves it, Client lets the loops of this process in.
type Server struct {
	cfg       Config
	db        *state.DB
	guard     guard.Guard
	metrics   *metrics
	beats     latest[time.Time]          // when each node was heard of
	infos     latest[*carav1.NodeInfo]   // what each agent said of its machine: free disk changes all the time
	polls     latest[*carav1.PollStatus] // what the probe of each source found
	hints     *hints
	visits    visits
	bodies    *bodies
	joins     *turns        // calls of Join that are being read
	anonymous *sampler      // of lines about callers without an identity
	filling   chan struct{} // a slot for each call that waits for the cache before it is known whose it is
	sessions  sessions
	meetings  meetings
	backup    sync.Mutex // held while a backup is made
	appliers  map[string]applier
}

// applier plans what Apply does with an object of one kind: it reads and writes through the transaction and returns
// the object before (nil where there was none) and after.
type applier func(t *state.Tx, m proto.Message, how applyTerms) (before, after proto.Message, err error)

// New makes a server. It does no I/O and starts nothing; calls through Client wait until Run has filled the cache.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	s := &Server{
		cfg: cfg,
		db: &state.DB{
			Cache: state.NewCache(cfg.RecentChanges), Store: cfg.Store, Now: cfg.Now, Logger: cfg.Logger,
			Hosts:     state.Hosts{Template: cfg.Hosts, Own: cfg.ownHosts, Reserved: cfg.ReservedHosts},
			Bookmarks: cfg.BookmarkInterval, Draining: make(chan struct{}),
		},
		guard:     guard.Guard{Logger: cfg.Logger},
		hints:     newHints(),
		bodies:    newBodies(int64(cfg.MaxBodiesBytes)),
		joins:     newTurns(maxJoins, maxJoinsEach),
		anonymous: newSampler(),
		filling:   make(chan struct{}, maxFilling),
	}
	s.metrics = newMetrics(s.db, cfg.Figures...)
	if cfg.Identity != nil {
		s.db.Vault = cfg.Identity.Vault()
	}
	if cfg.Authenticator == nil {
		s.cfg.Authenticator = tokens{s}
	}
	s.appliers = map[string]applier{
		api.KindNode:    s.applyNode,
		api.KindSecret:  s.applySecret,
		api.KindProject: s.applyProject,
		api.KindSource:  s.applySource,
	}
	return s, nil
}

// Client is a connection for one loop of this process, whose identity is system/NAME: `scheduler`, `gc`, `reconciler`
// or `sources`. Everything else than how the call travels is as over the network.
func (s *Server) Client(name string) (grpc.ClientConnInterface, error) {
	actor := identity.Actor{Name: api.PrefixSystem + name, Role: api.Role(name)}
	if !actor.System() {
		return nil, fmt.Errorf("apiserver: there is no loop %q: want scheduler, gc, reconciler or sources", name)
	}
	return s.channel(func(context.Context) (identity.Actor, error) { return actor, nil }, loopCloner{}), nil
}

// channel is a connection inside the process whose caller is who identify says.
func (s *Server) channel(identify func(context.Context) (identity.Actor, error), cloner inprocgrpc.Cloner) *inprocgrpc.Channel {
	ch := new(inprocgrpc.Channel).
		WithCloner(cloner).
		WithServerUnaryInterceptor(s.unary(identify)).
		WithServerStreamInterceptor(s.stream(identify))
	s.register(ch)
	return ch
}
