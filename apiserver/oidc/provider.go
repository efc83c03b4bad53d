package oidc

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/text"
)

const (
	// requestTime limits each request to the provider. It is shorter than the time that a caller has who is not logged in yet.
	requestTime = 8 * time.Second
	// maxAnswer limits an answer of the provider, in bytes.
	maxAnswer = 1 << 20
	// After a failed discovery, the next one waits firstPause, doubling up to maxPause.
	firstPause = time.Second
	maxPause   = time.Minute
)

// Sealer encrypts what passes through a browser or is stored.
type Sealer interface {
	Seal(name string, value []byte) []byte
	Open(name string, sealed []byte) ([]byte, error)
}

// Config configures the provider.
type Config struct {
	// Issuer is the provider's URL. It must be https, or http on loopback.
	Issuer string
	// ClientID is the server's name at the provider. ClientSecret is empty for a public client.
	ClientID, ClientSecret string
	// RedirectURL is the address to which the provider sends the browser back; empty is CallbackPath on the address that the
	// browser has used.
	RedirectURL string
	// GroupsClaim is the claim of the ID token with the groups; empty is `groups`.
	GroupsClaim string
	// Scopes are asked for in addition to those that every login needs.
	Scopes []string
	// Grants map groups to roles.
	Grants []Grant
	// Roots verify the provider's certificate; nil means those of the system.
	Roots *x509.CertPool
	// Seal, Logger and Now are required.
	Seal   Sealer
	Logger *slog.Logger
	Now    func() time.Time
}

// Validate returns an error if the operator's part of c is not usable. The errors name the flags.
func (c *Config) Validate() error {
	u, err := url.Parse(c.Issuer)
	switch {
	case err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return errors.New("--oidc-issuer: want the URL of the provider without query, such as https://id.example.com/realms/main")
	case u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())):
		return fmt.Errorf("--oidc-issuer %s: want https; http is allowed on loopback only", c.Issuer)
	case c.ClientID == "":
		return errors.New("--oidc-issuer needs --oidc-client-id: the id that the provider has given to this client")
	case len(c.Grants) == 0:
		return errors.New("--oidc-issuer needs --oidc-role-map GROUP=ROLE: without it, nobody could log in")
	case len(c.Grants) > maxGrants:
		return fmt.Errorf("--oidc-role-map is given %d times; the limit is %d", len(c.Grants), maxGrants)
	}
	if c.RedirectURL == "" {
		return nil
	}
	if u, err := url.Parse(c.RedirectURL); err != nil || u.Host == "" || u.Path != CallbackPath || u.RawQuery != "" || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("--oidc-redirect-url %q: want https://HOST%s", c.RedirectURL, CallbackPath)
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Provider is one OpenID Connect provider. It is safe for concurrent use.
type Provider struct {
	Config
	client *http.Client

	mu     sync.Mutex
	found  *discovered
	asking chan struct{} // closed when the running discovery has ended; nil if none runs
	err    error         // of the last discovery
	pause  time.Duration
	next   time.Time // of the next discovery

	asked map[string]time.Time // until when the provider is not asked again about a device, by the device's code
}

// discovered is what the provider says about itself.
type discovered struct {
	*gooidc.Provider
	verifier *gooidc.IDTokenVerifier
	config   oauth2.Config
	meta     metadata
}

// metadata is the part of the discovery document that the libraries do not use.
type metadata struct {
	EndSession  string   `json:"end_session_endpoint"`
	Scopes      []string `json:"scopes_supported"`
	AuthMethods []string `json:"token_endpoint_auth_methods_supported"`
}

// New returns a provider. It sends nothing.
func New(c Config) *Provider {
	c.GroupsClaim = cmp.Or(c.GroupsClaim, "groups")
	return &Provider{Config: c, asked: map[string]time.Time{}, client: &http.Client{
		Timeout: requestTime,
		Transport: bounded{&http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true, MaxIdleConns: 4, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
		}},
		// A redirect could lead the client's secret to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// bounded limits the bodies of answers.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}

// Run discovers the provider, so that the first person need not wait, and tells the operator how that went. It returns when the
// provider is known or ctx ends.
func (p *Provider) Run(ctx context.Context) {
	told := false
	for {
		_, err := p.discover(ctx)
		switch {
		case err == nil:
			p.Logger.InfoContext(ctx, "the OpenID provider can be used", "issuer", p.Issuer)
			return
		case !told && ctx.Err() == nil:
			told = true
			p.Logger.WarnContext(ctx, "the OpenID provider cannot be used yet; people can log in with tokens, and the server tries again", "error", api.ProblemOf(err).GetDetail())
		}
		timer := time.NewTimer(p.wait())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// wait returns how long to wait for the next discovery.
func (p *Provider) wait() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(p.next.Sub(p.Now()), 0)
}

// discover returns what is known about the provider, and asks it if that is nothing. One caller asks at a time; the others wait
// for it. After a failure, callers get the error at once until the pause is over.
func (p *Provider) discover(ctx context.Context) (*discovered, error) {
	for {
		p.mu.Lock()
		switch {
		case p.found != nil:
			defer p.mu.Unlock()
			return p.found, nil
		case p.asking != nil:
			asking := p.asking
			p.mu.Unlock()
			select {
			case <-asking:
				continue
			case <-ctx.Done():
				return nil, p.unavailable(ctx.Err())
			}
		case p.Now().Before(p.next):
			defer p.mu.Unlock()
			return nil, p.err
		}
		p.asking = make(chan struct{})
		p.mu.Unlock()
		found, err := p.ask(context.WithoutCancel(ctx)) // others wait for the answer, too; the client has a time limit
		p.mu.Lock()
		p.found, p.err = found, err
		if err != nil {
			p.pause = min(max(2*p.pause, firstPause), maxPause)
			p.next = p.Now().Add(p.pause)
		}
		close(p.asking)
		p.asking = nil
		p.mu.Unlock()
		return found, err
	}
}

// ask reads the discovery document.
func (p *Provider) ask(ctx context.Context) (*discovered, error) {
	provider, err := gooidc.NewProvider(p.with(ctx), p.Issuer)
	if err != nil {
		return nil, p.unavailable(err)
	}
	d := &discovered{Provider: provider, verifier: provider.VerifierContext(p.with(ctx), &gooidc.Config{ClientID: p.ClientID, Now: p.Now})}
	if err := provider.Claims(&d.meta); err != nil {
		return nil, p.unavailable(err)
	}
	endpoint := provider.Endpoint()
	endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if p.ClientSecret == "" || len(d.meta.AuthMethods) > 0 && !slices.Contains(d.meta.AuthMethods, "client_secret_basic") {
		endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	scopes := append([]string{gooidc.ScopeOpenID, "profile", "email"}, p.Scopes...)
	for _, scope := range []string{gooidc.ScopeOfflineAccess, "groups"} {
		if slices.Contains(d.meta.Scopes, scope) {
			scopes = append(scopes, scope)
		}
	}
	slices.Sort(scopes)
	d.config = oauth2.Config{ClientID: p.ClientID, ClientSecret: p.ClientSecret, Endpoint: endpoint, Scopes: slices.Compact(scopes)}
	return d, nil
}

// with returns a context whose requests use the provider's client.
func (p *Provider) with(ctx context.Context) context.Context {
	return gooidc.ClientContext(ctx, p.client)
}

// unavailable is the error while the provider does not answer as it should. It never repeats an answer of the token endpoint.
func (p *Provider) unavailable(err error) error {
	return api.Unavailable("the OpenID provider %s cannot be used now: %s; try again later, or log in with a token", p.Issuer, text.Printable(err.Error(), maxText))
}

// Decide returns the rights that the groups of a session give.
func (p *Provider) Decide(groups []string) (Rights, bool) { return Decide(p.Grants, groups) }

// LogoutURL returns where a browser ends its login at the provider, which sends it back to the login; "" if the provider does not offer
// that. host is for Begin. The URL names the client and has no token, because URLs end up in logs. The provider may ask the person.
func (p *Provider) LogoutURL(host string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found == nil {
		return ""
	}
	u, err := url.Parse(p.found.meta.EndSession)
	if err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())) {
		return ""
	}
	q := u.Query()
	q.Set("client_id", p.ClientID)
	q.Set("post_logout_redirect_uri", strings.TrimSuffix(p.callback(host), CallbackPath)+loginPath)
	u.RawQuery = q.Encode()
	return u.String()
}
