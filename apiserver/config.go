package apiserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	"github.com/caravanserai/cara/apiserver/directory"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/oidc"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

const (
	defaultMaxBody    = 4 << 20
	defaultMaxBodies  = 64 << 20
	defaultMaxCalls   = 4096
	defaultMaxStreams = 256
	defaultRing       = 16384
	defaultBookmark   = 30 * time.Second
	defaultDrain      = 10 * time.Second
	defaultDeleteWait = 2 * time.Second
)

// Config configures the server. Store is required, and one of Identity and Authenticator. The other fields have a useful
// zero value.
type Config struct {
	// Store keeps the objects. The caller opens it before Run and closes it afterwards.
	Store store.Store
	// Authenticator authenticates callers from the network. The default uses the tokens in the store and the certificates
	// of Identity.
	Authenticator identity.Authenticator
	// Identity signs node certificates and encrypts secrets. Without it agents cannot join and secrets do not work.
	Identity *identity.Identity
	// Directory says which servers run, and which of them has the agent of a node; nil for a server alone. It needs Identity.
	Directory directory.Directory
	// Logger gets the audit lines and the errors. nil logs nothing.
	Logger *slog.Logger
	// Figures are more collectors for /metrics.
	Figures []prometheus.Collector
	// ClusterID is a label of every container. The default is the ID of Identity.
	ClusterID string
	// Version is the version of cara-server.
	Version string
	// Hosts expands short ingress hosts.
	Hosts api.HostTemplate
	// ReservedHosts are patterns of hosts that no project may claim, in addition to the server's own names.
	ReservedHosts []string
	// ObtainCertificates is true if the loop `certs` runs.
	ObtainCertificates bool
	// Wildcard is the name of the certificate that hosts of short ingress rules share; empty if each has its own.
	Wildcard string
	// OpenID lets people log in with an OpenID Connect provider; nil lets them log in with tokens only. It needs Identity. Its Seal,
	// Logger and Now are set here.
	OpenID *oidc.Config
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// MaxBodyBytes limits a REST body and a gRPC message; 0 is 4 MiB.
	MaxBodyBytes int
	// MaxBodiesBytes limits the bodies of all authenticated calls that are in memory at a time. One caller gets at most
	// half of it. 0 is 64 MiB.
	MaxBodiesBytes int
	// MaxCallsPerCaller limits the open calls of one caller, including watches; 0 is 4,096.
	MaxCallsPerCaller int
	// MaxStreamsPerCaller limits the streams of one caller to agents: logs, exec, port-forward and top; 0 is 256.
	MaxStreamsPerCaller int
	// RecentChanges is how many decoded changes stay in memory for watchers; 0 is 16,384.
	RecentChanges int
	// BookmarkInterval is how often a watch without events gets the newest revision; 0 is 30 s.
	BookmarkInterval time.Duration
	// Servers returns the servers of the cluster. The default is a server that knows only its version.
	Servers func(context.Context) ([]*carav1.Server, error)
	// DrainTimeout is how long Run waits for open calls when it ends; 0 is 10 s.
	DrainTimeout time.Duration

	recoveryWait time.Duration // how long nodes have to connect after a recovery; 0 is dispatch.NodeLease
	// DeleteWait is how long DeleteProject waits until the project is gone; 0 is 2 s.
	DeleteWait time.Duration

	ownHosts []string // names of Identity's certificate, in lower case
}

// Validate returns an error if c is not usable.
func (c Config) Validate() error {
	switch {
	case c.Store == nil:
		return errors.New("apiserver: no store given: set Store")
	case c.Authenticator == nil && c.Identity == nil:
		return errors.New("apiserver: nothing given to tell callers by: set Identity")
	case c.Directory != nil && c.Identity == nil:
		return errors.New("apiserver: Directory needs Identity, with which servers prove who they are")
	case c.OpenID != nil && c.Identity == nil:
		return errors.New("apiserver: OpenID needs Identity, whose key seals logins")
	case min(c.MaxBodyBytes, c.RecentChanges, c.MaxBodiesBytes, c.MaxCallsPerCaller, c.MaxStreamsPerCaller) < 0:
		return fmt.Errorf("apiserver: MaxBodyBytes is %d, RecentChanges %d, MaxBodiesBytes %d, MaxCallsPerCaller %d and MaxStreamsPerCaller %d; all must be 0 (default) or more",
			c.MaxBodyBytes, c.RecentChanges, c.MaxBodiesBytes, c.MaxCallsPerCaller, c.MaxStreamsPerCaller)
	case c.MaxBodiesBytes > 0 && c.MaxBodiesBytes < 2*cmp.Or(c.MaxBodyBytes, defaultMaxBody):
		return fmt.Errorf("apiserver: MaxBodiesBytes is %d; it must have room for two bodies of MaxBodyBytes (%d)",
			c.MaxBodiesBytes, cmp.Or(c.MaxBodyBytes, defaultMaxBody))
	case min(c.BookmarkInterval, c.DrainTimeout, c.DeleteWait) < 0:
		return errors.New("apiserver: BookmarkInterval, DrainTimeout and DeleteWait must be 0 (default) or more")
	}
	for _, pattern := range c.ReservedHosts {
		if why := syntax.HostPattern(pattern); why != "" {
			return fmt.Errorf("apiserver: the reserved host %s", why)
		}
	}
	return nil
}

func (c Config) withDefaults() Config {
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Identity != nil {
		c.ClusterID = cmp.Or(c.ClusterID, c.Identity.ClusterID())
		for _, name := range c.Identity.ServerNames() {
			c.ownHosts = append(c.ownHosts, strings.ToLower(name))
		}
	}
	if c.Servers == nil {
		c.Servers = func(context.Context) ([]*carav1.Server, error) {
			return []*carav1.Server{{Version: c.Version}}, nil
		}
	}
	c.MaxBodyBytes = cmp.Or(c.MaxBodyBytes, defaultMaxBody)
	c.MaxBodiesBytes = cmp.Or(c.MaxBodiesBytes, max(defaultMaxBodies, 2*c.MaxBodyBytes))
	c.MaxCallsPerCaller = cmp.Or(c.MaxCallsPerCaller, defaultMaxCalls)
	c.MaxStreamsPerCaller = cmp.Or(c.MaxStreamsPerCaller, defaultMaxStreams)
	c.RecentChanges = cmp.Or(c.RecentChanges, defaultRing)
	c.BookmarkInterval = cmp.Or(c.BookmarkInterval, defaultBookmark)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, defaultDrain)
	c.DeleteWait = cmp.Or(c.DeleteWait, defaultDeleteWait)
	return c
}
