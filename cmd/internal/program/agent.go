package program

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/agent"
	"github.com/caravanserai/cara/agent/docker"
	"github.com/caravanserai/cara/agent/hostvolume"
	"github.com/caravanserai/cara/agent/image"
	"github.com/caravanserai/cara/agent/join"
	"github.com/caravanserai/cara/agent/proxyheader"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// AgentConfig holds the flags of cara-agent.
type AgentConfig struct {
	// Server is the server's URL, or a list of several, separated by commas.
	Server string
	// JoinTokenFile holds the join token. It is not needed if the data directory has a certificate.
	JoinTokenFile string
	// JoinToken is the token itself, instead of a file.
	JoinToken string
	// NodeName, DataDir and Labels of this node.
	NodeName string
	DataDir  string
	Labels   map[string]string
	// DockerHost is the address of the engine.
	DockerHost string
	// IngressListen is the address for HTTP; empty serves no ingress. IngressAddress is the address that other agents use,
	// if it is a different one.
	IngressListen, IngressAddress string
	// PublicHTTP and PublicHTTPS are the addresses for public hosts; empty serves none.
	PublicHTTP, PublicHTTPS string
	// PublicAddresses are the addresses and names at which the internet reaches PublicHTTP and PublicHTTPS.
	PublicAddresses []string
	// IngressAll keeps the routes of all hosts, instead of those that are needed.
	IngressAll bool
	// AccessLog is the file with a line for each request to the ingress. "-" is standard output; "off" or empty is none.
	AccessLog string
	// MetricsListen is the loopback address that serves metrics for Prometheus; empty serves none.
	MetricsListen string
	// AllowRegistries are patterns of the registries from which images may be pulled; empty means all.
	AllowRegistries []string
	// CredentialHelpers are REGISTRY=HELPER: programs that print the login for a registry.
	CredentialHelpers []string
	// NetworkPool is the address range for project networks.
	NetworkPool netip.Prefix
	// RestartDelay is the first delay of the backoff for containers that exit; 0 is the agent's default.
	RestartDelay time.Duration
	// Hardening applies to every container of this node.
	Hardening step.Hardening
	// HostVolumes are the paths that the node offers to projects, see hostvolume.Parse.
	HostVolumes []string
	// Ports are the ports of projects that the node may open, such as 5432 or 25565-25570. PortsInternal and PortsPublic are the
	// addresses for the scopes Internal and Public; empty opens none.
	Ports                      []string
	PortsInternal, PortsPublic string
	// PortsIdle is how long a connection to a port may carry no data. 0 is the default of agent/ports.
	PortsIdle time.Duration
	// PortsUDPIdle is how long a UDP session may carry no datagram. 0 is the default of agent/ports.
	PortsUDPIdle time.Duration
	// ProxyProtocolFrom are the networks of load balancers that say in a PROXY header who the client is.
	ProxyProtocolFrom []string
	// BackupDirs are the directories below which projects may have repositories for their backups.
	BackupDirs []string
	// Limits define when the node is short of disk or memory, and when images are removed. CollectEvery is how often this
	// is checked. 0 is the agent's default.
	Limits       agent.Limits
	CollectEvery time.Duration
	Version      string
	Logger       *slog.Logger

	balancers proxyheader.Senders // ProxyProtocolFrom, parsed by Validate
}

// Validate returns an error if c is not usable, and makes DataDir absolute.
func (c *AgentConfig) Validate() error {
	switch {
	case c.NodeName == "":
		return errors.New("--node-name is required")
	case c.DataDir == "":
		return errors.New("--data-dir is required: it holds this node's certificate and assignments")
	case c.Server == "":
		return errors.New("--server is required")
	case c.Logger == nil:
		return errors.New("program: Logger is missing")
	case c.IngressListen == "" && (c.PublicHTTP != "" || c.PublicHTTPS != ""):
		return errors.New("--public-http and --public-https need --ingress-listen: other agents pass requests for this node's projects to that address")
	case c.IngressListen == "" && c.IngressAll:
		return errors.New("--ingress-all needs --ingress-listen: an agent without ingress needs no routes")
	case len(c.PublicAddresses) > 0 && c.PublicHTTP == "":
		return errors.New("--public-address needs --public-http: certificate authorities and the first request of a browser come to port 80")
	case len(c.PublicAddresses) > maxPublicAddresses:
		return fmt.Errorf("--public-address: at most %d addresses", maxPublicAddresses)
	case c.CollectEvery < 0:
		return errors.New("--image-gc-interval must not be negative")
	}
	for _, dir := range c.BackupDirs {
		if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir {
			return fmt.Errorf("--backup-dir %q: want an absolute path without . and .., such as /srv/backups", dir)
		}
	}
	for _, address := range c.PublicAddresses {
		if why := publicAddress(address); why != "" {
			return fmt.Errorf("--public-address %q %s", address, why)
		}
	}
	for _, pattern := range c.AllowRegistries {
		if why := docker.RegistryPattern(pattern); why != "" {
			return fmt.Errorf("--allow-registry %s", why)
		}
	}
	for i, name := range c.Hardening.AllowCaps {
		capability, err := syntax.ParseCapability(name)
		if err != nil {
			return fmt.Errorf("--allow-cap %w", err)
		}
		c.Hardening.AllowCaps[i] = capability
	}
	return errors.Join(c.checkPorts(), c.checkProxyProtocol(), c.checkLimits(), c.resolveDataDir())
}

// resolveDataDir makes DataDir absolute: restic and rsync run in other directories than the agent, and get paths below it.
func (c *AgentConfig) resolveDataDir() error {
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		return fmt.Errorf("--data-dir %s: %w", c.DataDir, err)
	}
	c.DataDir = dir
	return nil
}

func (c *AgentConfig) checkLimits() error {
	for flag, percent := range map[string]float64{
		"--disk-pressure": c.Limits.DiskPressure, "--memory-pressure": c.Limits.MemoryPressure,
		"--image-gc-high": c.Limits.CollectAbove, "--image-gc-low": c.Limits.CollectTo,
	} {
		if percent < 0 || percent > 100 || math.IsNaN(percent) {
			return fmt.Errorf("%s %v: want a percentage, above 0 and up to 100", flag, percent)
		}
	}
	if high := c.Limits.CollectAbove; high > 0 && c.Limits.CollectTo > high {
		return fmt.Errorf("--image-gc-low %v is above --image-gc-high %v: lower it too, images would be removed for ever", c.Limits.CollectTo, high)
	}
	return nil
}

// Check reports what would prevent the agent from working on this machine: no reachable engine, or an address in use. It is
// for a person at a terminal. A node's agent waits for its engine instead.
func (c *AgentConfig) Check(ctx context.Context) error {
	engine, err := docker.New(docker.Config{Host: c.DockerHost, NetworkPool: c.NetworkPool})
	if err != nil {
		return err
	}
	defer engine.Close()
	asked, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := engine.Ping(asked); err != nil {
		return fmt.Errorf("no Docker engine answers at %s; start Docker, or name another engine with --docker-host: %w", c.DockerHost, err)
	}
	return c.checkAddresses(ctx)
}

// Run keeps the engine in sync until ctx ends. Containers keep running after that.
func (c *AgentConfig) Run(ctx context.Context) error {
	if err := c.Validate(); err != nil {
		return err
	}
	offers, err := hostvolume.Parse(c.HostVolumes)
	if err != nil {
		return fmt.Errorf("--host-volume: %w", err)
	}
	helpers, err := image.ParseHelpers(c.CredentialHelpers)
	if err != nil {
		return fmt.Errorf("--credential-helper %w", err)
	}
	if err := c.checkAddresses(ctx); err != nil {
		return err
	}
	token, err := c.token()
	if err != nil {
		return err
	}
	who, err := join.Join(ctx, join.Config{
		Server: c.Server, Token: token, NodeName: c.NodeName, DataDir: c.DataDir, Labels: c.Labels, Logger: c.Logger,
	})
	if errors.Is(err, join.ErrNoToken) && c.JoinTokenFile != "" {
		return fmt.Errorf("%w (the file %s is empty or not there)", err, c.JoinTokenFile)
	}
	if err != nil {
		return err
	}
	conn, err := who.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := c.rejoinIfFenced(ctx, who, conn, token); err != nil {
		return err
	}
	engine, err := docker.New(docker.Config{Host: c.DockerHost, NetworkPool: c.NetworkPool, AllowRegistries: c.AllowRegistries})
	if err != nil {
		return err
	}
	defer engine.Close()
	return c.run(ctx, who, conn, agent.Config{
		Conn: conn, Servers: who, Engine: engine, NodeName: c.NodeName, ClusterID: who.ClusterID(), DataDir: c.DataDir,
		Version: c.Version, Logger: c.Logger, Restart: step.RestartLimits{Base: c.RestartDelay},
		Limits: c.Limits, CollectEvery: c.CollectEvery, Hardening: c.Hardening, HostVolumes: offers, Helpers: helpers, BackupDirs: c.BackupDirs, Environ: os.Environ(),
	})
}

// rejoinIfFenced joins again if the server no longer accepts this node's certificate: the node was deleted, or another
// machine joined with its name. An unreachable server causes no change.
func (c *AgentConfig) rejoinIfFenced(ctx context.Context, who *join.Credentials, conn *grpc.ClientConn, token string) error {
	if token == "" {
		return nil
	}
	asked, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := carav1.NewInfoServiceClient(conn).GetInfo(asked, &emptypb.Empty{})
	if api.Code(err) != codes.Unauthenticated {
		return nil
	}
	c.Logger.Warn("the server does not know this node's certificate: joining again", "node", c.NodeName)
	return who.Rejoin(ctx)
}

// token reads the join token. It returns no error if the file is missing or empty, because join knows whether a certificate
// exists.
func (c *AgentConfig) token() (string, error) {
	if c.JoinTokenFile == "" {
		return c.JoinToken, nil
	}
	data, err := os.ReadFile(c.JoinTokenFile)
	switch {
	case errors.Is(err, os.ErrNotExist):
		c.Logger.Warn("the join token's file is not there", "file", c.JoinTokenFile)
		return "", nil
	case err != nil:
		return "", fmt.Errorf("read join token: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		c.Logger.Warn("the join token's file is empty", "file", c.JoinTokenFile)
	}
	return token, nil
}
