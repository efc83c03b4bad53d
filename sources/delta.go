package sources

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// Parsed is one parsed manifest file.
type Parsed struct {
	Path string
	Hash string
	// Docs are the projects that could be parsed, even if the file has problems.
	Docs []Doc
	// Secrets are those that the file declares, decrypted.
	Secrets  []*carav1.DeclaredSecret
	Problems []*carav1.FileProblem
	Warnings []*carav1.FileProblem
	// Skipped describes what a file without Cara documents looks like. Empty for all other files.
	Skipped string
	// Needs are the paths that the projects use, sorted.
	Needs []Need
}

// Doc is one project in a file.
type Doc struct {
	Project *carav1.Project
	Hash    string // as api.ClaimHash
	Line    int32
}

// Reading is everything that was read from a source at one revision.
type Reading struct {
	Source    string
	SourceUID string
	Revision  string
	// Author, Subject and Time of the revision's commit, if there is one.
	Author, Subject string
	Time            *timestamppb.Timestamp
	Files           []Parsed // sorted by path
	// Problems are those of entries that are not readable files. Warnings are those of the source as a whole.
	Problems []*carav1.FileProblem
	Warnings []*carav1.FileProblem
	// Unread and Hidden are the paths that exist and were not read.
	Unread []Unread
	Hidden []File
}

// needs returns the paths that the manifests use, sorted.
func (r *Reading) needs() []Need {
	var all []Need
	for _, f := range r.Files {
		all = append(all, f.Needs...)
	}
	return sortedNeeds(all)
}

// Change is the difference between a Reading and the claims of its source.
type Change struct {
	Upserts  []*carav1.ClaimSpec // sorted by project
	Absent   []string
	Problems []*carav1.FileProblem // all of them, sorted by path and line
	Warnings []*carav1.FileProblem
	Projects int // declared now, including held ones
	// Secrets are those of all files without a problem, each name once.
	Secrets []*carav1.DeclaredSecret

	read bool // the files were read, so Secrets is complete
	kept bool // a project is held because its path is not read
}

// Complete reports whether everything was read and parsed.
func (c Change) Complete() bool { return len(c.Problems) == 0 }

// place is the location of a project's declaration.
type place struct {
	file *Parsed
	doc  *Doc
}

func (p place) String() string { return api.Place(p.file.Path, p.doc.Line, 0) }

// Delta computes what a reading changes:
//
//   - A project that one valid file declares once gets a claim as declared.
//   - A project that is declared twice is held. So is a project whose file is now broken and that no valid file declares. A
//     held claim is present, with the last valid spec and the reason. Without a last valid spec there is no claim yet.
//   - A project is also held, with a warning that names the path, if its file or folder still exists but is no longer read
//     (a link, a submodule, a hidden path, a file without Cara documents).
//   - Any other claim becomes absent. Delta does not decide whether that may prune anything.
//   - A claim that would not change is not written.
func Delta(r Reading, previous []*carav1.Claim) Change {
	change := Change{read: true, Problems: slices.Clone(r.Problems), Warnings: slices.Clone(r.Warnings)}
	unread := newUnread(r)
	places, broken := change.collect(r)
	claims := map[string]*carav1.ClaimSpec{}
	for _, c := range previous {
		claims[c.GetSpec().GetProject().GetMetadata().GetName()] = c.GetSpec()
	}
	for name, at := range places {
		was := claims[name]
		want := declared(r, at[0], was)
		if len(at) > 1 {
			change.Problems = append(change.Problems, twice(name, at)...)
			want = held(r, was, fmt.Sprintf("declared twice: %s and %s; keep one", at[0], at[1]))
		} else if p := broken[at[0].file.Path]; p != nil {
			want = held(r, was, brokenFile(p))
		}
		change.put(was, want)
	}
	for name, was := range claims {
		if len(places[name]) > 0 || !was.GetPresent() {
			continue
		}
		if p := broken[was.GetFile()]; p != nil {
			change.put(was, held(r, was, brokenFile(p)))
			continue
		}
		if path, why := unread.at(was); why != "" {
			change.put(was, held(r, was, path+" "+why))
			unread.keep(path, why, name)
			change.kept = true
			continue
		}
		change.Absent = append(change.Absent, name)
	}
	change.secrets(r)
	change.Warnings = append(change.Warnings, unread.warnings()...)
	change.sort()
	return change
}

// collect adds the problems and warnings of the files, and returns the places that declare each project, and the first problem
// of each broken file.
func (c *Change) collect(r Reading) (places map[string][]place, broken map[string]*carav1.FileProblem) {
	places, broken = map[string][]place{}, map[string]*carav1.FileProblem{}
	for _, p := range r.Problems {
		broken[p.File] = p
	}
	for i := range r.Files {
		f := &r.Files[i]
		c.Problems = append(c.Problems, f.Problems...)
		c.Warnings = append(c.Warnings, f.Warnings...)
		if len(f.Problems) > 0 {
			broken[f.Path] = f.Problems[0]
		}
		for j := range f.Docs {
			name := f.Docs[j].Project.GetMetadata().GetName()
			places[name] = append(places[name], place{f, &f.Docs[j]})
		}
	}
	return places, broken
}

// maxSecrets limits the Secrets of one source.
const maxSecrets = 200

// secrets adds the Secrets that are declared once. A second declaration is a problem, and neither is applied.
func (c *Change) secrets(r Reading) {
	byName := map[string][]*carav1.DeclaredSecret{}
	for _, f := range r.Files {
		if len(f.Problems) > 0 {
			continue
		}
		for _, s := range f.Secrets {
			name := s.GetSecret().GetMetadata().GetName()
			byName[name] = append(byName[name], s)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		at := byName[name]
		switch {
		case len(at) > 1:
			c.Problems = append(c.Problems, &carav1.FileProblem{
				File: at[1].GetFile(), Line: at[1].GetLine(), Column: 1, Path: "metadata.name",
				Message: fmt.Sprintf("Secret %q is declared twice, also at %s; neither is applied: keep one", name, api.Place(at[0].GetFile(), at[0].GetLine(), 0)),
			})
		case len(c.Secrets) == maxSecrets:
			c.Problems = append(c.Problems, &carav1.FileProblem{
				File: at[0].GetFile(), Line: at[0].GetLine(), Column: 1,
				Message: fmt.Sprintf("the source declares more than %d Secrets; put several values into one", maxSecrets),
			})
			return
		default:
			c.Secrets = append(c.Secrets, at[0])
		}
	}
}

func (c *Change) sort() {
	slices.Sort(c.Absent)
	slices.SortFunc(c.Upserts, func(a, b *carav1.ClaimSpec) int {
		return strings.Compare(a.Project.Metadata.Name, b.Project.Metadata.Name)
	})
	slices.SortFunc(c.Problems, byPlace)
	slices.SortFunc(c.Warnings, byPlace)
}

// put counts a claim, and adds it to the change if it differs.
func (c *Change) put(was, want *carav1.ClaimSpec) {
	if want == nil {
		return
	}
	c.Projects++
	if was == nil || !proto.Equal(was, want) {
		c.Upserts = append(c.Upserts, want)
	}
}

// declared returns the claim of a project that is declared once. Its revision is the last one that changed the declaration
// or its file; a changed line number does not count. The author of that revision goes with it.
func declared(r Reading, at place, was *carav1.ClaimSpec) *carav1.ClaimSpec {
	if stands(r, at, was) {
		return was
	}
	want := &carav1.ClaimSpec{
		Source: r.Source, SourceUid: r.SourceUID, Project: at.doc.Project, Hash: at.doc.Hash,
		File: at.file.Path, Line: at.doc.Line, FileHash: at.file.Hash, Revision: r.Revision, Present: true,
		Author: r.Author, Subject: r.Subject, CommitTime: r.Time,
	}
	if was != nil && was.Present && was.Hash == want.Hash {
		want.Project = was.Project // the hash is equal, so keep the old spelling and an unchanged claim
		if was.File == want.File && was.SourceUid == want.SourceUid {
			want.Revision, want.Author, want.Subject, want.CommitTime = was.Revision, was.Author, was.Subject, was.CommitTime
		}
	}
	return want
}

// stands reports whether a claim already matches the reading. It runs for nearly every claim at every change, so it compares
// hashes instead of the content.
func stands(r Reading, at place, was *carav1.ClaimSpec) bool {
	return was != nil && was.Present && was.Held == "" && was.Hash == at.doc.Hash && was.Line == at.doc.Line &&
		was.File == at.file.Path && was.FileHash == at.file.Hash && was.Source == r.Source && was.SourceUid == r.SourceUID
}

// held returns the last valid claim, with the reason why the source is not followed, or nil if there is no valid one.
func held(r Reading, was *carav1.ClaimSpec, why string) *carav1.ClaimSpec {
	if was == nil {
		return nil
	}
	want := proto.CloneOf(was)
	want.Present, want.Held, want.SourceUid = true, text.Clip(why, 2000), r.SourceUID
	return want
}

func brokenFile(p *carav1.FileProblem) string {
	return "its file is broken: " + Place(p) + ": " + p.Message
}

// twice returns a problem for each place that declares the same project.
func twice(name string, at []place) []*carav1.FileProblem {
	var all []*carav1.FileProblem
	for i, p := range at {
		other := at[0]
		if i == 0 {
			other = at[1]
		}
		all = append(all, &carav1.FileProblem{
			File: p.file.Path, Line: p.doc.Line, Column: 1, Path: "metadata.name",
			Message: fmt.Sprintf("project %q is declared twice, also at %s; neither is applied: keep one", name, other),
		})
	}
	return all
}

func byPlace(a, b *carav1.FileProblem) int {
	return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
		strings.Compare(a.Message, b.Message))
}

// Place formats the location of a problem.
func Place(p *carav1.FileProblem) string { return api.Place(p.File, p.Line, p.Column) }
