package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string, now func() time.Time) *Identity {
	t.Helper()
	id, err := Open(Config{DataDir: dir, Listen: "127.0.0.1:8080", Now: now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestOpenMakesOnceAndKeeps(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first := open(t, dir, nil)
	sealed := first.Vault().Seal("s/k", []byte("value"))
	second := open(t, dir, nil)
	if first.CAHash() != second.CAHash() || first.ClusterID() != second.ClusterID() || len(first.CAHash()) != 64 {
		t.Errorf("authority or cluster changed: %s %s, then %s %s", first.CAHash(), first.ClusterID(), second.CAHash(), second.ClusterID())
	}
	if value, err := second.Vault().Open("s/k", sealed); err != nil || string(value) != "value" {
		t.Errorf("open after reopening: %q, %v", value, err)
	}
	for name, mode := range map[string]os.FileMode{"ca.pem": 0o600, "secrets.key": 0o600, "cluster.id": 0o600, "ca.crt": 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != mode {
			t.Errorf("%s has mode %#o, want %#o", name, info.Mode().Perm(), mode)
		}
	}
	exported, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil || !bytes.Equal(exported, first.CAPEM()) {
		t.Errorf("ca.crt is not the authority's certificate (%v)", err)
	}
}

func TestOpenRefusesWhatItCannotTrust(t *testing.T) {
	tests := []struct {
		name, file string
		spoil      func(path string) error
		want       string
	}{
		{"key readable by others", "ca.pem", func(p string) error { return os.Chmod(p, 0o644) }, "chmod 600"},
		{"torn authority", "ca.pem", func(p string) error { return os.Truncate(p, 300) }, "backup"},
		{"empty secrets key", "secrets.key", func(p string) error { return os.Truncate(p, 0) }, "holds no key"},
		{"torn secrets key", "secrets.key", func(p string) error { return os.Truncate(p, 20) }, "32 bytes"},
		{"empty cluster id", "cluster.id", func(p string) error { return os.Truncate(p, 0) }, "cluster id"},
		{"huge file", "cluster.id", func(p string) error { return os.Truncate(p, 1<<20) }, "larger than"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			open(t, dir, nil)
			if err := test.spoil(filepath.Join(dir, test.file)); err != nil {
				t.Fatal(err)
			}
			_, err := Open(Config{DataDir: dir, Logger: slog.New(slog.DiscardHandler)})
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.file) {
				t.Errorf("Open: %v, want an error with %q and %q", err, test.want, test.file)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	for name, cfg := range map[string]Config{"no directory": {}, "no port": {DataDir: "x", Listen: "localhost"}} {
		if err := cfg.Validate(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestServerCertificateRenewsItself(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	id := open(t, t.TempDir(), func() time.Time { return now })
	get := func() *tls.Certificate {
		t.Helper()
		cert, err := id.TLSConfig().GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(id.CAPEM())
	first := get()
	now = now.Add(serverRenew - time.Second)
	if get() != first {
		t.Error("a new certificate before it was due")
	}
	now = now.Add(2 * time.Second)
	second := get()
	if second == first {
		t.Error("no new certificate when it was due")
	}
	for _, name := range []string{ServerName, "localhost", "127.0.0.1", "::1"} {
		if err := second.Leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if _, err := second.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		t.Error(err)
	}
	if _, err := second.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("the server's certificate passes for a client's")
	}
	// The clock was wrong and is set right: a certificate of the future would not be valid for hours.
	now = now.Add(-8 * time.Hour)
	third := get()
	if _, err := third.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now.Add(-skew)}); err != nil {
		t.Errorf("after a step back: %v", err)
	}
	if get() != third {
		t.Error("another certificate although the clock stands still")
	}
	// The authority ends before this certificate would.
	now = id.ca.cert.NotAfter.Add(-time.Hour)
	if got := get().Leaf.NotAfter; got.After(id.ca.cert.NotAfter) {
		t.Errorf("a certificate that lasts until %s, longer than its authority", got)
	}
}

func TestServerNames(t *testing.T) {
	tests := []struct {
		name, listen string
		want         string
	}{
		{"one address", "192.0.2.7:8080", "192.0.2.7"},
		{"a name", "cara.example:8080", "cara.example"},
		{"every address", ":8080", "127.0.0.1"},
		{"every IPv6 address", "[::]:8080", "::1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			names, err := serverNames(test.listen, []string{"more.example"})
			if err != nil {
				t.Fatal(err)
			}
			joined := " " + strings.Join(names, " ") + " "
			for _, want := range []string{test.want, "more.example", ServerName} {
				if strings.Count(joined, " "+want+" ") != 1 {
					t.Errorf("names %v: %s is not in there once", names, want)
				}
			}
		})
	}
}
