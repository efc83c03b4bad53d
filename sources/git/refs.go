package git

import (
	"cmp"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/sources"
)

// ref is the target of a name. peeled is the commit of an annotated tag.
type ref struct{ hash, peeled string }

func (r ref) commit() string { return cmp.Or(r.peeled, r.hash) }

// listing is the list of a repository's refs, or the requested part of it.
type listing struct {
	refs map[string]ref
	head string // full name of HEAD's target; empty if HEAD is detached or unborn
}

// target is what a source follows, as found in a listing.
type target struct {
	name   string // full name of the ref; empty for a commit by hash
	want   string // the object to request
	commit string // the revision; empty if the tag object must be read first
}

// isHash reports whether s is a full commit hash.
func isHash(s string) bool {
	return len(s) == 40 && strings.Trim(s, "0123456789abcdef") == ""
}

// checkRef rejects a ref that can never be found.
func checkRef(r *carav1.GitRef) error {
	set := 0
	for _, s := range []string{r.GetBranch(), r.GetTag(), r.GetSemver(), r.GetCommit()} {
		if s != "" {
			set++
		}
		if strings.ContainsAny(s, "\x00\n\r") {
			return sources.Human(api.ReasonInvalidSpec, "spec.git.ref has a control character")
		}
	}
	if set > 1 {
		return sources.Human(api.ReasonInvalidSpec, "spec.git.ref names more than one of branch, tag, semver, commit; keep one")
	}
	if c := r.GetCommit(); c != "" && !isHash(c) {
		return sources.Human(api.ReasonInvalidSpec, "spec.git.ref.commit %q is not a full hash of 40 lower-case hex digits", c)
	}
	if s := r.GetSemver(); s != "" {
		if _, err := semver.NewConstraint(s); err != nil {
			return sources.Human(api.ReasonInvalidSpec, "spec.git.ref.semver %q is not a range of versions; see `>=1.2 <2`", s)
		}
	}
	return nil
}

// prefixes returns the smallest set of ref prefixes that answers the question.
func prefixes(r *carav1.GitRef) []string {
	switch {
	case r.GetBranch() != "":
		return []string{full("refs/heads/", r.GetBranch())}
	case r.GetTag() != "":
		return []string{full("refs/tags/", r.GetTag())}
	case r.GetSemver() != "":
		return []string{"refs/tags/"}
	}
	return []string{"HEAD"}
}

func full(prefix, name string) string {
	if strings.HasPrefix(name, "refs/") {
		return name
	}
	return prefix + name
}

// pick finds what a source follows in a listing. ok is false if it does not exist.
func pick(r *carav1.GitRef, l *listing) (t target, ok bool) {
	name := ""
	switch {
	case r.GetCommit() != "":
		return target{want: r.GetCommit(), commit: r.GetCommit()}, true
	case r.GetBranch() != "":
		name = full("refs/heads/", r.GetBranch())
	case r.GetTag() != "":
		name = full("refs/tags/", r.GetTag())
	case r.GetSemver() != "":
		name = highest(r.GetSemver(), l)
	default:
		found, ok := l.refs["HEAD"]
		return target{name: cmp.Or(l.head, "HEAD"), want: found.hash, commit: found.commit()}, ok
	}
	found, ok := l.refs[name]
	return target{name: name, want: found.hash, commit: found.commit()}, ok
}

// highest returns the tag with the highest version in the range. Only X.Y.Z counts, with or without a leading v: with loose
// parsing, a date such as 20240922 would be version 20240922.0.0. If several tags name the same version (v1.0.0, 1.0.0), the
// one that sorts last wins, so that the result does not depend on map order.
func highest(within string, l *listing) string {
	constraint, err := semver.NewConstraint(within)
	if err != nil {
		return ""
	}
	var best *semver.Version
	name := ""
	for full := range l.refs {
		tag, ok := strings.CutPrefix(full, "refs/tags/")
		if !ok {
			continue
		}
		v, err := semver.StrictNewVersion(strings.TrimPrefix(tag, "v"))
		if err != nil || !constraint.Check(v) {
			continue
		}
		if best == nil || v.GreaterThan(best) || v.Equal(best) && full > name {
			best, name = v, full
		}
	}
	return name
}

// missing returns the error for a ref that does not exist. all lists the existing refs of its kind.
func missing(r *carav1.GitRef, a address, all *listing) error {
	if len(all.refs) == 0 {
		return sources.Human(api.ReasonEmptyRepository, "%s has no commit yet; push one", a)
	}
	switch {
	case r.GetBranch() != "":
		return sources.Human(api.ReasonRefNotFound, "branch %q does not exist in %s; it has %s", r.GetBranch(), a, names(all, "refs/heads/", "branch"))
	case r.GetTag() != "":
		return sources.Human(api.ReasonRefNotFound, "tag %q does not exist in %s; it has %s", r.GetTag(), a, names(all, "refs/tags/", "tag"))
	case r.GetSemver() != "":
		return sources.Human(api.ReasonRefNotFound, "no tag of %s is a version (X.Y.Z or vX.Y.Z) within %q; it has %s", a, r.GetSemver(), names(all, "refs/tags/", "tag"))
	}
	return sources.Human(api.ReasonRefNotFound, "HEAD of %s points to a branch that does not exist; set spec.git.ref.branch; it has %s",
		a, names(all, "refs/heads/", "branch"))
}

func names(l *listing, prefix, what string) string {
	var found []string
	for full := range l.refs {
		if short, ok := strings.CutPrefix(full, prefix); ok {
			found = append(found, short)
		}
	}
	slices.Sort(found)
	switch {
	case len(found) == 0:
		return "no " + what
	case len(found) > 5:
		return strings.Join(found[:5], ", ") + ", ..."
	}
	return strings.Join(found, ", ")
}
