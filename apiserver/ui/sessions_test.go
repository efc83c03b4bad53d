package ui_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testbrowser"
)

// sessions returns the sessions that a token may see, by person.
func (s *site) sessions(t testing.TB, token string) map[string][]*carav1.Session {
	t.Helper()
	l, err := carav1.NewSessionServiceClient(s.conn(t, token)).ListSessions(t.Context(), &carav1.ListRequest{})
	must(t, err)
	out := map[string][]*carav1.Session{}
	for _, session := range l.GetItems() {
		if len(session.GetSecretHash()) > 0 || session.GetTokenUid() != "" {
			t.Errorf("session %s is shown with its secret", session.GetMetadata().GetName())
		}
		out[session.GetActor()] = append(out[session.GetActor()], session)
	}
	return out
}

// People see and end their own sessions, administrators all. What does not exist and what belongs to others looks the same.
func TestSessions(t *testing.T) {
	s := newSite(t)
	ada, ci := s.newToken(t, "ada", api.RoleViewer, ""), s.newToken(t, "ci", api.RoleDeployer, "pr-")
	s.login(t, ada)
	page := s.login(t, ci)
	if got := s.sessions(t, ada); len(got) != 1 || len(got["user/ada"]) != 1 || got["user/ada"][0].GetRole() != string(api.RoleViewer) {
		t.Errorf("ada sees %v, want one of her own", got)
	}
	all := s.sessions(t, s.token)
	if len(all) != 2 || len(all["user/ci"]) != 1 || !slices.Equal(all["user/ci"][0].GetNamePrefixes(), []string{"pr-"}) {
		t.Fatalf("the administrator sees %v, want those of ada and ci", all)
	}
	id := all["user/ci"][0].GetMetadata().GetName()
	end := func(token, name string) error {
		_, err := carav1.NewSessionServiceClient(s.conn(t, token)).DeleteSession(t.Context(), &carav1.DeleteRequest{Name: name})
		return err
	}
	foreign, missing := end(ada, id), end(ada, "nosuch")
	if api.Code(foreign) != codes.NotFound || strings.ReplaceAll(foreign.Error(), id, "nosuch") != missing.Error() {
		t.Errorf("another's session: %v; a missing one: %v; want the same", foreign, missing)
	}
	if resp := s.get(t, page, "/ui/", nil); resp.StatusCode != http.StatusOK {
		t.Fatalf("the page of ci: %s, want 200", resp.Status)
	}
	if err := end(ci, id); err != nil { // although its name has not the prefix
		t.Error(err)
	}
	if resp := s.get(t, page, "/ui/", nil); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("the page of ci afterwards: %s, want the login", resp.Status)
	}
}

// A session that is ended on another page ends its open page at once, not only with the next request.
func TestEndedSessionEndsItsPages(t *testing.T) {
	b := testbrowser.Open(t)
	s := newSite(t)
	tab := s.tab(t, b, s.newToken(t, "ada", api.RoleViewer, ""))
	admin := s.tab(t, b, s.token)
	must(t, tab.Until("document.getElementById('main').dataset.open"))
	id := s.sessions(t, s.token)["user/ada"][0].GetMetadata().GetName()
	must(t, admin.Click(".who a"), admin.Shows("h1", "Sessions"), admin.Shows("#s-"+id, "user/ada"))
	must(t, admin.Click("#s-"+id+" summary"), admin.Click("#s-"+id+" button"), admin.Until("!document.querySelector('#s-"+id+"')"))
	must(t, tab.Until(`location.pathname === "/ui/login"`))
	if problems := admin.Problems(); len(problems) > 0 {
		t.Errorf("the console: %q", problems)
	}
}

// A session outlives a restart of the server.
func TestSessionsSurviveARestart(t *testing.T) {
	s := newSite(t)
	page := s.login(t, s.token)
	s.stop()
	s.start(t)
	if resp := s.get(t, page, "/ui/", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("after a restart: %s, want 200", resp.Status)
	}
	if got := s.sessions(t, s.token); len(got["user/admin"]) != 1 {
		t.Errorf("after a restart there are %v, want one", got)
	}
}
