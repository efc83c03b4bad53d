package ui_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/oidc"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testbrowser"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testneed"
	"github.com/caravanserai/cara/internal/test/testoidc"
)

// organisation is a site with a provider, which runs or is not started yet.
func organisation(t testing.TB, secure, up bool) (*site, *testoidc.Provider) {
	t.Helper()
	return organisationWith(t, secure, up, "", "")
}

// organisationWith is organisation with a client that shows a secret, if it has one, to a provider that wants one.
func organisationWith(t testing.TB, secure, up bool, shown, wanted string) (*site, *testoidc.Provider) {
	t.Helper()
	testneed.NotShort(t)
	addr, err := testcluster.FreeAddress()
	must(t, err)
	p := testoidc.New(t, "http://"+addr, secure)
	if wanted != "" {
		p.Secret(wanted)
	}
	if up {
		p.Up()
	}
	return newSiteWith(t, addr, &oidc.Config{
		Issuer: p.Issuer, ClientID: testoidc.ClientID, ClientSecret: shown, Roots: p.Roots,
		Grants: []oidc.Grant{{Group: "dev", Role: api.RoleDeployer, Prefix: "pr-"}, {Group: "ops", Role: api.RoleAdmin}},
	}), p
}

// begin begins a login and returns where the browser goes.
func (s *site) begin(t testing.TB, c *http.Client) string {
	t.Helper()
	resp := s.get(t, c, "/ui/login/openid?next=/ui/projects", nil)
	if resp.StatusCode != http.StatusSeeOther {
		t.Fatalf("begin: %s: %s", resp.Status, read(t, resp))
	}
	return resp.Header.Get("Location")
}

// back follows the provider's answer, and returns the status and the page.
func (s *site) back(t testing.TB, c *http.Client, to string) (int, string) {
	t.Helper()
	u, err := url.Parse(to)
	must(t, err)
	resp := s.get(t, c, u.RequestURI(), http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}})
	return resp.StatusCode, html.UnescapeString(read(t, resp))
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	must(t, testcluster.WaitFor(ctx, what, func(context.Context) error {
		if ok() {
			return nil
		}
		return context.DeadlineExceeded
	}))
}

var secrets = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{20,}`) // a JSON web token

// silent checks that no log line has a token or a code.
func (s *site) silent(t testing.TB, more ...string) {
	t.Helper()
	text := s.log.String()
	for _, secret := range append(more, secrets.FindAllString(text, -1)...) {
		if secret != "" && strings.Contains(text, secret) {
			t.Errorf("the log has the secret %.20s...", secret)
		}
	}
}

// A person logs in, over TLS with an authority of its own, and has the rights of the groups. A second use of the answer fails.
func TestOpenIDLogin(t *testing.T) {
	s, p := organisation(t, true, true)
	c := client(t)
	to := p.Login(s.begin(t, c))
	code, page := s.back(t, c, to)
	if code != http.StatusOK || !strings.Contains(page, "url=/ui/projects") {
		t.Fatalf("the answer of the provider: %d\n%s", code, page)
	}
	if page := read(t, s.get(t, c, "/ui/", nil)); !strings.Contains(page, "user/ada@example.com") {
		t.Error("the page does not show the person")
	}
	got := s.sessions(t, s.token)["user/ada@example.com"]
	if len(got) != 1 || got[0].GetRole() != string(api.RoleDeployer) || got[0].GetNamePrefixes()[0] != "pr-" || got[0].GetOpenId() != nil {
		t.Fatalf("sessions: %v, want one of a deployer for pr-, without its secrets", got)
	}
	if code, page := s.back(t, c, to); code != http.StatusUnauthorized {
		t.Errorf("the answer a second time: %d\n%s", code, page)
	}
	if text := s.log.String(); !strings.Contains(text, "actor=user/ada@example.com method=LoginOpenID") {
		t.Errorf("the audit log does not have the login:\n%s", text)
	}
	u, err := url.Parse(to)
	must(t, err)
	s.silent(t, u.Query().Get("code"))
	logout := s.post(t, c, "/ui/logout", nil, nil)
	if page := html.UnescapeString(read(t, logout)); !strings.Contains(page, p.Issuer+"/end_session?client_id=cara&post_logout_redirect_uri=") {
		t.Errorf("logout: %s, want a link to the provider's\n%s", logout.Status, page)
	}
	if resp := s.get(t, c, "/ui/", nil); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("after logout: %s, want the login", resp.Status)
	}
}

// What is not right in an answer of the provider logs nobody in, and the page says why.
func TestOpenIDRefusals(t *testing.T) {
	s, p := organisation(t, false, true)
	good := testoidc.Control{Groups: []string{"dev"}, Seconds: 3600}
	tests := map[string]struct {
		set    func(*testoidc.Control)
		change func(c *http.Client, to string) (*http.Client, string)
		status int
		says   string
	}{
		"the state of another login": {nil, func(c *http.Client, to string) (*http.Client, string) {
			s.begin(t, c)
			return c, to
		}, http.StatusUnauthorized, "belongs to another login"},
		"another browser": {nil, func(_ *http.Client, to string) (*http.Client, string) {
			return client(t), to
		}, http.StatusUnauthorized, "was not begun in this browser"},
		"a code that is not of the provider": {nil, func(c *http.Client, to string) (*http.Client, string) {
			u, _ := url.Parse(to)
			q := u.Query()
			q.Set("code", "planted-code")
			u.RawQuery = q.Encode()
			return c, u.String()
		}, http.StatusUnauthorized, "did not log you in"},
		"an error of the provider": {nil, func(c *http.Client, to string) (*http.Client, string) {
			u, _ := url.Parse(to)
			q := url.Values{"state": {u.Query().Get("state")}, "error": {"access_denied"}, "error_description": {"<script>no</script>"}}
			u.RawQuery = q.Encode()
			return c, u.String()
		}, http.StatusUnauthorized, "access_denied"},
		"another issuer": {nil, func(c *http.Client, to string) (*http.Client, string) {
			return c, to + "&iss=https%3A%2F%2Fevil.example"
		}, http.StatusUnauthorized, "another OpenID provider"},
		"a wrong nonce":            {func(c *testoidc.Control) { c.Nonce = "planted-nonce" }, nil, http.StatusUnauthorized, "belongs to another login"},
		"a wrong audience":         {func(c *testoidc.Control) { c.OtherClient = true }, nil, http.StatusUnauthorized, "audience"},
		"an expired token":         {func(c *testoidc.Control) { c.Seconds = -3600 }, nil, http.StatusUnauthorized, "expired"},
		"no group of the role map": {func(c *testoidc.Control) { c.Groups = []string{"sales"} }, nil, http.StatusForbidden, "has no role here"},
	}
	for name, tt := range tests {
		now := good
		if tt.set != nil {
			tt.set(&now)
		}
		p.Set(now)
		c := client(t)
		to := p.Login(s.begin(t, c))
		if tt.change != nil {
			c, to = tt.change(c, to)
		}
		status, page := s.back(t, c, to)
		if status != tt.status || !strings.Contains(page, tt.says) || !strings.Contains(page, `id="openid"`) {
			t.Errorf("%s: %d, want %d and %q\n%s", name, status, tt.status, tt.says, page)
		}
		if resp := s.get(t, c, "/ui/", nil); resp.StatusCode != http.StatusSeeOther {
			t.Errorf("%s: logged in nevertheless", name)
		}
	}
	s.silent(t, "planted-code", "planted-nonce")
	// The provider has replaced its key. The new one is fetched when a token names it.
	good.Rotate = true
	p.Set(good)
	c := client(t)
	if status, page := s.back(t, c, p.Login(s.begin(t, c))); status != http.StatusOK {
		t.Errorf("with a new key: %d\n%s", status, page)
	}
}

// The server starts while the provider is down, says so, and needs no restart when the provider comes.
func TestOpenIDProviderComesLater(t *testing.T) {
	s, p := organisation(t, false, false)
	until(t, "the server says that the provider cannot be used", func() bool {
		return strings.Contains(s.log.String(), "the OpenID provider cannot be used yet")
	})
	resp := s.get(t, client(t), "/ui/login/openid", nil)
	if page := read(t, resp); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(page, "log in with a token") {
		t.Errorf("while the provider is down: %s\n%s", resp.Status, page)
	}
	s.login(t, s.token) // tokens work
	p.Up()
	until(t, "the server has found the provider", func() bool { return strings.Contains(s.log.String(), "the OpenID provider can be used") })
	c := client(t)
	if status, page := s.back(t, c, p.Login(s.begin(t, c))); status != http.StatusOK {
		t.Errorf("after that: %d\n%s", status, page)
	}
}

// A session in use is renewed, follows the groups, waits for a provider that is down, and ends when the provider refuses it.
func TestOpenIDRenewal(t *testing.T) {
	s, p := organisation(t, false, true)
	brief := testoidc.Control{Groups: []string{"dev"}, Seconds: 2}
	p.Set(brief)
	c := client(t)
	if status, page := s.back(t, c, p.Login(s.begin(t, c))); status != http.StatusOK {
		t.Fatalf("login: %d\n%s", status, page)
	}
	session := func() *carav1.Session {
		if all := s.sessions(t, s.token)["user/ada@example.com"]; len(all) == 1 {
			return all[0]
		}
		return nil
	}
	status := func() int { return s.get(t, c, "/ui/", nil).StatusCode }
	brief.Groups = []string{"ops"}
	p.Set(brief)
	until(t, "the session has the new role", func() bool { return status() == http.StatusOK && session().GetRole() == string(api.RoleAdmin) })
	brief.Down = true
	p.Set(brief)
	until(t, "the session waits for the provider", func() bool { return status() != http.StatusOK })
	if session() == nil {
		t.Fatal("the session has ended because the provider is down")
	}
	brief.Down = false
	p.Set(brief)
	until(t, "the session goes on", func() bool { return status() == http.StatusOK })
	brief.Groups = []string{"sales"}
	p.Set(brief)
	until(t, "the session has ended", func() bool { return status() == http.StatusSeeOther && session() == nil })
	if !strings.Contains(s.log.String(), "a login has ended, because the OpenID provider did not renew it") {
		t.Error("the log does not say why")
	}
	s.silent(t)
}

// A server that stops waits for the renewals that run, and keeps what the provider answers: the provider may have replaced the refresh
// token. Here it does not answer, and the session is as before.
func TestOpenIDRenewalAtTheEnd(t *testing.T) {
	s, p := organisation(t, false, true)
	brief := testoidc.Control{Groups: []string{"dev"}, Seconds: 4}
	p.Set(brief)
	c := client(t)
	if status, page := s.back(t, c, p.Login(s.begin(t, c))); status != http.StatusOK {
		t.Fatalf("login: %d\n%s", status, page)
	}
	s.get(t, c, "/ui/live/projects", http.Header{"Accept": {"text/event-stream"}})
	brief.Hold = true
	p.Set(brief)
	key := state.Key(api.KindSession, s.sessions(t, s.token)["user/ada@example.com"][0].GetMetadata().GetName())
	renewing := func() bool {
		kv, err := s.store.Get(t.Context(), key)
		must(t, err)
		m, err := state.Decode(&carav1.Session{}, kv.Value, kv.Modified)
		must(t, err)
		return m.(*carav1.Session).GetOpenId().GetRenewingUntil() != nil
	}
	until(t, "the session is being renewed", renewing)
	s.stop()
	s.start(t)
	if renewing() {
		t.Error("the server has stopped in the middle of a renewal")
	}
	brief.Hold = false
	p.Set(brief)
	until(t, "the session goes on", func() bool { return s.get(t, c, "/ui/", nil).StatusCode == http.StatusOK })
}

// caractrl logs in with a code from the browser, and on another device. Its token is for the API, the page's cookie is not.
func TestOpenIDTerminal(t *testing.T) {
	s, p := organisation(t, false, true)
	api1 := carav1.NewSessionServiceClient(s.conn(t, ""))
	verifier := "a-secret-of-caractrl-that-nobody-else-knows"
	sum := sha256.Sum256([]byte(verifier))
	c := client(t)
	form := url.Values{"port": {"4242"}, "state": {"st"}, "challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}}
	if page := html.UnescapeString(read(t, s.get(t, c, "/ui/login/caractrl?"+form.Encode(), nil))); !strings.Contains(page, "asks to log in as you") || !strings.Contains(page, "http://127.0.0.1:4242/?error=you+have+cancelled") {
		t.Errorf("the page does not ask, or cannot be cancelled:\n%s", page)
	}
	if resp := s.post(t, c, "/ui/login/caractrl", form, http.Header{"Sec-Fetch-Site": {"cross-site"}}); resp.StatusCode != http.StatusForbidden {
		t.Errorf("another page begins a login of caractrl: %s", resp.Status)
	}
	page := html.UnescapeString(read(t, s.post(t, c, "/ui/login/caractrl", form, nil)))
	_, to, _ := strings.Cut(page, "url=")
	to, _, _ = strings.Cut(to, `"`)
	status, page := s.back(t, c, p.Login(to))
	at := regexp.MustCompile(`url=http://127\.0\.0\.1:4242/\?code=([a-z0-9_]+)&state=st"`).FindStringSubmatch(page)
	if status != http.StatusOK || at == nil {
		t.Fatalf("the page does not lead to caractrl: %d\n%s", status, page)
	}
	if _, err := api1.FinishLogin(t.Context(), &carav1.FinishLoginRequest{Code: at[1], Verifier: "guess"}); api.Code(err) != codes.Unauthenticated {
		t.Errorf("the code with another secret: %v", err)
	}
	if resp := s.get(t, client(t), "/ui/login?code="+at[1], nil); resp.StatusCode != http.StatusUnauthorized || !strings.Contains(read(t, resp), "has ended or was used before") {
		t.Errorf("the code of caractrl as a link of the page: %s", resp.Status)
	}
	if _, err := carav1.NewInfoServiceClient(s.conn(t, at[1])).GetInfo(t.Context(), &emptypb.Empty{}); api.Code(err) != codes.Unauthenticated {
		t.Errorf("the code of caractrl as a token: %v", err)
	}
	done, err := api1.FinishLogin(t.Context(), &carav1.FinishLoginRequest{Code: at[1], Verifier: verifier})
	must(t, err)
	if _, err := api1.FinishLogin(t.Context(), &carav1.FinishLoginRequest{Code: at[1], Verifier: verifier}); api.Code(err) != codes.Unauthenticated {
		t.Errorf("the code a second time: %v", err)
	}
	s.isAda(t, done.GetToken())
	if page := read(t, s.post(t, client(t), "/ui/login", url.Values{"token": {done.GetToken()}}, nil)); !strings.Contains(page, "the token of a login of caractrl") {
		t.Errorf("the token of caractrl in the login of the page:\n%s", page)
	}
	_, err = carav1.NewTokenServiceClient(s.conn(t, done.GetToken())).CreateLogin(t.Context(), &emptypb.Empty{})
	if err == nil || !strings.Contains(err.Error(), "user/ada@example.com has logged in with OpenID Connect") {
		t.Errorf("a link for the page, made with a login: %v", err)
	}
	if resp := s.get(t, client(t), "/ui/", http.Header{"Cookie": {"cara-" + s.cluster(t)[:8] + "=" + done.GetToken()}}); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("the token of caractrl as a cookie: %s, want the login", resp.Status)
	}

	if _, err := api1.FinishLogin(t.Context(), &carav1.FinishLoginRequest{Code: at[1]}); api.Code(err) != codes.InvalidArgument {
		t.Errorf("a code without its secret: %v", err)
	}

	device, err := api1.StartDeviceLogin(t.Context(), &emptypb.Empty{})
	must(t, err)
	first, err := api1.FinishLogin(t.Context(), &carav1.FinishLoginRequest{Handle: device.GetHandle()})
	if err != nil || !first.GetPending() || first.GetToken() != "" {
		t.Errorf("before the person has approved: %v, %v; want pending", first, err)
	}
	p.Approve(device.GetCode())
	until(t, "the device login is done", func() bool {
		done, err = api1.FinishLogin(t.Context(), &carav1.FinishLoginRequest{Handle: device.GetHandle()})
		return err == nil && !done.GetPending()
	})
	s.isAda(t, done.GetToken())
	if _, err := api1.FinishLogin(t.Context(), &carav1.FinishLoginRequest{Handle: "x" + device.GetHandle()}); api.Code(err) != codes.Unauthenticated {
		t.Errorf("a handle that was changed: %v", err)
	}
	// A call that runs ends with its session.
	conn := s.conn(t, done.GetToken())
	watch, err := carav1.NewWatchServiceClient(conn).Watch(t.Context(), &carav1.WatchRequest{Kinds: []string{api.KindProject}})
	must(t, err)
	_, err = watch.Recv()
	must(t, err)
	_, err = carav1.NewSessionServiceClient(s.conn(t, s.token)).DeleteSession(t.Context(), &carav1.DeleteRequest{Name: done.GetSession().GetMetadata().GetName()})
	must(t, err)
	for err == nil {
		_, err = watch.Recv()
	}
	if api.Code(err) != codes.Unauthenticated {
		t.Errorf("the watch of a session that was ended: %v", err)
	}
	s.silent(t, done.GetToken(), device.GetHandle(), at[1])
}

// isAda checks that a token calls the API as ada.
func (s *site) isAda(t testing.TB, token string) {
	t.Helper()
	conn := s.conn(t, token)
	info, err := carav1.NewInfoServiceClient(conn).GetInfo(t.Context(), &emptypb.Empty{})
	if err != nil || info.GetActor() != "user/ada@example.com" || info.GetRole() != string(api.RoleDeployer) || info.GetExpireAt() == nil {
		t.Errorf("the API knows the caller as %v, %v; want ada", info, err)
	}
}

// A person logs in with a real browser, whose rules for cookies and policies hold. The provider is another site.
func TestOpenIDInABrowser(t *testing.T) {
	b := testbrowser.Open(t)
	s, _ := organisation(t, false, true)
	s.put(t, node("n1"), project("pr-1"))
	tab, err := b.Tab()
	must(t, err)
	defer tab.Close()
	must(t, tab.Go(s.url+"/ui/projects/pr-1"), tab.Click("#openid"), tab.Type("input[name=username]", "ada"), tab.Type("input[name=password]", "pw"), tab.Click("button[type=submit]"))
	must(t, tab.Until(`location.pathname === "/ui/projects/pr-1"`), tab.Shows("h1", "pr-1"), tab.Shows(".who", "user/ada@example.com"))
	must(t, tab.Click(".who button"), tab.Until(`location.pathname === "/ui/logout"`), tab.Shows(".note.good", "log out there, too"))
	if problems := tab.Problems(); len(problems) > 0 {
		t.Errorf("the console: %q", problems)
	}
}
