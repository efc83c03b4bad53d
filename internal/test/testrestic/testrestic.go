// Package testrestic makes repositories of restic that are cheap to open, for tests with many runs of restic.
//
// Each run of restic derives the key that opens the repository from the password, which takes half a second of CPU by design.
// The repositories of this package are made by restic, and their key is then sealed again with the least work. They are
// described in https://restic.readthedocs.io/en/stable/100_references.html#keys-encryption-and-mac.
package testrestic

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/crypto/poly1305" //nolint:staticcheck // restic's format uses Poly1305 with AES, which no other package offers
	"golang.org/x/crypto/scrypt"

	"github.com/caravanserai/cara/internal/test/testneed"
)

// Password opens the repositories of New.
const Password = "correct horse battery staple"

// made is the repository that New copies.
var made struct { //nolint:gochecknoglobals // it is made once in a test process, because that takes seconds
	sync.Once
	files map[string][]byte // by path
	err   error
}

// New makes a repository in a directory that does not exist yet.
func New(tb testing.TB, dir string) {
	tb.Helper()
	testneed.Program(tb, "restic", "restic")
	made.Do(func() { made.files, made.err = makeRepository(tb.Context(), tb.TempDir()) })
	if made.err != nil {
		tb.Fatal(made.err)
	}
	for _, name := range []string{"data", "index", "keys", "locks", "snapshots"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	for path, content := range made.files {
		if err := os.WriteFile(filepath.Join(dir, path), content, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
}

// makeRepository returns the files of a new repository.
func makeRepository(ctx context.Context, dir string) (map[string][]byte, error) {
	cmd := exec.CommandContext(ctx, "restic", "init")
	cmd.Env = append(os.Environ(), "RESTIC_REPOSITORY="+dir, "RESTIC_PASSWORD="+Password)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("restic init: %w: %s", err, out)
	}
	config, err := os.ReadFile(filepath.Join(dir, "config"))
	if err != nil {
		return nil, err
	}
	keys, err := filepath.Glob(filepath.Join(dir, "keys", "*"))
	if err != nil {
		return nil, err
	}
	if len(keys) != 1 {
		return nil, fmt.Errorf("the repository has the keys %q, want one", keys)
	}
	sealed, err := os.ReadFile(keys[0])
	if err != nil {
		return nil, err
	}
	if sealed, err = cheap(sealed); err != nil {
		return nil, err
	}
	name := sha256.Sum256(sealed)
	return map[string][]byte{"config": config, filepath.Join("keys", hex.EncodeToString(name[:])): sealed}, nil
}

// key is a file of a repository: its master key, sealed with a key that is derived from a password.
type key struct {
	Created  string `json:"created"`
	Username string `json:"username"`
	Hostname string `json:"hostname"`
	KDF      string `json:"kdf"`
	N        int    `json:"N"`
	R        int    `json:"r"`
	P        int    `json:"p"`
	Salt     []byte `json:"salt"`
	Data     []byte `json:"data"` // nonce, ciphertext and MAC
}

// cheap returns a key file for the same master key that takes the least work to open.
func cheap(file []byte) ([]byte, error) {
	var k key
	if err := json.Unmarshal(file, &k); err != nil {
		return nil, err
	}
	derived, err := k.derive()
	if err != nil {
		return nil, err
	}
	if len(k.Data) < aes.BlockSize+poly1305.TagSize {
		return nil, errors.New("the key of the repository is too short")
	}
	nonce, text := k.Data[:aes.BlockSize], k.Data[aes.BlockSize:len(k.Data)-poly1305.TagSize]
	if tag := derived.mac(nonce, text); string(tag) != string(k.Data[len(k.Data)-poly1305.TagSize:]) {
		return nil, errors.New("the key of the repository has a form that this package does not know")
	}
	master := derived.crypt(nonce, text)
	k.N, k.R, k.P = 2, 1, 1
	if derived, err = k.derive(); err != nil {
		return nil, err
	}
	text = derived.crypt(nonce, master)
	k.Data = append(append(append([]byte{}, nonce...), text...), derived.mac(nonce, text)...)
	return json.Marshal(k)
}

// derived is 32 bytes of a key of AES, and 16 bytes each of the two parts of a key of Poly1305-AES.
type derived []byte

func (k key) derive() (derived, error) {
	return scrypt.Key([]byte(Password), k.Salt, k.N, k.R, k.P, 64)
}

// crypt encrypts or decrypts.
func (d derived) crypt(nonce, text []byte) []byte {
	out := make([]byte, len(text))
	cipher.NewCTR(block(d[:32]), nonce).XORKeyStream(out, text)
	return out
}

func (d derived) mac(nonce, text []byte) []byte {
	var k [32]byte
	copy(k[:16], d[48:])
	block(d[32:48]).Encrypt(k[16:], nonce)
	var tag [poly1305.TagSize]byte
	poly1305.Sum(&tag, text, &k)
	return tag[:]
}

func block(k []byte) cipher.Block {
	b, err := aes.NewCipher(k)
	if err != nil {
		panic(err) // keys have the right length
	}
	return b
}
