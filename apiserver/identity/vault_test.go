package identity

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVault(t *testing.T) {
	v, err := openVault(filepath.Join(t.TempDir(), "secrets.key"))
	if err != nil {
		t.Fatal(err)
	}
	value := []byte("hunter2 hunter2 hunter2")
	a, b := v.Seal("db/password", value), v.Seal("db/password", value)
	if bytes.Equal(a, b) || bytes.Contains(a, value) {
		t.Error("sealing is not random, or does not seal")
	}
	if got, err := v.Open("db/password", a); err != nil || !bytes.Equal(got, value) {
		t.Errorf("Open: %q, %v", got, err)
	}
	if got, err := v.Open("e/e", v.Seal("e/e", nil)); err != nil || len(got) != 0 {
		t.Errorf("Open of an empty value: %q, %v", got, err)
	}

	flip := func(at int) []byte {
		c := bytes.Clone(a)
		c[at] ^= 1
		return c
	}
	for name, test := range map[string]struct {
		as     string
		sealed []byte
	}{
		"other name":         {"db/user", a},
		"other format":       {"db/password", flip(0)},
		"other key":          {"db/password", flip(1)},
		"changed nonce":      {"db/password", flip(1 + keyIDSize)},
		"changed ciphertext": {"db/password", flip(sealHeader)},
		"changed tag":        {"db/password", flip(len(a) - 1)},
		"cut":                {"db/password", a[:sealHeader+3]},
		"empty":              {"db/password", nil},
	} {
		got, err := v.Open(test.as, test.sealed)
		if !errors.Is(err, ErrSealed) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), test.as)) {
			t.Errorf("%s: the error %v tells the value, or does not name the secret", name, err)
		}
	}
}

func TestVaultKeepsOldKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secrets.key")
	old, err := openVault(path)
	if err != nil {
		t.Fatal(err)
	}
	sealed := old.Seal("a/b", []byte("x"))
	oldLine, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newLine := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32)) + "\n"
	if err := os.WriteFile(path, append([]byte(newLine), oldLine...), 0o600); err != nil {
		t.Fatal(err)
	}
	rotated, err := openVault(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := rotated.Open("a/b", sealed); err != nil || string(got) != "x" {
		t.Errorf("a value of the old key: %q, %v", got, err)
	}
	if _, err := old.Open("a/b", rotated.Seal("a/b", []byte("y"))); !errors.Is(err, ErrSealed) {
		t.Errorf("the old key opens what the new one sealed: %v", err)
	}
}
