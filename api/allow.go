package api

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// SourceDenials returns why a source may not declare a project: one sentence for each name, host, port and Secret that its
// spec.allow does not list, with what to add. It returns nil if the source may declare it. hosts are the project's full
// host names.
func SourceDenials(source string, allow *carav1.SourceAllow, project *carav1.Project, hosts []string, t HostTemplate) []string {
	var denials []string
	deny := func(what, value, list string) {
		denials = append(denials, fmt.Sprintf("source %q may not %s %q; add it to spec.allow.%s of the source", source, what, value, list))
	}
	if name := project.GetMetadata().GetName(); len(allow.GetNames()) > 0 && !syntax.MatchAny(allow.GetNames(), name) {
		deny("declare project", name, "names")
	}
	for _, host := range hosts {
		if len(allow.GetHosts()) > 0 && !t.MatchHost(allow.GetHosts(), host) {
			deny("claim host", host, "hosts")
		}
	}
	for _, k := range PortKeys(project.GetSpec()) {
		if !PortAllowed(allow, k) {
			list := "ports"
			if k.Scope == ScopePublic {
				list = "publicPorts"
			}
			denials = append(denials, fmt.Sprintf("source %q may not claim %s; add %s to spec.allow.%s of the source", source, k, k.Entry(), list))
		}
	}
	for _, secret := range SecretNames(project.GetSpec()) {
		if !syntax.MatchAny(allow.GetSecrets(), secret) {
			deny("use Secret", secret, "secrets")
		}
	}
	return denials
}

// HostTemplate expands the short hosts of ingress rules.
type HostTemplate struct {
	BaseDomain  string
	Environment string
}

// Wildcard returns the name that stands for all hosts of short ingress rules, such as `*.dev.example.com`. It is empty without
// a base domain.
func (t HostTemplate) Wildcard() string {
	if strings.Trim(t.BaseDomain, ".") == "" {
		return ""
	}
	return t.Host("*")
}

// WildcardOf returns the only wildcard that a certificate for a host can have, such as `*.example.com` for `app.example.com`. It
// is empty if the host has only one label.
func WildcardOf(host string) string {
	if _, parent, ok := strings.Cut(host, "."); ok {
		return "*." + parent
	}
	return ""
}

// Host returns the host that an ingress rule claims, in lower case. A host with a dot is unchanged. A short one becomes
// `{host}.{environment}.{baseDomain}`, without the empty parts of the template.
func (t HostTemplate) Host(short string) string {
	host := strings.ToLower(strings.TrimSuffix(short, "."))
	if host == "" || strings.Contains(host, ".") {
		return host
	}
	for _, part := range []string{t.Environment, t.BaseDomain} {
		if part = strings.ToLower(strings.Trim(part, ".")); part != "" {
			host += "." + part
		}
	}
	return host
}

// MatchHost reports whether a full host name matches one of the patterns. A pattern without a dot is expanded by the
// template like a short host in a manifest: `pr-*` means `pr-*.prod.example.com`. Only `*` alone is not expanded.
func (t HostTemplate) MatchHost(patterns []string, host string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		return p == syntax.Everything || syntax.MatchPattern(t.Host(p), host)
	})
}
