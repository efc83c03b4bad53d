package apiserver

import (
	"context"
	"fmt"
	"sync"

	"github.com/fullstorydev/grpchan/inprocgrpc"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/dispatch"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/live"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/apiserver/peers"
	"github.com/caravanserai/cara/apiserver/relay"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loglimit"
	"github.com/caravanserai/cara/store"
)

// lateReads is how often, in a second, the store is asked for a credential that the cache does not have.
const lateReads = 100

// anonymousBurst is how many log lines about unauthenticated callers pass without a pause.
const anonymousBurst = 10

// Server is the API server. New creates it, Run serves it, and Client connects the loops of this process.
type Server struct {
	cfg       Config
	db        *state.DB
	guard     guard.Guard
	metrics   *metrics
	objects   *objects.Service
	sessions  objects.Sessions
	live      *live.State
	visits    *admission.Visits
	bodies    *admission.Bodies
	anonymous *loglimit.Limit // samples log lines about unauthenticated callers
	filling   chan struct{}   // a slot for each unauthenticated call that waits for the cache
	agents    *dispatch.Dispatcher
	streams   *relay.Relay
	peers     *peers.Peers // nil for a server alone
	openID    *openID
	backup    sync.Mutex // held while a backup is made
}

// New creates a server. It does no I/O and starts nothing. Calls through Client wait until Run has filled the cache.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	s := &Server{
		cfg: cfg,
		db: &state.DB{
			Cache: state.NewCache(cfg.RecentChanges), Store: cfg.Store, Now: cfg.Now, Logger: cfg.Logger,
			Hosts:     state.Hosts{Template: cfg.Hosts, Own: cfg.ownHosts, Reserved: cfg.ReservedHosts, Obtained: cfg.ObtainCertificates, Wildcard: cfg.Wildcard},
			Bookmarks: cfg.BookmarkInterval, Draining: make(chan struct{}),
		},
		guard:     guard.Guard{Logger: cfg.Logger},
		bodies:    admission.NewBodies(int64(cfg.MaxBodyBytes), int64(cfg.MaxBodiesBytes)),
		anonymous: &loglimit.Limit{Burst: anonymousBurst},
		filling:   make(chan struct{}, maxFilling),
	}
	s.visits = &admission.Visits{DB: s.db, Guard: s.guard}
	s.metrics = newMetrics(s.db, cfg.Figures...)
	if cfg.Identity != nil {
		s.db.Vault = cfg.Identity.Vault()
	}
	s.openID = newOpenID(cfg)
	if cfg.Authenticator == nil {
		s.cfg.Authenticator = tokens{s}
	}
	s.objects = objects.New(objects.Service{DB: s.db, Guard: s.guard, Identity: cfg.Identity, DeleteWait: cfg.DeleteWait, MayCall: authorise, SessionActor: sessions{s}.actor})
	s.sessions = objects.Sessions{Service: s.objects}
	s.live = s.objects.Live
	s.agents = &dispatch.Dispatcher{DB: s.db, Objects: s.objects, Guard: s.guard, Identity: cfg.Identity, Joins: semaphore.NewWeighted(1), ClusterID: cfg.ClusterID, Authenticate: s.network, Routes: dispatch.NewRouteIndex()}
	s.streams = &relay.Relay{DB: s.db, Guard: s.guard, Sessions: &s.agents.Sessions, MaxPerCaller: cfg.MaxStreamsPerCaller}
	if cfg.Directory != nil {
		s.db.Ahead = maxAhead
		s.peers = &peers.Peers{Directory: cfg.Directory, Identity: cfg.Identity, Live: s.live, DB: s.db, Guard: s.guard}
		s.db.Late = rate.NewLimiter(lateReads, 2*lateReads)
		s.agents.Directory, s.agents.HearsAll = cfg.Directory, s.peers.HearsAll
		s.streams.Servers = relay.Servers{Directory: cfg.Directory, Conn: s.peers.Conn}
	}
	return s, nil
}

// Client returns a connection for one loop of this process, with the identity system/NAME: `scheduler`, `gc`, `reconciler`,
// `sources` or `certs`. Calls are handled as if they came over the network.
func (s *Server) Client(name string) (grpc.ClientConnInterface, error) {
	return s.ClientUnder(name, store.Lease{})
}

// ClientUnder is Client for a loop that runs on this server only while it has a lease. What its calls write has the lease as a condition.
func (s *Server) ClientUnder(name string, lease store.Lease) (grpc.ClientConnInterface, error) {
	actor := identity.Actor{Name: api.PrefixSystem + name, Role: api.Role(name)}
	if !actor.System() {
		return nil, fmt.Errorf("apiserver: there is no loop %q: want scheduler, gc, reconciler, sources or certs", name)
	}
	return s.channel(func(context.Context) (identity.Actor, error) { return actor, nil }, loopCloner{}, lease), nil
}

// channel returns an in-process connection whose caller is the actor that identify returns.
func (s *Server) channel(identify identify, cloner inprocgrpc.Cloner, lease store.Lease) *inprocgrpc.Channel {
	ch := new(inprocgrpc.Channel).
		WithCloner(cloner).
		WithServerUnaryInterceptor(s.unary(identify, lease)).
		WithServerStreamInterceptor(s.stream(identify, lease))
	s.register(ch)
	return ch
}

// Each service is composed of parts from several packages. Each method of the contract is in exactly one part. With the
// Unsafe interface a missing method is a compile error.
type (
	projectService struct {
		objects.Projects
		*relay.Relay
		carav1.UnsafeProjectServiceServer
	}
	nodeService struct {
		objects.Nodes
		*dispatch.Dispatcher
		*relay.Relay
		carav1.UnsafeNodeServiceServer
	}
	certificateService struct {
		objects.Certificates
		dispatch.Challenges
		carav1.UnsafeCertificateServiceServer
	}
	sessionService struct {
		objects.Sessions
		sessions
		carav1.UnsafeSessionServiceServer
	}
	infoService struct {
		*Server
		carav1.UnsafeInfoServiceServer
	}
)

// register registers every service with a gRPC server or an in-process channel.
func (s *Server) register(r grpc.ServiceRegistrar) {
	carav1.RegisterProjectServiceServer(r, projectService{Projects: objects.Projects{Service: s.objects}, Relay: s.streams})
	carav1.RegisterApplyServiceServer(r, objects.Applier{Service: s.objects})
	carav1.RegisterNodeServiceServer(r, nodeService{Nodes: objects.Nodes{Service: s.objects}, Dispatcher: s.agents, Relay: s.streams})
	carav1.RegisterSecretServiceServer(r, objects.Secrets{Service: s.objects})
	carav1.RegisterTokenServiceServer(r, objects.Tokens{Service: s.objects})
	carav1.RegisterSessionServiceServer(r, sessionService{Sessions: s.sessions, sessions: sessions{s}})
	carav1.RegisterSourceServiceServer(r, objects.Sources{Service: s.objects})
	carav1.RegisterVolumeServiceServer(r, objects.Volumes{Service: s.objects})
	carav1.RegisterEventServiceServer(r, objects.Events{Service: s.objects})
	carav1.RegisterWatchServiceServer(r, objects.Watches{Service: s.objects})
	carav1.RegisterCertificateServiceServer(r, certificateService{Certificates: objects.Certificates{Service: s.objects}, Challenges: dispatch.Challenges{Dispatcher: s.agents}})
	carav1.RegisterFileServiceServer(r, objects.Files{Service: s.objects})
	carav1.RegisterInfoServiceServer(r, infoService{Server: s})
	carav1.RegisterPeerServiceServer(r, peers.Service{Peers: s.peers})
}
