package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// sharedName is the name to which the sealed files are bound.
const sharedName = "cluster"

// sharedFiles returns the names of the files that are the same on all servers of a cluster.
func sharedFiles() []string { return []string{clusterIDFile, authorityFile, vaultFile} }

// Share returns what the servers of a cluster share in their store. If there is nothing yet, it stores what create returns.
// Servers that call it at the same time all get the same value.
type Share func(create func() ([]byte, error)) ([]byte, error)

// OpenShared is Open for one of several servers with one store. The cluster's files are in the store, sealed with the cluster
// key in keyFile, and are copied to the data directory. The first server makes the key and the files; if its data directory
// has an identity, as after a migration, that one is shared. A server without the cluster's key is refused, and so is one
// whose data directory belongs to another cluster.
func OpenShared(cfg Config, keyFile string, share Share) (*Identity, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	sealed, err := share(func() ([]byte, error) { return firstShare(cfg, keyFile) })
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	if err := unseal(cfg.DataDir, keyFile, sealed); err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	return Open(cfg)
}

// firstShare makes the cluster key, if it is missing, and seals the files of a new identity, or of the one in the data
// directory. It writes nothing but the key, because another server may be first.
func firstShare(cfg Config, keyFile string) (sealed []byte, err error) {
	if err := os.MkdirAll(filepath.Dir(keyFile), 0o700); err != nil {
		return nil, err
	}
	key, err := openVault(keyFile)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(cfg.DataDir, "first-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, name := range sharedFiles() {
		text, err := readPrivate(filepath.Join(cfg.DataDir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o600)
		}
		if err != nil {
			return nil, err
		}
	}
	cfg.DataDir = dir
	if _, err := Open(cfg); err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, name := range sharedFiles() {
		text, err := readPrivate(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		files[name] = string(text)
	}
	text, err := json.Marshal(files)
	if err != nil {
		return nil, err
	}
	return key.Seal(sharedName, text), nil
}

// unseal writes the cluster's files to the data directory.
func unseal(dataDir, keyFile string, sealed []byte) error {
	if _, err := os.Stat(keyFile); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no cluster key in %s: copy the file from another server of this cluster, with mode 0600", keyFile)
	}
	key, err := openVault(keyFile)
	if err != nil {
		return fmt.Errorf("read the cluster key: %w", err)
	}
	text, err := key.Open(sharedName, sealed)
	if err != nil {
		return fmt.Errorf("the key in %s is not the key of the cluster in etcd: copy the file from another server of this cluster", keyFile)
	}
	files := map[string]string{}
	if err := json.Unmarshal(text, &files); err != nil {
		return fmt.Errorf("the cluster's files in etcd are damaged: %w", err)
	}
	for _, name := range sharedFiles() {
		if err := install(filepath.Join(dataDir, name), files[name]); err != nil {
			return err
		}
	}
	return nil
}

// install writes a file of the cluster, unless the data directory has it. One of another cluster is kept and is an error.
func install(path, text string) error {
	have, err := readPrivate(path)
	switch {
	case text == "":
		return fmt.Errorf("the cluster's files in etcd have no %s: they are damaged", filepath.Base(path))
	case errors.Is(err, fs.ErrNotExist):
		return renameio.WriteFile(path, []byte(text), 0o600)
	case err != nil:
		return err
	case strings.TrimSpace(string(have)) != strings.TrimSpace(text):
		return fmt.Errorf("%s is not that of the cluster in etcd: start this server with an empty data directory, or with another --etcd-prefix", path)
	}
	return nil
}
