package ui

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/oidc"
	"github.com/caravanserai/cara/internal/text"
)

const (
	// maxNext limits the address that a login keeps in its cookie, in bytes.
	maxNext = 1024
	// maxCode limits what caractrl gives the page, in bytes.
	maxCode = 128
	// maxReason limits the reason that caractrl is told, in bytes.
	maxReason = 300
)

// startOpenID sends the browser to the provider. It is a link and not a form: the content security policy lets no form lead to
// another host.
func (e *entrance) startOpenID(w http.ResponseWriter, r *http.Request) {
	next := r.URL.Query().Get("next") // finishOpenID decides whether it is safe
	if len(next) > maxNext {
		next = Prefix
	}
	to, err := e.begin(w, r, oidc.Pending{Next: next})
	if err != nil {
		e.failed(w, loginForm{}, err)
		return
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// begin begins a login, and keeps it in a cookie. The cookie is Lax, because the browser comes back from another site.
func (e *entrance) begin(w http.ResponseWriter, r *http.Request, login oidc.Pending) (to string, err error) {
	to, sealed, err := e.sessions.Begin(r.Context(), host(r), login)
	if err == nil {
		e.setLoginCookie(w, r, sealed, int(oidc.LoginTime.Seconds()))
	}
	return to, err
}

func (e *entrance) setLoginCookie(w http.ResponseWriter, r *http.Request, value string, seconds int) {
	http.SetCookie(w, &http.Cookie{
		Name: e.cookieName(r) + "-login", Value: value, Path: "/", HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteLaxMode, MaxAge: seconds,
	})
}

// host returns the server's address as the browser knows it.
func host(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// finishOpenID ends a login with which the browser comes back from the provider. Failures are limited like those of tokens.
func (e *entrance) finishOpenID(w http.ResponseWriter, r *http.Request) {
	limit := e.limited(w, r, loginForm{})
	if limit == nil {
		return
	}
	sealed := ""
	if c, err := r.Cookie(e.cookieName(r) + "-login"); err == nil {
		sealed = c.Value
	}
	e.setLoginCookie(w, r, "", -1)
	in, err := e.sessions.Finish(r.Context(), sealed, r.URL.Query())
	if err != nil {
		limit.Allow()
		e.terminalFailed(w, in.Terminal, err)
		return
	}
	if in.Terminal != nil {
		e.leadOn(w, leading{Title: "Logged in", Text: "The program is logged in. You can close this page.", To: backTo(in.Terminal, "code", in.Secret)})
		return
	}
	e.setCookie(w, r, in.Secret, in.Session)
	e.leadOn(w, leading{Title: "Logged in", Text: "You are logged in.", To: safeNext(in.Next)})
}

// terminalFailed tells a caractrl that waits why its login failed. Without one, it shows the login.
func (e *entrance) terminalFailed(w http.ResponseWriter, terminal *oidc.Terminal, err error) {
	if terminal == nil {
		e.failed(w, loginForm{}, err)
		return
	}
	reason := text.Printable(api.ProblemOf(api.Wire(err)).GetDetail(), maxReason)
	e.leadOn(w, leading{Title: "Not logged in", Text: "The program is not logged in: " + reason, To: backTo(terminal, "error", reason)})
}

// backTo returns the address at which a caractrl on the person's machine waits, with a value for it.
func backTo(terminal *oidc.Terminal, key, value string) string {
	q := url.Values{key: {value}, "state": {terminal.State}}
	return fmt.Sprintf("http://127.0.0.1:%d/?%s", terminal.Port, q.Encode())
}

// leading is a page that leads on to another address.
type leading struct{ Title, Text, To string }

// leadOn shows a page that leads on by itself. A redirect would not do: after one that began at another site, browsers do not send the
// session's cookie, and forms may not lead to other hosts.
func (e *entrance) leadOn(w http.ResponseWriter, to leading) {
	w.Header().Set("Referrer-Policy", "no-referrer") // the address of this page has the provider's code
	e.send(w, http.StatusOK, "leading", struct {
		leading
		Assets string
	}{to, e.version})
}

// terminalOf returns the caractrl that a request names.
func terminalOf(q url.Values) (*oidc.Terminal, error) {
	t := &oidc.Terminal{State: q.Get("state"), Challenge: q.Get("challenge")}
	var err error
	if t.Port, err = strconv.Atoi(q.Get("port")); err != nil || t.Port < 1024 || t.Port > 65535 || t.Challenge == "" || len(t.State) > maxCode || len(t.Challenge) > maxCode {
		return nil, api.BadRequest("this link does not name a program that waits for a login: begin the login again")
	}
	return t, nil
}

// askTerminal asks whether caractrl may log in. Another page could have opened this one.
func (e *entrance) askTerminal(w http.ResponseWriter, r *http.Request) {
	terminal, err := terminalOf(r.URL.Query())
	if err != nil {
		e.failed(w, loginForm{}, err)
		return
	}
	e.send(w, http.StatusOK, "login-terminal", map[string]any{
		"Assets": e.version, "Query": r.URL.Query(), "Cancel": backTo(terminal, "error", "you have cancelled the login on the page"),
	})
}

// startTerminal sends the browser to the provider, for a caractrl that waits on this machine.
func (e *entrance) startTerminal(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		e.failed(w, loginForm{}, api.BadRequest("the form cannot be read"))
		return
	}
	terminal, err := terminalOf(r.PostForm)
	if err != nil {
		e.failed(w, loginForm{}, err)
		return
	}
	to, err := e.begin(w, r, oidc.Pending{Next: Prefix, Terminal: terminal})
	if err != nil {
		e.terminalFailed(w, terminal, err)
		return
	}
	e.leadOn(w, leading{Title: "Log in", Text: "The OpenID provider asks you to log in.", To: to})
}
