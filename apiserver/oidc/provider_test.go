package oidc

import "testing"

// The browser comes back from the logout to the address that the provider knows, also behind a reverse proxy.
func TestLogoutURL(t *testing.T) {
	const http, https = "http://cara.local:8080", "https://cara.example.com"
	back := "?client_id=cara&post_logout_redirect_uri=https%3A%2F%2Fcara.example.com%2Fui%2Flogin"
	tests := map[string]struct{ end, redirect, host, want string }{
		"the address of the browser":   {"https://id.example.com/end", "", https, "https://id.example.com/end" + back},
		"the address of a proxy":       {"https://id.example.com/end", https + CallbackPath, http, "https://id.example.com/end" + back},
		"a query of the provider":      {"https://id.example.com/end?client_id=x", "", https, "https://id.example.com/end" + back},
		"a provider without a logout":  {"", "", https, ""},
		"a logout over plain http":     {"http://id.example.com/end", "", https, ""},
		"a logout that is a script":    {"javascript:alert(1)", "", https, ""},
		"a provider on this machine":   {"http://127.0.0.1:9/end", "", https, "http://127.0.0.1:9/end" + back},
		"a logout that is not a URL":   {"https://id.example.com:port/end", "", https, ""},
		"a logout without a host name": {"/end", "", https, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := New(Config{ClientID: "cara", RedirectURL: tt.redirect})
			if got := p.LogoutURL(tt.host); got != "" {
				t.Errorf("before the provider has answered: %q", got)
			}
			p.found = &discovered{meta: metadata{EndSession: tt.end}}
			if got := p.LogoutURL(tt.host); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
