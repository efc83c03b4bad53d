package testregistry

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// IdentityToken is the user whose password is an identity token, as credential helpers spell it.
const IdentityToken = "<token>"

// tokenPath is where the registry gives tokens. It is outside of the registry's own paths.
const tokenPath = "/token"

// TokenLogin requires a login as large registries do: a client shows it to the token service, and the token to the
// registry. All logins and tokens of before end.
func (r *Registry) TokenLogin(user, password string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.user, r.password, r.next = user, password, nil
	r.tokens++
}

// LoginEndsAfter ends the login and its token after so many blobs, in the middle of a pull. next then returns the password
// of the next login, and the blobs after which that one ends; 0 is never. It is called before the next request is admitted,
// and must not call the registry.
func (r *Registry) LoginEndsAfter(blobs int, next func() (password string, blobs int)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs, r.next = blobs, next
}

// TokenRequests returns how many logins the token service has accepted and refused.
func (r *Registry) TokenRequests() (accepted, refused int) {
	for _, q := range r.Log() {
		switch {
		case q.Path == tokenPath && q.Status == http.StatusOK:
			accepted++
		case q.Path == tokenPath:
			refused++
		}
	}
	return accepted, refused
}

// token returns the token of the login that holds now, or "" if the registry takes the login itself. mu is held.
func (r *Registry) token() string {
	if r.tokens == 0 {
		return ""
	}
	return fmt.Sprintf("test-token-%d", r.tokens)
}

// count counts a blob that was admitted, and ends the login when its blobs are used up. mu is held.
func (r *Registry) count() {
	if r.next == nil || r.blobs == 0 {
		return
	}
	if r.blobs--; r.blobs == 0 {
		r.password, r.blobs = r.next()
		r.tokens++
	}
}

// giveToken is the token service: with basic authentication, or with OAuth for an identity token.
func (r *Registry) giveToken(w http.ResponseWriter, request *http.Request) {
	user, password, _ := request.BasicAuth()
	if request.Method == http.MethodPost {
		user, password = IdentityToken, request.PostFormValue("refresh_token")
	}
	r.mu.Lock()
	token, right := r.token(), equal(user, password, r.user, r.password)
	r.mu.Unlock()
	if !right {
		refuse(w, http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// An engine uses a token for at least a minute, whatever this says.
	answer := map[string]any{"token": token, "access_token": token, "expires_in": 60}
	_ = json.NewEncoder(w).Encode(answer) // an error means that the client has disconnected
}

// challenge tells a client how to authenticate.
func (r *Registry) challenge(host string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.token() == "" {
		return `Basic realm="cara test registry"`
	}
	return fmt.Sprintf(`Bearer realm="http://%s%s",service="cara test registry"`, host, tokenPath)
}
