package ui_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/emptypb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func read(t testing.TB, resp *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func (s *site) cluster(t testing.TB) string {
	t.Helper()
	info, err := carav1.NewInfoServiceClient(s.conn(t, s.token)).GetInfo(t.Context(), &emptypb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	return info.GetClusterId()
}

// Requests that change something must come from the page itself.
func TestRequestsFromOtherPages(t *testing.T) {
	s := newSite(t)
	s.put(t, node("n1"), project("shop"))
	in := s.login(t, s.token)
	for name, header := range map[string]http.Header{
		"another site":      {"Sec-Fetch-Site": {"cross-site"}},
		"a sibling":         {"Sec-Fetch-Site": {"same-site"}},
		"an old browser":    {"Origin": {"http://evil.example"}},
		"a sandboxed frame": {"Origin": {"null"}},
		"another port":      {"Origin": {"http://127.0.0.1:1"}},
	} {
		for path, form := range map[string]url.Values{"/ui/login": {"token": {s.token}}, "/ui/logout": nil, "/ui/do/restart/shop": nil} {
			resp := s.post(t, in, path, form, header)
			if resp.StatusCode != http.StatusForbidden || len(resp.Cookies()) > 0 {
				t.Errorf("%s posts to %s: %s and %d cookies, want 403 and none", name, path, resp.Status, len(resp.Cookies()))
			}
		}
	}
	if resp := s.get(t, in, "/ui/", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("after that the session has %s, want 200", resp.Status)
	}
}

// Every answer forbids inline scripts, frames and other hosts.
func TestHeaders(t *testing.T) {
	s := newSite(t)
	in := s.login(t, s.token)
	for _, path := range []string{"/ui/", "/ui/login", "/ui/assets/app.js", "/ui/nosuch", "/ui/projects/nosuch", "/ui/do/restart/nosuch", "/ui", "/ui/logs/nosuch"} {
		resp := s.get(t, in, path, nil)
		csp := resp.Header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: the policy %q lacks %s", path, csp, want)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "http") {
			t.Errorf("%s: the policy %q allows too much", path, csp)
		}
		if got := resp.Header.Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%s: X-Content-Type-Options is %q", path, got)
		}
		body := read(t, resp)
		if strings.Contains(body, "<script>") || strings.Contains(body, " style=") || strings.Contains(body, "onclick=") {
			t.Errorf("%s has an inline script or style", path)
		}
	}
}

// Without a session there is only the login.
func TestStrangers(t *testing.T) {
	s := newSite(t)
	s.put(t, project("shop"))
	for _, path := range []string{"/ui/", "/ui/projects/shop", "/ui/live/projects", "/ui/logs/shop", "/ui/do/restart/shop", "/ui/search?q=shop"} {
		for name, cookie := range map[string]string{"none": "", "wrong": "cara-" + s.cluster(t)[:8] + "=cara_abcdefgh_secret"} {
			resp := s.get(t, client(t), path, http.Header{"Cookie": {cookie}})
			if resp.StatusCode != http.StatusSeeOther || !strings.HasPrefix(resp.Header.Get("Location"), "/ui/login") || strings.Contains(read(t, resp), ">shop<") {
				t.Errorf("%s with the cookie %s: %s to %q, want the login", path, name, resp.Status, resp.Header.Get("Location"))
			}
		}
	}
	if resp := s.get(t, client(t), "/ui/live/", http.Header{"Accept": {"text/event-stream"}}); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a stream without a session: %s, want 401", resp.Status)
	}
	// The page's cookie is no credential for the API.
	in := s.login(t, s.token)
	if resp := s.get(t, in, "/api/v1/projects", nil); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the API with the page's cookie: %s, want 401", resp.Status)
	}
}

// An address that fails to log in too often must wait. What it tried is not repeated to it.
func TestLoginLimit(t *testing.T) {
	s := newSite(t)
	limited := false
	for range 50 {
		resp := s.post(t, client(t), "/ui/login", url.Values{"token": {"cara_admin_guess123"}}, nil)
		body := read(t, resp)
		if strings.Contains(body, "guess123") {
			t.Fatal("the login shows what was typed")
		}
		switch resp.StatusCode {
		case http.StatusUnauthorized:
			if limited {
				t.Error("a failure after the limit") // the limit lets one more pass each ten seconds
			}
		case http.StatusTooManyRequests:
			limited = true
		default:
			t.Fatalf("a wrong token: %s", resp.Status)
		}
	}
	if !limited {
		t.Error("50 failures in a row, want a limit")
	}
}

// The login leads only to the page itself.
func TestLoginLeadsOnlyHere(t *testing.T) {
	s := newSite(t)
	for next, want := range map[string]string{
		"/ui/projects?q=a": "/ui/projects?q=a", "https://evil.example/": "/ui/", "//evil.example/ui/": "/ui/", "/ui/../api": "/ui/",
		"/ui/logout": "/ui/", "/ui/\\evil": "/ui/", "": "/ui/", "/ui/live/projects": "/ui/",
		"/ui/login?code=x": "/ui/", "/ui/%6cogin?code=x": "/ui/", "/ui//login?code=x": "/ui/", "/ui/./login?code=x": "/ui/", "/ui/%2e/login?code=x": "/ui/",
		"/ui/x%2f%2e%2e%2flogin?code=x": "/ui/", "/ui/%6cive/projects": "/ui/", "/ui/\x7f": "/ui/", "/ui/projects/shop": "/ui/projects/shop",
	} {
		resp := s.post(t, client(t), "/ui/login", url.Values{"token": {s.token}, "next": {next}}, nil)
		if got := resp.Header.Get("Location"); got != want {
			t.Errorf("next=%q leads to %q, want %q", next, got, want)
		}
		for _, c := range resp.Cookies() {
			if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode {
				t.Errorf("the cookie %s is not HttpOnly and SameSite=Strict", c.Name)
			}
		}
	}
}
