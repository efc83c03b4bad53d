package api

import (
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Bounds of one pattern. The number of stars bounds the work of a match.
const (
	maxNamePattern  = validation.DNS1123LabelMaxLength
	maxHostPattern  = validation.DNS1123SubdomainMaxLength
	maxPatternStars = 8
)

// Everything is the pattern that matches every name and every host.
const Everything = "*"

// MatchPattern reports whether a whole name matches a pattern. `*` stands for any run of characters, also for an empty
// one and for one with dots. Everything else stands for itself.
func MatchPattern(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	first, last := parts[0], parts[len(parts)-1]
	rest, ok := strings.CutPrefix(name, first)
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		at := strings.Index(rest, part) // the leftmost place leaves the most for the parts that follow
		if at < 0 {
			return false
		}
		rest = rest[at+len(part):]
	}
	return strings.HasSuffix(rest, last)
}

// MatchAny reports whether a name matches one of the patterns.
func MatchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if MatchPattern(p, name) {
			return true
		}
	}
	return false
}

// MatchHost reports whether a host, spelled out, matches one of the patterns. A pattern without a dot is spelled out by
// the template, as the short host of a manifest is: `pr-*` means `pr-*.prod.example.com`. Only `*` alone stays as it is.
func (t HostTemplate) MatchHost(patterns []string, host string) bool {
	for _, p := range patterns {
		if p != Everything {
			p = t.Host(p)
		}
		if MatchPattern(p, host) {
			return true
		}
	}
	return false
}

// NamePattern returns what is wrong with a pattern of names, or an empty text.
func NamePattern(p string) string {
	switch {
	case len(p) > maxNamePattern:
		return longPattern(p, maxNamePattern)
	case p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789-*") != "" || !plainEnds(p):
		return "is " + strconv.Quote(clip(p)) + "; write a name or a pattern of names: lower-case letters, digits and -, and * for any run of characters, such as shop-*"
	}
	return stars(p)
}

// HostPattern returns what is wrong with a pattern of hosts, or an empty text.
func HostPattern(p string) string {
	switch {
	case len(p) > maxHostPattern:
		return longPattern(p, maxHostPattern)
	case p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789-.*") != "" || !plainEnds(p):
		return "is " + strconv.Quote(clip(p)) + "; write a host or a pattern of hosts: lower-case letters, digits, - and dots, and * for any run of characters, such as *.example.com"
	}
	for label := range strings.SplitSeq(p, ".") {
		if label == "" || !plainEnds(label) || len(label) > validation.DNS1123LabelMaxLength {
			return "is " + strconv.Quote(clip(p)) + "; between two dots write 1 to 63 letters, digits, - and *, without - at either end"
		}
	}
	return stars(p)
}

// plainEnds reports whether a name may begin and end as p does: no name begins or ends with a hyphen or a dot.
func plainEnds(p string) bool {
	return !strings.HasPrefix(p, "-") && !strings.HasSuffix(p, "-") && !strings.HasPrefix(p, ".") && !strings.HasSuffix(p, ".")
}

func longPattern(p string, most int) string {
	return fmt.Sprintf("has %d characters, at most %d are allowed; shorten it", len(p), most)
}

func stars(p string) string {
	if n := strings.Count(p, "*"); n > maxPatternStars {
		return fmt.Sprintf("is %q; at most %d * are allowed in one pattern", clip(p), maxPatternStars)
	}
	return ""
}

func (e *fieldErrors) patterns(field string, patterns []string, wrong func(string) string) {
	for i, p := range patterns {
		if why := wrong(p); why != "" {
			e.add(elem(field, i), "%s", why)
		}
	}
}

func (e *fieldErrors) allow(a *carav1.SourceAllow) {
	e.patterns("spec.allow.names", a.GetNames(), NamePattern)
	e.patterns("spec.allow.hosts", a.GetHosts(), HostPattern)
	e.patterns("spec.allow.secrets", a.GetSecrets(), NamePattern)
}
