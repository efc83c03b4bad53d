package syntax

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/caravanserai/cara/internal/text"
)

// Limits of one pattern. The number of stars limits the cost of a match.
const (
	maxNamePattern  = validation.DNS1123LabelMaxLength
	maxHostPattern  = validation.DNS1123SubdomainMaxLength
	maxPatternStars = 8
)

// Everything is the pattern that matches every name and every host.
const Everything = "*"

// MatchPattern reports whether a whole name matches a pattern. `*` matches any sequence of characters, also an empty one
// and one with dots. Every other character matches itself.
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
		at := strings.Index(rest, part) // the leftmost match leaves the most text for the following parts
		if at < 0 {
			return false
		}
		rest = rest[at+len(part):]
	}
	return strings.HasSuffix(rest, last)
}

// MatchAny reports whether a name matches one of the patterns.
func MatchAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return MatchPattern(p, name) })
}

// NamePattern returns what is wrong with a pattern of names, or "".
func NamePattern(p string) string {
	switch {
	case len(p) > maxNamePattern:
		return longPattern(p, maxNamePattern)
	case p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789-*") != "" || !plainEnds(p):
		return "is " + strconv.Quote(text.Short(p)) + "; write a name or a pattern of names: lower-case letters, digits and -, and * for any run of characters, such as shop-*"
	}
	return Stars(p)
}

// HostPattern returns what is wrong with a pattern of hosts, or "".
func HostPattern(p string) string {
	switch {
	case len(p) > maxHostPattern:
		return longPattern(p, maxHostPattern)
	case p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789-.*") != "" || !plainEnds(p):
		return "is " + strconv.Quote(text.Short(p)) + "; write a host or a pattern of hosts: lower-case letters, digits, - and dots, and * for any run of characters, such as *.example.com"
	}
	for label := range strings.SplitSeq(p, ".") {
		if label == "" || !plainEnds(label) || len(label) > validation.DNS1123LabelMaxLength {
			return "is " + strconv.Quote(text.Short(p)) + "; between two dots write 1 to 63 letters, digits, - and *, without - at either end"
		}
	}
	return Stars(p)
}

// plainEnds reports whether p begins and ends as a name may: without a hyphen or a dot.
func plainEnds(p string) bool {
	return !strings.HasPrefix(p, "-") && !strings.HasSuffix(p, "-") && !strings.HasPrefix(p, ".") && !strings.HasSuffix(p, ".")
}

func longPattern(p string, most int) string {
	return fmt.Sprintf("has %d characters, at most %d are allowed; shorten it", len(p), most)
}

// Stars returns what is wrong with the number of stars in a pattern, or "".
func Stars(p string) string {
	if n := strings.Count(p, "*"); n > maxPatternStars {
		return fmt.Sprintf("is %q; at most %d * are allowed in one pattern", text.Short(p), maxPatternStars)
	}
	return ""
}
