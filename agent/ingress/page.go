package ingress

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// page responds for the service: with a line of plain text, or, if the client accepts JSON and no text, with a problem of
// RFC 9457. A gRPC client gets a status of gRPC.
func page(w http.ResponseWriter, r *http.Request, status int, text string) {
	if isCall(r) {
		endCall(w, rpcStatusOf(status), status, text)
		return
	}
	if r.ProtoMajor == 2 {
		// A stream counts until its client takes the answer, or leaves: see countStream.
		defer func() { _ = http.NewResponseController(w).Flush() }() // the client may have left
	}
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	title := http.StatusText(status)
	accept := r.Header.Get("Accept")
	if strings.Contains(accept, "json") && !strings.Contains(accept, "text/") {
		h.Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"title": title, "status": status, "detail": text}) // the client may have left
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintf(w, "%d %s\n\n%s\n", status, title, text)
}

// quoteHost makes a client's host name safe and short enough for a response.
func quoteHost(host string) string { return strconv.QuoteToASCII(text.Clip(host, maxHost)) }

// maxHost is the maximum length of a host name.
const maxHost = 253

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
