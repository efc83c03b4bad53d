package program

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/caravanserai/cara/internal/test/testca"
)

// TestLoginCertificateIsRenewed: a new connection to etcd uses the certificate that is in the files then. While they do not belong together,
// it uses the earlier one.
func TestLoginCertificateIsRenewed(t *testing.T) {
	authority, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := EtcdConfig{CertFile: filepath.Join(dir, "client.crt"), KeyFile: filepath.Join(dir, "client.key")}
	write := func(name string, files ...string) {
		t.Helper()
		cert, key, err := authority.Both(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			text := cert
			if path == c.KeyFile {
				text = key
			}
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("first", c.CertFile, c.KeyFile)
	cfg, err := c.tlsConfig()
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name  string
		files []string
		want  string
	}{
		{"first", nil, "first"},
		{"half", []string{c.CertFile}, "first"},
		{"second", []string{c.CertFile, c.KeyFile}, "second"},
	} {
		write(step.name, step.files...)
		cert, err := cfg.GetClientCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := cert.Leaf.Subject.CommonName; got != step.want {
			t.Errorf("with the files of %s, the certificate is %s, want %s", step.name, got, step.want)
		}
	}
}
