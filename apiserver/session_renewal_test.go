package apiserver

import (
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/oidc"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestRenewedAtAnotherServer: calls with a login whose time is over wait while another server renews it, and are not sent to the login.
func TestRenewedAtAnotherServer(t *testing.T) {
	const issuer = "http://127.0.0.1:1" // it is not asked
	c := newCluster(t, func(cfg *Config) {
		cfg.OpenID = &oidc.Config{Issuer: issuer, ClientID: "cara", Grants: []oidc.Grant{{Group: "dev", Role: api.RoleViewer}}}
	})
	s := sessions{c.Server}
	now := c.db.Now()
	secret, session, err := s.sessions.OpenPersonSession(t.Context(), &carav1.Session{
		Client: api.SessionPage, Actor: "user/ada",
		OpenId: &carav1.OpenIdLogin{Issuer: issuer, ClientId: "cara", Subject: "ada", Groups: []string{"dev"}, FreshUntil: timestamppb.New(now.Add(-time.Second))},
	}, "refresh")
	if err != nil {
		t.Fatal(err)
	}
	id := session.GetMetadata().GetName()
	if leased, err := s.sessions.LeaseSession(t.Context(), id, func(*carav1.Session) bool { return true }); leased == nil || err != nil {
		t.Fatalf("the other server does not renew it: %v", err)
	}
	const callers = 50
	var begun atomic.Int32
	var calls errgroup.Group
	for range callers {
		calls.Go(func() error {
			begun.Add(1)
			s.Freshen(t.Context(), secret)
			_, err := s.Actor(t.Context(), secret)
			return err
		})
	}
	eventually(t, "all callers have asked for a renewal", func() bool {
		c.openID.mu.Lock()
		defer c.openID.mu.Unlock()
		return begun.Load() == callers && len(c.openID.running) == 0
	})
	if err := s.sessions.RenewSession(t.Context(), id, "another", func(session *carav1.Session) {
		session.OpenId.FreshUntil = timestamppb.New(now.Add(time.Hour))
	}); err != nil {
		t.Fatal(err)
	}
	if err := calls.Wait(); err != nil {
		t.Errorf("a call while another server renews the login: %v", err)
	}
}
