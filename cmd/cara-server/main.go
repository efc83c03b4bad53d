// Command cara-server is the control plane: API, store, sources, reconciler, scheduler and collector. It does every stage
// of a push except the agent's. `cara-server dev DIR` also runs an agent in the same process.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/cmd/internal/program"
	"github.com/caravanserai/cara/internal/garbage"
)

var version = "dev" // set by the linker

func main() { program.Main(newCommand()) }

// flags holds the command line before it becomes a Config.
type flags struct {
	program.ServerConfig
	log   program.LogFlags
	cidrs []string
	proxy string
}

func newCommand() *cobra.Command {
	f := &flags{}
	cmd := &cobra.Command{
		Use: "cara-server", Short: "Run Cara's control plane", Args: cobra.NoArgs, Version: version,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.config()
			if err != nil {
				return err
			}
			return run(cmd.Context(), cfg)
		},
	}
	f.log.Add(cmd)
	p := cmd.PersistentFlags()
	p.StringVar(&f.DataDir, "data-dir", "", "directory for the cluster's state")
	p.StringVar(&f.Listen, "listen", "127.0.0.1:8080", "address that serves gRPC and REST; clients that are not on loopback must use TLS")
	p.StringVar(&f.Advertise, "advertise", "", "address, host:port, at which agents and other servers reach this one (default: that of --listen, unless it is 0.0.0.0 or ::)")
	p.StringSliceVar(&f.Names, "tls-name", nil, "additional host names and addresses for the server's certificate")
	p.StringSliceVar(&f.cidrs, "allow-source-cidr", nil, "ranges of loopback and private addresses that sources may be fetched from")
	p.StringVar(&f.proxy, "source-proxy", "", "proxy for http and https sources: http://, https:// or socks5://; the proxy variables of the environment are ignored")
	p.StringVar(&f.Hosts.BaseDomain, "base-domain", "", "domain of ingress hosts without a dot: {host}.{environment}.{base-domain}")
	p.StringVar(&f.Hosts.Environment, "environment", "", "environment of ingress hosts without a dot")
	p.StringSliceVar(&f.ReserveHosts, "reserve-host", nil, "hosts that no project may claim, such as *.bank.example; the server's own names are always reserved")
	p.StringVar(&f.ContextsFile, "contexts-file", "", `file to which the server adds a context for people who run caractrl ("none": no file; default: the user's file)`)
	p.IntVar(&f.Connections.Max, "max-connections", 4096, "maximum number of open connections; at the limit, the oldest connection that has not authenticated is closed")
	p.IntVar(&f.Connections.PerAddress, "max-connections-per-address", 512, "maximum number of open connections from one client address (IPv6: from one /64)")
	p.IntVar(&f.CallsPerCaller, "max-calls-per-caller", 4096, "maximum number of open calls of one caller (token or node), including watches")
	p.IntVar(&f.StreamsPerCaller, "max-streams-per-caller", 256, "maximum number of open streams of one caller to agents: logs, exec, port-forward and top")
	f.addStore(p)
	p.StringVar(&f.Placement, "placement", "spread", "choice between several nodes that fit a project: spread (the emptiest) or binpack (the fullest)")
	f.addACME(p)
	f.addOpenID(p)
	cmd.AddCommand(newDevCommand(f), newMigrateCommand(f), newRecoverCommand(f))
	cmd.AddCommand(program.Hidden()...) // for the agent of dev
	return cmd
}

// run runs the server until ctx ends or a part of it fails.
func run(ctx context.Context, cfg *program.ServerConfig) error {
	ctx, stop := context.WithCancel(ctx)
	var pace errgroup.Group
	pace.Go(func() error { return garbage.Run(ctx, garbage.Server) })
	err := cfg.Run(ctx)
	stop()
	return errors.Join(err, pace.Wait())
}

// addStore adds the flags about where the state is kept.
func (f *flags) addStore(p *pflag.FlagSet) {
	p.StringVar(&f.Store, "store", "pebble", "where the state is kept: pebble (in the data directory, for one server) or etcd (several servers side by side)")
	e := &f.Etcd
	p.StringSliceVar(&e.Endpoints, "etcd-endpoints", nil, "client URLs of etcd's members, such as https://10.0.0.1:2379; http only on loopback")
	p.StringVar(&e.Prefix, "etcd-prefix", "", "prefix of all keys in etcd, between slashes (default /cara/)")
	p.StringVar(&e.CAFile, "etcd-ca", "", "file with the certificate authority of etcd (default: those of the system)")
	p.StringVar(&e.CertFile, "etcd-cert", "", "file with the client certificate for etcd")
	p.StringVar(&e.KeyFile, "etcd-key", "", "file with the private key of --etcd-cert")
	p.StringVar(&e.User, "etcd-user", "", "user for etcd's authentication by password")
	p.StringVar(&e.PasswordFile, "etcd-password-file", "", "file with the password of --etcd-user")
	p.StringVar(&e.ClusterKeyFile, "cluster-key-file", "", "file with the key that seals the certificate authority and the Secrets' key in etcd; the first server makes it, the others need a copy (default: cluster.key in the data directory)")
}

// addACME adds the flags for certificates of public hosts.
func (f *flags) addACME(p *pflag.FlagSet) {
	p.StringVar(&f.ACME.Email, "acme-email", "", "obtain certificates for public hosts with ACME; the certificate authority can write to this address, and with this flag you agree to its terms")
	p.StringVar(&f.ACME.Directory, "acme-directory", "", "directory URL of the certificate authority (default: that of Let's Encrypt)")
	p.BoolVar(&f.ACME.Staging, "acme-staging", false, "use the staging environment of Let's Encrypt, whose certificates no browser trusts, to try things without its limits")
	p.StringVar(&f.ACME.EABKeyID, "acme-eab-key-id", "", "id of the key that the certificate authority has given you for an external account (EAB), if it needs one")
	p.StringVar(&f.ACME.EABKeyFile, "acme-eab-key-file", "", "file with that key in base64")
	p.StringVar(&f.ACME.CAFile, "acme-ca", "", "file with the root certificates for the connection to --acme-directory (default: those of the system)")
	p.BoolVar(&f.ACME.SkipResolveCheck, "acme-skip-resolve-check", false, "order certificates also for hosts that do not lead to a --public-address of an agent, for example behind NAT or a load balancer")
	p.StringVar(&f.ACME.Resolver, "acme-resolver", "", "DNS server, host:port, that tells where public hosts lead (default: those of the system)")
	d := &f.ACME.DNS
	p.StringVar(&d.Provider, "acme-dns", "", "validate hosts by DNS records (DNS-01) instead of HTTP: rfc2136 (dynamic updates), exec (a command) or http (a web service)")
	p.StringVar(&d.Server, "acme-dns-server", "", "primary DNS server, host:port, for --acme-dns rfc2136")
	p.StringVar(&d.TSIGName, "acme-dns-tsig-name", "", "name of the TSIG key for --acme-dns rfc2136")
	p.StringVar(&d.TSIGAlgorithm, "acme-dns-tsig-algorithm", "", "algorithm of the TSIG key: hmac-sha256 (default), hmac-sha512, hmac-sha384, hmac-sha224 or hmac-sha1")
	p.StringVar(&d.TSIGSecretFile, "acme-dns-tsig-secret-file", "", "file with the TSIG key in base64")
	p.StringVar(&d.Command, "acme-dns-command", "", "absolute path of the command for --acme-dns exec")
	p.StringVar(&d.URL, "acme-dns-url", "", "URL of the web service for --acme-dns http")
	p.StringVar(&d.TokenFile, "acme-dns-token-file", "", "file with a bearer token for --acme-dns-url")
	p.StringArrayVar(&d.Check, "acme-dns-check", nil, "DNS server, host:port, that must have a record before the authority is asked; can be repeated (default: the servers of the record's zone)")
	p.BoolVar(&f.ACME.Wildcard, "acme-wildcard", false, "obtain one certificate for *.ENVIRONMENT.BASEDOMAIN instead of one for each host there; needs --acme-dns and --base-domain")
}

// addOpenID adds the flags for logins with OpenID Connect.
func (f *flags) addOpenID(p *pflag.FlagSet) {
	o := &f.OpenID
	p.StringVar(&o.Issuer, "oidc-issuer", "", "let people log in with this OpenID Connect provider: its URL, such as https://id.example.com/realms/main")
	p.StringVar(&o.ClientID, "oidc-client-id", "", "id of this server at the provider")
	p.StringVar(&o.ClientSecretFile, "oidc-client-secret-file", "", "file with the secret of this server at the provider, for a confidential client")
	p.StringArrayVar(&o.RoleMap, "oidc-role-map", nil, "role of a group's members: GROUP=admin, GROUP=viewer, GROUP=deployer or GROUP=deployer:PREFIX; can be repeated")
	p.StringVar(&o.GroupsClaim, "oidc-groups-claim", "", "claim of the ID token with the groups; dots lead into objects (default groups)")
	p.StringArrayVar(&o.Scopes, "oidc-scope", nil, "scope to ask for in addition to those that a login needs; can be repeated")
	p.StringVar(&o.RedirectURL, "oidc-redirect-url", "", "address to which the provider sends browsers back, if the server is behind a proxy: https://HOST/ui/login/callback")
	p.StringVar(&o.CAFile, "oidc-ca", "", "file with the root certificates for the connection to the provider (default: those of the system)")
}

func (f *flags) config() (*program.ServerConfig, error) {
	logger, err := f.log.Logger(os.Stderr)
	if err != nil {
		return nil, err
	}
	cfg := f.ServerConfig
	cfg.Logger, cfg.Version = logger, version
	for _, text := range f.cidrs {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("--allow-source-cidr %q: want an address range such as 10.0.0.0/8: %w", text, err)
		}
		cfg.AllowSourceCIDRs = append(cfg.AllowSourceCIDRs, prefix.Masked())
	}
	if f.proxy != "" {
		u, err := url.Parse(f.proxy)
		if err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "socks5"}, u.Scheme) {
			return nil, errors.New("--source-proxy: want http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT") // the value may contain a password
		}
		cfg.SourceProxy = u
	}
	return &cfg, nil
}
