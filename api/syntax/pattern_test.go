package syntax

import (
	"strings"
	"testing"
)

func TestMatchPattern(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"shop", "shop", true},
		{"shop", "shop2", false},
		{"shop", "", false},
		{"", "shop", false},
		{"*", "", true},
		{"*", "www.example.com", true},
		{"shop-*", "shop-", true},
		{"shop-*", "shop-web", true},
		{"shop-*", "shop", false},
		{"*-db", "prod-db", true},
		{"*-db", "prod-dbx", false},
		{"pr-*-db", "pr-42-db", true},
		{"pr-*-db", "pr-db", false},
		{"a*a", "a", false},
		{"a*a", "aa", true},
		{"a*b*c", "aXbXbXc", true},
		{"a*b*c", "aXcXb", false},
		{"**", "anything", true},
		{"*.example.com", "www.example.com", true},
		{"*.example.com", "a.b.example.com", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", "www.example.com.evil.test", false},
		{"*.example.com", "wwwXexample.com", false},
		{"www.example.*", "www.example.org", true},
		{"*a*a*a*a*a*a*a*b", strings.Repeat("a", 250), false},
	} {
		if got := MatchPattern(tt.pattern, tt.name); got != tt.want {
			t.Errorf("MatchPattern(%q, %q) = %v", tt.pattern, tt.name, got)
		}
	}
}

func TestPatternsAreValidated(t *testing.T) {
	for _, tt := range []struct {
		pattern    string
		name, host string // a part of the complaint; empty: accepted
	}{
		{"*", "", ""},
		{"shop-*", "", ""},
		{"*-db", "", ""},
		{"a.b", "write a name", ""},
		{"*.example.com", "write a name", ""},
		{"", "write a name", "write a host"},
		{"Shop", "write a name", "write a host"},
		{"-shop", "write a name", "write a host"},
		{"shop-", "write a name", "write a host"},
		{"shop?", "write a name", "write a host"},
		{"[a-z]", "write a name", "write a host"},
		{"a/b", "write a name", "write a host"},
		{"ü", "write a name", "write a host"},
		{"a\nb", "write a name", "write a host"},
		{".example.com", "write a name", "write a host"},
		{"example.com.", "write a name", "write a host"},
		{"a..b", "write a name", "between two dots"},
		{"a-.b", "write a name", "between two dots"},
		{strings.Repeat("a", 63), "", ""},
		{strings.Repeat("a", 64), "at most 63", "between two dots"},
		{strings.Repeat("a.", 127), "at most 63", "at most 253"},
		{strings.Repeat("*", 8), "", ""},
		{strings.Repeat("a*", 9), "at most 8 *", "at most 8 *"},
	} {
		for what, got := range map[string][2]string{"name": {NamePattern(tt.pattern), tt.name}, "host": {HostPattern(tt.pattern), tt.host}} {
			if (got[0] == "") != (got[1] == "") || !strings.Contains(got[0], got[1]) {
				t.Errorf("%s pattern %q: got %q, want %q", what, tt.pattern, got[0], got[1])
			}
		}
	}
}
