package program

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/certs/dns01"
)

// DNSConfig holds the flags for DNS-01.
type DNSConfig struct {
	// Provider is rfc2136, exec or http; empty validates hosts with HTTP-01.
	Provider string
	// Server and the TSIG key are for rfc2136.
	Server, TSIGName, TSIGAlgorithm, TSIGSecretFile string
	// Command is for exec.
	Command string
	// URL and TokenFile are for http.
	URL, TokenFile string
	// Check are the DNS servers that must have a record, as HOST:PORT; none means those of its zone.
	Check []string
}

// Providers of DNSConfig.
const (
	dnsRFC2136 = "rfc2136"
	dnsExec    = "exec"
	dnsHTTP    = "http"
)

// Validate returns an error if c is not usable.
func (c *DNSConfig) Validate() error {
	for _, f := range []struct{ flag, value, provider string }{
		{"--acme-dns-server", c.Server, dnsRFC2136},
		{"--acme-dns-tsig-name", c.TSIGName, dnsRFC2136},
		{"--acme-dns-tsig-algorithm", c.TSIGAlgorithm, dnsRFC2136},
		{"--acme-dns-tsig-secret-file", c.TSIGSecretFile, dnsRFC2136},
		{"--acme-dns-command", c.Command, dnsExec},
		{"--acme-dns-url", c.URL, dnsHTTP},
		{"--acme-dns-token-file", c.TokenFile, dnsHTTP},
	} {
		optional := f.flag == "--acme-dns-token-file" || f.flag == "--acme-dns-tsig-algorithm"
		switch {
		case f.value != "" && f.provider != c.Provider:
			return fmt.Errorf("%s is for --acme-dns %s: set that, or leave it out", f.flag, f.provider)
		case f.value == "" && f.provider == c.Provider && !optional:
			return fmt.Errorf("--acme-dns %s needs %s", c.Provider, f.flag)
		}
	}
	if c.Provider == "" {
		if len(c.Check) > 0 {
			return errors.New("--acme-dns-check needs --acme-dns")
		}
		return nil
	}
	if !slices.Contains([]string{dnsRFC2136, dnsExec, dnsHTTP}, c.Provider) {
		return fmt.Errorf("--acme-dns %q: want %s, %s or %s", c.Provider, dnsRFC2136, dnsExec, dnsHTTP)
	}
	for _, server := range c.Check {
		if host, port, err := net.SplitHostPort(server); err != nil || host == "" || port == "" {
			return fmt.Errorf("--acme-dns-check %q: want the address of a DNS server with its port, such as 9.9.9.9:53", server)
		}
	}
	if err := c.provider().Validate(); err != nil {
		return fmt.Errorf("--acme-dns %s: %w", c.Provider, err)
	}
	return nil
}

// provider returns what publishes the records, or nil.
func (c *DNSConfig) provider() dns01.Provider {
	switch c.Provider {
	case dnsRFC2136:
		p := &dns01.RFC2136{Server: c.Server, KeyName: c.TSIGName, Algorithm: c.TSIGAlgorithm, SecretFile: c.TSIGSecretFile}
		p.Algorithm = cmp.Or(p.Algorithm, dns01.Algorithms()[0])
		return p
	case dnsExec:
		return &dns01.Exec{Path: c.Command}
	case dnsHTTP:
		return &dns01.HTTP{URL: c.URL, TokenFile: c.TokenFile}
	}
	return nil
}

// checkWildcard returns an error if no certificate can be obtained for a wildcard.
func (c *ACMEConfig) checkWildcard(hosts api.HostTemplate) error {
	switch {
	case !c.Wildcard:
	case c.DNS.Provider == "":
		return errors.New("--acme-wildcard needs --acme-dns: authorities validate wildcards only by DNS records")
	case hosts.Wildcard() == "":
		return errors.New("--acme-wildcard needs --base-domain: the certificate is for *.ENVIRONMENT.BASEDOMAIN")
	}
	return nil
}

// wildcard returns the name of the certificate that hosts share, or "".
func (c *ACMEConfig) wildcard(hosts api.HostTemplate) string {
	if !c.Wildcard {
		return ""
	}
	return hosts.Wildcard()
}
