package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/caravanserai/cara/api"
)

const (
	tokenPrefix = "cara_"
	// maxToken limits the length of a token.
	maxToken = 256
)

// ErrToken means that a text is not a token. The error never repeats the text.
var ErrToken = errors.New("not a token of this program (cara_ID_SECRET)")

// NewSecret returns 256 random bits as text that needs no quoting: lower-case letters and digits.
func NewSecret() string { return randomText(32) }

// NewTokenID returns the ID for a token without a given name.
func NewTokenID() string { return randomText(8) }

func randomText(size int) string {
	raw := make([]byte, size)
	rand.Read(raw) // never fails: crypto/rand ends the program instead of returning weak bytes
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw))
}

// FormatToken formats a token of a person or a pipeline. The ID, a DNS label, is the name of the stored object, so the
// lookup needs no search. The secret is never stored.
func FormatToken(id, secret string) string { return tokenPrefix + id + "_" + secret }

// ParseToken splits a token into its ID and secret.
func ParseToken(token string) (id, secret string, err error) {
	rest, ok := strings.CutPrefix(token, tokenPrefix)
	if !ok || len(token) > maxToken {
		return "", "", ErrToken
	}
	id, secret, ok = strings.Cut(rest, "_")
	if !ok || id == "" || secret == "" || strings.ContainsAny(rest, " \t\r\n/.") {
		return "", "", ErrToken
	}
	return id, secret, nil
}

// ParseBearer returns the parts of the token in an Authorization header.
func ParseBearer(header string) (id, secret string, err error) {
	scheme, token, ok := strings.Cut(strings.TrimSpace(header), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", "", errors.New("the Authorization header must be: Bearer TOKEN")
	}
	return ParseToken(strings.TrimSpace(token))
}

// HashSecret returns the hash to store for a secret. One round is enough, because a secret has 256 random bits.
func HashSecret(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// SecretMatches compares in constant time. An empty hash matches nothing.
func SecretMatches(hash []byte, secret string) bool {
	return HashMatches(hash, HashSecret(secret))
}

// HashMatches compares two hashes in constant time. An empty hash matches nothing.
func HashMatches(stored, presented []byte) bool {
	return len(stored) == sha256.Size && subtle.ConstantTimeCompare(stored, presented) == 1
}

// EnsureTokenFile returns the token in the file at path. If the file does not exist, it writes the token that create
// returns. The file is one line and has mode 0600. It is written before the store has the token: after a crash in between,
// the next start finds the file and stores its hash.
func EnsureTokenFile(path string, create func() string) (string, error) {
	text, err := ensurePrivate(path, func() ([]byte, error) { return []byte(create() + "\n"), nil })
	if err != nil {
		return "", err
	}
	line := strings.TrimSpace(string(text))
	if line == "" || strings.ContainsAny(line, " \t\r\n") {
		return "", fmt.Errorf("%s is not one line with one token: remove it to have a new one made", path)
	}
	return line, nil
}

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
	var errs []error
	for _, path := range fresh {
		if err := os.Remove(path); err != nil {
			errs = append(errs, fmt.Errorf("this file has no token of the cluster, remove it: %w", err))
		}
	}
	return errors.Join(errs...)
}
