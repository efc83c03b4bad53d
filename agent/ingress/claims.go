package ingress

import (
	"net/http"
	"net/netip"
	"strings"
)

// Services believe what some headers say about the client, and any client can write them. So all of them are dropped but
// those that this agent writes itself, or that a verified agent has written.

// claims are the headers beside X-Forwarded-* by which proxies tell a service who its client is. A name is compared with
// every other character than a letter or a digit taken for a dash: CGI and its heirs (WSGI, PHP, Rack) make no difference
// between X-Real-IP and X_Real_IP.
func claims(name string) bool {
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

// passClaims takes over what another agent says about its client, as far as an agent of ours says it that way.
func passClaims(out, in http.Header) {
	if ip, err := netip.ParseAddr(in.Get("X-Forwarded-For")); err == nil {
		out.Set("X-Forwarded-For", ip.String())
	}
	for _, name := range []string{"X-Forwarded-Host", "X-Forwarded-Proto"} {
		if value := in.Get(name); value != "" {
			out.Set(name, value)
		}
	}
}
