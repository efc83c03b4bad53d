package oidc

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
)

func TestParseGrant(t *testing.T) {
	tests := map[string]struct {
		text string
		want Grant
		err  string
	}{
		"a role":                {"ops=admin", Grant{"ops", api.RoleAdmin, ""}, ""},
		"a prefix":              {"dev=deployer:pr-", Grant{"dev", api.RoleDeployer, "pr-"}, ""},
		"a group of LDAP":       {"cn=dev,dc=example=viewer", Grant{"cn=dev,dc=example", api.RoleViewer, ""}, ""},
		"a group with a colon":  {"team:dev=deployer", Grant{"team:dev", api.RoleDeployer, ""}, ""},
		"no role":               {"dev", Grant{}, "want GROUP=ROLE"},
		"no group":              {"=admin", Grant{}, "want GROUP=ROLE"},
		"an unknown role":       {"dev=root", Grant{}, "unknown role"},
		"a role of the loops":   {"dev=reconciler", Grant{}, "unknown role"},
		"a prefix of a viewer":  {"dev=viewer:pr-", Grant{}, "limits deployers"},
		"an impossible prefix":  {"dev=deployer:PR_", Grant{}, "cannot begin a name"},
		"an empty prefix":       {"dev=deployer:", Grant{"dev", api.RoleDeployer, ""}, ""},
		"a group of many bytes": {strings.Repeat("g", 300) + "=admin", Grant{}, "the limit is 256"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParseGrant(tt.text)
			if tt.err == "" && (err != nil || got != tt.want) || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got %+v, %v; want %+v, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestDecide(t *testing.T) {
	grants := []Grant{
		{"all", api.RoleViewer, ""},
		{"web", api.RoleDeployer, "web-"},
		{"pr", api.RoleDeployer, "pr-"},
		{"dev", api.RoleDeployer, ""},
		{"ops", api.RoleAdmin, ""},
	}
	tests := map[string]struct {
		groups   []string
		role     api.Role
		prefixes []string
	}{
		"no group":                              {nil, "", nil},
		"another group":                         {[]string{"sales"}, "", nil},
		"a viewer":                              {[]string{"all", "sales"}, api.RoleViewer, nil},
		"a deployer with a prefix":              {[]string{"web"}, api.RoleDeployer, []string{"web-"}},
		"the highest role, in any order":        {[]string{"ops", "web", "all"}, api.RoleAdmin, nil},
		"all prefixes":                          {[]string{"web", "all", "pr"}, api.RoleDeployer, []string{"pr-", "web-"}},
		"a group without a prefix has no limit": {[]string{"web", "dev"}, api.RoleDeployer, nil},
		"case matters":                          {[]string{"OPS"}, "", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, order := range [][]Grant{grants, slices.Collect(backward(grants))} {
				got, ok := Decide(order, tt.groups)
				if got.Role != tt.role || !slices.Equal(got.NamePrefixes, tt.prefixes) || ok != (tt.role != "") {
					t.Errorf("got %+v, %v; want %s %v", got, ok, tt.role, tt.prefixes)
				}
			}
		})
	}
}

func backward(grants []Grant) func(func(Grant) bool) {
	return func(yield func(Grant) bool) {
		for i := range grants {
			if !yield(grants[len(grants)-1-i]) {
				return
			}
		}
	}
}

func TestPersonOf(t *testing.T) {
	const issuer = "https://id.example.com/realms/x"
	grants := []Grant{{"dev", api.RoleDeployer, ""}, {"ada@example.com", api.RoleAdmin, ""}}
	long := make([]any, maxGroups+1)
	for i := range long {
		long[i] = "g"
	}
	in := func(more map[string]any) map[string]any {
		claims := map[string]any{"sub": "s1", "email": "ada@example.com", "email_verified": true, "groups": []any{"dev", "x", 7}}
		maps.Copy(claims, more)
		return claims
	}
	tests := map[string]struct {
		claim  string
		claims map[string]any
		name   string
		groups string
		err    string
	}{
		"a verified address":           {"groups", in(nil), "ada@example.com", "dev", ""},
		"a text for true":              {"groups", in(map[string]any{"email_verified": "true"}), "ada@example.com", "dev", ""},
		"an address not verified":      {"groups", in(map[string]any{"email_verified": false, "preferred_username": "ada"}), "oidc:ada@id.example.com", "dev", ""},
		"a user name like an address":  {"groups", in(map[string]any{"email_verified": nil, "preferred_username": "eve@example.com"}), "oidc:s1@id.example.com", "dev", ""},
		"a user name with a line":      {"groups", in(map[string]any{"email_verified": nil, "preferred_username": "a\nb"}), "oidc:s1@id.example.com", "dev", ""},
		"a user name with a mark":      {"groups", in(map[string]any{"email_verified": nil, "preferred_username": "a\u202eb"}), "oidc:s1@id.example.com", "dev", ""},
		"two addresses in one":         {"groups", in(map[string]any{"email": "a@b@c"}), "oidc:s1@id.example.com", "dev", ""},
		"one group as a text":          {"groups", in(map[string]any{"groups": "dev"}), "ada@example.com", "dev", ""},
		"a path":                       {"realm_access.roles", in(map[string]any{"realm_access": map[string]any{"roles": []any{"dev"}}}), "ada@example.com", "dev", ""},
		"a name with dots":             {"https://x.example/roles", in(map[string]any{"https://x.example/roles": []any{"dev"}}), "ada@example.com", "dev", ""},
		"keys of an object":            {"roles", in(map[string]any{"roles": map[string]any{"dev": map[string]any{"1": "x"}}}), "ada@example.com", "dev", ""},
		"the address as a group":       {"email", in(nil), "ada@example.com", "ada@example.com", ""},
		"an unverified one as a group": {"email", in(map[string]any{"email_verified": false}), "", "", "has not verified"},
		"no subject":                   {"groups", in(map[string]any{"sub": nil}), "", "", "without a usable subject"},
		"a subject that is no text":    {"groups", in(map[string]any{"sub": 7}), "", "", "without a usable subject"},
		"no claim":                     {"groups", in(map[string]any{"groups": nil}), "", "", "has no role here"},
		"no group of the map":          {"groups", in(map[string]any{"groups": []any{"x"}}), "", "", "has no role here"},
		"too many groups":              {"groups", in(map[string]any{"groups": long}), "", "", "the limit is 2000"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := PersonOf(issuer, tt.claim, grants, tt.claims)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || got.Name != tt.name || strings.Join(got.Groups, ",") != tt.groups || got.Subject != "s1" {
				t.Errorf("got %+v, %v; want %s with %s", got, err, tt.name, tt.groups)
			}
		})
	}
}
