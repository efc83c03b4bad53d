package ui

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"sync"

	"golang.org/x/time/rate"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// An address may fail to log in loginBurst times, and then once every ten seconds.
	loginBurst = 10
	loginRate  = rate.Limit(0.1)
	// maxLimited is how many addresses have limits of their own. The others share one.
	maxLimited = 4096
)

// limiter limits failed logins by address.
type limiter struct {
	mu   sync.Mutex
	from map[netip.Prefix]*rate.Limiter
	rest *rate.Limiter
}

func newLimiter() *limiter {
	return &limiter{from: map[netip.Prefix]*rate.Limiter{}, rest: rate.NewLimiter(loginRate, loginBurst)}
}

// of returns the limit of an address. It forgets addresses whose limit has recovered when there are too many.
func (l *limiter) of(from netip.Prefix) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one := l.from[from]; one != nil {
		return one
	}
	if len(l.from) >= maxLimited {
		for other, one := range l.from {
			if one.Tokens() >= loginBurst {
				delete(l.from, other)
			}
		}
	}
	if len(l.from) >= maxLimited {
		return l.rest
	}
	one := rate.NewLimiter(loginRate, loginBurst)
	l.from[from] = one
	return one
}

// loginForm is what the login shows.
type loginForm struct {
	Next, Problem string
	// LogoutURL is where the browser can end its login at the OpenID provider.
	LogoutURL string
}

// loginPage shows the login. With the code of a link it logs in at once, unless another page sent the browser here: its code
// could be of another person.
func (u *UI) loginPage(w http.ResponseWriter, r *http.Request) {
	code := r.URL.Query().Get("code")
	if code == "" {
		if actorOf(r).Session != "" {
			http.Redirect(w, r, safeNext(r.URL.Query().Get("next")), http.StatusSeeOther)
			return
		}
		u.showLogin(w, http.StatusOK, loginForm{Next: safeNext(r.URL.Query().Get("next"))})
		return
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "none" && site != "same-origin" {
		u.showLogin(w, http.StatusForbidden, loginForm{Problem: "Another page has opened this link. Copy it into the address bar instead."})
		return
	}
	u.enter(w, r, u.Sessions.Open, code)
}

// login logs in with the token of a form.
func (u *UI) login(w http.ResponseWriter, r *http.Request) {
	u.enter(w, r, u.Sessions.Login, r.PostFormValue("token"))
}

// enter opens a session with a credential, within the limit of failures.
func (u *UI) enter(w http.ResponseWriter, r *http.Request, open func(context.Context, string) (string, *carav1.Session, error), credential string) {
	form := loginForm{Next: safeNext(r.PostFormValue("next"))}
	limit := u.logins.of(admission.VisitOf(r.Context()).From)
	if limit.Tokens() < 1 {
		w.Header().Set("Retry-After", "10")
		form.Problem = "Too many failed logins from this address. Wait ten seconds, then try again."
		u.showLogin(w, http.StatusTooManyRequests, form)
		return
	}
	secret, session, err := open(r.Context(), credential)
	if err != nil {
		limit.Allow()
		problem := api.ProblemOf(api.Wire(err))
		form.Problem = problem.GetDetail()
		u.showLogin(w, int(problem.GetStatus()), form)
		return
	}
	u.setCookie(w, r, secret, session)
	http.Redirect(w, r, form.Next, http.StatusSeeOther)
}

// logout ends the session. Its open streams end, too.
func (u *UI) logout(w http.ResponseWriter, r *http.Request) error {
	at := u.Sessions.LogoutURL(actorOf(r), host(r))
	if err := u.Sessions.Logout(r.Context(), actorOf(r)); err != nil {
		return err
	}
	u.setCookie(w, r, "", nil)
	if at == "" {
		http.Redirect(w, r, Prefix+"login", http.StatusSeeOther)
		return nil
	}
	u.showLogin(w, http.StatusOK, loginForm{Next: Prefix, LogoutURL: at})
	return nil
}

func (u *UI) showLogin(w http.ResponseWriter, status int, form loginForm) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	u.write(w, "login", struct {
		loginForm
		Assets string
		OpenID bool
	}{form, u.version, u.Sessions.OpenID()})
}

// cookieName is different for each cluster, because browsers send cookies to all ports of a host. Over TLS the prefix makes
// browsers insist on Secure and on this host.
func (u *UI) cookieName(r *http.Request) string {
	name := "cara-" + u.ClusterID[:min(8, len(u.ClusterID))]
	if r.TLS != nil {
		return "__Host-" + name
	}
	return name
}

// setCookie sets the session's cookie, or removes it if session is nil.
func (u *UI) setCookie(w http.ResponseWriter, r *http.Request, secret string, session *carav1.Session) {
	c := &http.Cookie{
		Name: u.cookieName(r), Value: secret, Path: "/", HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode, MaxAge: -1,
	}
	if session != nil {
		c.MaxAge = int(session.GetExpireAt().AsTime().Sub(u.Now()).Seconds())
	}
	http.SetCookie(w, c)
}

// safeNext returns where to go after the login: only a path of the page, and neither the login nor a stream. The mux decodes and cleans
// paths, so safeNext decides about what it would make of the path. Otherwise `/ui/%6cogin?code=` would log in with the link of another
// person, without the check of loginPage.
func safeNext(next string) string {
	u, err := url.Parse(next)
	if err != nil || !strings.HasPrefix(next, Prefix) || strings.ContainsAny(next, "\\\r\n\t") || strings.Contains(next, "/..") {
		return Prefix
	}
	if clean := path.Clean(u.Path); u.Path != clean && u.Path != clean+"/" || strings.HasPrefix(u.Path, Prefix+"log") || strings.HasPrefix(u.Path, Prefix+"live/") {
		return Prefix
	}
	return next
}
