package identity

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTokenRoundTrip(t *testing.T) {
	secret := NewSecret()
	if len(secret) != 52 || secret == NewSecret() {
		t.Fatalf("a secret of %d characters", len(secret))
	}
	id, got, err := ParseBearer("bearer  " + FormatToken("ci-main", secret) + " ")
	if err != nil || id != "ci-main" || got != secret {
		t.Errorf("%q %q %v", id, got, err)
	}
	hash := HashSecret(secret)
	if !SecretMatches(hash, secret) || SecretMatches(hash, secret+"x") || SecretMatches(nil, "") || SecretMatches(hash[:31], secret) {
		t.Error("SecretMatches is wrong")
	}
}

func TestParseRefuses(t *testing.T) {
	for name, header := range map[string]string{
		"empty":         "",
		"no scheme":     "cara_a_topsecret",
		"other scheme":  "Basic cara_a_topsecret",
		"join token":    "Bearer CARA1.00.id.topsecret",
		"no secret":     "Bearer cara_topsecret",
		"empty secret":  "Bearer cara_topsecret_",
		"empty id":      "Bearer cara__topsecret",
		"node's hash":   "Bearer cara_node.n1.00_topsecret",
		"path":          "Bearer cara_a/b_topsecret",
		"line break":    "Bearer cara_a_top\nsecret",
		"much too long": "Bearer cara_a_topsecret" + strings.Repeat("x", 1<<16),
	} {
		if _, _, err := ParseBearer(header); err == nil || strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEnsureTokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.token")
	first, err := EnsureTokenFile(path, func() string { return "cara_admin_x" })
	if err != nil || first != "cara_admin_x" {
		t.Fatalf("%q, %v", first, err)
	}
	second, err := EnsureTokenFile(path, func() string { return "cara_admin_y" })
	if err != nil || second != first {
		t.Errorf("%q, %v: the file was not kept", second, err)
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != "cara_admin_x\n" {
		t.Errorf("file %q, %v", text, err)
	}
	if err := os.WriteFile(path, []byte("two\nlines\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := EnsureTokenFile(path, nil); err == nil || strings.Contains(err.Error(), "lines\n") {
		t.Errorf("two lines: %v", err)
	}
}
