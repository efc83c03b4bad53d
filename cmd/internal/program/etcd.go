package program

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/store"
	"github.com/caravanserai/cara/store/etcd"
	"github.com/caravanserai/cara/store/pebble"
)

// Values of --store.
const (
	storePebble = "pebble"
	storeEtcd   = "etcd"
)

// EtcdConfig holds the flags about etcd.
type EtcdConfig struct {
	// Endpoints are the client URLs of etcd's members.
	Endpoints []string
	// Prefix begins all keys; empty is /cara/.
	Prefix string
	// CAFile has the authorities of etcd's certificates in PEM; empty means those of the system.
	CAFile string
	// CertFile and KeyFile have the certificate with which the server logs in, in PEM.
	CertFile, KeyFile string
	// User and PasswordFile log in with a password.
	User, PasswordFile string
	// ClusterKeyFile has the key that seals what the servers share; empty is cluster.key in the data directory.
	ClusterKeyFile string
}

// setTarget reports whether a flag says etcd: `etcd`, with the endpoints that c has, or `etcd:URL,URL...`, which it sets.
func (c *EtcdConfig) setTarget(target string) bool {
	urls, ok := strings.CutPrefix(target, storeEtcd+":")
	if ok && urls != "" {
		c.Endpoints = strings.Split(urls, ",")
		return true
	}
	return target == storeEtcd
}

func (c *ServerConfig) validateStore() error {
	switch {
	case c.Store != "" && c.Store != storePebble && c.Store != storeEtcd:
		return fmt.Errorf("--store %q: want %s or %s", c.Store, storePebble, storeEtcd)
	case c.Store != storeEtcd && !reflect.DeepEqual(c.Etcd, EtcdConfig{}):
		return errors.New("--store etcd is missing: add it, or remove --etcd-endpoints, --cluster-key-file and the other flags of etcd")
	case c.Store != storeEtcd:
		return nil
	}
	cfg, err := c.Etcd.config()
	if err != nil {
		return err
	}
	return cfg.Validate()
}

// config reads the files and returns the configuration of the store.
func (c EtcdConfig) config() (etcd.Config, error) {
	cfg := etcd.Config{Endpoints: c.Endpoints, Prefix: c.Prefix, Username: c.User}
	if (c.User == "") != (c.PasswordFile == "") {
		return cfg, errors.New("--etcd-user and --etcd-password-file belong together: give both or none")
	}
	var err error
	if cfg.TLS, err = c.tlsConfig(); err != nil || c.PasswordFile == "" {
		return cfg, err
	}
	if cfg.Password, err = readSecret("--etcd-password-file", c.PasswordFile); err == nil && cfg.Password == "" {
		err = fmt.Errorf("--etcd-password-file: %s is empty", c.PasswordFile)
	}
	return cfg, err
}

// tlsConfig returns nil if no file is given.
func (c EtcdConfig) tlsConfig() (*tls.Config, error) {
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, errors.New("--etcd-cert and --etcd-key belong together: give both or none")
	}
	roots, err := readRoots("--etcd-ca", c.CAFile)
	if err != nil || roots == nil && c.CertFile == "" {
		return nil, err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	if c.CertFile != "" {
		login := &loginCertificate{certFile: c.CertFile, keyFile: c.KeyFile}
		if err := login.read(); err != nil {
			return nil, fmt.Errorf("--etcd-cert and --etcd-key: %w", err)
		}
		cfg.GetClientCertificate = login.get
	}
	return cfg, nil
}

func (c *ServerConfig) openEtcd(ctx context.Context, importing bool) (*etcd.Store, error) {
	cfg, err := c.Etcd.config()
	if err != nil {
		return nil, err
	}
	cfg.Logger, cfg.Importing = c.Logger, importing
	return etcd.Open(ctx, cfg)
}

// openShared opens the identity that all servers of the cluster share.
func (c *ServerConfig) openShared(ctx context.Context, db *etcd.Store) (*identity.Identity, error) {
	key := cmp.Or(c.Etcd.ClusterKeyFile, filepath.Join(c.DataDir, "cluster.key"))
	return identity.OpenShared(c.identity(), key, func(create func() ([]byte, error)) ([]byte, error) { return db.Shared(ctx, create) })
}

// onEtcd is a store in etcd that can be backed up: as a data directory of store/pebble.
type onEtcd struct{ *etcd.Store }

// Checkpoint writes a consistent copy of all objects into dir, which must not exist yet.
func (s onEtcd) Checkpoint(ctx context.Context, dir string) error {
	page, err := s.List(ctx, "", store.ListOptions{})
	if err != nil {
		return fmt.Errorf("read the store in etcd: %w", err)
	}
	return pebble.Import(pebble.Config{Dir: dir}, page)
}
