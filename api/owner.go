package api

import "strings"

// Prefixes of the names that say who acts and who owns: `source/platform`, `user/ada`, `node/n1`, `system/gc`. Only sources and users own
// projects.
const (
	PrefixSource = "source/"
	PrefixUser   = "user/"
	PrefixNode   = "node/"
	PrefixSystem = "system/"
)

// SourceOf returns the source that an owner names. ok is false for every other owner, and for none.
func SourceOf(owner string) (source string, ok bool) {
	source, ok = strings.CutPrefix(owner, PrefixSource)
	if !ok {
		return "", false
	}
	return source, true
}

// OrNobody is an owner as people read it: a project without one belongs to nobody.
func OrNobody(owner string) string {
	if owner == "" {
		return "nobody"
	}
	return owner
}
