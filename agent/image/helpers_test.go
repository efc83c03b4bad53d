package image

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/engine"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testregistry"
)

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
			h, err := ParseHelpers([]string{"Registry.example.com:443=" + testregistry.NewHelper(t, tt.script).Path})
			if err != nil {
				t.Fatal(err)
			}
			auth, err := h.Auth(t.Context(), "registry.example.com/team/app:1", nil)
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
			helper := testregistry.NewHelper(t, `echo '{"Username":"u","Secret":"`+tt.secret+`"}'`)
			h, err := ParseHelpers([]string{"index.docker.io=" + helper.Path})
			if err != nil {
				t.Fatal(err)
			}
			at, auth := now, (*carav1.RegistryAuth)(nil)
			h.now = func() time.Time { return at }
			for _, ref := range []string{"nginx", "docker.io/library/redis:7"} {
				if auth, err = h.Auth(t.Context(), ref, nil); err != nil {
					t.Fatal(err)
				}
				at = now.Add(tt.after)
			}
			asked := func(times int) {
				t.Helper()
				if diff := cmp.Diff(slices.Repeat([]string{"get https://index.docker.io/v1/"}, times), helper.Asked()); diff != "" {
					t.Errorf("asked (-want +got):\n%s", diff)
				}
			}
			asked(tt.asks)
			at = now
			if _, err := h.Auth(t.Context(), "registry-1.docker.io/library/nginx", auth); err != nil {
				t.Fatal(err)
			}
			asked(tt.asks + 1) // because the registry has refused the login
			if tt.asks == 1 {
				h.Drop("nginx", &carav1.RegistryAuth{Username: "u", Password: "an earlier one"})
				if _, err := h.Auth(t.Context(), "nginx", nil); err != nil {
					t.Fatal(err)
				}
				asked(tt.asks + 1)
			}
			h.Drop("index.docker.io/library/nginx", auth)
			if _, err := h.Auth(t.Context(), "nginx", nil); err != nil {
				t.Fatal(err)
			}
			asked(tt.asks + 2) // because the login was dropped
			if auth, err := h.Auth(t.Context(), "other.example.com/x", nil); auth != nil || err != nil {
				t.Errorf("another registry gets %v, %v", auth, err)
			}
		})
	}
}

func TestParseHelpers(t *testing.T) {
	path := testregistry.NewHelper(t, "").Path
	for _, bad := range [][]string{{"x"}, {"=" + path}, {"r.example.com="}, {"r.example.com/team=" + path}, {"r.example.com=./helper"}, {"r.example.com=surely-missing"}, {"docker.io=" + path, "index.docker.io=" + path}} {
		if _, err := ParseHelpers(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if auth, err := (*Helpers)(nil).Auth(t.Context(), "nginx", nil); auth != nil || err != nil {
		t.Errorf("without helpers: %v, %v", auth, err)
	}
}

func TestLoginIsHidden(t *testing.T) {
	err := hide(fmt.Errorf("%w: bad token planted", engine.ErrInvalid), &carav1.RegistryAuth{Password: "planted"})
	if !errors.Is(err, engine.ErrInvalid) || strings.Contains(err.Error(), "planted") {
		t.Errorf("got %v", err)
	}
}
