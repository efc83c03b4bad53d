package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/hostvolume"
	"github.com/caravanserai/cara/agent/image"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/agent/volume"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// Ports describes the ports of projects on this node, for its heartbeats.
type Ports interface {
	Offer() *carav1.PortOffer
	Report() *carav1.PortReport
	// Changes returns a channel that has an entry after the report has changed.
	Changes() <-chan struct{}
}

// Servers are the servers that Conn may lead to.
type Servers interface {
	// Learn is called with the addresses of all servers that a server has told.
	Learn(addresses []string)
	// NextServer is called when the connection to a server is over.
	NextServer()
}

// Config configures an Agent.
type Config struct {
	// Conn is the connection to the server, with the node's identity.
	Conn grpc.ClientConnInterface
	// Servers chooses between several servers. Optional.
	Servers Servers
	// Engine to manage.
	Engine engine.Engine
	// NodeName and ClusterID are set as labels on everything that the agent creates.
	NodeName, ClusterID string
	// DataDir stores the last assignments.
	DataDir string
	// Version of this program, and the address of its ingress (`host:port`), for the node's info.
	Version, IngressAddress string
	// OnRoutes is called with every change of the ingress table, in order. It must not block. Optional.
	OnRoutes func(*carav1.Routes)
	// OnCredentials is called with every change of the certificates and passwords of the ingress, like OnRoutes. Optional.
	OnCredentials func(*carav1.Credentials)
	// Answering returns the tokens of the challenges of certificate authorities that the ingress answers. Optional.
	Answering func() []string
	// PublicAddresses are the addresses and names at which the internet reaches the public ingress.
	PublicAddresses []string
	// Hosts are what the ingress asks the server for. Without it, the server sends the routes of all hosts.
	Hosts Hosts
	// PeersDigest identifies the peers that the ingress knows, for the first message of a connection. Without it, the server sends
	// all of them.
	PeersDigest func() []byte
	// Entry says that the ingress keeps the routes of all hosts, for the node's info.
	Entry bool
	// Capabilities are what the server sends this agent credentials for: see api.CapabilityIngress.
	Capabilities []string
	// Ports are the ports of projects that this node opens. Optional.
	Ports Ports
	// Requests returns how many requests the ingress has passed to a service of this node, and false if no route leads to it. Optional.
	Requests func(project, service string) (count uint64, ok bool)
	// DialVolumes connects to another node's agent to copy a volume. Without it, this node moves no data.
	DialVolumes func(ctx context.Context, node, address string) (net.Conn, error)
	// Tools returns the versions of the programs for data on this machine. The default is volume.Tools.
	Tools  func(context.Context) map[string]string
	Logger *slog.Logger
	// Queues is optional.
	Queues *loop.Metrics

	// Workers is the number of projects processed concurrently. The default is 64.
	Workers int
	// EngineCalls is the number of concurrent calls that change something. The default is 8.
	EngineCalls int
	// Stops is the number of containers that may be stopping concurrently, not counting those that take long. The default is
	// 12.
	Stops int
	// Helpers give logins for registries. Optional.
	Helpers *image.Helpers
	// Pulls is the number of concurrent image pulls. The default is 3.
	Pulls int
	// Relist is the interval between listings of the engine. The default is 15 s.
	Relist time.Duration
	// Ping is the interval between pings of the engine. The default is 5 s.
	Ping time.Duration
	// OrphanGrace is how long objects without an owner are kept while the server is connected. The default is 30 s.
	OrphanGrace time.Duration
	// ServerGrace is how long assignments from disk wait for the server after a start, unless nothing listens there. The
	// default is 10 s.
	ServerGrace time.Duration
	// MaxBackoff is the longest wait before a retry. The default is 10 s. Connections to the server are retried at least every
	// second.
	MaxBackoff time.Duration
	// ProbeEvery is the longest interval between probes of a service that has not been healthy yet. The default is 1 s.
	ProbeEvery time.Duration
	// CollectEvery is the interval between checks whether images must be collected. The default is 1 min.
	CollectEvery time.Duration
	// Hardening applies to every container of this node.
	Hardening step.Hardening
	// Restart limits the restarts of containers that exit.
	Restart step.RestartLimits
	// HostVolumes are the paths that the node offers to projects. See hostvolume.Parse.
	HostVolumes []step.HostVolume
	// BackupDirs are the directories below which projects may have repositories for their backups on this node.
	BackupDirs []string
	// Environ is the environment of this process: restic gets the settings of the network from it.
	Environ []string
	// Restic is the path of restic. Empty means that the directories of the system are searched for it.
	Restic string
	// MeasureEvery is how often the size of a Managed volume is measured. The default is 10 min.
	MeasureEvery time.Duration
	// UsageEvery is how often the containers are measured for plots. The default is meter.Interval.
	UsageEvery time.Duration
	// Limits define when the node is short of disk or memory.
	Limits Limits
}

// Hosts says which hosts the ingress needs routes for. Its methods do not block.
type Hosts interface {
	// Begin returns the hosts for the first message of a connection.
	Begin() []string
	// Connected is called when the server has accepted the connection. onDemand is false if it sends the routes of all hosts.
	Connected(onDemand bool)
	// News is ready when Take has something for the next message.
	News() <-chan struct{}
	Take() (ask, forget []string)
	// Ended is called when the connection is over.
	Ended()
}

// noHosts asks for nothing.
type noHosts struct{}

func (noHosts) Begin() []string              { return nil }
func (noHosts) Connected(bool)               {}
func (noHosts) News() <-chan struct{}        { return nil }
func (noHosts) Take() (ask, forget []string) { return nil, nil }
func (noHosts) Ended()                       {}

// node returns what every assignment needs to know about this node.
func (c *Config) node() step.Node {
	return step.Node{Cluster: c.ClusterID, Name: c.NodeName, Hardening: c.Hardening, Restart: c.Restart, HostVolumes: c.HostVolumes}
}

// Validate sets defaults and returns an error for each missing field.
func (c *Config) Validate() error {
	var errs []error
	for name, missing := range map[string]bool{
		"Conn": c.Conn == nil, "Engine": c.Engine == nil, "Logger": c.Logger == nil,
		"NodeName": c.NodeName == "", "ClusterID": c.ClusterID == "", "DataDir": c.DataDir == "",
	} {
		if missing {
			errs = append(errs, fmt.Errorf("agent: %s is not set", name))
		}
	}
	c.Workers = cmp.Or(c.Workers, 64)
	c.EngineCalls = cmp.Or(c.EngineCalls, 8)
	c.Stops = cmp.Or(c.Stops, 12)
	c.Pulls = cmp.Or(c.Pulls, 3)
	c.Relist = cmp.Or(c.Relist, 15*time.Second)
	c.Ping = cmp.Or(c.Ping, 5*time.Second)
	c.OrphanGrace = cmp.Or(c.OrphanGrace, 30*time.Second)
	c.ServerGrace = cmp.Or(c.ServerGrace, 10*time.Second)
	c.MaxBackoff = cmp.Or(c.MaxBackoff, 10*time.Second)
	c.ProbeEvery = cmp.Or(c.ProbeEvery, time.Second)
	c.CollectEvery = cmp.Or(c.CollectEvery, time.Minute)
	c.MeasureEvery = cmp.Or(c.MeasureEvery, 10*time.Minute)
	if c.Hosts == nil {
		c.Hosts = noHosts{}
	}
	if c.Tools == nil {
		c.Tools = volume.Tools
	}
	c.Hardening = c.Hardening.WithDefaults()
	c.Restart = c.Restart.WithDefaults()
	errs = append(errs, c.Limits.validate(), hostvolume.Check(c.HostVolumes, c.DataDir, "the agent's data directory"))
	return errors.Join(errs...)
}
