package identity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/caravanserai/cara/api"
)

// Files of the first start, in the data directory.
const (
	AdminTokenFile = "admin.token"
	JoinTokenFile  = "join.token"
)

// FromBackupFile is a file without content in each archive of a server. A server that finds it in its data directory knows that its
// state is that of a backup.
const FromBackupFile = "from-backup"

// FirstTokens returns the secrets of the tokens in admin.token and join.token, and writes those files if they are missing: fresh has
// their paths. admin and join are the names under which the server stores the tokens.
func (i *Identity) FirstTokens(admin, join string) (adminSecret, joinSecret string, fresh []string, err error) {
	path := filepath.Join(i.dir, AdminTokenFile)
	text, err := EnsureTokenFile(path, func() string {
		fresh = append(fresh, path)
		return FormatToken(admin, NewSecret())
	})
	if err != nil {
		return "", "", nil, err
	}
	name, adminSecret, err := ParseToken(text)
	if err != nil || name != admin {
		return "", "", nil, fmt.Errorf("%s holds no token of %s: remove it to have a new one made", path, admin)
	}
	joinPath := filepath.Join(i.dir, JoinTokenFile)
	text, err = EnsureTokenFile(joinPath, func() string {
		fresh = append(fresh, joinPath)
		return api.JoinToken{CAHash: i.CAHash(), ID: join, Secret: NewSecret()}.String()
	})
	if err != nil {
		return "", "", nil, err
	}
	token, err := api.ParseJoinToken(text)
	if err != nil || token.ID != join || token.CAHash != i.CAHash() {
		return "", "", nil, fmt.Errorf("%s holds no join token of this cluster: remove it to have a new one made", joinPath)
	}
	return adminSecret, token.Secret, fresh, nil
}

// DropTokens removes files that FirstTokens has written, because another server of the cluster was faster and has its tokens stored.
func (i *Identity) DropTokens(fresh []string) error {
	var all error
	for _, path := range fresh {
		if err := os.Remove(path); err != nil {
			all = errors.Join(all, fmt.Errorf("this file has no token of the cluster, remove it: %w", err))
		}
	}
	return all
}
