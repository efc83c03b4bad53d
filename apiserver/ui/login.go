package ui

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/oidc"
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

// entrance is the login: it opens sessions, and keeps them in cookies.
type entrance struct {
	*renderer
	sessions  Sessions
	clusterID string
	now       func() time.Time
	limits    *limiter
}

// routes registers the paths of those who are not logged in yet.
func (e *entrance) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /ui/login", e.page)
	mux.HandleFunc("POST /ui/login", e.byToken)
	mux.HandleFunc("GET /ui/login/openid", e.startOpenID)
	mux.HandleFunc("GET "+oidc.CallbackPath, e.finishOpenID)
	mux.HandleFunc("GET /ui/login/caractrl", e.askTerminal)
	mux.HandleFunc("POST /ui/login/caractrl", e.startTerminal)
}

// loginForm is what the login shows.
type loginForm struct {
	Next, Problem string
	// LogoutURL is where the browser can end its login at the OpenID provider.
	LogoutURL string
}

// page shows the login. With the code of a link it logs in at once, unless another page sent the browser here: its code
// could be of another person.
func (e *entrance) page(w http.ResponseWriter, r *http.Request) {
	code := r.URL.Query().Get("code")
	if code == "" {
		if actorOf(r).Session != "" {
			http.Redirect(w, r, safeNext(r.URL.Query().Get("next")), http.StatusSeeOther)
			return
		}
		e.show(w, http.StatusOK, loginForm{Next: safeNext(r.URL.Query().Get("next"))})
		return
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "none" && site != "same-origin" {
		e.show(w, http.StatusForbidden, loginForm{Problem: "Another page has opened this link. Copy it into the address bar instead."})
		return
	}
	e.enter(w, r, e.sessions.Open, code)
}

// byToken logs in with the token of a form.
func (e *entrance) byToken(w http.ResponseWriter, r *http.Request) {
	e.enter(w, r, e.sessions.Login, r.PostFormValue("token"))
}

// enter opens a session with a credential, within the limit of failures.
func (e *entrance) enter(w http.ResponseWriter, r *http.Request, open func(context.Context, string) (string, *carav1.Session, error), credential string) {
	form := loginForm{Next: safeNext(r.PostFormValue("next"))}
	limit := e.limited(w, r, form)
	if limit == nil {
		return
	}
	secret, session, err := open(r.Context(), credential)
	if err != nil {
		limit.Allow()
		e.failed(w, form, err)
		return
	}
	e.setCookie(w, r, secret, session)
	http.Redirect(w, r, form.Next, http.StatusSeeOther)
}

// limited returns the limit of failures of the caller's address. It is nil for an address that has reached it: then the answer says so.
func (e *entrance) limited(w http.ResponseWriter, r *http.Request, form loginForm) *rate.Limiter {
	limit := e.limits.of(admission.VisitOf(r.Context()).From)
	if limit.Tokens() >= 1 {
		return limit
	}
	w.Header().Set("Retry-After", "10")
	form.Problem = "Too many failed logins from this address. Wait ten seconds, then try again."
	e.show(w, http.StatusTooManyRequests, form)
	return nil
}

// logout ends the session. Its open streams end, too.
func (e *entrance) logout(w http.ResponseWriter, r *http.Request) error {
	at := e.sessions.LogoutURL(actorOf(r), host(r))
	if err := e.sessions.Logout(r.Context(), actorOf(r)); err != nil {
		return err
	}
	e.setCookie(w, r, "", nil)
	if at == "" {
		http.Redirect(w, r, Prefix+"login", http.StatusSeeOther)
		return nil
	}
	e.show(w, http.StatusOK, loginForm{Next: Prefix, LogoutURL: at})
	return nil
}

func (e *entrance) show(w http.ResponseWriter, status int, form loginForm) {
	e.send(w, status, "login", struct {
		loginForm
		Assets string
		OpenID bool
	}{form, e.version, e.sessions.OpenID()})
}

// failed shows the login with the reason why one failed.
func (e *entrance) failed(w http.ResponseWriter, form loginForm, err error) {
	problem := api.ProblemOf(api.Wire(err))
	form.Problem = problem.GetDetail()
	e.show(w, int(problem.GetStatus()), form)
}

// cookieName is different for each cluster, because browsers send cookies to all ports of a host. Over TLS the prefix makes
// browsers insist on Secure and on this host.
func (e *entrance) cookieName(r *http.Request) string {
	name := "cara-" + e.clusterID[:min(8, len(e.clusterID))]
	if r.TLS != nil {
		return "__Host-" + name
	}
	return name
}

// cookie returns the secret of the request's session, or "".
func (e *entrance) cookie(r *http.Request) string {
	c, err := r.Cookie(e.cookieName(r))
	if err != nil {
		return ""
	}
	return c.Value
}

// setCookie sets the session's cookie, or removes it if session is nil.
func (e *entrance) setCookie(w http.ResponseWriter, r *http.Request, secret string, session *carav1.Session) {
	c := &http.Cookie{
		Name: e.cookieName(r), Value: secret, Path: "/", HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode, MaxAge: -1,
	}
	if session != nil {
		c.MaxAge = int(session.GetExpireAt().AsTime().Sub(e.now()).Seconds())
	}
	http.SetCookie(w, c)
}

// safeNext returns where to go after the login: only a path of the page, and neither the login nor a stream. The mux decodes and cleans
// paths, so safeNext decides about what it would make of the path. Otherwise `/ui/%6cogin?code=` would log in with the link of another
// person, without the check of page.
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
