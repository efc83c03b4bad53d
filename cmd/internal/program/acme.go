package program

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/mail"
	"reflect"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/caravanserai/cara/certs"
	"github.com/caravanserai/cara/certs/dns01"
	"github.com/caravanserai/cara/internal/loop"
)

// ACMEConfig holds the flags for certificates of public hosts.
type ACMEConfig struct {
	// Email is the address that the authority can write to; empty obtains no certificates.
	Email string
	// Directory is the URL of the authority; empty is that of Let's Encrypt, or its staging environment if Staging is set.
	Directory string
	Staging   bool
	// EABKeyID and EABKeyFile are the id of a key that the authority has given to the operator, and the file with the key in base64.
	// With them the cluster's account is bound to the operator's.
	EABKeyID, EABKeyFile string
	// CAFile has the roots for the connection to Directory in PEM; empty means those of the system.
	CAFile string
	// SkipResolveCheck orders certificates also for hosts that lead to no public address of an agent.
	SkipResolveCheck bool
	// Resolver is the DNS server that tells where hosts lead, as HOST:PORT; empty means those of the system.
	Resolver string
	// DNS configures how hosts are validated by DNS records.
	DNS DNSConfig
	// Wildcard obtains one certificate for all hosts of short ingress rules.
	Wildcard bool

	metrics *certs.Metrics
}

func (c *ACMEConfig) on() bool { return c.Email != "" }

// Validate returns an error if c is not usable.
func (c *ACMEConfig) Validate() error {
	if !c.on() {
		if !reflect.DeepEqual(*c, ACMEConfig{}) {
			return errors.New("certificates need --acme-email, with which you agree to the terms of the certificate authority: add it, or remove the other flags about ACME")
		}
		return nil
	}
	if at, err := mail.ParseAddress(c.Email); err != nil || at.Address != c.Email {
		return fmt.Errorf("--acme-email %q: want an address such as ops@example.com", c.Email)
	}
	if c.Directory != "" && c.Staging {
		return errors.New("--acme-staging is for Let's Encrypt: leave out --acme-directory or --acme-staging")
	}
	if c.Resolver != "" {
		if host, port, err := net.SplitHostPort(c.Resolver); err != nil || net.ParseIP(host) == nil || port == "" {
			return fmt.Errorf("--acme-resolver %q: want the address of a DNS server with its port, such as 9.9.9.9:53", c.Resolver)
		}
	}
	if err := c.DNS.Validate(); err != nil {
		return err
	}
	_, rootsErr := readRoots("--acme-ca", c.CAFile)
	_, eabErr := c.eab()
	return errors.Join(rootsErr, eabErr)
}

// eab returns what binds the cluster's account to the operator's. No error has a part of the key.
func (c *ACMEConfig) eab() (certs.ExternalAccount, error) {
	if c.EABKeyID == "" && c.EABKeyFile == "" {
		return certs.ExternalAccount{}, nil
	}
	if c.EABKeyID == "" || c.EABKeyFile == "" {
		return certs.ExternalAccount{}, errors.New("--acme-eab-key-id and --acme-eab-key-file belong together: give both, as the certificate authority shows them")
	}
	text, err := readSecret("--acme-eab-key-file", c.EABKeyFile)
	if err != nil {
		return certs.ExternalAccount{}, err
	}
	// Authorities show the key in either alphabet of base64, with or without padding. The library takes base64url without padding.
	key := strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(text)
	if decoded, err := base64.RawURLEncoding.DecodeString(key); err != nil || len(decoded) == 0 {
		return certs.ExternalAccount{}, fmt.Errorf("--acme-eab-key-file %s: want a key in base64, as the certificate authority shows it, and nothing else", c.EABKeyFile)
	}
	return certs.ExternalAccount{KeyID: c.EABKeyID, Key: key}, nil
}

// directory returns the URL of the authority; empty is that of Let's Encrypt.
func (c *ACMEConfig) directory() string {
	if c.Staging {
		return certs.LetsEncryptStaging
	}
	return c.Directory
}

// resolver returns the resolver for hosts and for the names of nodes.
func (c *ACMEConfig) resolver() *net.Resolver {
	if c.Resolver == "" {
		return &net.Resolver{}
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, c.Resolver)
	}}
}

// figures returns the metrics of the loop, and those of all loops' queues.
func (c *ACMEConfig) figures(queues *loop.Metrics) []prometheus.Collector {
	if !c.on() {
		return []prometheus.Collector{queues}
	}
	c.metrics = certs.NewMetrics()
	return []prometheus.Collector{queues, c.metrics}
}

// obtainer returns the loop that obtains certificates.
func (c *ServerConfig) obtainer(conn grpc.ClientConnInterface, log *slog.Logger, queues *loop.Metrics) (runner, error) {
	roots, err := readRoots("--acme-ca", c.ACME.CAFile)
	if err != nil {
		return nil, err
	}
	eab, err := c.ACME.eab()
	if err != nil {
		return nil, err
	}
	cfg := certs.Config{
		ExternalAccount: eab,
		Conn:            conn, Logger: log, Queues: queues, Metrics: c.ACME.metrics, Hosts: c.Hosts, Directory: c.ACME.directory(), Email: c.ACME.Email,
		Roots: roots, Resolver: c.ACME.resolver(), SkipResolveCheck: c.ACME.SkipResolveCheck, Version: c.Version,
		DNS: c.ACME.DNS.provider(), DNSCheck: &dns01.Checker{Servers: c.ACME.DNS.Check, Resolver: c.ACME.resolver()}, Wildcard: c.ACME.wildcard(c.Hosts),
	}
	return certs.New(cfg), cfg.Validate()
}
