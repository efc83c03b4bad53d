package apiserver

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/objects"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store/pebble"
)

// TestLoginWhileTheServerStarts: a login with a valid credential waits until the server has read its store.
func TestLoginWhileTheServerStarts(t *testing.T) {
	dir := t.TempDir()
	id, err := identity.Open(identity.Config{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	st, err := pebble.Open(pebble.Config{Dir: filepath.Join(dir, "store")})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	starting := func() (s *Server, fill func()) {
		s, err := New(Config{Store: st, Identity: id})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.FirstStart(t.Context()); err != nil {
			t.Fatal(err)
		}
		return s, func() {
			ctx, cancel := context.WithCancel(t.Context())
			t.Cleanup(func() { cancel(); <-s.db.Cache.Ended })
			go func() { _ = s.db.Cache.Feed(ctx, st) }()
		}
	}
	first, fill := starting()
	fill()
	admin := identity.WithActor(t.Context(), identity.Actor{Token: firstAdmin})
	<-first.db.Cache.Loaded
	link, err := objects.Tokens{Service: first.objects}.CreateLogin(admin, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(filepath.Join(dir, identity.AdminTokenFile))
	if err != nil {
		t.Fatal(err)
	}
	for name, login := range map[string]func(sessions) (string, *carav1.Session, error){
		"token": func(s sessions) (string, *carav1.Session, error) { return s.Login(t.Context(), string(token)) },
		"link": func(s sessions) (string, *carav1.Session, error) {
			return s.Open(t.Context(), strings.TrimPrefix(link.GetPath(), objects.LoginPath))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, fill := starting()
			done := make(chan error, 1)
			go func() {
				_, _, err := login(sessions{s})
				done <- err
			}()
			for len(s.filling) == 0 {
				select {
				case err := <-done:
					t.Fatalf("the login did not wait: %v", err)
				case <-time.After(time.Millisecond):
				}
			}
			fill()
			if err := <-done; err != nil {
				t.Errorf("the login: %v", err)
			}
		})
	}
}
