package ui

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/identity"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Only the session that opened a shell can type into it.
func TestShellOfSession(t *testing.T) {
	var s shells
	s.add("id", &shell{session: "ada", project: "shop"})
	for _, tt := range []struct {
		session, project, id string
		want                 bool
	}{
		{"ada", "shop", "id", true}, {"bob", "shop", "id", false}, {"", "shop", "id", false}, {"ada", "blog", "id", false}, {"ada", "shop", "other", false},
	} {
		ctx := admission.WithVisit(t.Context(), &admission.Visit{Actor: identity.Actor{Session: tt.session}})
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.SetPathValue("name", tt.project)
		r.SetPathValue("id", tt.id)
		if got := s.of(r) != nil; got != tt.want {
			t.Errorf("%+v: got %v", tt, got)
		}
	}
	s.remove("id")
	if len(s.open) != 0 {
		t.Error("a shell that has ended is still there")
	}
}

// typed counts what a command got.
type typed struct {
	carav1.ProjectService_ExecClient
	messages int
}

func (c *typed) Send(*carav1.ExecRequest) error { c.messages++; return nil }

// A shell ends when nothing is typed for long. What is typed begins the time again.
func TestShellEndsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, command := &UI{}, &typed{}
		sh := &shell{session: "ada", project: "shop", command: command, idle: time.NewTimer(shellIdle)}
		u.shells.add("id", sh)
		request := func(body string) *http.Request {
			ctx := admission.WithVisit(t.Context(), &admission.Visit{Actor: identity.Actor{Session: "ada"}, Over: t.Context()})
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.SetPathValue("name", "shop")
			r.SetPathValue("id", "id")
			return r
		}
		ended := make(chan bool, 1)
		go func() { ended <- u.awaitEnd(request(""), nil, sh.idle.C) }()
		<-time.After(shellIdle - time.Second)
		if err := u.typeIn(httptest.NewRecorder(), request("ls")); err != nil || command.messages != 1 {
			t.Fatalf("typed: %v, and the command got %d messages", err, command.messages)
		}
		last := time.Now()
		if unused := <-ended; !unused || time.Since(last) != shellIdle {
			t.Errorf("it ended %s after something was typed, as unused: %v; want %s", time.Since(last), unused, shellIdle)
		}
	})
}

// The end of the login, of the command and of the server end a shell, and none of them is a lack of typing.
func TestShellEndsOtherwise(t *testing.T) {
	over, end := context.WithCancel(t.Context())
	end()
	closed := make(chan struct{})
	close(closed)
	for name, tt := range map[string]struct {
		visit           *admission.Visit
		ended, draining chan struct{}
	}{
		"the login":   {&admission.Visit{Over: over}, nil, nil},
		"the command": {&admission.Visit{Over: t.Context()}, closed, nil},
		"the server":  {&admission.Visit{Over: t.Context()}, nil, closed},
	} {
		r, err := http.NewRequestWithContext(admission.WithVisit(t.Context(), tt.visit), http.MethodPost, "/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if (&UI{Config: Config{Draining: tt.draining}}).awaitEnd(r, tt.ended, nil) {
			t.Errorf("the end of %s counts as a lack of typing", name)
		}
	}
}
