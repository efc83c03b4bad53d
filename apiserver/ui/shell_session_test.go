package ui

import (
	"net/http"
	"testing"

	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/identity"
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
