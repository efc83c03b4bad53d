package api

import (
	"maps"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// MaxSecret limits all keys and values of one Secret together, in bytes. The store accepts values up to 512 KiB.
const MaxSecret = 384 << 10

// RegistryKeys returns the keys that a Secret of type registry must have.
func RegistryKeys() []string { return []string{"server", "username", "password"} }

func (e secretErrors) secret(s *carav1.Secret) {
	total := 0
	for _, k := range sortedKeys(s.GetStringData()) {
		e.secretKeyName(e.at("stringData", k), k)
		total += len(k) + len(s.GetStringData()[k])
	}
	for _, k := range sortedKeys(s.GetData()) {
		e.secretKeyName(e.at("data", k), k)
		total += len(k) + len(s.GetData()[k])
		if _, twice := s.GetStringData()[k]; twice {
			e.add(e.at("data", k), "is in stringData too; keep one of them")
		}
	}
	e.noCiphertext(s)
	if total > MaxSecret {
		e.add("data", "and stringData hold %d bytes in all, at most %d are allowed; make several Secrets of it", total, MaxSecret)
	}
	switch s.GetType() {
	case SecretBackup:
		e.backupSecret(s)
	case SecretTLS:
		e.tlsSecret(s)
	case SecretBasicAuth:
		e.basicAuthSecret(s)
	}
	if s.GetType() != SecretRegistry {
		return
	}
	for _, k := range RegistryKeys() {
		if s.GetStringData()[k] == "" && len(s.GetData()[k]) == 0 {
			e.add("stringData["+k+"]", "is required in a Secret of type registry; set it")
		}
	}
}

// allValues returns the values of a Secret, whichever field they are in.
func allValues(s *carav1.Secret) map[string][]byte {
	values := map[string][]byte{}
	maps.Copy(values, s.GetData())
	for k, v := range s.GetStringData() {
		values[k] = []byte(v)
	}
	return values
}

// SOPSValue is how the text of each value begins that SOPS has encrypted. StillEncrypted is what is wrong with it in a Secret.
const (
	SOPSValue      = "ENC[AES256_GCM,"
	StillEncrypted = "is still encrypted by SOPS; decrypt the whole file, with its sops block"
)

// noCiphertext refuses values that SOPS has encrypted: without the file's sops block, nobody can decrypt them.
func (e secretErrors) noCiphertext(s *carav1.Secret) {
	for _, k := range sortedKeys(s.GetStringData()) {
		if strings.HasPrefix(s.GetStringData()[k], SOPSValue) {
			e.add(e.at("stringData", k), StillEncrypted)
		}
	}
	for _, k := range sortedKeys(s.GetData()) {
		if strings.HasPrefix(string(s.GetData()[k]), SOPSValue) {
			e.add(e.at("data", k), StillEncrypted)
		}
	}
}

// IsSecretKey reports whether a text can be a key of a Secret. Other texts may be a value in the wrong place.
func IsSecretKey(key string) bool { return len(validation.IsConfigMapKey(key)) == 0 }

// key begins a message about an invalid key.
func (e *fieldErrors) key(s string) string {
	if e.unquoted {
		return "a key of it "
	}
	return e.quote(s)
}

func (e *fieldErrors) secretKeyName(field, key string) {
	if key == "" && e.seen[field] {
		return
	}
	if !IsSecretKey(key) {
		e.add(field, "%sis no key of a Secret: it must be of letters, digits, -, _ and ., at most 253 of them", e.key(key))
	}
}
