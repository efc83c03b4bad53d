package program

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/caravanserai/cara/agent"
	"github.com/caravanserai/cara/agent/ingress"
	"github.com/caravanserai/cara/agent/ingress/ondemand"
	"github.com/caravanserai/cara/agent/join"
	"github.com/caravanserai/cara/agent/peer"
	"github.com/caravanserai/cara/agent/ports"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/garbage"
	"github.com/caravanserai/cara/internal/loop"
)

// assembly puts together what runs on a node. The agent is created last, because it needs the ports and the ingress. These ask
// it only after all of them run.
type assembly struct {
	*AgentConfig
	who     *join.Credentials
	peers   *peer.TLS
	cfg     agent.Config
	agent   *agent.Agent
	ports   *ports.Ports
	passed  passedHosts
	figures prometheus.Registerer // nil disables metrics
	serve   []func(context.Context) error
	opened  []func() // closes what was opened
}

// run runs the agent, its ingress and the renewal of its certificate concurrently.
func (c *AgentConfig) run(ctx context.Context, who *join.Credentials, conn *grpc.ClientConn, cfg agent.Config) error {
	n := &assembly{AgentConfig: c, who: who, peers: who.Peers(), cfg: cfg}
	defer func() {
		for _, shut := range n.opened {
			shut()
		}
	}()
	if err := n.addMetrics(ctx); err != nil {
		return err
	}
	n.addPorts()
	if err := n.addIngress(ctx); err != nil {
		return err
	}
	if err := n.addAgent(); err != nil {
		return err
	}
	c.Logger.Info("agent runs", "node", c.NodeName, "server", c.Server, "engine", c.DockerHost, "ingress", n.cfg.IngressAddress)
	work, ctx := errgroup.WithContext(ctx)
	for _, run := range n.serve {
		work.Go(func() error { return run(ctx) })
	}
	work.Go(func() error { return who.RenewLoop(ctx, conn) })
	if err := work.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// addMetrics opens the listener for metrics, if there is one.
func (n *assembly) addMetrics(ctx context.Context) error {
	if n.MetricsListen == "" {
		return nil
	}
	l, err := listenForMetrics(ctx, n.MetricsListen)
	if err != nil {
		return err
	}
	n.opened = append(n.opened, func() { _ = l.Close() })
	registry := newRegistry()
	n.figures = registry
	n.cfg.Queues = loop.NewMetrics()
	n.serve = append(n.serve, func(ctx context.Context) error { return serveMetrics(ctx, l, registry, n.Logger) })
	return nil
}

// addPorts adds the TCP and UDP ports of projects.
func (n *assembly) addPorts() {
	// Other agents pass connections for the projects of this node to it, even if it opens no port itself: it serves all protocols.
	offer := &carav1.PortOffer{Ports: n.Ports, InternalAddress: n.PortsInternal, PublicAddress: n.PortsPublic, Protocols: api.PortProtocols()}
	n.ports = ports.New(ports.Config{
		Hosts: &n.passed,
		Node:  n.NodeName, Logger: n.Logger, Metrics: n.figures, File: filepath.Join(n.DataDir, "ports.json"), Peers: n.peers,
		Offer: offer, Limits: ports.Limits{Idle: n.PortsIdle, SessionIdle: n.PortsUDPIdle}, ProxyProtocolFrom: n.balancers,
		Endpoint:  n.endpoint,
		Endpoints: func() <-chan struct{} { return n.agent.Endpoints().Changed() },
	})
	n.cfg.Ports, n.cfg.OnRoutes, n.cfg.Capabilities = n.ports, n.ports.Apply, []string{api.CapabilityRoutesOnDemand}
	n.serve = append(n.serve, n.ports.Run)
}

func (n *assembly) endpoint(project, service string) (string, func(), bool) {
	return n.agent.Endpoints().Acquire(project, service)
}

// addIngress opens the listeners of the ingress, unless the node has none.
func (n *assembly) addIngress(ctx context.Context) error {
	if n.IngressListen == "" {
		return nil
	}
	on, err := n.listen(ctx)
	if err != nil {
		return err
	}
	n.opened = append(n.opened, on.Close)
	in, err := n.newIngress()
	if err != nil {
		return err
	}
	n.passed.ingress = in
	n.cfg.OnRoutes = func(change *carav1.Routes) {
		in.Apply(change)
		n.ports.Apply(change)
	}
	n.cfg.OnCredentials, n.cfg.Capabilities, n.cfg.Entry = in.ApplyCredentials, in.Capabilities(on), n.IngressAll
	n.cfg.Requests, n.cfg.DialVolumes = in.Requests, n.peers.DialVolumes
	if !n.IngressAll {
		n.cfg.Hosts = in.Hosts()
	}
	n.cfg.Answering, n.cfg.PublicAddresses, n.cfg.PeersDigest = in.Answering, n.PublicAddresses, in.PeersDigest
	n.cfg.IngressAddress, err = n.ingressAddress(on.Internal.Addr().String(), func() netip.Addr { return n.who.LocalIP(ctx) })
	n.serve = append(n.serve, func(ctx context.Context) error { return in.Run(ctx, on) },
		func(ctx context.Context) error { return garbage.Run(ctx, garbage.Agent) })
	return err
}

func (n *assembly) newIngress() (*ingress.Ingress, error) {
	lines, err := n.accessLog()
	if err != nil {
		return nil, err
	}
	var onDemand *ondemand.Limits
	if !n.IngressAll {
		onDemand = &ondemand.Limits{}
	}
	return ingress.New(ingress.Config{
		OnDemand: onDemand,
		Node:     n.NodeName, Logger: n.Logger, AccessLog: lines, Metrics: n.figures, File: filepath.Join(n.DataDir, "routes.json"),
		CredentialsFile: filepath.Join(n.DataDir, "credentials.json"), Peers: n.peers, Ports: n.ports.Serve, Pass: n.ports.Pass, ProxyProtocolFrom: n.balancers,
		Volumes:  func(ctx context.Context, node string, conn net.Conn) { n.agent.ReceiveVolume(ctx, node, conn) },
		Endpoint: n.endpoint,
	}), nil
}

func (n *assembly) addAgent() (err error) {
	if n.agent, err = agent.New(n.cfg); err != nil {
		return err
	}
	if n.figures != nil {
		n.figures.MustRegister(n.agent.Metrics(), n.cfg.Queues)
	}
	n.serve = append(n.serve, n.agent.Run)
	return nil
}
