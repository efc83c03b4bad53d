package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/google/uuid"
)

// Config says where an identity is kept and what the server is called.
type Config struct {
	// DataDir holds the files. Required; made with mode 0700 where it is missing. The caller holds the store's lock on
	// it, so that no second server makes another authority in the same moment.
	DataDir string
	// Listen is the address that the server listens on; it goes into the server's certificate.
	Listen string
	// Names are more host names and addresses for the server's certificate.
	Names []string
	// Now is the clock; time.Now where nil.
	Now func() time.Time
	// Logger, silent where nil.
	Logger *slog.Logger
}

// Validate says what is missing.
func (c Config) Validate() error {
	if c.DataDir == "" {
		return errors.New("identity: no data directory is given")
	}
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			return fmt.Errorf("identity: listen address %q: %w", c.Listen, err)
		}
	}
	return nil
}

// Identity is the opened identity of a cluster. Safe for concurrent use.
type Identity struct {
	ca        *authority
	leaf      *serverCertificate
	vault     *Vault
	clusterID string
	dir       string
	now       func() time.Time
}

// Open reads the identity in the data directory, and makes at first start what is not there yet.
func Open(cfg Config) (*Identity, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	clusterID, err := openClusterID(filepath.Join(cfg.DataDir, clusterIDFile))
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	ca, err := openAuthority(filepath.Join(cfg.DataDir, authorityFile), clusterID, cfg.Now())
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	vault, err := openVault(filepath.Join(cfg.DataDir, vaultFile))
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	names, err := serverNames(cfg.Listen, cfg.Names)
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	// What clients trust is exported beside the key that stays: `--ca-file DIR/ca.crt`.
	if err := renameio.WriteFile(filepath.Join(cfg.DataDir, authorityCertFile), ca.certPEM, 0o644); err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	return &Identity{
		ca:        ca,
		leaf:      &serverCertificate{ca: ca, names: names, now: cfg.Now, logger: cfg.Logger},
		vault:     vault,
		clusterID: clusterID,
		dir:       cfg.DataDir,
		now:       cfg.Now,
	}, nil
}

// Dir is the data directory.
func (i *Identity) Dir() string { return i.dir }

// Files are the names, in the data directory, of what a cluster cannot be restored without.
func (i *Identity) Files() []string {
	return []string{clusterIDFile, authorityFile, authorityCertFile, vaultFile, AdminTokenFile, JoinTokenFile}
}

// The names of what is kept in the data directory, beside the token files.
const (
	clusterIDFile     = "cluster.id"
	authorityFile     = "ca.pem"
	authorityCertFile = "ca.crt"
	vaultFile         = "secrets.key"
)

// ClusterID was made at first start.
func (i *Identity) ClusterID() string { return i.clusterID }

// CAPEM is the authority's certificate: who to trust as the server.
func (i *Identity) CAPEM() []byte { return i.ca.certPEM }

// CAHash is the SHA-256 of the authority's certificate in DER, in hex, as join tokens carry it.
func (i *Identity) CAHash() string { return i.ca.hash }

// Vault encrypts secrets at rest.
func (i *Identity) Vault() *Vault { return i.vault }

// TLSConfig is the server's side of every connection: its certificate, renewed by itself, and a client certificate
// where the caller has one. TLS 1.3 only: every client of this API is younger than it.
func (i *Identity) TLSConfig() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(i.ca.cert)
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{"h2", "http/1.1"},
		ClientAuth:     tls.VerifyClientCertIfGiven,
		ClientCAs:      pool,
		GetCertificate: i.leaf.get,
		Time:           i.now,
	}
}

func openClusterID(path string) (string, error) {
	text, err := readPrivate(path)
	switch {
	case err == nil:
		id := strings.TrimSpace(string(text))
		if _, err := uuid.Parse(id); err != nil {
			return "", fmt.Errorf("%s does not hold a cluster id: restore it from a backup", path)
		}
		return id, nil
	case !errors.Is(err, os.ErrNotExist):
		return "", err
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return "", fmt.Errorf("make a cluster id: %w", err)
	}
	return id.String(), renameio.WriteFile(path, []byte(id.String()+"\n"), 0o600)
}

// maxPrivateFile bounds what is read of a file of this package.
const maxPrivateFile = 64 << 10

// readPrivate reads a file that nobody but its owner may read.
func readPrivate(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (mode %#o): make it private with chmod 600", path, info.Mode().Perm())
	}
	if info.Size() > maxPrivateFile {
		return nil, fmt.Errorf("%s is larger than %d bytes: it is not a file of this program", path, maxPrivateFile)
	}
	return os.ReadFile(path)
}
