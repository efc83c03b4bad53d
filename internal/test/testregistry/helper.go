package testregistry

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Helper is a credential helper, by Docker's protocol.
type Helper struct {
	Path  string
	notes string
	tb    testing.TB
}

// NewHelper writes a credential helper that runs a shell script. The script finds the registry that it is asked for in
// $server, and in $count how often the helper has been asked.
func NewHelper(tb testing.TB, script string) *Helper {
	tb.Helper()
	dir := tb.TempDir()
	h := &Helper{Path: filepath.Join(dir, "helper"), notes: filepath.Join(dir, "notes"), tb: tb}
	text := "#!/bin/sh\nread server\necho \"$1 $server\" >> " + h.notes + "\ncount=$(wc -l < " + h.notes + ")\n" + script
	if err := os.WriteFile(h.Path, []byte(text), 0o700); err != nil {
		tb.Fatal(err)
	}
	return h
}

// NewLoginHelper writes a credential helper that gives a user's login. give sets the password that it gives.
func NewLoginHelper(tb testing.TB, user string) (h *Helper, give func(password string)) {
	tb.Helper()
	secret := filepath.Join(tb.TempDir(), "secret")
	h = NewHelper(tb, `printf '{"Username":"`+user+`","Secret":"%s"}' "$(cat `+secret+`)"`+"\n")
	return h, func(password string) {
		if err := os.WriteFile(secret, []byte(password), 0o600); err != nil {
			tb.Error(err)
		}
	}
}

// Asked returns what the helper was asked, such as "get registry.example.com".
func (h *Helper) Asked() []string {
	h.tb.Helper()
	data, err := os.ReadFile(h.notes)
	if err != nil && !os.IsNotExist(err) {
		h.tb.Fatal(err)
	}
	return strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' })
}
