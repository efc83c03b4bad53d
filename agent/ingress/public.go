package ingress

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/caravanserai/cara/agent/ingress/basicauth"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/connlimit"
)

// validated answers a certificate authority that validates a host. Only a known token of the host gets the answer. Other
// requests, also those for unknown tokens, go their normal way.
func (i *Ingress) validated(w *exchange, r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	answer, ok := i.credentials.challenge(hostname(r.Host), r.URL.EscapedPath())
	if !ok {
		return false
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write([]byte(answer)) // the authority may have left
	return true
}

// toHTTPS redirects a request of a public host to HTTPS, with its path and its query.
func (i *Ingress) toHTTPS(w *exchange, r *http.Request) {
	host := hostname(r.Host)
	// A client that came without a port used port 80, so HTTPS is at its usual port too, whatever this agent listens on.
	if _, port, err := net.SplitHostPort(r.Host); err == nil && port != "80" && i.securePort != "" {
		host = net.JoinHostPort(host, i.securePort)
	}
	w.Header().Set("Location", "https://"+host+r.URL.RequestURI())
	page(w, r, http.StatusPermanentRedirect, "The new location is in the header Location.")
}

// hsts adds the header that makes browsers use only HTTPS, to the answers of HTTPS.
func (x *exchange) hsts() {
	option := x.route.GetTls().GetHsts()
	if option == nil || x.at != publicHTTPS {
		return
	}
	value := fmt.Sprintf("max-age=%d", int64(api.HSTSMaxAge(option)/time.Second))
	if option.GetIncludeSubdomains() {
		value += "; includeSubDomains"
	}
	x.Header().Set("Strict-Transport-Security", value)
}

// authenticated checks the client's name and password, if the route has a password list. If they are not right, it responds and
// returns false. The service does not get them, only the name.
func (i *Ingress) authenticated(w *exchange, r *http.Request, route *carav1.Route) bool {
	if route.GetPasswordList() == "" || w.via != "" { // the other agent has checked them
		return true
	}
	list := i.credentials.known.Load().passwords[route.GetPasswordList()]
	if list == nil {
		unavailable(w, r, fmt.Sprintf("The passwords for this host and path are not known. The Secret of access.basicAuth of project %q must exist and have the type %s.",
			route.GetProject(), api.SecretBasicAuth))
		return false
	}
	user, password, given := r.BasicAuth()
	result := basicauth.Wrong
	if given {
		result = i.passwords.Check(list, clientNetwork(w.client()), route.GetHost(), user, password)
	}
	switch result {
	case basicauth.Accepted:
		w.user = headerValue(user)
		r.Header.Del("Authorization")
		return true
	case basicauth.Limited:
		w.Header().Set("Retry-After", "60")
		page(w, r, http.StatusTooManyRequests, "There were too many wrong passwords. Wait a minute.")
	case basicauth.Busy:
		unavailable(w, r, "Too many passwords are being checked. Try again.")
	case basicauth.Wrong:
		w.Header().Set("WWW-Authenticate", `Basic realm="`+route.GetHost()+`", charset="UTF-8"`)
		page(w, r, http.StatusUnauthorized, "This host and path need a name and a password.")
	}
	return false
}

// clientNetwork returns what counts as one client: an IPv4 address, or an IPv6 /64, whose addresses one machine can choose
// freely.
func clientNetwork(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	return connlimit.Prefix(ip).String()
}

// headerValue escapes a user name for a header. Services read its bytes as they are.
func headerValue(user string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return '?'
		}
		return c
	}, user)
}
