package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/certs/dns01"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// Directories of Let's Encrypt.
const (
	LetsEncrypt        = "https://acme-v02.api.letsencrypt.org/directory"
	LetsEncryptStaging = "https://acme-staging-v02.api.letsencrypt.org/directory"
)

// Resolver finds the addresses of a host. net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// ExternalAccount is the account of the operator at the authority.
type ExternalAccount struct {
	// KeyID and Key are from the authority. Key is a secret, in base64url without padding.
	KeyID, Key string
}

// Config configures an Obtainer.
type Config struct {
	// Conn is the connection to the API, with the identity `system/certs`.
	Conn   grpc.ClientConnInterface
	Logger *slog.Logger
	// Queues is optional.
	Queues *loop.Metrics
	// Metrics is optional.
	Metrics *Metrics
	// Directory is the URL of the authority. The default is that of Let's Encrypt.
	Directory string
	// Hosts expands short ingress hosts.
	Hosts api.HostTemplate
	// Email is the address that the authority can write to.
	Email string
	// ExternalAccount is what the account is bound to. Some authorities need it. Its zero value binds nothing.
	ExternalAccount ExternalAccount
	// Roots are the authorities that the connection to Directory may use; nil means those of the system.
	Roots *x509.CertPool
	// Resolver finds the addresses of hosts and nodes.
	Resolver Resolver
	// SkipResolveCheck orders for hosts that do not lead to an address of an agent.
	SkipResolveCheck bool
	// DNS publishes records for DNS-01. Without it, agents answer HTTP-01.
	DNS dns01.Provider
	// DNSCheck says when the authority finds a record. It is required with DNS.
	DNSCheck *dns01.Checker
	// Wildcard is a name such as `*.dev.example.com`: hosts for which it stands share one certificate. Empty means that each host
	// has its own. It needs DNS.
	Wildcard string
	// Version of the server, which the authority is told.
	Version string
	// Workers is the number of hosts that are worked on at the same time. The default is 16.
	Workers int
	// Glance is the longest time between two looks at a host, so that a clock that was set is noticed. The default is 5 min.
	Glance time.Duration
	// Now is the wall clock. The default is time.Now.
	Now func() time.Time
}

// Validate checks the configuration.
func (c Config) Validate() error {
	switch {
	case c.Conn == nil:
		return errors.New("certs: Conn is required")
	case c.Logger == nil:
		return errors.New("certs: Logger is required")
	case c.Resolver == nil:
		return errors.New("certs: Resolver is required")
	case c.Workers < 0 || c.Glance < 0:
		return errors.New("certs: Workers and Glance must not be negative")
	case c.DNS != nil && c.DNSCheck == nil:
		return errors.New("certs: DNS needs DNSCheck")
	case c.DNS == nil && c.Wildcard != "":
		return errors.New("certs: a wildcard needs DNS")
	}
	if u, err := url.Parse(cmp.Or(c.Directory, LetsEncrypt)); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return fmt.Errorf("certs: the directory of the authority must be an https URL, such as %s", LetsEncrypt)
	}
	return nil
}

func (c Config) tls() *tls.Config {
	return &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12}
}

// Obtainer obtains and renews certificates.
type Obtainer struct {
	cfg       Config
	server    carav1.CertificateServiceClient
	authority *authority
	mirror    *loop.Mirror
	queue     *loop.Queue // of hosts: orders
	asks      *loop.Queue // of hosts: questions when to renew
	hosts     *hosts
}

// New returns an Obtainer. It does nothing until Run.
func New(cfg Config) *Obtainer {
	cfg.Directory = cmp.Or(cfg.Directory, LetsEncrypt)
	cfg.Workers = cmp.Or(cfg.Workers, 16)
	cfg.Glance = cmp.Or(cfg.Glance, 5*time.Minute)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	o := &Obtainer{cfg: cfg, server: carav1.NewCertificateServiceClient(cfg.Conn), hosts: newHosts(cfg.Wildcard)}
	o.authority = newAuthority(cfg, &accounts{server: o.server, directory: cfg.Directory, email: cfg.Email, external: cfg.ExternalAccount, now: cfg.Now, log: cfg.Logger})
	o.mirror = loop.NewMirror(loop.MirrorConfig{
		Client: carav1.NewWatchServiceClient(cfg.Conn), Kinds: []string{api.KindProject, api.KindNode},
		OnChange: o.changed, Logger: cfg.Logger,
	})
	o.queue = loop.NewQueue(loop.QueueConfig{
		Name: "certs", Workers: cfg.Workers, Do: o.work, MinBackoff: time.Second, Metrics: cfg.Queues, Logger: cfg.Logger,
	})
	o.asks = loop.NewQueue(loop.QueueConfig{
		Name: "certs-advice", Workers: askWorkers, Do: o.ask, MinBackoff: time.Second, Metrics: cfg.Queues, Logger: cfg.Logger,
	})
	return o
}

// Run works until ctx ends.
func (o *Obtainer) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return o.mirror.Run(ctx) })
	group.Go(func() error {
		if err := o.mirror.WaitSynced(ctx); err != nil {
			return nil //nolint:nilerr // the server stops
		}
		if err := o.load(ctx); err != nil {
			return err
		}
		group.Go(func() error { return o.asks.Run(ctx) })
		return o.queue.Run(ctx)
	})
	return group.Wait()
}

// load reads the stored states. Before that the queue must not run: a host without a state gets an order.
func (o *Obtainer) load(ctx context.Context) error {
	again := loop.NewBackoff(100*time.Millisecond, 10*time.Second)
	for {
		resp, err := o.server.ListCertificateOrders(ctx, &carav1.ListRequest{})
		if err == nil {
			for _, host := range o.hosts.load(resp.GetItems()) {
				o.add(host)
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		o.cfg.Logger.Warn("the state of certificates cannot be read, will retry", "error", err)
		again.Wait(ctx)
	}
}

func (o *Obtainer) add(host string) {
	o.queue.Add(host)
	o.asks.Add(host)
}

// changed queues the hosts that a transaction may concern.
func (o *Obtainer) changed(changes []loop.Change) {
	for _, ch := range changes {
		switch m := ch.Object().(type) {
		case *carav1.Project:
			var now []string
			if ch.New != nil {
				now = wanted(m, o.cfg.Hosts)
			}
			for _, name := range o.hosts.claim(m.GetMetadata().GetName(), now) {
				o.add(name)
			}
		case *carav1.Node: // hosts that led nowhere may lead to this node now
			if !sameAddresses(ch) {
				for _, host := range o.hosts.look() {
					o.queue.Add(host)
				}
			}
		}
	}
}

// Metrics counts attempts. A nil Metrics counts nothing. The server itself exports what is stored about certificates.
type Metrics struct{ *prometheus.CounterVec }

// NewMetrics returns Metrics that a registry can collect.
func NewMetrics() *Metrics {
	return &Metrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cara_certificate_attempts_total", Help: "Attempts to obtain or renew a certificate, by result.",
	}, []string{"result"})}
}

func (m *Metrics) count(ok bool) {
	if m != nil {
		m.WithLabelValues(map[bool]string{true: "succeeded", false: "failed"}[ok]).Inc()
	}
}
