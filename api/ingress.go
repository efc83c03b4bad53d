package api

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
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
	// CapabilityRoutesOnDemand means that the agent asks for the routes of hosts that it needs. Others get all routes.
	CapabilityRoutesOnDemand = "RoutesOnDemand"
)

func (e projectErrors) ingress(rules []*carav1.Ingress, x specIndex) {
	names, hosts, certified := map[string]int{}, map[string]int{}, map[string]int{}
	for i, in := range rules {
		at := Element("spec.ingress", i)
		e.dnsLabel(at+".name", in.GetName())
		e.unique(names, in.GetName(), "ingress name", "spec.ingress", i, ".name")
		e.host(at+".host", in.GetHost())
		e.ingressPath(at+".path", in.GetPath())
		if host, path := (HostTemplate{}).Host(in.GetHost()), IngressPath(in.GetPath()); path == DefaultIngressPath {
			e.unique(hosts, host, "host", "spec.ingress", i, ".host")
		} else if host != "" {
			e.unique(hosts, host+path, "path", "spec.ingress", i, ".path")
		}
		e.destination(at, in, x)
		e.ingressTLS(at, in)
		e.sameTLS(certified, rules, i)
		e.basicAuth(at, in)
		e.passedTLS(at, rules, i)
		for j, network := range in.GetAccess().GetAllow() {
			if why := networkProblem(network); why != "" {
				e.add(Element(at+".access.allow", j), "%s", why)
			}
		}
	}
}

// networkProblem returns what is wrong with an entry of an access list, or "".
func networkProblem(network string) string {
	p, err := netip.ParsePrefix(network)
	switch {
	case err != nil:
		return fmt.Sprintf("is %q; it must be a network such as 10.0.0.0/8, 192.0.2.7/32 or 2001:db8::/32", text.Short(network))
	case p.Addr().Is4In6():
		return fmt.Sprintf("is %s; write IPv4 networks without ::ffff:", network)
	case p != p.Masked():
		return fmt.Sprintf("is %s, which has bits beyond its length; write %s, or a single address as %s/%d", network, p.Masked(), p.Addr(), p.Addr().BitLen())
	}
	return ""
}

// destination validates where a rule leads: either to a service or to another URL.
func (e projectErrors) destination(at string, in *carav1.Ingress, x specIndex) {
	switch {
	case in.GetTarget() != nil && in.GetRedirect() != nil:
		e.add(at, "has both target and redirect; keep one of them")
	case in.GetTarget() == nil && in.GetRedirect() == nil:
		e.add(at+".target", "is required; name the service and the port that receive the requests, or set redirect")
	}
	if svc := in.GetTarget().GetService(); svc != "" {
		if _, ok := x.services[svc]; !ok {
			e.add(at+".target.service", "no service is named %q; name one of %s", text.Short(svc), known(x.services))
		}
	}
	if to := in.GetRedirect().GetTo(); to != "" {
		if why := redirectProblem(to, IngressPath(in.GetPath())); why != "" {
			e.add(at+".redirect.to", "%s", why)
		}
	}
}

// pathCharacters may be in a rule's path: those that every client sends unescaped. The percent sign, the backslash and the
// semicolon are missing because services read them in different ways.
const pathCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,=:@/"

func (e projectErrors) ingressPath(field, path string) {
	if path == "" || path == DefaultIngressPath {
		return
	}
	switch {
	case !strings.HasPrefix(path, "/"):
		e.add(field, "is %q; it must begin with /", text.Short(path))
	case strings.Trim(path, pathCharacters) != "":
		e.add(field, "is %q; it must be a path of letters, digits and -._~!$&'()*+,=:@, without query and escapes", text.Short(path))
	default:
		for segment := range strings.SplitSeq(strings.TrimSuffix(path[1:], "/"), "/") {
			if segment == "" || segment == "." || segment == ".." {
				e.add(field, "is %q; it must have no empty segment and no segment . or ..", text.Short(path))
			}
		}
	}
}

// redirectProblem returns what is wrong with the new location of a rule with the given path, or "". The location is sent to
// clients in a header, so it has only printable ASCII characters. A path must not begin with two slashes: browsers read it
// as another host.
func redirectProblem(to, path string) string {
	for _, c := range []byte(to) {
		if c <= ' ' || c > '~' || strings.IndexByte("\"<>\\^`{|}", c) >= 0 {
			return "has a character that a URL cannot contain; escape it with % and two hexadecimal digits"
		}
	}
	u, err := url.Parse(to)
	switch {
	case err != nil:
		return "is no URL; write one such as https://www.example.com/new, or a path such as /new"
	case strings.HasPrefix(to, "//"):
		return "begins with //, which browsers read as another host; write https:// before the host, or one / before a path"
	case strings.HasPrefix(to, "/"):
		if IngressPath(u.Path) == path {
			return "is the path of this rule, so the redirect would never end; choose another path"
		}
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return "must begin with http:// or https:// and a host, or with / for a path of the same host"
	case u.User != nil:
		return "contains a user name or a password, which every client would see; remove it"
	}
	return ""
}

func (e projectErrors) host(field, host string) {
	full := strings.HasSuffix(host, ".")
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	switch {
	case host == "":
	case full && !strings.Contains(host, "."):
		e.add(field, "is %q, which names a whole top-level domain; leave out the dot for a short host", text.Short(host+"."))
	case strings.ContainsAny(host, "/:"):
		e.add(field, "is %q; it must be a host name alone, without scheme, port or path", text.Short(host))
	case strings.Contains(host, "*"):
		e.add(field, "is %q; wildcards are not supported, name each host", text.Short(host))
	case net.ParseIP(host) != nil:
		e.add(field, "is the address %s; it must be a host name", host)
	case len(validation.IsDNS1123Subdomain(host)) > 0:
		e.add(field, "is %q; it must be a host name: labels of letters, digits and -, separated by dots", text.Short(host))
	default:
		for label := range strings.SplitSeq(host, ".") {
			if len(label) > validation.DNS1123LabelMaxLength {
				e.add(field, "has a label of %d characters, at most %d are allowed between two dots; shorten it", len(label), validation.DNS1123LabelMaxLength)
			}
		}
	}
}
