package ui

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/oidc"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Prefix is the path of the page. Every path of this package begins with it.
const Prefix = "/ui/"

// maxForm limits the body of a form.
const maxForm = 64 << 10

// Sessions logs people in and out.
type Sessions interface {
	// Login opens a session for a token, and Open for the code of a link. secret is for the cookie.
	Login(ctx context.Context, token string) (secret string, session *carav1.Session, err error)
	Open(ctx context.Context, code string) (secret string, session *carav1.Session, err error)
	Logout(ctx context.Context, actor identity.Actor) error
	// Actor returns the caller that a cookie's secret authenticates.
	Actor(ctx context.Context, secret string) (identity.Actor, error)
	// OpenID reports whether people can log in with OpenID Connect. Begin begins such a login, Finish ends it when the browser
	// comes back, and LogoutURL is where the browser ends it at the provider, or "". host is the server's address as the browser knows it.
	OpenID() bool
	Begin(ctx context.Context, host string, login oidc.Pending) (to, sealed string, err error)
	Finish(ctx context.Context, sealed string, query url.Values) (Entered, error)
	LogoutURL(actor identity.Actor, host string) string
}

// Entered is a login with OpenID Connect that has succeeded.
type Entered struct {
	oidc.Pending
	// Secret is for the cookie, or the code for the caractrl that waits for it.
	Secret  string
	Session *carav1.Session
}

// Config holds the dependencies of the page.
type Config struct {
	// Conn connects to the services, which see the caller's Visit.
	Conn     grpc.ClientConnInterface
	Sessions Sessions
	// Cache has the recent changes, which say when to render again.
	Cache *state.Cache
	// Draining is closed when the server begins to shut down. Streams end then.
	Draining <-chan struct{}
	// MayCall returns an error if the actor's role may not call a method.
	MayCall   func(identity.Actor, string) error
	Guard     guard.Guard
	ClusterID string
	Version   string
	Logger    *slog.Logger
	Now       func() time.Time
}

// UI serves the page.
type UI struct {
	Config
	*renderer
	api      clients
	entrance *entrance
	guarded  http.Handler // serve
	mux      *http.ServeMux
	origin   *http.CrossOriginProtection
	sent     onceOnly
	watched  watched
	shells   shells
}

// clients are the services that the page calls.
type clients struct {
	projects carav1.ProjectServiceClient
	nodes    carav1.NodeServiceClient
	sources  carav1.SourceServiceClient
	secrets  carav1.SecretServiceClient
	volumes  carav1.VolumeServiceClient
	events   carav1.EventServiceClient
	tokens   carav1.TokenServiceClient
	sessions carav1.SessionServiceClient
	info     carav1.InfoServiceClient
}

// subject reads the object of an action.
func (c clients) subject(ctx context.Context, kind, name string) (proto.Message, error) {
	req := &carav1.GetRequest{Name: name}
	switch kind {
	case api.KindProject:
		return c.projects.GetProject(ctx, req)
	case api.KindSource:
		return c.sources.GetSource(ctx, req)
	case api.KindVolume:
		return c.volumes.GetVolume(ctx, req)
	default:
		return c.nodes.GetNode(ctx, req)
	}
}

// New returns the page.
func New(cfg Config) (*UI, error) {
	r, err := newRenderer(cfg.Logger)
	if err != nil {
		return nil, err
	}
	u := &UI{
		Config: cfg, renderer: r, mux: http.NewServeMux(), origin: http.NewCrossOriginProtection(),
		entrance: &entrance{renderer: r, sessions: cfg.Sessions, clusterID: cfg.ClusterID, now: cfg.Now, limits: newLimiter()},
		api: clients{
			projects: carav1.NewProjectServiceClient(cfg.Conn), nodes: carav1.NewNodeServiceClient(cfg.Conn),
			sources: carav1.NewSourceServiceClient(cfg.Conn), secrets: carav1.NewSecretServiceClient(cfg.Conn),
			volumes: carav1.NewVolumeServiceClient(cfg.Conn), events: carav1.NewEventServiceClient(cfg.Conn),
			tokens: carav1.NewTokenServiceClient(cfg.Conn), sessions: carav1.NewSessionServiceClient(cfg.Conn),
			info: carav1.NewInfoServiceClient(cfg.Conn),
		},
	}
	u.routes()
	u.guarded = u.Guard.HTTP(http.HandlerFunc(u.serve), u.refuse)
	return u, nil
}

// routes registers the paths. Only those of the login and the assets are for callers without a session.
func (u *UI) routes() {
	u.mux.HandleFunc("GET /ui/assets/{name}", u.asset)
	u.entrance.routes(u.mux)
	u.mux.Handle("POST /ui/logout", u.known(u.entrance.logout))
	for at, show := range (views{u.api, u.MayCall}).byPath() {
		u.mux.Handle("GET /ui/"+at, u.known(u.page(show)))
		u.mux.Handle("GET /ui/live/"+at, u.known(u.live(show, audienceOf(at))))
	}
	u.mux.Handle("GET /ui/plots/{name}", u.known(u.plots))
	u.mux.Handle("GET /ui/logs/{name}", u.known(u.followLogs))
	u.mux.Handle("GET /ui/logs/{name}/download", u.known(u.downloadLogs))
	u.mux.Handle("POST /ui/shell/{name}", u.known(u.openShell))
	u.mux.Handle("POST /ui/shell/{name}/{id}", u.known(u.typeIn))
	u.mux.Handle("GET /ui/do/{action}/{name}", u.known(u.ask))
	u.mux.Handle("POST /ui/do/{action}/{name}", u.known(u.do))
	u.mux.Handle("POST /ui/sessions/{name}/end", u.known(u.endSession))
	u.mux.Handle("GET /ui/", u.known(func(w http.ResponseWriter, r *http.Request) error {
		return api.NotFound("the page has no view %s", r.URL.Path)
	}))
	u.mux.HandleFunc("GET /ui", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, Prefix, http.StatusSeeOther) })
}

// Cookie returns the secret of the request's session, or "".
func (u *UI) Cookie(r *http.Request) string { return u.entrance.cookie(r) }

// ServeHTTP serves one request. A panic becomes an error of that request.
func (u *UI) ServeHTTP(w http.ResponseWriter, r *http.Request) { u.guarded.ServeHTTP(w, r) }

// serve serves one request. Requests that change something must come from the page itself.
func (u *UI) serve(w http.ResponseWriter, r *http.Request) {
	secure(w.Header(), r.TLS != nil)
	if err := u.origin.Check(r); err != nil {
		u.refuse(w, r, api.Forbidden("this request came from another page: open the page itself and repeat it there"))
		return
	}
	if r.Method == http.MethodPost {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		_ = http.NewResponseController(w).SetReadDeadline(u.Now().Add(admission.BodyTimeout))
	}
	u.mux.ServeHTTP(w, r)
}

// secure sets the headers of every answer.
func secure(h http.Header, tls bool) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
		"form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
	h.Set("Cache-Control", "no-store")
	if tls {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// handler serves a request of a person who is logged in. An error is answered as a page.
type handler func(w http.ResponseWriter, r *http.Request) error

// known lets only people with a session through. The others are led to the login.
func (u *UI) known(next handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if actorOf(r).Session != "" {
			if err := next(w, r); err != nil {
				u.refuse(w, r, err)
			}
			return
		}
		if r.Header.Get("Accept") == eventStream {
			http.Error(w, "log in again", http.StatusUnauthorized)
			return
		}
		to := Prefix + "login"
		if r.Method == http.MethodGet && r.URL.Path != Prefix {
			to += "?next=" + url.QueryEscape(r.URL.RequestURI())
		}
		http.Redirect(w, r, to, http.StatusSeeOther)
	})
}

// loginOver returns a channel that is closed when the caller's login has ended; nil for a caller without one.
func loginOver(r *http.Request) <-chan struct{} {
	if v := admission.VisitOf(r.Context()); v != nil {
		return v.Over.Done()
	}
	return nil
}

// actorOf returns the caller, as the door authenticated it.
func actorOf(r *http.Request) identity.Actor {
	if v := admission.VisitOf(r.Context()); v != nil {
		return v.Actor
	}
	return identity.Actor{}
}
