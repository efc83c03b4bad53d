package identity

import (
	"cmp"
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

// Config configures where an identity is stored and the names of the server.
type Config struct {
	// DataDir holds the files. It is required, and created with mode 0700 if it is missing. The caller must hold the
	// store's lock on it, so that no second server creates another authority at the same time.
	DataDir string
	// Listen is the address that the server listens on. It is part of the server's certificate.
	Listen string
	// Names are more host names and addresses for the server's certificate.
	Names []string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Logger gets the log lines; nil logs nothing.
	Logger *slog.Logger
}

// Validate returns an error if c is not usable.
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

// Identity is the opened identity of a cluster. It is safe for concurrent use.
type Identity struct {
	ca        *authority
	leaf      *serverCertificate
	peer      *serverCertificate // with which this server connects to others
	vault     *Vault
	clusterID string
	dir       string
	now       func() time.Time
}

// Open reads the identity in the data directory and creates what is missing.
func Open(cfg Config) (*Identity, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
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
	// The certificate that clients trust is also written to a separate file: `--ca-file DIR/ca.crt`.
	if err := renameio.WriteFile(filepath.Join(cfg.DataDir, authorityCertFile), ca.certPEM, 0o644); err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	return &Identity{
		ca:        ca,
		leaf:      &serverCertificate{ca: ca, names: names, usage: x509.ExtKeyUsageServerAuth, now: cfg.Now, logger: cfg.Logger},
		peer:      &serverCertificate{ca: ca, usage: x509.ExtKeyUsageClientAuth, now: cfg.Now, logger: cfg.Logger},
		vault:     vault,
		clusterID: clusterID,
		dir:       cfg.DataDir,
		now:       cfg.Now,
	}, nil
}

// Dir returns the data directory.
func (i *Identity) Dir() string { return i.dir }

// Files returns the names of the files in the data directory that a restore of the cluster needs.
func (i *Identity) Files() []string {
	return []string{clusterIDFile, authorityFile, authorityCertFile, vaultFile, AdminTokenFile, JoinTokenFile}
}

// Names of the files in the data directory, in addition to the token files.
const (
	clusterIDFile     = "cluster.id"
	authorityFile     = "ca.pem"
	authorityCertFile = "ca.crt"
	vaultFile         = "secrets.key"
)

// ClusterID returns the ID of the cluster, which was created at the first start.
func (i *Identity) ClusterID() string { return i.clusterID }

// CAPEM returns the authority's certificate, which clients use to verify the server.
func (i *Identity) CAPEM() []byte { return i.ca.certPEM }

// CAHash returns the SHA-256 of the authority's certificate in DER, in hex. Join tokens contain it.
func (i *Identity) CAHash() string { return i.ca.hash }

// Vault returns the vault that encrypts secrets at rest.
func (i *Identity) Vault() *Vault { return i.vault }

// TLSConfig returns the server's TLS configuration: a certificate that renews automatically, and an optional client
// certificate. It allows only TLS 1.3, which every client of this API supports.
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
	text, err := ensurePrivate(path, func() ([]byte, error) { return []byte(uuid.NewString() + "\n"), nil })
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(text))
	if _, err := uuid.Parse(id); err != nil {
		return "", fmt.Errorf("%s does not hold a cluster id: restore it from a backup", path)
	}
	return id, nil
}

// ensurePrivate reads a file that only its owner may read. If it does not exist, it writes what create returns.
func ensurePrivate(path string, create func() ([]byte, error)) ([]byte, error) {
	text, err := readPrivate(path)
	if !errors.Is(err, os.ErrNotExist) {
		return text, err
	}
	if text, err = create(); err != nil {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	if err := renameio.WriteFile(path, text, 0o600); err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return text, nil
}

// maxPrivateFile limits the size of a file that this package reads.
const maxPrivateFile = 64 << 10

// readPrivate reads a file that only its owner may read.
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
