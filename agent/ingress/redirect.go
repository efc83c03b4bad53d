package ingress

import (
	"cmp"
	"net/http"
	"net/url"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// redirect responds with the new location of a request. Nothing of the request but its query gets into the location, and the
// query cannot change the host.
func redirect(w *exchange, r *http.Request, to *carav1.IngressRedirect) {
	status := cmp.Or(int(to.Code), api.DefaultRedirectCode)
	location := location(to.To, r.URL.RawQuery)
	w.Header().Set("Location", location)
	page(w, r, status, "The new location is in the header Location.")
}

// location adds the query of a request to a URL that has no query. A URL that cannot be parsed stays as it is: the server has
// validated it.
func location(to, query string) string {
	u, err := url.Parse(to)
	if err != nil || query == "" || u.RawQuery != "" || u.ForceQuery {
		return to
	}
	u.RawQuery = query
	return u.String()
}
