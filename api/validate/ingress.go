package validate

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

func (e projectErrors) ingress(rules []*carav1.Ingress, x specIndex) {
	names, hosts, certified := map[string]int{}, map[string]int{}, map[string]int{}
	for i, in := range rules {
		at := api.Element("spec.ingress", i)
		e.dnsLabel(at+".name", in.GetName())
		e.unique(names, in.GetName(), "ingress name", "spec.ingress", i, ".name")
		e.host(at+".host", in.GetHost())
		e.ingressPath(at+".path", in.GetPath())
		if host, path := (api.HostTemplate{}).Host(in.GetHost()), api.IngressPath(in.GetPath()); path == api.DefaultIngressPath {
			e.unique(hosts, host, "host", "spec.ingress", i, ".host")
		} else if host != "" {
			e.unique(hosts, host+path, "path", "spec.ingress", i, ".path")
		}
		e.destination(at, in, x)
		e.ingressTLS(at, in)
		e.sameTLS(certified, rules, i)
		e.basicAuth(at, in)
		e.passedTLS(at, rules, i)
		e.patterns(at+".access.allow", in.GetAccess().GetAllow(), networkProblem)
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

func (e projectErrors) targetService(at, name string, x specIndex) {
	if _, ok := x.services[name]; name != "" && !ok {
		e.add(at+".target.service", "no service is named %q; name one of %s", text.Short(name), known(x.services))
	}
}

// destination validates where a rule leads: either to a service or to another URL.
func (e projectErrors) destination(at string, in *carav1.Ingress, x specIndex) {
	switch {
	case in.GetTarget() != nil && in.GetRedirect() != nil:
		e.add(at, "has both target and redirect; keep one of them")
	case in.GetTarget() == nil && in.GetRedirect() == nil:
		e.add(at+".target", "is required; name the service and the port that receive the requests, or set redirect")
	}
	e.targetService(at, in.GetTarget().GetService(), x)
	if to := in.GetRedirect().GetTo(); to != "" {
		if why := redirectProblem(to, api.IngressPath(in.GetPath())); why != "" {
			e.add(at+".redirect.to", "%s", why)
		}
	}
}

// pathCharacters may be in a rule's path: those that every client sends unescaped. The percent sign, the backslash and the
// semicolon are missing because services read them in different ways.
const pathCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,=:@/"

func (e projectErrors) ingressPath(field, path string) {
	if path == "" || path == api.DefaultIngressPath {
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
		if api.IngressPath(u.Path) == path {
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

// maxHSTSAge limits how long browsers remember that a host uses only HTTPS.
const maxHSTSAge = 2 * 365 * 24 * time.Hour

func (e projectErrors) ingressTLS(at string, in *carav1.Ingress) {
	tls := in.GetTls()
	if tls == nil {
		return
	}
	if !api.Public(in) {
		e.add(at+".tls", "is only for hosts with access.scope %s; remove it, or set the scope", api.ScopePublic)
	}
	if tls.GetSecretRef() != "" {
		e.dnsLabel(at+".tls.secretRef", tls.GetSecretRef())
		if tls.GetMode() != "" {
			e.add(at+".tls.mode", "cannot be set together with secretRef; remove one of them")
		}
	}
	if tls.GetHsts() == nil {
		return
	}
	if tls.GetMode() == api.TLSOff {
		e.add(at+".tls.hsts", "tells browsers to use HTTPS, but tls.mode is %s; remove one of them", api.TLSOff)
	}
	switch age, err := syntax.ParseDuration(tls.GetHsts().GetMaxAge(), api.DefaultHSTSMaxAge); {
	case err != nil:
		e.add(at+".tls.hsts.maxAge", "%v", err)
	case age < 0 || age > maxHSTSAge:
		e.add(at+".tls.hsts.maxAge", "is %s; it must be between 0s and %s", tls.GetHsts().GetMaxAge(), maxHSTSAge)
	}
}

// passedTLS checks a rule whose TLS connections are passed on. Agents see neither requests nor paths of them.
func (e projectErrors) passedTLS(at string, rules []*carav1.Ingress, i int) {
	in := rules[i]
	if !api.PassesTLS(in) {
		return
	}
	const reads = "which agents pass on without reading it"
	if in.GetTls() != nil {
		e.add(at+".tls", "is not for target.protocol %s: the service has the certificate; remove it", api.TargetTLS)
	}
	if api.IngressPath(in.GetPath()) != api.DefaultIngressPath {
		e.add(at+".path", "needs the requests of clients, but target.protocol is %s, %s; remove the path, or use %s", api.TargetTLS, reads, api.TargetHTTP)
	}
	if in.GetAccess().GetBasicAuth() != nil {
		e.add(at+".access.basicAuth", "needs the requests of clients, but target.protocol is %s, %s; remove it, or use %s", api.TargetTLS, reads, api.TargetHTTP)
	}
	host := (api.HostTemplate{}).Host(in.GetHost())
	for j, other := range rules {
		if j != i && host != "" && (api.HostTemplate{}).Host(other.GetHost()) == host && api.IngressPath(other.GetPath()) != api.IngressPath(in.GetPath()) {
			e.add(api.Element("spec.ingress", j)+".host", "is also that of %s, which has the host alone because its target.protocol is %s; choose another host", at, api.TargetTLS)
		}
	}
}

// sameTLS checks that public rules of one host have the same tls, because a client chooses the host before it sends a path.
func (e projectErrors) sameTLS(first map[string]int, rules []*carav1.Ingress, i int) {
	in := rules[i]
	host := (api.HostTemplate{}).Host(in.GetHost())
	if !api.Public(in) || host == "" || api.PassesTLS(in) {
		return
	}
	other, seen := first[host]
	if !seen {
		first[host] = i
		return
	}
	if a, b := api.CanonTLS(in), api.CanonTLS(rules[other]); !proto.Equal(a, b) {
		e.add(api.Element("spec.ingress", i)+".tls", "differs from %s.tls, which is for the same host; write the same tls in both", api.Element("spec.ingress", other))
	}
}

func (e projectErrors) basicAuth(at string, in *carav1.Ingress) {
	if auth := in.GetAccess().GetBasicAuth(); auth != nil {
		e.dnsLabel(at+".access.basicAuth.secretRef", auth.GetSecretRef())
	}
}
