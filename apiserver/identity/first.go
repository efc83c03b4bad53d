package identity

import (
	"fmt"
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

// FirstTokens returns the secrets of the tokens in admin.token and join.token, and writes those files if they are missing.
// admin and join are the names under which the server stores the tokens.
func (i *Identity) FirstTokens(admin, join string) (adminSecret, joinSecret string, err error) {
	path := filepath.Join(i.dir, AdminTokenFile)
	text, err := EnsureTokenFile(path, func() string { return FormatToken(admin, NewSecret()) })
	if err != nil {
		return "", "", err
	}
	name, adminSecret, err := ParseToken(text)
	if err != nil || name != admin {
		return "", "", fmt.Errorf("%s holds no token of %s: remove it to have a new one made", path, admin)
	}
	path = filepath.Join(i.dir, JoinTokenFile)
	text, err = EnsureTokenFile(path, func() string {
		return api.JoinToken{CAHash: i.CAHash(), ID: join, Secret: NewSecret()}.String()
	})
	if err != nil {
		return "", "", err
	}
	token, err := api.ParseJoinToken(text)
	if err != nil || token.ID != join || token.CAHash != i.CAHash() {
		return "", "", fmt.Errorf("%s holds no join token of this cluster: remove it to have a new one made", path)
	}
	return adminSecret, token.Secret, nil
}
