package identity

import (
	"bytes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// A sealed value is: format (1 byte), key ID (8), nonce (24), ciphertext with its tag. Each value has a random nonce. With
// XChaCha20's 192 bits this is safe for any number of values.
const (
	sealFormat = 1
	keyIDSize  = 8
	sealHeader = 1 + keyIDSize + chacha20poly1305.NonceSizeX
)

// ErrSealed means that a sealed value cannot be opened: it was changed, moved to another name, or its key is missing.
var ErrSealed = errors.New("sealed value cannot be opened")

// Vault encrypts and decrypts values at rest. The first line of its key file is the key for new values. The other lines are
// older keys, which only decrypt.
type Vault struct {
	active [keyIDSize]byte
	keys   map[[keyIDSize]byte]cipher.AEAD
	// versions is the key for Version. It is derived from the oldest key, so that a new key does not change any version.
	versions []byte
}

func openVault(path string) (*Vault, error) {
	text, err := ensurePrivate(path, func() ([]byte, error) {
		key := make([]byte, chacha20poly1305.KeySize)
		rand.Read(key) // never fails, see randomText
		return []byte(base64.StdEncoding.EncodeToString(key) + "\n"), nil
	})
	if err != nil {
		return nil, err
	}
	v := &Vault{keys: make(map[[keyIDSize]byte]cipher.AEAD)}
	for n, line := range strings.Fields(string(text)) {
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != chacha20poly1305.KeySize {
			return nil, fmt.Errorf("%s: key %d is not %d bytes in base64: restore the file from a backup", path, n+1,
				chacha20poly1305.KeySize)
		}
		aead, err := chacha20poly1305.NewX(key)
		if err != nil {
			return nil, fmt.Errorf("%s: key %d: %w", path, n+1, err)
		}
		id := keyID(key)
		if n == 0 {
			v.active = id
		}
		v.keys[id] = aead
		v.versions = versionKey(key)
	}
	if len(v.keys) == 0 {
		return nil, fmt.Errorf("%s holds no key: restore the file from a backup", path)
	}
	return v, nil
}

// keyID identifies a key without revealing it.
func keyID(key []byte) [keyIDSize]byte {
	sum := sha256.Sum256(append([]byte("cara key id "), key...))
	return [keyIDSize]byte(sum[:keyIDSize])
}

// Seal encrypts value and binds it to name. So someone who can write to the store cannot present one secret's value as
// another's.
func (v *Vault) Seal(name string, value []byte) []byte {
	out := make([]byte, sealHeader, sealHeader+len(value)+chacha20poly1305.Overhead)
	out[0] = sealFormat
	copy(out[1:], v.active[:])
	nonce := out[1+keyIDSize : sealHeader]
	rand.Read(nonce) // never fails, see randomText
	return v.keys[v.active].Seal(out, nonce, value, additional(out, name))
}

// Open decrypts a value that Seal encrypted with the same name.
func (v *Vault) Open(name string, sealed []byte) ([]byte, error) {
	if len(sealed) < sealHeader || sealed[0] != sealFormat {
		return nil, fmt.Errorf("%s: %w: it has an unknown format", name, ErrSealed)
	}
	aead, ok := v.keys[[keyIDSize]byte(sealed[1:1+keyIDSize])]
	if !ok {
		return nil, fmt.Errorf("%s: %w: it was sealed with key %x, which secrets.key does not hold", name, ErrSealed,
			sealed[1:1+keyIDSize])
	}
	value, err := aead.Open(nil, sealed[1+keyIDSize:sealHeader], sealed[sealHeader:], additional(sealed, name))
	if err != nil {
		return nil, fmt.Errorf("%s: %w: it was changed, or moved from another name", name, ErrSealed)
	}
	return value, nil
}

// Version returns a text that changes with the value. It reveals nothing about the value: testing a guess needs the vault's
// key. It stays the same as long as the key file contains its oldest key.
func (v *Vault) Version(name string, value []byte) string {
	mac := hmac.New(sha256.New, v.versions)
	fmt.Fprintf(mac, "%d %s ", len(name), name)
	mac.Write(value)
	return hex.EncodeToString(mac.Sum(nil)[:versionSize])
}

// versionSize makes a collision of two values of one Secret practically impossible.
const versionSize = 12

func versionKey(key []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("cara secret versions"))
	return mac.Sum(nil)
}

// additional is the data that binds a value to its format, its key and its name.
func additional(sealed []byte, name string) []byte {
	return append(bytes.Clone(sealed[:1+keyIDSize]), name...)
}
