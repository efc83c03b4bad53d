package oidc

import (
	"errors"
	"strings"
	"testing"
	"time"
)

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

// unsealed is a Sealer that hides nothing.
type unsealed struct{}

func (unsealed) Seal(_ string, value []byte) []byte           { return value }
func (unsealed) Open(_ string, sealed []byte) ([]byte, error) { return sealed, nil }

// The provider is asked about a device once in each interval, and what is remembered about that goes away.
func TestPollsOfADevice(t *testing.T) {
	now := time.Unix(1000, 0)
	p := New(Config{Seal: unsealed{}, Now: func() time.Time { return now }})
	p.err, p.next = errors.New("asked"), now.Add(time.Hour) // the provider is down: who asks it gets this error
	one, other := device{"one", 5 * time.Second, now.Add(time.Hour)}, device{"other", 5 * time.Second, now.Add(time.Hour)}
	for _, tt := range []struct {
		after time.Duration
		of    device
		asks  bool
	}{
		{0, one, true},
		{0, one, false},
		{0, other, true},
		{4 * time.Second, one, false},
		{time.Second, one, true},
		{0, one, false},
		{4 * time.Second, other, true},
		{6 * time.Second, other, true},
	} {
		now = now.Add(tt.after)
		_, pending, slower, err := p.Poll(t.Context(), p.seal(sealDevice, tt.of))
		if asked := err != nil; asked != tt.asks || pending == asked || slower {
			t.Errorf("at %s, %s: pending %v, %v; want that the provider is asked: %v", now, tt.of.Code, pending, err, tt.asks)
		}
	}
	if len(p.asked) != 1 {
		t.Errorf("%d devices are remembered, want one", len(p.asked))
	}
	now = now.Add(time.Hour)
	if _, _, _, err := p.Poll(t.Context(), p.seal(sealDevice, one)); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("after the end: %v", err)
	}
}
