package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	"github.com/caravanserai/cara/store"
)

// A state that was taken back to an older one says so: see state.RecoveryOp. The server then asks each node what it has obeyed since.

// recovered returns a listing that also says that it was taken back.
func recovered(page store.Page) (store.Page, error) {
	op, err := state.RecoveryOp()
	if err != nil {
		return store.Page{}, err
	}
	kv := store.KV{Key: op.Key, Value: op.Value, Created: page.Revision, Modified: page.Revision}
	at, exists := slices.BinarySearchFunc(page.KVs, op.Key, func(kv store.KV, key string) int { return strings.Compare(kv.Key, key) })
	page.KVs = slices.Clone(page.KVs)
	if exists {
		page.KVs[at] = kv
	} else {
		page.KVs = slices.Insert(page.KVs, at, kv)
	}
	return page, nil
}

func (c *ServerConfig) backupMark() string { return filepath.Join(c.DataDir, identity.FromBackupFile) }

// isFromBackup reports whether the data directory was unpacked from an archive, and no server has run on it.
func (c *ServerConfig) isFromBackup() bool {
	_, err := os.Lstat(c.backupMark())
	return err == nil
}

// noteBackup records in the store that the data directory was unpacked from an archive, once.
func (c *ServerConfig) noteBackup(ctx context.Context, db store.Store) error {
	if !c.isFromBackup() {
		return nil
	}
	op, err := state.RecoveryOp()
	if err != nil {
		return err
	}
	if _, err := db.Commit(ctx, store.Txn{Do: []store.Op{op}}); err != nil {
		return fmt.Errorf("note that the state is that of a backup: %w", err)
	}
	if err := os.Remove(c.backupMark()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("note that the state is that of a backup: %w", err)
	}
	return nil
}
