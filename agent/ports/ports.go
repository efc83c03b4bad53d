// Package ports serves the TCP and UDP ports of projects. Each agent that offers a port accepts connections and datagrams and
// passes them to the service: directly if the project runs on this node, otherwise through the agent of the other node. It is
// the last step after a push, for everything that is not HTTP.
//
// Invariants:
//
//   - The agent opens a port only if its operator offers it and a project has claimed it, on the address of the port's scope.
//   - A connection or a datagram crosses agents at most once, over mutual TLS (agent/peer). The agent at the other end passes it only to a
//     service on its own node. Both agents check the scope and the access list.
//   - Each TCP connection acquires its backend and holds it until it ends. A draining service is removed from the endpoints before
//     it gets its signal, so no new connection reaches it.
//   - A connection without a backend waits for at most Limits.Hold and is then reset. So no client is refused while a service
//     is replaced.
//   - The end of one direction is passed on alone. An error is passed on as a reset, never as an end: a client must not take
//     a part of the data for all of it.
//   - The datagrams of a client belong to a session, which ends when it is idle. A session stays with its container until that
//     leaves the endpoints, and does not keep it from stopping. A datagram that cannot go on at once is dropped and counted.
//     The goroutine that receives them never waits.
//   - The replies of a session leave from the address and port that its client used.
//   - Everything that a client may occupy has a limit (Limits).
package ports

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/caravanserai/cara/agent/peer"
	"github.com/caravanserai/cara/agent/proxyheader"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/connlimit"
	"github.com/caravanserai/cara/internal/loglimit"
)

// Config configures Ports.
type Config struct {
	// Node is this node's name.
	Node string
	// Offer says which ports the agent may open, and on which addresses.
	Offer *carav1.PortOffer
	// Endpoint returns the address of a service on this node that may receive connections. Ports calls release, at least once,
	// when the connection has ended.
	Endpoint func(project, service string) (ip string, release func(), ok bool)
	// Endpoints returns a channel that is closed when endpoints change.
	Endpoints func() <-chan struct{}
	// Peers secures connections to and from other agents. If it is nil, there are none.
	Peers *peer.TLS
	// ProxyProtocolFrom are the load balancers whose PROXY headers say who the client is.
	ProxyProtocolFrom proxyheader.Senders
	// Hosts are those whose TLS connections are passed on. Optional.
	Hosts Hosts
	// File stores the routes, so that ports are served after a restart while the server is unreachable. Optional.
	File string
	// Metrics registers the metrics by project. Optional.
	Metrics prometheus.Registerer
	Limits  Limits
	Logger  *slog.Logger
}

// Limits are limits on what clients may occupy, and for how long.
type Limits struct {
	// Connections is the maximum number of open connections. The default is 10,000. ClientConnections is the maximum for one
	// client address. The default is a quarter of Connections.
	Connections, ClientConnections int
	// Idle is how long a connection may carry no data. The default is 1 h.
	Idle time.Duration
	// Sessions is the maximum number of UDP sessions. The default is 10,000. ClientSessions is the maximum for one client
	// address. The default is a quarter of Sessions. Beyond that, the session that was idle for the longest time ends.
	Sessions, ClientSessions int
	// SessionIdle is how long a UDP session may carry no datagram. The default is 2 min.
	SessionIdle time.Duration
	// Hold is how long a new connection waits for a service that answers. The default is 10 s.
	Hold time.Duration
	// Header is the timeout for the PROXY header of a load balancer. The default is 10 s.
	Header time.Duration
	// Retry is the wait before a port that could not be opened is tried again. The default is 3 s.
	Retry time.Duration
}

func (l Limits) withDefaults() Limits {
	connections, sessions := cmp.Or(l.Connections, 10_000), cmp.Or(l.Sessions, 10_000)
	return Limits{
		Connections: connections, ClientConnections: cmp.Or(l.ClientConnections, max(1, connections/4)),
		Sessions: sessions, ClientSessions: cmp.Or(l.ClientSessions, max(1, sessions/4)), SessionIdle: cmp.Or(l.SessionIdle, 2*time.Minute),
		Idle: cmp.Or(l.Idle, time.Hour), Hold: cmp.Or(l.Hold, 10*time.Second), Header: cmp.Or(l.Header, 10*time.Second),
		Retry: cmp.Or(l.Retry, 3*time.Second),
	}
}

// Ports serves the ports of projects on one node.
type Ports struct {
	cfg     Config
	routing *routing
	report  report
	metrics *metrics
	clients *connlimit.Counter
	log     loglimit.Limit
	open    sync.WaitGroup // connections and sessions of clients

	sessions *sessions
	queued   *semaphore.Weighted // bytes of datagrams that wait for connections to other agents
	dialing  chan struct{}       // has an entry for each connection that is being opened for a session
}

// New returns Ports without routes.
func New(cfg Config) *Ports {
	cfg.Limits = cfg.Limits.withDefaults()
	p := &Ports{
		cfg: cfg, metrics: newMetrics(cfg.Metrics, cfg.Hosts), report: report{changes: make(chan struct{}, 1), latest: &carav1.PortReport{}},
		clients:  connlimit.NewCounter(cfg.Limits.Connections, cfg.Limits.ClientConnections),
		sessions: newSessions(cfg.Limits.Sessions, cfg.Limits.ClientSessions), queued: semaphore.NewWeighted(allQueuedBytes), dialing: make(chan struct{}, maxDialing),
	}
	p.routing = newRouting(cfg, p.metrics)
	return p
}

// Apply changes the routes: all of them if the change is full, otherwise those of the projects in it.
func (p *Ports) Apply(change *carav1.Routes) { p.routing.apply(change) }

// Offer returns what the node offers.
func (p *Ports) Offer() *carav1.PortOffer { return p.cfg.Offer }

// Changes returns a channel that has an entry after the report has changed.
func (p *Ports) Changes() <-chan struct{} { return p.report.changes }

// Report returns the ports that are open and those that cannot be opened.
func (p *Ports) Report() *carav1.PortReport {
	p.report.mu.Lock()
	defer p.report.mu.Unlock()
	return p.report.latest
}

// Run opens the ports and serves them until ctx ends. The connections end with it.
func (p *Ports) Run(ctx context.Context) error {
	p.routing.restore()
	var saver sync.WaitGroup
	defer saver.Wait()
	saver.Go(func() { p.routing.file.Run(ctx, p.routing.stored) })
	listeners := listeners{ports: p, open: map[api.PortKey]*listener{}}
	defer p.open.Wait()
	defer listeners.close()
	for {
		again := listeners.adjust(ctx)
		var retry <-chan time.Time
		if again {
			retry = time.After(p.cfg.Limits.Retry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.routing.wake:
		case <-retry:
		}
	}
}

func kick(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
