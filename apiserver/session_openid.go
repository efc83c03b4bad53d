package apiserver

import (
	"context"
	"maps"
	"net/url"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"golang.org/x/time/rate"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/oidc"
	"github.com/caravanserai/cara/apiserver/state"
	"github.com/caravanserai/cara/apiserver/ui"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// Sessions that are in use are renewed when a quarter of their time is left, at most renewAhead before its end.
	renewAhead = 30 * time.Second
	// renewCheck is how often the server looks for such sessions.
	renewCheck = time.Second
	// renewTime limits what the provider is asked for one renewal. It is shorter than the time of a caller who waits for it.
	renewTime = 9 * time.Second
	// keepTime limits how long its answer is stored after that. Both together are shorter than the lease of a session.
	keepTime = 10 * time.Second
	// renewPause is how long the server renews nothing after the provider has not answered.
	renewPause = 5 * time.Second
	// maxRenewals is how many sessions are renewed at a time.
	maxRenewals = 8
	// Callers without an identity may begin deviceBurst logins on other devices, and then one each second.
	deviceBurst = 20
)

// openID is what the server needs for logins with OpenID Connect.
type openID struct {
	provider *oidc.Provider // nil without one
	devices  *rate.Limiter

	mu      sync.Mutex
	running map[string]chan struct{} // sessions that are being renewed
	ended   bool                     // the server stops: none is renewed any more
	pause   time.Time                // until then, none is renewed
	silent  bool                     // the log says that the provider does not answer
}

func newOpenID(c Config) *openID {
	o := &openID{devices: rate.NewLimiter(1, deviceBurst), running: map[string]chan struct{}{}}
	if c.OpenID != nil {
		cfg := *c.OpenID
		cfg.Seal, cfg.Logger, cfg.Now = c.Identity.Vault(), c.Logger, c.Now
		o.provider = oidc.New(cfg)
	}
	return o
}

// OpenID reports whether people can log in with OpenID Connect.
func (s sessions) OpenID() bool { return s.openID.provider != nil }

func errNoOpenID() error {
	return api.BadState("this server does not use OpenID Connect (cara-server --oidc-issuer): log in with a token; caractrl context add remembers one")
}

// Begin begins a login at the provider.
func (s sessions) Begin(ctx context.Context, host string, login oidc.Pending) (to, sealed string, err error) {
	if !s.OpenID() {
		return "", "", errNoOpenID()
	}
	ctx, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	return s.openID.provider.Begin(ctx, host, login)
}

// Finish opens a session for a login that has come back from the provider, or a link for the caractrl that waits for it.
func (s sessions) Finish(ctx context.Context, sealed string, query url.Values) (out ui.Entered, err error) {
	if !s.OpenID() {
		return out, errNoOpenID()
	}
	ctx, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	var login oidc.Login
	defer func() { s.told(ctx, "LoginOpenID", personName(login), err) }()
	login, out.Pending, err = s.openID.provider.Finish(ctx, sealed, query)
	if err != nil {
		return out, err
	}
	session := s.sessionOf(login, api.SessionPage)
	if terminal := out.Terminal; terminal != nil {
		session.Client, session.OpenId.Challenge = api.SessionCaractrl, terminal.Challenge
	}
	out.Secret, out.Session, err = s.sessions.OpenPersonSession(ctx, session, login.Refresh)
	return out, err
}

// LogoutURL returns where the browser ends its login at the provider; "" if there is no such place, or the actor has not
// logged in there.
func (s sessions) LogoutURL(actor identity.Actor, host string) string {
	session, ok := state.Get[*carav1.Session](s.db.Cache, actor.Session)
	if !ok || session.GetOpenId() == nil || !s.OpenID() {
		return ""
	}
	return s.openID.provider.LogoutURL(host)
}

func personName(login oidc.Login) string {
	if login.Name == "" {
		return ""
	}
	return api.PrefixUser + login.Name
}

// sessionOf returns a session for a login, without its secrets.
func (s sessions) sessionOf(login oidc.Login, client string) *carav1.Session {
	p := s.openID.provider
	return &carav1.Session{Client: client, Actor: personName(login), OpenId: &carav1.OpenIdLogin{
		Issuer: p.Issuer, ClientId: p.ClientID, Subject: login.Subject, Groups: login.Groups, FreshUntil: timestamppb.New(login.Until),
	}}
}

// person returns the caller that a session of OpenID Connect authenticates. The role map of now counts.
func (s sessions) person(session *carav1.Session) (identity.Actor, error) {
	open, p := session.GetOpenId(), s.openID.provider
	if p == nil || open.GetIssuer() != p.Issuer || open.GetClientId() != p.ClientID {
		return identity.Actor{}, api.Unauthenticated("this login is from %s, which the server no longer uses: log in again", open.GetIssuer())
	}
	rights, ok := p.Decide(open.GetGroups())
	if !ok {
		return identity.Actor{}, api.Unauthenticated("your groups give you no role here any more: ask an administrator, then log in again")
	}
	fresh := open.GetFreshUntil().AsTime()
	if !fresh.After(s.db.Now()) {
		if len(open.GetRefresh()) == 0 {
			return identity.Actor{}, api.Unauthenticated("this login has ended: log in again")
		}
		return identity.Actor{}, api.Unavailable("this login must be renewed, and the OpenID provider %s does not answer: try again later", p.Issuer)
	}
	end := session.GetExpireAt().AsTime()
	if fresh.Before(end) {
		end = fresh
	}
	return identity.Actor{Name: session.GetActor(), Role: rights.Role, NamePrefixes: rights.NamePrefixes, Session: session.GetMetadata().GetName(), Expires: end}, nil
}

// Freshen renews the session of a secret if its time is over, so that the call that follows finds it renewed.
func (s sessions) Freshen(ctx context.Context, secret string) {
	if !s.OpenID() {
		return
	}
	session, err := s.sessions.KnownSession(secret)
	if err != nil || session.GetLink() || !s.due(session, 0) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	id := session.GetMetadata().GetName()
	s.renew(ctx, id, 0)
	_ = s.db.Cache.Await(ctx, func() bool { return !s.renewedElsewhere(id) }) // the call that follows says what is wrong
}

// renewedElsewhere reports whether another server is renewing a session whose time is over.
func (s sessions) renewedElsewhere(id string) bool {
	session, ok := state.Get[*carav1.Session](s.db.Cache, id)
	return ok && s.due(session, 0) && session.GetOpenId().GetRenewingUntil().AsTime().After(s.db.Now())
}

// due reports whether a session must be renewed so that it is valid for some time more.
func (s sessions) due(session *carav1.Session, ahead time.Duration) bool {
	open := session.GetOpenId()
	if len(open.GetRefresh()) == 0 {
		return false
	}
	fresh := open.GetFreshUntil().AsTime()
	return !fresh.After(s.db.Now().Add(min(ahead, fresh.Sub(open.GetRenewedAt().AsTime())/4)))
}

// renew renews a session, or waits until it is renewed, but not longer than renewTime. ahead is for due.
func (s sessions) renew(ctx context.Context, id string, ahead time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	o := s.openID
	o.mu.Lock()
	if o.ended || s.db.Now().Before(o.pause) {
		o.mu.Unlock()
		return
	}
	running, ok := o.running[id]
	if !ok {
		running = make(chan struct{})
		o.running[id] = running
		s.guard.Go("renew a session", func() error {
			own, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewTime+keepTime) // the caller may leave
			defer cancel()
			return s.renewNow(own, id, ahead)
		}, func(err error) {
			s.note(err)
			o.mu.Lock()
			defer o.mu.Unlock()
			delete(o.running, id)
			close(running)
		})
	}
	o.mu.Unlock()
	select {
	case <-running:
	case <-ctx.Done():
	}
}

// settle waits for the renewals that run, and allows no more. A provider that has answered may have replaced the refresh token: without
// the new one, the session would end.
func (o *openID) settle() {
	o.mu.Lock()
	o.ended = true
	running := slices.Collect(maps.Values(o.running))
	o.mu.Unlock()
	for _, renewed := range running {
		<-renewed
	}
}

// renewNow asks the provider whether the person may still log in. What it refuses ends the session.
func (s sessions) renewNow(ctx context.Context, id string, ahead time.Duration) error {
	session, err := s.sessions.LeaseSession(ctx, id, func(session *carav1.Session) bool { return s.due(session, ahead) })
	if err != nil || session == nil {
		return err
	}
	refresh, err := s.sessions.Refresh(session)
	var login oidc.Login
	if err == nil {
		asking, cancel := context.WithTimeout(ctx, renewTime)
		defer cancel()
		before := oidc.Login{Person: oidc.Person{Subject: session.GetOpenId().GetSubject()}, Refresh: refresh}
		login, err = s.openID.provider.Refresh(asking, before)
	}
	switch code := api.Code(err); code {
	case codes.OK:
		return s.sessions.RenewSession(ctx, id, login.Refresh, func(session *carav1.Session) {
			session.OpenId.Groups, session.OpenId.FreshUntil, session.Actor = login.Groups, timestamppb.New(login.Until), personName(login)
		})
	case codes.Unauthenticated, codes.PermissionDenied:
		s.cfg.Logger.InfoContext(ctx, "a login has ended, because the OpenID provider did not renew it", "actor", session.GetActor(), "session", id, "reason", api.ProblemOf(err).GetDetail())
		return s.sessions.CloseSession(ctx, id)
	default:
		if released := s.sessions.RenewSession(ctx, id, "", nil); released != nil {
			return released
		}
		return err
	}
}

// note notes whether the provider has answered, and tells the operator when that changes.
func (s sessions) note(err error) {
	o := s.openID
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		o.silent = false
		return
	}
	o.pause = s.db.Now().Add(renewPause)
	if !o.silent {
		o.silent = true
		s.cfg.Logger.Warn("logins cannot be renewed now; the server tries again", "error", api.ProblemOf(err).GetDetail())
	}
}

// keepFresh discovers the provider, and renews the sessions that are in use before their time is over. A session that nobody uses is
// renewed with its next call.
func (s sessions) keepFresh(ctx context.Context) error {
	if !s.OpenID() {
		return nil
	}
	work, workCtx := s.guard.Group(ctx, "keepFresh", 1+maxRenewals)
	work.Go(func() error { s.openID.provider.Run(workCtx); return nil })
	guard.Every(ctx, renewCheck, func() {
		for _, id := range s.visits.Sessions() {
			session, ok := state.Get[*carav1.Session](s.db.Cache, id)
			if ok && s.due(session, renewAhead) {
				work.Go(func() error { s.renew(workCtx, id, renewAhead); return nil })
			}
		}
	})
	return work.Wait()
}

// StartDeviceLogin begins a login on another device.
func (s sessions) StartDeviceLogin(ctx context.Context, _ *emptypb.Empty) (*carav1.StartDeviceLoginResponse, error) {
	switch {
	case !s.OpenID():
		return nil, errNoOpenID()
	case !s.openID.devices.Allow():
		return nil, api.TooMany("too many logins are begun: wait some seconds, then try again")
	}
	d, err := s.openID.provider.StartDevice(ctx)
	if err != nil {
		return nil, err
	}
	return &carav1.StartDeviceLoginResponse{
		Code: d.Code, Url: d.URL, CompleteUrl: d.Complete, Interval: durationpb.New(d.Interval), ExpireAt: timestamppb.New(d.End), Handle: d.Handle,
	}, nil
}

// FinishLogin completes a login of caractrl. Only this answer contains its token.
func (s sessions) FinishLogin(ctx context.Context, req *carav1.FinishLoginRequest) (out *carav1.FinishLoginResponse, err error) {
	switch {
	case !s.OpenID():
		return nil, errNoOpenID()
	case req.GetHandle() == "" && (req.GetCode() == "" || req.GetVerifier() == ""):
		return nil, api.BadRequest("the request names no login: set handle, or code and verifier") // caractrl asks so whether there are logins
	}
	out = &carav1.FinishLoginResponse{}
	defer func() {
		if !out.GetPending() {
			s.told(ctx, "LoginOpenID", out.GetSession().GetActor(), err)
		}
	}()
	if req.GetHandle() == "" {
		out.Token, out.Session, err = s.sessions.OpenTerminal(ctx, req.GetCode(), req.GetVerifier())
	} else {
		var login oidc.Login
		if login, out.Pending, out.Slower, err = s.openID.provider.Poll(ctx, req.GetHandle()); err != nil || out.Pending {
			return out, err
		}
		out.Token, out.Session, err = s.sessions.OpenPersonSession(ctx, s.sessionOf(login, api.SessionCaractrl), login.Refresh)
	}
	if err != nil {
		return nil, err
	}
	out.Session = s.sessions.Shown(identity.Actor{Session: out.Session.GetMetadata().GetName()}, out.Session)
	return out, nil
}
