package api

import (
	"strings"
	"time"

	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// DefaultIngressPath is the path of an ingress rule that applies to all paths of its host.
const DefaultIngressPath = "/"

// DefaultRedirectCode is the HTTP status of a redirect. Clients repeat the request with the same method and body.
const DefaultRedirectCode = 308

// IngressPath returns a rule's path as it is claimed and compared: `/` for an empty one, and no slash at the end of others.
func IngressPath(path string) string {
	if path = strings.TrimRight(path, "/"); path != "" {
		return path
	}
	return DefaultIngressPath
}

// PlainRoute reports whether agents that know neither paths, redirects nor access lists can serve a route: it applies to all
// paths, leads to a service, and all clients can use it.
func PlainRoute(r *carav1.Route) bool {
	return r.GetPath() == "" && r.GetRedirect() == nil && len(r.GetAllow()) == 0 && len(r.GetFeatures()) == 0
}

// Features of routes.
const (
	// FeatureBasicAuth means that the clients of the route need a password.
	FeatureBasicAuth = "basicAuth"
	// FeatureH2C means that the service speaks HTTP/2 without TLS.
	FeatureH2C = "h2c"
	// FeatureTLS means that TLS connections are passed on unchanged.
	FeatureTLS = "tls"
)

// RouteFeatures returns what an agent must know to serve a route, beyond paths, redirects and access lists. An agent that does
// not know it would serve the route to clients who may not use it, or in a protocol that the service does not know.
func RouteFeatures(r *carav1.Route) []string {
	var features []string
	if r.GetPasswordList() != "" {
		features = append(features, FeatureBasicAuth)
	}
	switch r.GetProtocol() {
	case TargetH2C:
		features = append(features, FeatureH2C)
	case TargetTLS:
		features = append(features, FeatureTLS)
	}
	return features
}

// Protocols of the service that an ingress rule leads to.
const (
	// TargetHTTP is HTTP/1.1. It is the default.
	TargetHTTP = "HTTP"
	// TargetH2C is HTTP/2 without TLS.
	TargetH2C = "H2C"
	// TargetTLS means that agents pass TLS connections on unchanged. The client names the host in its handshake.
	TargetTLS = "TLS"
)

// PassesTLS reports whether agents pass the TLS connections to a rule's host on unchanged. Then the rule has its host alone.
func PassesTLS(in *carav1.Ingress) bool { return in.GetTarget().GetProtocol() == TargetTLS }

// TargetProtocol returns the protocol of a route: empty for the default, so that older agents can serve the route.
func TargetProtocol(t *carav1.IngressTarget) string {
	if t.GetProtocol() == TargetHTTP {
		return ""
	}
	return t.GetProtocol()
}

// Capabilities of an agent, which it tells the server when it connects.
const (
	// CapabilityIngress means that the agent serves ingress and checks passwords.
	CapabilityIngress = "Ingress"
	// CapabilityPublicIngress means that the agent has public listeners.
	CapabilityPublicIngress = "PublicIngress"
	// CapabilityRecovery means that the agent answers Welcome.ask_obeyed.
	CapabilityRecovery = "Recovery"
	// CapabilityRoutesInParts means that the agent joins messages Routes with `more`. Others get one message.
	CapabilityRoutesInParts = "RoutesInParts"
	// CapabilityRoutesOnDemand means that the agent asks for the routes of hosts that it needs. Others get all routes.
	CapabilityRoutesOnDemand = "RoutesOnDemand"
)

// HSTSMaxAge returns how long browsers remember that a host uses only HTTPS.
func HSTSMaxAge(h *carav1.IngressHSTS) time.Duration {
	age, err := syntax.ParseDuration(h.GetMaxAge(), DefaultHSTSMaxAge)
	if err != nil {
		return DefaultHSTSMaxAge // validated
	}
	return age
}

// Public reports whether a rule is served on the public addresses of agents.
func Public(in *carav1.Ingress) bool { return in.GetAccess().GetScope() == ScopePublic }

// AutoTLS reports whether the server obtains the certificate for a rule's host.
func AutoTLS(in *carav1.Ingress) bool {
	return Public(in) && !PassesTLS(in) && in.GetTls().GetSecretRef() == "" && in.GetTls().GetMode() != TLSOff
}
