package ui

import (
	"context"
	"net/http"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// sessions lists the logins of the person; to an administrator, those of all people.
func (vs views) sessions(ctx context.Context, r request) (view, error) {
	return plain(ctx, r, "Sessions", []string{api.KindSession, api.KindToken}, vs.api.sessions.ListSessions, &carav1.ListRequest{}, func(s *carav1.Session, words []string) bool {
		return all(words, s.GetActor(), s.GetClient())
	})
}

// endSession ends a session. If it is the person's own, the next page is the login.
func (u *UI) endSession(w http.ResponseWriter, r *http.Request) error {
	if _, err := u.api.sessions.DeleteSession(r.Context(), &carav1.DeleteRequest{Name: r.PathValue("name")}); err != nil && !api.IsNotFound(err) {
		return err
	}
	http.Redirect(w, r, Prefix+pathSessions, http.StatusSeeOther)
	return nil
}
