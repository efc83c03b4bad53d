package program

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/certs"
)

func TestACMEFlags(t *testing.T) {
	nothing := filepath.Join(t.TempDir(), "nothing.pem")
	if err := os.WriteFile(nothing, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	key, bad := nothing+".key", nothing+".bad"
	for file, text := range map[string]string{key: "c2VjcmV0LXNlY3JldC1zZWNyZXQ+/w==\n", bad: "key: c2VjcmV0"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const email, own = "ops@example.com", "https://ca.example/directory"
	for name, c := range map[string]struct {
		config          ACMEConfig
		directory, want string
	}{
		"off":                {ACMEConfig{}, "", ""},
		"on":                 {ACMEConfig{Email: email}, "", ""},
		"staging":            {ACMEConfig{Email: email, Staging: true}, certs.LetsEncryptStaging, ""},
		"another authority":  {ACMEConfig{Email: email, Directory: own}, own, ""},
		"two authorities":    {ACMEConfig{Email: email, Directory: own, Staging: true}, "", "leave out --acme-directory or --acme-staging"},
		"no email":           {ACMEConfig{Staging: true}, "", "need --acme-email"},
		"no address":         {ACMEConfig{Email: "ops"}, "", `--acme-email "ops"`},
		"a name":             {ACMEConfig{Email: "Ops <ops@example.com>"}, "", "want an address such as ops@example.com"},
		"resolver":           {ACMEConfig{Email: email, Resolver: "[2001:db8::1]:53"}, "", ""},
		"resolver's port":    {ACMEConfig{Email: email, Resolver: "9.9.9.9"}, "", "--acme-resolver"},
		"resolver's name":    {ACMEConfig{Email: email, Resolver: "dns.example:53"}, "", "--acme-resolver"},
		"DNS without email":  {ACMEConfig{DNS: DNSConfig{Provider: "exec"}}, "", "need --acme-email"},
		"unknown provider":   {ACMEConfig{Email: email, DNS: DNSConfig{Provider: "route53"}}, "", `--acme-dns "route53": want rfc2136, exec or http`},
		"flag of another":    {ACMEConfig{Email: email, DNS: DNSConfig{Provider: "exec", Command: "/bin/true", URL: "https://x/"}}, "", "--acme-dns-url is for --acme-dns http"},
		"flag of none":       {ACMEConfig{Email: email, DNS: DNSConfig{TSIGAlgorithm: "hmac-sha1"}}, "", "--acme-dns-tsig-algorithm is for --acme-dns rfc2136"},
		"check of none":      {ACMEConfig{Email: email, DNS: DNSConfig{Check: []string{"9.9.9.9:53"}}}, "", "--acme-dns-check needs --acme-dns"},
		"no command":         {ACMEConfig{Email: email, DNS: DNSConfig{Provider: "exec"}}, "", "--acme-dns exec needs --acme-dns-command"},
		"no key":             {ACMEConfig{Email: email, DNS: DNSConfig{Provider: "rfc2136", Server: "ns1:53", TSIGName: "k"}}, "", "--acme-dns rfc2136 needs --acme-dns-tsig-secret-file"},
		"missing key":        {ACMEConfig{Email: email, DNS: DNSConfig{Provider: "rfc2136", Server: "ns1:53", TSIGName: "k", TSIGSecretFile: nothing + ".x"}}, "", "--acme-dns rfc2136: the TSIG key: "},
		"command":            {ACMEConfig{Email: email, DNS: DNSConfig{Provider: "exec", Command: "/bin/true"}}, "", ""},
		"service":            {ACMEConfig{Email: email, DNS: DNSConfig{Provider: "http", URL: "https://x/", Check: []string{"ns1:53"}}}, "", ""},
		"check's port":       {ACMEConfig{Email: email, DNS: DNSConfig{Provider: "http", URL: "https://x/", Check: []string{"ns1"}}}, "", "--acme-dns-check"},
		"insecure service":   {ACMEConfig{Email: email, DNS: DNSConfig{Provider: "http", URL: "http://x/"}}, "", "use https"},
		"wildcard":           {ACMEConfig{Email: email, DNS: DNSConfig{Provider: "exec", Command: "/bin/true"}, Wildcard: true}, "", ""},
		"wildcard over HTTP": {ACMEConfig{Email: email, Wildcard: true}, "", "--acme-wildcard needs --acme-dns"},
		"binding":            {ACMEConfig{Email: email, EABKeyID: "k", EABKeyFile: key}, "", ""},
		"binding's id":       {ACMEConfig{Email: email, EABKeyFile: key}, "", "--acme-eab-key-id and --acme-eab-key-file belong together"},
		"binding's key":      {ACMEConfig{Email: email, EABKeyID: "k"}, "", "--acme-eab-key-id and --acme-eab-key-file belong together"},
		"binding's file":     {ACMEConfig{Email: email, EABKeyID: "k", EABKeyFile: nothing + ".x"}, "", "--acme-eab-key-file: open"},
		"no base64":          {ACMEConfig{Email: email, EABKeyID: "k", EABKeyFile: bad}, "", "want a key in base64"},
		"binding alone":      {ACMEConfig{EABKeyID: "k", EABKeyFile: key}, "", "need --acme-email"},
		"no file":            {ACMEConfig{Email: email, CAFile: nothing + ".x"}, "", "--acme-ca"},
		"no certificate":     {ACMEConfig{Email: email, CAFile: nothing}, "", "has no certificate in PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			err := errors.Join(c.config.Validate(), c.config.checkWildcard(api.HostTemplate{BaseDomain: "example.com"}))
			if err == nil && c.want == "" {
				if got := c.config.directory(); got != c.directory {
					t.Errorf("the directory is %q, want %q", got, c.directory)
				}
				return
			}
			if err == nil || c.want == "" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestWildcardNeedsABaseDomain(t *testing.T) {
	c := ACMEConfig{Email: "ops@example.com", DNS: DNSConfig{Provider: "exec", Command: "/bin/true"}, Wildcard: true}
	if err := c.checkWildcard(api.HostTemplate{Environment: "dev"}); err == nil || !strings.Contains(err.Error(), "--base-domain") {
		t.Errorf("got %v", err)
	}
	for want, hosts := range map[string]api.HostTemplate{
		"*.dev.example.com": {Environment: "dev", BaseDomain: "Example.com."},
		"*.example.com":     {BaseDomain: "example.com"},
	} {
		if got := c.wildcard(hosts); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
