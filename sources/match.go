package sources

import (
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

// Match selects the manifests of a source: the files in the subtree that end in .yaml, .yml or .json, match an include glob
// (if there is any) and match no exclude glob. Globs are relative to the subtree; `**` crosses folders. Files and folders
// whose names begin with a dot are skipped.
type Match struct {
	// Root is the subtree, without leading or trailing slash. Empty means everything.
	Root    string
	include []string
	exclude []string
}

// NewMatch validates the subtree and the globs of a source.
func NewMatch(spec *carav1.SourceSpec) (*Match, error) {
	m := &Match{include: spec.GetInclude(), exclude: spec.GetExclude(), Root: path.Clean("/" + spec.GetPath())[1:]}
	if slices.Contains(strings.Split(spec.GetPath(), "/"), "..") {
		return nil, Human(api.ReasonInvalidSpec, "spec.path %q leaves the source; name a folder inside it", spec.GetPath())
	}
	for _, g := range slices.Concat(m.include, m.exclude) {
		if !doublestar.ValidatePattern(g) {
			return nil, Human(api.ReasonInvalidSpec, "%q in spec.include or spec.exclude is not a glob; see `**/*.yaml`", g)
		}
	}
	return m, nil
}

// InDir reports whether the folder may contain manifests. That includes folders above the subtree.
func (m *Match) InDir(dir string) bool {
	if dir == "" || dir == m.Root || m.Root != "" && strings.HasPrefix(m.Root, dir+"/") {
		return true
	}
	rel, ok := m.rel(dir)
	return ok && !hidden(rel) && !m.excluded(rel)
}

// File reports whether the file is a manifest of the source.
func (m *Match) File(file string) bool {
	rel, ok := m.rel(file)
	return ok && manifest.IsManifest(file) && !hidden(rel) && !m.excluded(rel) && (len(m.include) == 0 || matchAny(m.include, rel))
}

func (m *Match) rel(p string) (string, bool) {
	if m.Root == "" {
		return p, true
	}
	return strings.CutPrefix(p, m.Root+"/")
}

// Hidden reports whether a file or folder is skipped only because a name begins with a dot.
func (m *Match) Hidden(file string) bool {
	rel, ok := m.rel(file)
	return ok && hidden(rel) && !m.excluded(rel)
}

func (m *Match) excluded(rel string) bool { return matchAny(m.exclude, rel) }

func matchAny(globs []string, rel string) bool {
	return slices.ContainsFunc(globs, func(g string) bool { return doublestar.MatchUnvalidated(g, rel) })
}

func hidden(rel string) bool {
	return strings.HasPrefix(rel, ".") || strings.Contains(rel, "/.")
}

// BadName returns why the name of a tree entry is invalid, or an empty string.
func BadName(name string) string {
	switch {
	case name == "" || name == "." || name == "..":
		return "is not a name"
	case strings.Contains(name, "/"):
		return "has a slash in its name"
	case strings.EqualFold(name, ".git"):
		return "is named like git's own folder"
	case !utf8.ValidString(name):
		return "has a name that is not UTF-8"
	case strings.ContainsFunc(name, unicode.IsControl):
		return "has control characters in its name"
	case len(name) > 255:
		return "has a name longer than 255 bytes"
	}
	return ""
}
