package sops

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// Limits of what is read.
const (
	maxIdentities = 100
	maxRecipients = 100
	dataKeyBytes  = 32
	maxEnvelope   = 16 << 10 // one encrypted data key
)

// Keys are the age identities that can decrypt files. The zero value decrypts nothing.
type Keys struct {
	secret     string // name of the Secret
	identities []age.Identity
}

// NewKeys reads the identities in the values of a Secret, as `age-keygen` writes them. An error names the key of the Secret.
func NewKeys(secret string, values map[string][]byte) (*Keys, error) {
	k := &Keys{secret: secret}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		found, err := age.ParseIdentities(bytes.NewReader(values[key]))
		if err != nil { // age's error may quote the line
			return nil, fmt.Errorf("key %q of Secret %q has no age identities; it must have the lines of a file that age-keygen writes", key, secret)
		}
		if k.identities = append(k.identities, found...); len(k.identities) > maxIdentities {
			return nil, fmt.Errorf("Secret %q has more than %d age identities; remove those that no file needs", secret, maxIdentities)
		}
	}
	if len(k.identities) == 0 {
		return nil, fmt.Errorf("Secret %q has no age identities", secret)
	}
	return k, nil
}

// dataKey decrypts the key of a file.
func (k *Keys) dataKey(recipients []recipient) ([]byte, error) {
	var names []string
	for _, r := range recipients {
		key, err := k.open(r.Enc)
		if err == nil {
			return key, nil
		}
		names = append(names, r.Recipient)
	}
	return nil, fmt.Errorf("no age key in Secret %q can decrypt it; it is encrypted for %s: add a key to the Secret, or run `sops updatekeys`",
		k.secret, strings.Join(names[:min(len(names), 3)], ", "))
}

func (k *Keys) open(envelope string) ([]byte, error) {
	if len(envelope) > maxEnvelope {
		return nil, errors.New("the encrypted data key is too long")
	}
	r, err := age.Decrypt(armor.NewReader(strings.NewReader(envelope)), k.identities...)
	if err != nil {
		return nil, err
	}
	key, err := io.ReadAll(io.LimitReader(r, dataKeyBytes+1))
	if err != nil {
		return nil, err
	}
	if len(key) != dataKeyBytes {
		return nil, errors.New("the data key has a wrong length")
	}
	return key, nil
}
