// Package program composes the packages to the two long-running programs. For every stage of a push it turns flags into the
// Config of a package, and a signal into an ordered shutdown. It makes no other decisions.
//
// A program stops in stages: first the loops, then the servers drain, and the store closes last.
package program

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	"github.com/caravanserai/cara/apiserver"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/internal/access"
	"github.com/caravanserai/cara/internal/connlimit"
	"github.com/caravanserai/cara/internal/loop"
	"github.com/caravanserai/cara/scheduler"
	"github.com/caravanserai/cara/store"
	"github.com/caravanserai/cara/store/pebble"
)

// ServerConfig holds the flags of cara-server.
type ServerConfig struct {
	// DataDir holds all state of the server; if the store is in etcd, only its identity.
	DataDir string
	// Store is where the state is kept: pebble (the default) or etcd.
	Store string
	// Etcd says where etcd is.
	Etcd EtcdConfig
	// Listen is the address of gRPC and REST.
	Listen string
	// Advertise is the host:port at which agents and other servers reach this one; empty is Listen, if that is one address.
	Advertise string
	// Names are additional host names and addresses for the server's certificate.
	Names []string
	// AllowSourceCIDRs are the loopback and private addresses from which sources may be fetched.
	AllowSourceCIDRs []netip.Prefix
	// SourceProxy is the proxy for fetching sources over http and https; nil for none.
	SourceProxy *url.URL
	// Hosts expands short ingress hosts.
	Hosts api.HostTemplate
	// ReserveHosts are patterns of hosts that no project may claim, in addition to the server's own names.
	ReserveHosts []string
	// Connections limits the connections to the address; zero values have useful defaults.
	Connections connlimit.Config
	// CallsPerCaller and StreamsPerCaller limit what one caller has open; zero values have useful defaults.
	CallsPerCaller, StreamsPerCaller int
	// Placement is the scheduler's strategy: spread (the default) or binpack.
	Placement string
	// ACME configures how certificates of public hosts are obtained. Without an Email none are.
	ACME ACMEConfig
	// OpenID configures logins with OpenID Connect.
	OpenID OpenIDConfig
	// ContextsFile is where the context for the local user's caractrl is written; empty is the user's own file, "none" is
	// no file.
	ContextsFile string
	Version      string
	Logger       *slog.Logger
	// Serving is called with the URL when the address is bound. It may be nil.
	Serving func(url string)
	// ContextToName is the context that the local user's caractrl must name with --context to reach this server, or "" if
	// it is the current one. Run sets it before it calls Serving.
	ContextToName string
}

// Validate returns an error if c is not usable.
func (c *ServerConfig) Validate() error {
	switch {
	case c.DataDir == "":
		return errors.New("--data-dir is required: it holds the cluster's state")
	case c.Logger == nil:
		return errors.New("program: Logger is missing")
	case c.Connections.Max < 0 || c.Connections.PerAddress < 0:
		return errors.New("--max-connections and --max-connections-per-address must be 0 (default) or more")
	case c.CallsPerCaller < 0 || c.StreamsPerCaller < 0:
		return errors.New("--max-calls-per-caller and --max-streams-per-caller must be 0 (default) or more")
	case c.Placement != "" && c.Placement != string(scheduler.Spread) && c.Placement != string(scheduler.Binpack):
		return fmt.Errorf("--placement %q: want %s or %s", c.Placement, scheduler.Spread, scheduler.Binpack)
	}
	_, openID := c.OpenID.config()
	if err := errors.Join(c.ACME.Validate(), c.ACME.checkWildcard(c.Hosts), c.validateStore(), openID); err != nil {
		return err
	}
	for _, pattern := range c.ReserveHosts {
		if why := syntax.HostPattern(pattern); why != "" {
			return fmt.Errorf("--reserve-host %s", why)
		}
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("--listen %q: %w", c.Listen, err)
	}
	return c.checkAdvertise()
}

// Run serves until ctx ends or a part of the server fails.
func (c *ServerConfig) Run(ctx context.Context) (err error) {
	if err := c.Validate(); err != nil {
		return err
	}
	if c.Store == storeEtcd {
		return c.runOnEtcd(ctx)
	}
	db, err := pebble.OpenContext(ctx, pebble.Config{Dir: c.storeDir(), Logger: c.Logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := c.noteBackup(ctx, db); err != nil {
		return err
	}
	id, err := identity.Open(c.identity())
	if err != nil {
		return err
	}
	return c.runOpened(ctx, db, id, c.singleServer())
}

// storeDir returns the directory of a store on disk.
func (c *ServerConfig) storeDir() string { return filepath.Join(c.DataDir, "store") }

func (c *ServerConfig) identity() identity.Config {
	return identity.Config{DataDir: c.DataDir, Listen: c.Listen, Names: c.names(), Logger: c.Logger}
}

// runOpened serves with an opened store until ctx ends or a part of the server or the store fails.
func (c *ServerConfig) runOpened(ctx context.Context, db openStore, id *identity.Identity, peers cluster) error {
	openID, err := c.OpenID.config()
	if err != nil {
		return err
	}
	queues := loop.NewMetrics()
	server, err := apiserver.New(apiserver.Config{
		Store: db, Identity: id, ClusterID: id.ClusterID(), Hosts: c.Hosts, ReservedHosts: c.ReserveHosts, Version: c.Version, Logger: c.Logger,
		MaxCallsPerCaller: c.CallsPerCaller, MaxStreamsPerCaller: c.StreamsPerCaller, Figures: append(c.ACME.figures(queues), peers.figures...), ObtainCertificates: c.ACME.on(), Wildcard: c.ACME.wildcard(c.Hosts),
		OpenID: openID, Servers: peers.servers, Directory: peers.directory,
	})
	if err != nil {
		return err
	}
	if err := server.FirstStart(ctx); err != nil { // so that the token files exist when the server is announced
		return err
	}
	inner, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", c.Listen, err)
	}
	url := c.url(inner.Addr())
	c.writeContext(url, id)
	c.Logger.Info("serving", "url", url, "data_dir", c.DataDir, "cluster", id.ClusterID(), "version", c.Version)
	if c.Serving != nil {
		c.Serving(url)
	}
	return c.serve(ctx, server, identity.NewListener(connlimit.New(inner, c.Connections), id.TLSConfig()), db, loopSet{c.loops(queues), peers.acquire, peers.directory != nil})
}

// stoppable is a store that may fail permanently.
type stoppable interface {
	Done() <-chan struct{}
	Err() error
}

type openStore interface {
	store.Store
	stoppable
}

// serve runs the server and its loops until ctx ends or one of them or the store fails. It stops the loops first.
func (c *ServerConfig) serve(ctx context.Context, server *apiserver.Server, l net.Listener, db stoppable, all loopSet) error {
	serverCtx, stopServer := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServer()
	served := make(chan error, 1)
	go func() { served <- server.Run(serverCtx, l) }()

	loops, loopCtx := errgroup.WithContext(ctx)
	for name, build := range all.loops {
		one := task{name: name, connect: server.ClientUnder, build: build, extra: all.extra(name, server), log: c.Logger.With("room", name)}
		loops.Go(func() error { return one.runWhenLeased(loopCtx, all.acquire) })
	}
	loops.Go(func() error { // if the server fails, the loops end too
		select {
		case err := <-served:
			served <- err
			return errors.Join(errors.New("the server ended"), err)
		case <-loopCtx.Done():
			return nil
		}
	})
	loops.Go(func() error { // if the store fails, the process ends, and its supervisor restarts it
		select {
		case <-db.Done():
			return db.Err()
		case <-loopCtx.Done():
			return nil
		}
	})
	loopErr := loops.Wait()
	c.Logger.Info("loops stopped, draining")
	stopServer()
	err := <-served
	if ctx.Err() != nil && errors.Is(loopErr, context.Canceled) {
		loopErr = nil
	}
	return errors.Join(loopErr, err)
}

// url returns the server's URL for users of this machine.
func (c *ServerConfig) url(addr net.Addr) string {
	at, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return "https://" + addr.String()
	}
	ip := at.Addr().Unmap()
	if ip.IsUnspecified() {
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	scheme := "https"
	if ip.IsLoopback() {
		scheme = "http"
	}
	return scheme + "://" + netip.AddrPortFrom(ip, at.Port()).String()
}

// writeContext writes a context so that the local user's caractrl needs no flags. If it cannot be written, the server logs
// that and runs anyway.
func (c *ServerConfig) writeContext(url string, id *identity.Identity) {
	if _, err := os.Stat(filepath.Join(c.DataDir, identity.AdminTokenFile)); err != nil && c.Store == storeEtcd {
		return // the server of the first start has the token
	}
	file, err := c.ContextsFile, error(nil)
	switch file {
	case "none":
		return
	case "":
		file, err = access.File()
	}
	name, current, dir := "cara-"+id.ClusterID()[:8], "", c.DataDir
	if absolute, err := filepath.Abs(dir); err == nil {
		dir = absolute
	}
	if err == nil {
		current, err = access.Put(file, name, access.Context{
			Server: url, TokenFile: filepath.Join(dir, identity.AdminTokenFile), CA: string(id.CAPEM()),
		})
	}
	switch {
	case err != nil:
		c.Logger.Warn("caractrl needs --server and --token-file: its context was not written", "error", err)
	case current != name:
		c.ContextToName = name
		c.Logger.Info("caractrl keeps using another cluster", "current", current, "use_this", "caractrl context use "+name)
	}
}
