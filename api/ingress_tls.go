package api

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// maxHSTSAge limits how long browsers remember that a host uses only HTTPS.
const maxHSTSAge = 2 * 365 * 24 * time.Hour

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

func (e projectErrors) ingressTLS(at string, in *carav1.Ingress) {
	tls := in.GetTls()
	if tls == nil {
		return
	}
	if !Public(in) {
		e.add(at+".tls", "is only for hosts with access.scope %s; remove it, or set the scope", ScopePublic)
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
	if tls.GetMode() == TLSOff {
		e.add(at+".tls.hsts", "tells browsers to use HTTPS, but tls.mode is %s; remove one of them", TLSOff)
	}
	switch age, err := syntax.ParseDuration(tls.GetHsts().GetMaxAge(), DefaultHSTSMaxAge); {
	case err != nil:
		e.add(at+".tls.hsts.maxAge", "%v", err)
	case age < 0 || age > maxHSTSAge:
		e.add(at+".tls.hsts.maxAge", "is %s; it must be between 0s and %s", tls.GetHsts().GetMaxAge(), maxHSTSAge)
	}
}

// passedTLS checks a rule whose TLS connections are passed on. Agents see neither requests nor paths of them.
func (e projectErrors) passedTLS(at string, rules []*carav1.Ingress, i int) {
	in := rules[i]
	if !PassesTLS(in) {
		return
	}
	const reads = "which agents pass on without reading it"
	if in.GetTls() != nil {
		e.add(at+".tls", "is not for target.protocol %s: the service has the certificate; remove it", TargetTLS)
	}
	if IngressPath(in.GetPath()) != DefaultIngressPath {
		e.add(at+".path", "needs the requests of clients, but target.protocol is %s, %s; remove the path, or use %s", TargetTLS, reads, TargetHTTP)
	}
	if in.GetAccess().GetBasicAuth() != nil {
		e.add(at+".access.basicAuth", "needs the requests of clients, but target.protocol is %s, %s; remove it, or use %s", TargetTLS, reads, TargetHTTP)
	}
	host := (HostTemplate{}).Host(in.GetHost())
	for j, other := range rules {
		if j != i && host != "" && (HostTemplate{}).Host(other.GetHost()) == host && IngressPath(other.GetPath()) != IngressPath(in.GetPath()) {
			e.add(Element("spec.ingress", j)+".host", "is also that of %s, which has the host alone because its target.protocol is %s; choose another host", at, TargetTLS)
		}
	}
}

// sameTLS checks that public rules of one host have the same tls, because a client chooses the host before it sends a path.
func (e projectErrors) sameTLS(first map[string]int, rules []*carav1.Ingress, i int) {
	in := rules[i]
	host := (HostTemplate{}).Host(in.GetHost())
	if !Public(in) || host == "" || PassesTLS(in) {
		return
	}
	other, seen := first[host]
	if !seen {
		first[host] = i
		return
	}
	if a, b := comparableTLS(in), comparableTLS(rules[other]); !proto.Equal(a, b) {
		e.add(Element("spec.ingress", i)+".tls", "differs from %s.tls, which is for the same host; write the same tls in both", Element("spec.ingress", other))
	}
}

// comparableTLS returns a rule's tls with all defaults.
func comparableTLS(in *carav1.Ingress) *carav1.IngressTLS {
	clone := proto.CloneOf(in)
	tlsDefaults(clone, fillString)
	if h := clone.GetTls().GetHsts(); h != nil {
		canonDuration(&h.MaxAge)
	}
	return clone.GetTls()
}

func (e projectErrors) basicAuth(at string, in *carav1.Ingress) {
	if auth := in.GetAccess().GetBasicAuth(); auth != nil {
		e.dnsLabel(at+".access.basicAuth.secretRef", auth.GetSecretRef())
	}
}
