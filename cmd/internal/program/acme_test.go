package program

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/certs"
)

func TestACMEFlags(t *testing.T) {
	nothing := filepath.Join(t.TempDir(), "nothing.pem")
	if err := os.WriteFile(nothing, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	const email, own = "ops@example.com", "https://ca.example/directory"
	for name, c := range map[string]struct {
		config          ACMEConfig
		directory, want string
	}{
		"off":               {ACMEConfig{}, "", ""},
		"on":                {ACMEConfig{Email: email}, "", ""},
		"staging":           {ACMEConfig{Email: email, Staging: true}, certs.LetsEncryptStaging, ""},
		"another authority": {ACMEConfig{Email: email, Directory: own}, own, ""},
		"two authorities":   {ACMEConfig{Email: email, Directory: own, Staging: true}, "", "leave out --acme-directory or --acme-staging"},
		"no email":          {ACMEConfig{Staging: true}, "", "need --acme-email"},
		"no address":        {ACMEConfig{Email: "ops"}, "", `--acme-email "ops"`},
		"a name":            {ACMEConfig{Email: "Ops <ops@example.com>"}, "", "want an address such as ops@example.com"},
		"resolver":          {ACMEConfig{Email: email, Resolver: "[2001:db8::1]:53"}, "", ""},
		"resolver's port":   {ACMEConfig{Email: email, Resolver: "9.9.9.9"}, "", "--acme-resolver"},
		"resolver's name":   {ACMEConfig{Email: email, Resolver: "dns.example:53"}, "", "--acme-resolver"},
		"no file":           {ACMEConfig{Email: email, CAFile: nothing + ".x"}, "", "--acme-ca"},
		"no certificate":    {ACMEConfig{Email: email, CAFile: nothing}, "", "has no certificate in PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.config.Validate()
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
