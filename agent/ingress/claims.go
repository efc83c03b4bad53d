package ingress

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/caravanserai/cara/api"
)

// Services trust some headers about the client, and any client can send them. So all of them are removed, except those that
// this agent or a verified agent has set.

// claims reports whether a header, in addition to X-Forwarded-*, tells a service about its client. In the comparison, every
// character other than letters and digits counts as a dash, because CGI and its successors (WSGI, PHP, Rack) do not
// distinguish X-Real-IP from X_Real_IP.
func claims(name string) bool {
	if name == "" || !strings.ContainsRune("fxtFXT", rune(name[0])) { // most headers end here
		return false
	}
	name = strings.Map(func(c rune) rune {
		switch {
		case c >= 'A' && c <= 'Z':
			return c + 'a' - 'A'
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			return c
		}
		return '-'
	}, name)
	switch name {
	case "forwarded", "x-real-ip", "x-client-ip", "true-client-ip", "x-cluster-client-ip", "x-original-forwarded-for":
		return true
	}
	return strings.HasPrefix(name, "x-forwarded") || strings.HasPrefix(name, "x-cara-")
}

func dropClaims(h http.Header) {
	for name := range h {
		if claims(name) {
			delete(h, name)
		}
	}
}

// passClaims copies another agent's headers about its client, if they have the form that our agents send.
func passClaims(out, in http.Header) {
	if ip, err := netip.ParseAddr(in.Get("X-Forwarded-For")); err == nil {
		out.Set("X-Forwarded-For", ip.String())
	}
	for _, name := range []string{"X-Forwarded-Host", "X-Forwarded-Proto", headerUser} {
		if value := in.Get(name); value != "" {
			out.Set(name, value)
		}
	}
}

const (
	// headerUser is the name of a client that has given the right password.
	headerUser = "X-Forwarded-User"
	// headerScope tells another agent that the client came to a public listener.
	headerScope = "X-Cara-Scope"
	// headerNotSent tells another agent that no service has got its request.
	headerNotSent = "X-Cara-Not-Sent"
)

// claimScope tells another agent that the client came to a public listener. A service does not learn it.
func claimScope(out http.Header, x *exchange, remote bool) {
	delete(out, headerScope)
	if x.public && x.via == "" && remote {
		out.Set(headerScope, api.ScopePublic)
	}
}
