package validate

import (
	"maps"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
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
	case api.SecretBackup:
		e.backupSecret(s)
	case api.SecretTLS:
		e.tlsSecret(s)
	case api.SecretBasicAuth:
		e.basicAuthSecret(s)
	}
	if s.GetType() != api.SecretRegistry {
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

// noCiphertext refuses values that SOPS has encrypted: without the file's sops block, nobody can decrypt them.
func (e secretErrors) noCiphertext(s *carav1.Secret) {
	for _, k := range sortedKeys(s.GetStringData()) {
		if strings.HasPrefix(s.GetStringData()[k], api.SOPSValue) {
			e.add(e.at("stringData", k), api.StillEncrypted)
		}
	}
	for _, k := range sortedKeys(s.GetData()) {
		if strings.HasPrefix(string(s.GetData()[k]), api.SOPSValue) {
			e.add(e.at("data", k), api.StillEncrypted)
		}
	}
}

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
	if !api.IsSecretKey(key) {
		e.add(field, "%sis no key of a Secret: it must be of letters, digits, -, _ and ., at most 253 of them", e.key(key))
	}
}

// backupSecret checks a Secret of type backup. Messages contain no part of a value.
func (e secretErrors) backupSecret(s *carav1.Secret) {
	values := allValues(s)
	for _, k := range sortedKeys(values) {
		if !slices.Contains(api.BackupKeys(), k) {
			e.add("data", "has a key that a Secret of type %s cannot have; allowed are %s", api.SecretBackup, strings.Join(api.BackupKeys(), ", "))
			return
		}
	}
	for _, k := range []string{api.BackupRepository, api.BackupPassword} {
		if len(strings.TrimSpace(string(values[k]))) == 0 {
			e.add("stringData["+k+"]", "is required in a Secret of type %s; set it", api.SecretBackup)
			return
		}
	}
	if problem := api.BackupProblem(values); problem != "" {
		e.add("stringData", "cannot be used for backups: %s", problem)
	}
}

// tlsSecret checks a Secret of type tls. Messages contain no part of a value.
func (e secretErrors) tlsSecret(s *carav1.Secret) {
	values := e.secretValues(s, api.SecretTLS, api.TLSCertificateKey, api.TLSPrivateKey)
	if values == nil {
		return
	}
	if _, err := api.ParseCertificate(values[api.TLSCertificateKey], values[api.TLSPrivateKey]); err != nil {
		e.add("stringData", "cannot be used for TLS: %v", err)
	}
}

// secretValues returns the values of a Secret that must have exactly these keys, or nil if it has others.
func (e secretErrors) secretValues(s *carav1.Secret, kind string, keys ...string) map[string][]byte {
	values := allValues(s)
	for _, k := range keys {
		if len(values[k]) == 0 {
			e.add("stringData["+k+"]", "is required in a Secret of type %s; set it", kind)
			return nil
		}
	}
	if len(values) > len(keys) {
		e.add("data", "has a key that a Secret of type %s cannot have; allowed are %s", kind, strings.Join(keys, ", "))
		return nil
	}
	return values
}

// basicAuthSecret checks a Secret of type basicAuth. Messages contain no part of a value.
func (e secretErrors) basicAuthSecret(s *carav1.Secret) {
	values := e.secretValues(s, api.SecretBasicAuth, api.BasicAuthUsers)
	if values == nil {
		return
	}
	if _, err := api.ParseUsers(values[api.BasicAuthUsers]); err != nil {
		e.add("stringData["+api.BasicAuthUsers+"]", "cannot be used for passwords: %v", err)
	}
}
