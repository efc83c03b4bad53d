package oidc

import (
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"strings"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/text"
)

const (
	// CallbackPath is where the provider sends the browser back after a login; after a logout, it is loginPath.
	CallbackPath = loginPath + "/callback"
	loginPath    = "/ui/login"
	// LoginTime limits the time that a person takes to log in at the provider.
	LoginTime = 10 * time.Minute

	// Names that seal a login in a browser, and one of a device.
	sealLogin, sealDevice = "oidc-login", "oidc-device"

	grantDevice = "urn:ietf:params:oauth:grant-type:device_code"
)

// Pending is a login on its way through the browser.
type Pending struct {
	// Next is where the page leads after the login.
	Next string
	// Terminal is set if the login is for caractrl.
	Terminal *Terminal `json:",omitempty"`

	State, Nonce, Verifier, Redirect string
	End                              time.Time
}

// Terminal is a caractrl that waits for a login on a port of the person's machine.
type Terminal struct {
	Port int
	// State is returned to caractrl as it is. Challenge is the hash of a secret that only caractrl knows.
	State, Challenge string
}

// Login is what the provider says about a person.
type Login struct {
	Person
	// Until is when the ID token expires. A later use needs Refresh.
	Until time.Time
	// Refresh is the refresh token; empty if the provider gave none.
	Refresh string
}

// Begin starts a login. The browser goes to the URL and keeps the sealed text in a cookie until it comes back. host is the server's
// address as the browser knows it, such as https://cara.example.com.
func (p *Provider) Begin(ctx context.Context, host string, login Pending) (to, sealed string, err error) {
	d, err := p.discover(ctx)
	if err != nil {
		return "", "", err
	}
	login.State, login.Nonce, login.Verifier = oauth2.GenerateVerifier(), oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	login.Redirect, login.End = p.callback(host), p.Now().Add(LoginTime)
	conf := d.config
	conf.RedirectURL = login.Redirect
	return conf.AuthCodeURL(login.State, gooidc.Nonce(login.Nonce), oauth2.S256ChallengeOption(login.Verifier)), p.seal(sealLogin, login), nil
}

// callback returns the address to which the provider sends the browser back. Behind a reverse proxy, host is not the address that the
// provider knows.
func (p *Provider) callback(host string) string { return cmp.Or(p.RedirectURL, host+CallbackPath) }

// Finish completes the login with which the browser comes back.
func (p *Provider) Finish(ctx context.Context, sealed string, query url.Values) (Login, Pending, error) {
	var pending Pending
	if err := p.open(sealLogin, sealed, &pending); err != nil || !p.Now().Before(pending.End) {
		return Login{}, Pending{}, api.Unauthenticated("this login was not begun in this browser, or took longer than %d minutes: log in again", int(LoginTime.Minutes()))
	}
	issuer := query.Get("iss")
	switch {
	case subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(pending.State)) != 1:
		return Login{}, Pending{}, api.Unauthenticated("this answer of the OpenID provider belongs to another login: log in again")
	case issuer != "" && issuer != p.Issuer:
		return Login{}, Pending{}, api.Unauthenticated("this answer comes from another OpenID provider: log in again")
	case query.Get("error") != "":
		return Login{}, pending, api.Unauthenticated("the OpenID provider did not log you in: %s", reason(query.Get("error"), query.Get("error_description")))
	}
	d, err := p.discover(ctx)
	if err != nil {
		return Login{}, pending, err
	}
	conf := d.config
	conf.RedirectURL = pending.Redirect
	token, err := conf.Exchange(p.with(ctx), query.Get("code"), oauth2.VerifierOption(pending.Verifier))
	if err != nil {
		return Login{}, pending, p.refused(err)
	}
	login, err := p.login(ctx, d, token, &pending.Nonce)
	return login, pending, err
}

// Refresh asks the provider whether the person may still log in, and returns the person as the provider knows them now. An
// error with the code UNAUTHENTICATED or PERMISSION_DENIED is final.
func (p *Provider) Refresh(ctx context.Context, before Login) (Login, error) {
	d, err := p.discover(ctx)
	if err != nil {
		return Login{}, err
	}
	token, err := d.config.TokenSource(p.with(ctx), &oauth2.Token{RefreshToken: before.Refresh}).Token()
	if err != nil {
		return Login{}, p.refused(err)
	}
	after, err := p.login(ctx, d, token, nil)
	switch {
	case err != nil:
		return Login{}, err
	case after.Subject != before.Subject:
		return Login{}, api.Unauthenticated("the OpenID provider has renewed the login of another person: log in again")
	}
	return after, nil // the library keeps the refresh token if the provider sends no new one
}

// Device is a login on another device.
type Device struct {
	// Code is what the person types at URL. Complete is the URL with the code, or empty.
	Code, URL, Complete string
	Interval            time.Duration
	End                 time.Time
	// Handle is for Poll.
	Handle string
}

// device is what a handle has.
type device struct {
	Code     string
	Interval time.Duration
	End      time.Time
}

// StartDevice begins a login on another device.
func (p *Provider) StartDevice(ctx context.Context) (Device, error) {
	d, err := p.discover(ctx)
	if err != nil {
		return Device{}, err
	}
	if d.config.Endpoint.DeviceAuthURL == "" {
		return Device{}, api.BadState("the OpenID provider %s does not offer logins on another device: use a machine with a browser, or a token", p.Issuer)
	}
	conf := d.config
	got, err := conf.DeviceAuth(p.with(ctx), p.secret()...)
	if err != nil {
		return Device{}, p.refused(err)
	}
	end := p.Now().Add(LoginTime)
	if !got.Expiry.IsZero() && got.Expiry.Before(end) {
		end = got.Expiry
	}
	interval := time.Duration(min(max(got.Interval, 1), 60)) * time.Second
	return Device{
		Code: text.Printable(got.UserCode, maxText), URL: text.Printable(got.VerificationURI, 2*maxText), Complete: text.Printable(got.VerificationURIComplete, 4*maxText),
		Interval: interval, End: end, Handle: p.seal(sealDevice, device{got.DeviceCode, interval, end}),
	}, nil
}

// Poll asks once whether the person has logged in on the other device. pending is true if not yet; slower asks for a longer interval.
// Within the interval it does not ask again: otherwise a caller with a handle could flood the provider through the server.
func (p *Provider) Poll(ctx context.Context, handle string) (login Login, pending, slower bool, err error) {
	var known device
	if err := p.open(sealDevice, handle, &known); err != nil || !p.Now().Before(known.End) {
		return Login{}, false, false, api.Unauthenticated("this login has ended: begin it again")
	}
	if p.tooSoon(known) {
		return Login{}, true, false, nil
	}
	d, err := p.discover(ctx)
	if err != nil {
		return Login{}, false, false, err
	}
	conf := d.config
	token, err := conf.Exchange(p.with(ctx), "", oauth2.SetAuthURLParam("grant_type", grantDevice), oauth2.SetAuthURLParam("device_code", known.Code))
	if refusal, ok := errors.AsType[*oauth2.RetrieveError](err); ok && (refusal.ErrorCode == "authorization_pending" || refusal.ErrorCode == "slow_down") {
		return Login{}, true, refusal.ErrorCode == "slow_down", nil
	}
	if err != nil {
		return Login{}, false, false, p.refused(err)
	}
	login, err = p.login(ctx, d, token, nil)
	return login, false, false, err
}

// tooSoon reports whether the provider was asked about a device within the interval, and otherwise notes that it is asked now.
func (p *Provider) tooSoon(d device) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.Now()
	maps.DeleteFunc(p.asked, func(_ string, next time.Time) bool { return !next.After(now) })
	if _, ok := p.asked[d.Code]; ok {
		return true
	}
	p.asked[d.Code] = now.Add(d.Interval)
	return false
}

// login verifies the ID token of an answer. nonce is nil if the flow has none.
func (p *Provider) login(ctx context.Context, d *discovered, token *oauth2.Token, nonce *string) (Login, error) {
	raw, _ := token.Extra("id_token").(string)
	if raw == "" {
		return Login{}, api.Unauthenticated("the OpenID provider has sent no ID token: allow the scope openid for this client there, also for refreshed tokens")
	}
	id, err := d.verifier.Verify(p.with(ctx), raw)
	switch {
	case err != nil && strings.Contains(err.Error(), "fetching keys"):
		return Login{}, p.unavailable(errors.New("its keys cannot be read"))
	case err != nil:
		return Login{}, api.Unauthenticated("the ID token of the OpenID provider is not valid here: %s", text.Printable(strings.TrimPrefix(err.Error(), "oidc: "), maxText))
	case nonce != nil && subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(*nonce)) != 1:
		return Login{}, api.Unauthenticated("the ID token of the OpenID provider belongs to another login: log in again")
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return Login{}, api.Unauthenticated("the ID token of the OpenID provider cannot be read")
	}
	person, err := PersonOf(p.Issuer, p.GroupsClaim, p.Grants, claims)
	return Login{Person: person, Until: id.Expiry, Refresh: token.RefreshToken}, err
}

// refused is the error for a request that the token endpoint did not answer with tokens. What the provider refuses is final;
// anything else, such as a wrong client secret, an operator can mend.
func (p *Provider) refused(err error) error {
	refusal, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		if failed, ok := errors.AsType[*url.Error](err); ok {
			return p.unavailable(failed.Err)
		}
		return p.unavailable(errors.New("its answer cannot be read"))
	}
	switch refusal.ErrorCode {
	case "invalid_grant", "access_denied", "expired_token":
		return api.Unauthenticated("the OpenID provider did not log you in: %s; log in again", reason(refusal.ErrorCode, refusal.ErrorDescription))
	case "":
		return p.unavailable(errors.New("its token endpoint answers " + refusal.Response.Status))
	}
	return p.unavailable(errors.New("its token endpoint answers " + reason(refusal.ErrorCode, refusal.ErrorDescription)))
}

// reason returns an error of the provider for people.
func reason(code, description string) string {
	if description == "" {
		return text.Printable(code, maxText)
	}
	return text.Printable(code+" ("+description+")", maxText)
}

// seal encrypts a value for a browser or a terminal, which return it.
func (p *Provider) seal(name string, value any) string {
	plain, err := json.Marshal(value)
	if err != nil {
		return "" // cannot happen: they are structs of texts
	}
	return base64.RawURLEncoding.EncodeToString(p.Seal.Seal(name, plain))
}

func (p *Provider) open(name, sealed string, into any) error {
	cipher, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return err
	}
	plain, err := p.Seal.Open(name, cipher)
	if err != nil {
		return err
	}
	return json.Unmarshal(plain, into)
}

// secret returns the client's secret for a request to which the library does not add it.
func (p *Provider) secret() []oauth2.AuthCodeOption {
	if p.ClientSecret == "" {
		return nil
	}
	return []oauth2.AuthCodeOption{oauth2.SetAuthURLParam("client_secret", p.ClientSecret)}
}
