package sources

import (
	"fmt"
	"path"
	"slices"
	"strings"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// unread determines whether the path of a project that is no longer declared was removed, or still exists and is not read.
// Only a removal may prune the project.
type unread struct {
	paths  map[string]string   // path to the reason why it is not read
	hashes map[string]string   // hidden files by content
	names  map[string]string   // hidden files by their name without the dots
	kept   map[string][]string // projects by the path that keeps them
	whys   map[string]string
}

func newUnread(r Reading) *unread {
	u := &unread{
		paths: map[string]string{}, hashes: map[string]string{}, names: map[string]string{},
		kept: map[string][]string{}, whys: map[string]string{},
	}
	for _, p := range r.Unread {
		u.paths[p.Path] = p.Why
	}
	for _, f := range r.Files {
		if f.Skipped != "" {
			u.paths[f.Path] = "is skipped: it looks like " + f.Skipped
		}
	}
	for _, f := range r.Hidden {
		u.hashes[f.Hash] = f.Path
		u.names[undotted(f.Path)] = f.Path
	}
	return u
}

// at returns the existing path of the claim's declaration and why it is not read, or nothing if the path is gone.
func (u *unread) at(was *carav1.ClaimSpec) (at, why string) {
	file := was.GetFile()
	for dir := file; dir != "." && dir != "/" && dir != ""; dir = path.Dir(dir) {
		if why, ok := u.paths[dir]; ok {
			return dir, why
		}
	}
	if hidden, ok := u.names[file]; ok {
		return hidden, unreadHidden
	}
	if hidden, ok := u.hashes[was.GetFileHash()]; ok && was.GetFileHash() != "" {
		return hidden, unreadHidden
	}
	return "", ""
}

func (u *unread) keep(at, why, project string) {
	u.kept[at], u.whys[at] = append(u.kept[at], project), why
}

// warnings returns one warning for each path that keeps projects.
func (u *unread) warnings() []*carav1.FileProblem {
	const named = 5
	var all []*carav1.FileProblem
	for at, projects := range u.kept {
		slices.Sort(projects)
		names := strings.Join(projects[:min(named, len(projects))], ", ")
		if n := len(projects) - named; n > 0 {
			names += fmt.Sprintf(" and %d more", n)
		}
		all = append(all, &carav1.FileProblem{File: at, Message: u.whys[at] +
			"; what was declared there keeps running and blocks the prune until the path is removed: " + names})
	}
	return all
}

// undotted returns a path without the leading dots of its parts.
func undotted(p string) string {
	parts := strings.Split(p, "/")
	for i := range parts {
		parts[i] = strings.TrimLeft(parts[i], ".")
	}
	return strings.Join(parts, "/")
}
