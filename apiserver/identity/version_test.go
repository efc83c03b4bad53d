package identity

import (
	"os"
	"path/filepath"
	"testing"
)

// TestVersion: the version is equal for the same value and name, also with a new key, and different otherwise.
func TestVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secrets.key")
	v, err := openVault(path)
	if err != nil {
		t.Fatal(err)
	}
	one := v.Version("db/p", []byte("1234"))
	if one != v.Version("db/p", []byte("1234")) || one == v.Version("db/p", []byte("1235")) || one == v.Version("db/q", []byte("1234")) ||
		v.Version("a", []byte("b c")) == v.Version("a b", []byte("c")) {
		t.Error("a version does not speak of one value under one name")
	}
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other, err := openVault(filepath.Join(t.TempDir(), "secrets.key"))
	if err != nil {
		t.Fatal(err)
	}
	if other.Version("db/p", []byte("1234")) == one {
		t.Error("anybody can compute a version")
	}
	const newer = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
	if err := os.WriteFile(path, append([]byte(newer), old...), 0o600); err != nil {
		t.Fatal(err)
	}
	rotated, err := openVault(path)
	if err != nil {
		t.Fatal(err)
	}
	if rotated.Version("db/p", []byte("1234")) != one {
		t.Error("a new key changes the versions, and so recreates every service that uses a Secret")
	}
}
