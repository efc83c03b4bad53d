package image

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// helper writes a credential helper that notes what it is asked, and returns its path and the file of the notes.
func helper(t *testing.T, script string) (path, notes string) {
	t.Helper()
	dir := t.TempDir()
	path, notes = filepath.Join(dir, "helper"), filepath.Join(dir, "notes")
	text := "#!/bin/sh\nread server\necho \"$1 $server\" >> " + notes + "\n" + script
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path, notes
}

func TestHelperAnswers(t *testing.T) {
	tests := map[string]struct{ script, user, words string }{
		"a login":           {`echo '{"ServerURL":"x","Username":"ada","Secret":"planted"}'`, "ada", ""},
		"no login":          {"echo credentials not found in native keychain; exit 1", "", ""},
		"it fails":          {"echo planted; echo planted >&2; exit 3", "", "failed (exit status 3)"},
		"no JSON":           {"echo planted", "", "printed no login"},
		"no secret":         {`echo '{"Username":"planted"}'`, "", "printed no login"},
		"too much":          {"head -c 100000 /dev/zero | tr '\\0' p", "", "printed no login"},
		"too much and JSON": {`echo '{"Username":"a","Secret":"planted"}'; head -c 100000 /dev/zero | tr '\0' ' '`, "", "printed no login"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path, _ := helper(t, tt.script)
			h, err := ParseHelpers([]string{"Registry.example.com:443=" + path})
			if err != nil {
				t.Fatal(err)
			}
			auth, _, err := h.Auth(t.Context(), "registry.example.com/team/app:1")
			if auth.GetUsername() != tt.user || (err != nil) != (tt.words != "") {
				t.Errorf("got %q, %v", auth.GetUsername(), err)
			}
			if err != nil && (!strings.Contains(err.Error(), tt.words) && !strings.Contains(err.Error(), "failed (") || strings.Contains(err.Error(), "planted") || !errors.Is(err, engine.ErrRegistry)) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestHelperIsAskedAsOftenAsNeeded: a login is used again for a short time, or until the end that a token names.
func TestHelperIsAskedAsOftenAsNeeded(t *testing.T) {
	now := time.Unix(2_000_000_000, 0)
	token := func(left time.Duration) string {
		return "h." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, now.Add(left).Unix())) + ".s"
	}
	tests := map[string]struct {
		secret string
		after  time.Duration
		asks   int
	}{
		"at once":                    {"s", 0, 1},
		"in a minute":                {"s", keptFor, 2},
		"a token that ends later":    {token(time.Hour), keptFor - 1, 1},
		"a token that ends soon":     {token(endsBefore + time.Second), 2 * time.Second, 2},
		"a token that has ended":     {token(-time.Hour), 0, 2},
		"what looks like a token":    {"a.b.c", keptFor - 1, 1},
		"a token without an end":     {"h.e30.s", keptFor - 1, 1},
		"a token that is no JSON":    {"h.AAAA.s", keptFor - 1, 1},
		"a token that ends just now": {token(endsBefore), 0, 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path, notes := helper(t, `echo '{"Username":"u","Secret":"`+tt.secret+`"}'`)
			h, err := ParseHelpers([]string{"index.docker.io=" + path})
			if err != nil {
				t.Fatal(err)
			}
			at := now
			h.now = func() time.Time { return at }
			for _, ref := range []string{"nginx", "docker.io/library/redis:7"} {
				if _, _, err := h.Auth(t.Context(), ref); err != nil {
					t.Fatal(err)
				}
				at = now.Add(tt.after)
			}
			asked, err := os.ReadFile(notes)
			if want := strings.Repeat("get https://index.docker.io/v1/\n", tt.asks); err != nil || string(asked) != want {
				t.Errorf("asked %q, want %q (%v)", asked, want, err)
			}
			h.Drop("registry-1.docker.io/library/nginx")
			if _, fresh, err := h.Auth(t.Context(), "nginx"); !fresh || err != nil {
				t.Errorf("a dropped login is used again: %v", err)
			}
			if auth, _, err := h.Auth(t.Context(), "other.example.com/x"); auth != nil || err != nil {
				t.Errorf("another registry gets %v, %v", auth, err)
			}
		})
	}
}

func TestParseHelpers(t *testing.T) {
	path, _ := helper(t, "")
	for _, bad := range [][]string{{"x"}, {"=" + path}, {"r.example.com="}, {"r.example.com/team=" + path}, {"r.example.com=./helper"}, {"r.example.com=surely-missing"}, {"docker.io=" + path, "index.docker.io=" + path}} {
		if _, err := ParseHelpers(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if auth, _, err := (*Helpers)(nil).Auth(t.Context(), "nginx"); auth != nil || err != nil {
		t.Errorf("without helpers: %v, %v", auth, err)
	}
}

func TestLoginIsHidden(t *testing.T) {
	err := hide(fmt.Errorf("%w: bad token planted", engine.ErrInvalid), &carav1.RegistryAuth{Password: "planted"})
	if !errors.Is(err, engine.ErrInvalid) || strings.Contains(err.Error(), "planted") {
		t.Errorf("got %v", err)
	}
}
