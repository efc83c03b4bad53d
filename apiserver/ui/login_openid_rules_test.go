package ui_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/oidc"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testoidc"
)

// enter logs ada in and returns her browser.
func (s *site) enter(t testing.TB, p *testoidc.Provider) *http.Client {
	t.Helper()
	c := client(t)
	if status, page := s.back(t, c, p.Login(s.begin(t, c))); status != http.StatusOK {
		t.Fatalf("login: %d\n%s", status, page)
	}
	return c
}

// A login asks for a code that is bound to this browser and this login, and leads nowhere but to the page.
func TestOpenIDRequest(t *testing.T) {
	s, p := organisation(t, false, true)
	seen := map[string]bool{}
	for range 2 {
		c := client(t)
		resp := s.get(t, c, "/ui/login/openid?next=https://evil.example/ui/", nil)
		to, err := resp.Location()
		must(t, err)
		q := to.Query()
		if q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || q.Get("redirect_uri") != s.url+oidc.CallbackPath {
			t.Errorf("the login asks the provider for %v, want a code with PKCE", q)
		}
		for _, name := range []string{"state", "nonce", "code_challenge"} {
			if value := q.Get(name); len(value) != 43 || seen[value] {
				t.Errorf("%s is %q, want a new random text", name, value)
			}
			seen[q.Get(name)] = true
		}
		kept := resp.Cookies()
		if len(kept) != 1 || !kept[0].HttpOnly || kept[0].SameSite != http.SameSiteLaxMode || kept[0].MaxAge != 600 || strings.Contains(kept[0].Value, q.Get("state")) {
			t.Errorf("the login is kept in %v, want one sealed cookie for ten minutes", kept)
		}
		if status, page := s.back(t, c, p.Login(to.String())); status != http.StatusOK || !strings.Contains(page, `content="0;url=/ui/"`) {
			t.Errorf("the login leads on: %d\n%s", status, page)
		}
	}
}

// The role map, the provider and the client that the server has now decide about sessions that exist.
func TestOpenIDSettingsAfterARestart(t *testing.T) {
	s, p := organisation(t, false, true)
	c := s.enter(t, p)
	was := *s.openID
	none, viewer, other := was, was, was
	none.Grants = []oidc.Grant{{Group: "ops", Role: api.RoleAdmin}}
	viewer.Grants = []oidc.Grant{{Group: "dev", Role: api.RoleViewer}}
	other.ClientID = "other"
	for _, tt := range []struct {
		name   string
		openID *oidc.Config
		role   api.Role
	}{
		{"without the group", &none, ""},
		{"with another role", &viewer, api.RoleViewer},
		{"with another client", &other, ""},
		{"without a provider", nil, ""},
		{"as before", &was, api.RoleDeployer},
	} {
		s.stop()
		s.openID = tt.openID
		s.start(t)
		want := http.StatusOK
		if tt.role == "" {
			want = http.StatusSeeOther
		}
		if resp := s.get(t, c, "/ui/", nil); resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", tt.name, resp.Status, want)
		}
		got := s.sessions(t, s.token)["user/ada@example.com"]
		if len(got) > 0 != (tt.role != "") || len(got) > 0 && got[0].GetRole() != string(tt.role) {
			t.Errorf("%s: sessions %v, want the role %q", tt.name, got, tt.role)
		}
	}
}

// A refresh token that the provider answers for another person ends the session.
func TestOpenIDRenewalForAnotherPerson(t *testing.T) {
	s, p := organisation(t, false, true)
	brief := testoidc.Control{Groups: []string{"dev"}, Seconds: 2}
	p.Set(brief)
	c := s.enter(t, p)
	brief.Subject = "eve"
	p.Set(brief)
	until(t, "the session has ended", func() bool { return s.get(t, c, "/ui/", nil).StatusCode == http.StatusSeeOther })
	until(t, "the log says why", func() bool { return strings.Contains(s.log.String(), "has renewed the login of another person") })
}

// Strangers can neither guess answers of the provider nor begin logins of devices without end.
func TestOpenIDLimits(t *testing.T) {
	s, p := organisation(t, false, true)
	devices := carav1.NewSessionServiceClient(s.conn(t, ""))
	for err := error(nil); api.Code(err) != codes.ResourceExhausted; {
		if _, err = devices.StartDeviceLogin(t.Context(), &emptypb.Empty{}); err != nil && api.Code(err) != codes.ResourceExhausted {
			t.Fatalf("begin the login of a device: %v", err)
		}
	}
	c := client(t)
	right := p.Login(s.begin(t, c))
	for range 50 {
		s.back(t, client(t), s.url+oidc.CallbackPath+"?"+url.Values{"code": {"guess"}, "state": {"guess"}}.Encode())
	}
	if status, page := s.back(t, c, right); status != http.StatusTooManyRequests || !strings.Contains(page, "Too many failed logins") {
		t.Errorf("after 50 failures: %d, want %d\n%s", status, http.StatusTooManyRequests, page)
	}
}
