package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/google/renameio/v2"
)

const (
	tokenPrefix = "cara_"
	// maxToken bounds what is looked at of a token from outside.
	maxToken = 256
)

// ErrToken says that a text is no token. It never repeats the text.
var ErrToken = errors.New("not a token of this program (cara_ID_SECRET)")

// NewSecret makes 256 random bits as text that needs no quoting anywhere: lower-case letters and digits.
func NewSecret() string { return randomText(32) }

// NewTokenID makes the id of a token that its maker did not name.
func NewTokenID() string { return randomText(8) }

func randomText(size int) string {
	raw := make([]byte, size)
	rand.Read(raw) // never fails: crypto/rand ends the program rather than return weak bytes
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw))
}

// FormatToken is how a person's or a pipeline's token is written. The id, a DNS label, is the name of the stored
// object, so that a lookup needs no search; the secret is never stored.
func FormatToken(id, secret string) string { return tokenPrefix + id + "_" + secret }

// ParseToken takes a token apart.
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

// ParseBearer takes the token out of an Authorization header.
func ParseBearer(header string) (id, secret string, err error) {
	scheme, token, ok := strings.Cut(strings.TrimSpace(header), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", "", errors.New("the Authorization header must be: Bearer TOKEN")
	}
	return ParseToken(strings.TrimSpace(token))
}

// HashSecret is what is stored of a secret. One round is enough: a secret has 256 random bits, there is nothing to guess.
func HashSecret(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// SecretMatches compares in constant time. Nothing matches an empty hash.
func SecretMatches(hash []byte, secret string) bool {
	return HashMatches(hash, HashSecret(secret))
}

// HashMatches compares two hashes in constant time. Nothing matches an empty one.
func HashMatches(stored, presented []byte) bool {
	return len(stored) == sha256.Size && subtle.ConstantTimeCompare(stored, presented) == 1
}

// EnsureTokenFile returns the token in the file at path, or, where there is no file, writes the one that create makes.
// The file is exactly one line, of mode 0600. It is written before the store knows of the token, so that a crash
// between the two loses nothing: the next start finds the file and stores its hash.
func EnsureTokenFile(path string, create func() string) (string, error) {
	text, err := readPrivate(path)
	if err == nil {
		line := strings.TrimSpace(string(text))
		if line == "" || strings.ContainsAny(line, " \t\r\n") {
			return "", fmt.Errorf("%s is not one line with one token: remove it to have a new one made", path)
		}
		return line, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	token := create()
	if err := renameio.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	return token, nil
}
