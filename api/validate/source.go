package validate

import (
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	"github.com/bmatcuk/doublestar/v4"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

func (e sourceErrors) source(s *carav1.SourceSpec) {
	switch {
	case s == nil:
		return
	case s.GetGit() == nil && s.GetDir() == nil:
		e.add("spec", "says nothing to watch; set git or dir")
	case s.GetGit() != nil && s.GetDir() != nil:
		e.add("spec", "has both git and dir; keep one of them")
	}
	if g := s.GetGit(); g != nil {
		e.gitURL("spec.git.url", g.GetUrl())
		e.gitRef("spec.git.ref", g.GetRef())
		e.dnsLabel("spec.git.secretRef", g.GetSecretRef())
	}
	if d := s.GetDir(); d != nil {
		e.absolute("spec.dir.path", d.GetPath())
	}
	e.subtree("spec.path", s.GetPath())
	e.globs("spec.include", s.GetInclude())
	e.globs("spec.exclude", s.GetExclude())
	e.allow(s.GetAllow())
	e.vars(s)
	if s.GetDecryption() != nil && s.GetFormat() == api.FormatCompose {
		e.add("spec.decryption", "is not for the format %s, whose sources declare no Secrets; declare them in another source", api.FormatCompose)
	}
	if s.GetCompose() != nil && s.GetFormat() != api.FormatCompose {
		e.add("spec.compose", "is for the format %s; set spec.format, or remove it", api.FormatCompose)
	}
	e.duration("spec.interval", s.GetInterval(), time.Second, 24*time.Hour)
	if d := s.GetDecryption(); d != nil {
		e.dnsLabel("spec.decryption.secretRef", d.GetSecretRef())
	}
	if w := s.GetWebhook(); w != nil {
		e.dnsLabel("spec.webhook.secretRef", w.GetSecretRef())
		if s.GetDir() != nil && s.GetGit() == nil {
			e.add("spec.webhook", "makes no sense for a directory; take it away")
		}
	}
}

const urlForms = "write https://host/path, http://host/path, ssh://user@host/path, user@host:path, file:///path or an absolute path"

// gitURL validates a URL. Messages never contain it, because it may contain a credential.
func (e sourceErrors) gitURL(field, raw string) {
	switch {
	case raw == "":
	case strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		e.add(field, "contains white space or control characters; %s", urlForms)
	case strings.HasPrefix(raw, "-"):
		e.add(field, "begins with -; %s", urlForms)
	case path.IsAbs(raw):
		e.absolute(field, raw)
	case strings.Contains(raw, "://"):
		e.schemeURL(field, raw)
	case !scpLike().MatchString(raw):
		e.add(field, "is no repository URL; %s", urlForms)
	}
}

// scpLike matches git's short form of ssh: user@host:path.
func scpLike() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*@[A-Za-z0-9\[][A-Za-z0-9.:\]-]*:[^:].*$`)
}

func (e sourceErrors) schemeURL(field, raw string) {
	u, err := url.Parse(raw)
	if err != nil {
		e.add(field, "is no URL; %s", urlForms)
		return
	}
	_, password := u.User.Password()
	switch {
	case !slices.Contains([]string{"https", "http", "ssh", "file"}, u.Scheme):
		e.add(field, "has the scheme %q; %s", text.Short(u.Scheme), urlForms)
	case password || (u.User != nil && u.Scheme != "ssh"):
		e.add(field, "holds credentials; put them into a Secret and name it in spec.git.secretRef")
	case u.Scheme == "file" && (u.Host != "" || !path.IsAbs(u.Path)):
		e.add(field, "is no local path; write file:///path")
	case u.Scheme != "file" && u.Hostname() == "":
		e.add(field, "names no host; %s", urlForms)
	case u.Scheme != "file" && strings.Trim(u.Path, "/") == "":
		e.add(field, "names no repository after the host; %s", urlForms)
	case u.RawQuery != "" || u.Fragment != "":
		e.add(field, "has a query or a fragment; a repository has neither, say the branch in spec.git.ref")
	}
}

func (e sourceErrors) gitRef(at string, r *carav1.GitRef) {
	set := given([]string{"branch", "tag", "semver", "commit"},
		r.GetBranch() != "", r.GetTag() != "", r.GetSemver() != "", r.GetCommit() != "")
	if len(set) > 1 {
		e.add(at, "has %s; keep one of them", strings.Join(set, " and "))
	}
	e.refName(at+".branch", r.GetBranch())
	e.refName(at+".tag", r.GetTag())
	if v := r.GetSemver(); v != "" {
		if _, err := semver.NewConstraint(v); err != nil {
			e.add(at+".semver", "%q is no range of versions; write one such as >=1.2 <2", text.Short(v))
		}
	}
	if c := r.GetCommit(); c != "" && !fullHash(c) {
		e.add(at+".commit", "%q is no full commit hash; write all 40 (or 64) hexadecimal digits in lower case", text.Short(c))
	}
}

func fullHash(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}

// refName applies the rules of git's check-ref-format to a short name.
func (e sourceErrors) refName(field, name string) {
	if name == "" {
		return
	}
	bad := strings.HasPrefix(name, "-") || strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") ||
		strings.HasSuffix(name, ".") || strings.Contains(name, "..") || strings.Contains(name, "//") ||
		strings.Contains(name, "@{") || name == "@" || strings.ContainsAny(name, " ~^:?*[\\") ||
		strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f })
	for part := range strings.SplitSeq(name, "/") {
		bad = bad || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock")
	}
	switch {
	case bad:
		e.add(field, "%q is no name that git allows; write it as git does, such as main or release/1.2", text.Short(name))
	case strings.HasPrefix(name, "refs/"):
		e.add(field, "%q is a full ref name; write the short one, such as main", text.Short(name))
	}
}

// subtree validates a relative path with slashes that stays inside the source.
func (e sourceErrors) subtree(field, p string) {
	trimmed := strings.TrimSuffix(strings.TrimPrefix(p, "./"), "/")
	switch {
	case p == "" || p == "." || p == "./":
	case path.IsAbs(p):
		e.add(field, "%q is absolute; write it relative to the root of the source", text.Short(p))
	case strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }):
		e.add(field, "%q contains a backslash or a control character; separate folders with /", text.Short(p))
	case slices.Contains(strings.Split(p, "/"), ".."):
		e.add(field, "%q leaves the source with ..; write a path inside it", text.Short(p))
	case path.Clean(trimmed) != trimmed:
		e.add(field, "%q is not clean; write %q", text.Short(p), path.Clean(trimmed))
	}
}

func (e sourceErrors) globs(at string, all []string) {
	for i, g := range all {
		field := api.Element(at, i)
		switch {
		case g == "":
			e.add(field, "is empty; write a glob such as apps/**/*.yaml")
		case len(g) > 1024:
			e.add(field, "has %d bytes, at most 1024 are allowed; shorten it", len(g))
		case path.IsAbs(g):
			e.add(field, "%q is absolute; write it relative to spec.path", text.Short(g))
		case !doublestar.ValidatePattern(g):
			e.add(field, "%q is no glob; write one such as apps/**/*.yaml", text.Short(g))
		}
	}
}

// vars validates the variables of a source.
func (e sourceErrors) vars(s *carav1.SourceSpec) {
	seen := map[string]int{}
	for i, v := range s.GetVars() {
		field := api.Element("spec.vars", i)
		if v.GetName() != "" && !syntax.IsVariable(v.GetName()) {
			e.add(field+".name", "%q is not the name of a variable; use letters, digits and _", text.Short(v.GetName()))
		}
		e.unique(seen, v.GetName(), "variable", "spec.vars", i, ".name")
		ref := v.GetSecretKeyRef()
		if ref == nil {
			continue
		}
		if v.GetValue() != "" {
			e.add(field, "has both value and secretKeyRef; keep one of them")
		}
		e.dnsLabel(field+".secretKeyRef.name", ref.GetName())
		e.secretKeyName(field+".secretKeyRef.key", ref.GetKey())
		if ref.GetName() != "" && !syntax.MatchAny(s.GetAllow().GetSecrets(), ref.GetName()) {
			e.add(field+".secretKeyRef.name", "projects of the source may not use Secret %q; add it to spec.allow.secrets", text.Short(ref.GetName()))
		}
	}
}

func (e *fieldErrors) patterns(field string, patterns []string, wrong func(string) string) {
	for i, p := range patterns {
		if why := wrong(p); why != "" {
			e.add(api.Element(field, i), "%s", why)
		}
	}
}

func (e *fieldErrors) allow(a *carav1.SourceAllow) {
	e.patterns("spec.allow.names", a.GetNames(), syntax.NamePattern)
	e.patterns("spec.allow.hosts", a.GetHosts(), syntax.HostPattern)
	e.patterns("spec.allow.secrets", a.GetSecrets(), syntax.NamePattern)
	e.patterns("spec.allow.ports", a.GetPorts(), api.PortRangeProblem)
	e.patterns("spec.allow.publicPorts", a.GetPublicPorts(), api.PortRangeProblem)
}
