package identity

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shelf is a store with one value.
type shelf struct{ value []byte }

func (s *shelf) share(create func() ([]byte, error)) (value []byte, err error) {
	if s.value == nil {
		s.value, err = create()
	}
	return s.value, err
}

func openShared(dir, key string, s *shelf) (*Identity, error) {
	return OpenShared(Config{DataDir: dir, Listen: "127.0.0.1:8080"}, key, s.share)
}

func TestServersShareOneIdentity(t *testing.T) {
	s, key := &shelf{}, filepath.Join(t.TempDir(), "keys", "cluster.key")
	first, err := openShared(t.TempDir(), key, s)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("key file: %v, %v", info, err)
	}
	sealed := first.Vault().Seal("x", []byte("secret"))
	dir := t.TempDir()
	for range 2 { // also with a data directory that has the files
		second, err := openShared(dir, key, s)
		if err != nil {
			t.Fatal(err)
		}
		if second.ClusterID() != first.ClusterID() || second.CAHash() != first.CAHash() {
			t.Error("the second server has another identity")
		}
		if got, err := second.Vault().Open("x", sealed); err != nil || string(got) != "secret" {
			t.Errorf("open what the first server sealed: %q, %v", got, err)
		}
	}
	for _, name := range sharedFiles() {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || bytes.Contains(s.value, bytes.TrimSpace(text)) {
			t.Errorf("%s: %v, or it is readable in the store", name, err)
		}
	}
}

func TestAnIdentityIsKept(t *testing.T) {
	dir, s := t.TempDir(), &shelf{}
	alone, err := Open(Config{DataDir: dir, Listen: "127.0.0.1:8080"})
	if err != nil {
		t.Fatal(err)
	}
	shared, err := openShared(dir, filepath.Join(dir, "cluster.key"), s)
	if err != nil || shared.CAHash() != alone.CAHash() {
		t.Fatalf("the identity of the data directory is not the shared one: %v", err)
	}
}

func TestOtherServersAreRefused(t *testing.T) {
	s, dir := &shelf{}, t.TempDir()
	key := filepath.Join(dir, "cluster.key")
	if _, err := openShared(dir, key, s); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other.key")
	if _, err := openShared(t.TempDir(), other, &shelf{}); err != nil {
		t.Fatal(err)
	}
	stranger := t.TempDir()
	if _, err := Open(Config{DataDir: stranger}); err != nil {
		t.Fatal(err)
	}
	loose := filepath.Join(t.TempDir(), "loose.key")
	text, err := os.ReadFile(key)
	if err := errors.Join(err, os.WriteFile(loose, text, 0o644)); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "missing.key")
	for _, test := range []struct{ name, dir, key, want string }{
		{"no key", t.TempDir(), missing, "copy the file from another server"},
		{"another key", t.TempDir(), other, "is not the key of the cluster"},
		{"a key that others can read", t.TempDir(), loose, "chmod 600"},
		{"the data directory of another cluster", stranger, key, "empty data directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := openShared(test.dir, test.key, s); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Error("a key was made for a cluster that has one")
	}
}

// A server that loses the race of the first start leaves only its key, which it says is wrong.
func TestFirstStartOfTwo(t *testing.T) {
	s, dir := &shelf{}, t.TempDir()
	if _, err := openShared(t.TempDir(), filepath.Join(t.TempDir(), "first.key"), s); err != nil {
		t.Fatal(err)
	}
	_, err := OpenShared(Config{DataDir: dir}, filepath.Join(t.TempDir(), "second.key"), func(create func() ([]byte, error)) ([]byte, error) {
		_, err := create()
		return s.value, err
	})
	if err == nil || !strings.Contains(err.Error(), "is not the key of the cluster") {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("the data directory has %v, %v", left, err)
	}
}
