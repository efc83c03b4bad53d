// Package testoidc is a real OpenID Connect provider for tests, in a process of its own: the one of github.com/zitadel/oidc.
//
// It has no part in a push: it says who somebody is who looks at one. Invariants: there is one person, `ada` with the password
// `pw`; what the provider says about her, and the mistakes that it makes, are what the test has set last.
package testoidc

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testca"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// patience is how long the program may take to answer.
const patience = 2 * time.Minute

// ClientID is the client that the provider knows. It has no secret, unless Secret sets one.
const ClientID = "cara"

// Control is what the provider says and how it fails.
type Control struct {
	Groups []string
	// Subject is who the person is in tokens that are made from now on; empty means ada.
	Subject string
	// Seconds is the life of an ID token; negative makes expired ones.
	Seconds int
	// Nonce replaces the nonces of logins that begin from now on. OtherClient makes tokens for another client.
	Nonce       string
	OtherClient bool
	// Rotate replaces the provider's key.
	Rotate bool
	// Refuse refuses refresh tokens. Down answers everything with 503.
	Refuse, Down bool
	// Hold leaves requests with refresh tokens without an answer until their client has gone. The tokens are not used.
	Hold bool
}

// Provider is a running provider.
type Provider struct {
	Issuer string
	// Roots verify its certificate; nil without TLS.
	Roots *x509.CertPool

	tb      testing.TB
	listen  string
	args    []string
	log     string
	process *testcluster.Process
	client  *http.Client
}

// New prepares a provider whose client is a server at a URL. Up starts it.
func New(tb testing.TB, server string, secure bool) *Provider {
	tb.Helper()
	listen, err := testcluster.FreeAddress()
	p := &Provider{tb: tb, listen: listen, log: filepath.Join(tb.TempDir(), "provider.log"), client: &http.Client{}}
	p.must(err)
	_, port, err := net.SplitHostPort(listen)
	p.must(err)
	p.Issuer = "http://localhost:" + port // another site than the server's, as in practice
	p.args = []string{"-listen", listen, "-redirect", server + "/ui/login/callback"}
	if secure {
		p.Issuer = "https://localhost:" + port
		p.credentials()
	}
	p.args = append(p.args, "-issuer", p.Issuer)
	tb.Cleanup(p.Kill)
	return p
}

func (p *Provider) credentials() {
	ca, err := testca.New()
	p.must(err)
	chain, key, err := ca.Both("provider")
	p.must(err)
	dir := p.tb.TempDir()
	cert, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	p.must(errors.Join(os.WriteFile(cert, chain, 0o600), os.WriteFile(keyFile, key, 0o600)))
	p.args = append(p.args, "-cert", cert, "-key", keyFile)
	p.Roots = ca.Pool()
	p.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.Roots, MinVersion: tls.VersionTLS12}}
}

// Secret makes the client a confidential one, which shows a secret with client_secret_basic. It is for a provider that does not run.
func (p *Provider) Secret(secret string) { p.args = append(p.args, "-secret", secret) }

// Up starts the provider, which knows nothing of an earlier run.
func (p *Provider) Up() {
	p.tb.Helper()
	var err error
	program := testneed.Build(p.tb, testneed.Pinned{Name: "oidc-provider", Folder: "testoidc/provider", Module: "github.com/zitadel/oidc/v3"})
	p.process, err = testcluster.Start(p.log, os.Environ(), append([]string{program}, p.args...)...)
	p.must(err)
	ctx, cancel := context.WithTimeout(p.tb.Context(), patience)
	defer cancel()
	p.must(testcluster.WaitFor(ctx, p.Issuer+" answers", func(context.Context) error {
		if p.process.Exited() {
			return testcluster.Fatal(fmt.Errorf("it ended:\n%s", p.process.Tail(20)))
		}
		resp, err := p.client.Get(p.Issuer + "/.well-known/openid-configuration") //nolint:noctx // the test ends it
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}))
}

// Kill ends the provider.
func (p *Provider) Kill() {
	if p.process != nil && !p.process.Exited() {
		_ = p.process.Kill()
	}
}

// Set sets what the provider says from now on.
func (p *Provider) Set(c Control) {
	p.tb.Helper()
	body, err := json.Marshal(c)
	p.must(err)
	resp, err := p.client.Post(p.Issuer+"/control", "application/json", bytes.NewReader(body)) //nolint:noctx // the test ends it
	p.must(err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		p.tb.Fatalf("set %s: %s", body, resp.Status)
	}
}

// Login logs ada in at the URL to which the server has sent the browser, and returns the URL to which the provider sends it
// back.
func (p *Provider) Login(to string) string {
	p.tb.Helper()
	c := &http.Client{Transport: p.client.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	form := p.location(c.Get(to)) //nolint:noctx // the test ends it
	id := form.Query().Get("authRequestID")
	if id == "" {
		p.tb.Fatalf("the provider leads to %s, want its form", form)
	}
	after := p.location(c.PostForm(p.Issuer+"/login/username", url.Values{"id": {id}, "username": {"ada"}, "password": {"pw"}})) //nolint:noctx // the test ends it
	return p.location(c.Get(after.String())).String()                                                                            //nolint:noctx // the test ends it
}

// leads matches where a page of the server leads on to.
var leads = regexp.MustCompile(`content="0;url=([^"]+)"`)

// Browse is ada with a browser: she opens the address of caractrl login, lets caractrl log in, and follows the pages. It returns the
// last one.
func (p *Provider) Browse(address string) string {
	p.tb.Helper()
	jar, err := cookiejar.New(nil)
	p.must(err)
	u, err := url.Parse(address)
	p.must(err)
	c := &http.Client{Jar: jar}
	p.read(c.Get(address))                                               //nolint:noctx // the test ends it
	to := p.next(p.read(c.PostForm("http://"+u.Host+u.Path, u.Query()))) //nolint:noctx // the test ends it
	if strings.HasPrefix(to, p.Issuer) {
		to = p.next(p.read(c.Get(p.Login(to)))) //nolint:noctx // the test ends it
	}
	return p.read(c.Get(to)) //nolint:noctx // the test ends it
}

func (p *Provider) read(resp *http.Response, err error) string {
	p.tb.Helper()
	p.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	p.must(err)
	return string(body)
}

// next returns where a page leads on to.
func (p *Provider) next(page string) string {
	p.tb.Helper()
	m := leads.FindStringSubmatch(page)
	if m == nil {
		p.tb.Fatalf("this page does not lead on:\n%s", page)
	}
	return html.UnescapeString(m[1])
}

// Approve approves a login on another device with its code.
func (p *Provider) Approve(code string) { p.tb.Helper(); p.confirm(code, "allowed") }

// Deny denies a login on another device.
func (p *Provider) Deny(code string) { p.tb.Helper(); p.confirm(code, "denied") }

func (p *Provider) confirm(code, action string) {
	p.tb.Helper()
	c := &http.Client{Transport: p.client.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.PostForm(p.Issuer+"/device/login", url.Values{"user_code": {code}, "username": {"ada"}, "password": {"pw"}}) //nolint:noctx // the test ends it
	p.must(err)
	defer resp.Body.Close()
	req, err := http.NewRequestWithContext(p.tb.Context(), http.MethodPost, p.Issuer+"/device/confirm", strings.NewReader("action="+action))
	p.must(err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, cookie := range resp.Cookies() {
		req.AddCookie(cookie)
	}
	confirmed, err := c.Do(req)
	p.must(err)
	defer confirmed.Body.Close()
	if resp.StatusCode != http.StatusOK || confirmed.StatusCode >= http.StatusBadRequest {
		p.tb.Fatalf("%s %s: %s, %s", code, action, resp.Status, confirmed.Status)
	}
}

// location returns where an answer leads.
func (p *Provider) location(resp *http.Response, err error) *url.URL {
	p.tb.Helper()
	p.must(err)
	defer resp.Body.Close()
	to, err := resp.Location()
	if err != nil {
		p.tb.Fatalf("%s: %s", resp.Request.URL, resp.Status)
	}
	return to
}

func (p *Provider) must(err error) {
	p.tb.Helper()
	if err != nil {
		p.tb.Fatal(err)
	}
}
