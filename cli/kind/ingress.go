package kind

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// ingress shows where the requests for a project's hosts and paths go, as the spec says it.
func (p Page) ingress(obj *carav1.Project) {
	head := []string{"NAME", "HOST", "PATH", "TO", "SCOPE", "TLS", "ALLOWED"}
	table(p, "Ingress", head, obj.GetSpec().GetIngress(), func(in *carav1.Ingress) []term.Cell {
		return []term.Cell{
			term.Text(in.GetName()), term.Text(in.GetHost()), term.Text(api.IngressPath(in.GetPath())),
			term.Text(destination(in.GetTarget().GetService(), in.GetTarget().GetPort(), api.TargetProtocol(in.GetTarget()), in.GetRedirect())),
			scopeCell(obj, in), tlsCell(obj, in, p.Now), allowedCell(obj, in),
		}
	})
}

// urls shows where clients reach a project.
func (p Page) urls(obj *carav1.Project) {
	urls := URLs(obj)
	if len(urls) == 0 {
		return
	}
	p.section("URLs")
	for _, url := range urls {
		fmt.Fprintln(p.Out, "  "+term.Line(url))
	}
}

// URLs returns the URLs of a project's claimed hosts and paths. It says which of them are for internal clients only, and which
// wait for a certificate.
func URLs(p *carav1.Project) []string { return urlsOf(p, func(*carav1.Ingress) bool { return true }) }

// BareURLs returns the public URLs of a project without remarks, and before them the internal ones if they are asked for.
func BareURLs(p *carav1.Project, internal bool) (urls []string) {
	all := urlsOf(p, api.Public)
	if internal {
		all = slices.Concat(urlsOf(p, func(in *carav1.Ingress) bool { return !api.Public(in) }), all)
	}
	for _, url := range all {
		bare, _, _ := strings.Cut(url, " ")
		urls = append(urls, bare)
	}
	return urls
}

// WithoutCertificate returns the public hosts of a project that wait for their first certificate.
func WithoutCertificate(p *carav1.Project) (hosts []string) {
	for _, in := range p.GetSpec().GetIngress() {
		host := claimedHost(p, in.GetHost())
		if host != "" && api.Public(in) && !api.PassesTLS(in) && in.GetTls().GetMode() != api.TLSOff && certificateOf(p, host).GetNotAfter() == nil && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

func urlsOf(p *carav1.Project, which func(*carav1.Ingress) bool) []string {
	var urls []string
	for _, in := range p.GetSpec().GetIngress() {
		host := claimedHost(p, in.GetHost())
		if host == "" || !which(in) {
			continue
		}
		scheme, remark := "https://", ""
		switch {
		case api.PassesTLS(in):
		case !api.Public(in), in.GetTls().GetMode() == api.TLSOff:
			scheme = "http://"
		case certificateOf(p, host).GetNotAfter() == nil:
			remark = " (no certificate yet)"
		}
		if !api.Public(in) {
			remark = " (internal)"
		}
		urls = append(urls, scheme+host+api.IngressPath(in.GetPath())+remark)
	}
	return urls
}

// certificateOf returns the certificate of a public host, or nil.
func certificateOf(p *carav1.Project, host string) *carav1.HostCertificate {
	for _, c := range p.GetStatus().GetCertificates() {
		if c.GetHost() == host {
			return c
		}
	}
	return nil
}

// tlsCell formats how public clients reach a host over HTTPS, and until when its certificate is valid.
func tlsCell(p *carav1.Project, in *carav1.Ingress, now time.Time) term.Cell {
	if api.PassesTLS(in) {
		return term.Text("TLS passed through")
	}
	if !api.Public(in) {
		return term.Text("")
	}
	if in.GetTls().GetMode() == api.TLSOff {
		return term.Text("off")
	}
	c := certificateOf(p, claimedHost(p, in.GetHost()))
	end := c.GetNotAfter()
	if end == nil || !now.Before(end.AsTime()) {
		return term.Cell{Text: "no certificate", Colour: term.Red}
	}
	cell := term.Text("until " + end.AsTime().UTC().Format(time.DateOnly))
	if c.GetWarning() != "" {
		cell.Colour = term.Yellow
	}
	return cell
}

// scopeCell formats whose clients can use a rule.
func scopeCell(p *carav1.Project, in *carav1.Ingress) term.Cell {
	if api.Public(in) && api.PublicNotServed(p) {
		return term.Cell{Text: "Public, not served", Colour: term.Red}
	}
	return term.Text(cmp.Or(in.GetAccess().GetScope(), api.ScopeInternal))
}

// allowedCell is allowed in a table, and says if the password cannot be checked.
func allowedCell(p *carav1.Project, in *carav1.Ingress) term.Cell {
	if api.PasswordsUnusable(p, claimedHost(p, in.GetHost()), in) {
		return term.Cell{Text: "nobody (Secret unusable)", Colour: term.Red}
	}
	return term.Text(allowed(in.GetAccess()))
}

// allowed formats from where clients can use a rule, and whether they need a password.
func allowed(access *carav1.IngressAccess) string {
	text := "all"
	if networks := access.GetAllow(); len(networks) > 0 {
		text = term.Short(strings.Join(networks, ","), 100)
	}
	if access.GetBasicAuth() != nil {
		text += ", with a password"
	}
	return text
}

// destination formats where an ingress rule leads: `web:8080`, `web:8080 (H2C)`, or `308 https://www.example.com`.
func destination(service string, port int32, protocol string, redirect *carav1.IngressRedirect) string {
	if redirect != nil {
		return fmt.Sprintf("%d %s", cmp.Or(redirect.GetCode(), api.DefaultRedirectCode), term.Short(redirect.GetTo(), 100))
	}
	to := fmt.Sprintf("%s:%d", service, port)
	if protocol != "" && protocol != api.TargetTLS { // the column TLS has it
		to += " (" + protocol + ")"
	}
	return to
}
