package sources

import (
	"maps"
	"path"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

// fact is what is known about a file's content without reading it: the projects it declares, and its problems. The claims
// hold the specs.
type fact struct {
	docs     []docFact
	problems []*carav1.FileProblem
	warnings []*carav1.FileProblem
	skipped  string
	needs    []Need
	file     string // which needs are relative to
}

type docFact struct {
	name, hash string
	line       int32
}

// memory holds facts by content hash and file name properties. After a restart it is rebuilt from the claims.
type memory map[string]fact

// factKey combines the content hash with the parts of the name that affect parsing.
func factKey(hash, file string) string { return hash + path.Ext(file) + manifest.KnownName(file) }

// remember builds a memory from parsed files.
func remember(files []Parsed) memory {
	m := make(memory, len(files))
	for _, f := range files {
		if len(f.Secrets) > 0 {
			continue // nothing keeps their values: the file is read each time
		}
		var k fact
		for _, d := range f.Docs {
			k.docs = append(k.docs, docFact{d.Project.GetMetadata().GetName(), d.Hash, d.Line})
		}
		k.problems, k.warnings, k.skipped = f.Problems, f.Warnings, f.Skipped
		k.needs, k.file = f.Needs, f.Path
		m[factKey(f.Hash, f.Path)] = k
	}
	return m
}

// recall builds a memory from the current claims. That is correct only if the last snapshot had no problem and no warning:
// then the claims have every file that declares anything, with all its projects.
func recall(head *carav1.Snapshot, claims []*carav1.Claim) memory {
	m := memory{}
	if !head.GetComplete() || head.GetErrorCount() > 0 || len(head.GetWarnings()) > 0 {
		return m
	}
	from, needy := map[string]string{}, map[string]bool{} // needy files use others, which have to be looked up
	for _, c := range claims {
		s := c.GetSpec()
		if !s.GetPresent() || s.GetHeld() != "" || s.GetFileHash() == "" {
			continue
		}
		key := factKey(s.FileHash, s.File)
		if api.UsesFiles(s.GetProject().GetSpec()) {
			needy[key] = true
		}
		if file, ok := from[key]; ok && file != s.File {
			continue // a second file with the same content would be a duplicate; keep one
		}
		from[key] = s.File
		k := m[key]
		k.docs = append(k.docs, docFact{s.Project.GetMetadata().GetName(), s.Hash, s.Line})
		m[key] = k
	}
	maps.DeleteFunc(m, func(key string, _ fact) bool { return needy[key] })
	return m
}

// known builds a file from memory. ok is false if the file must be read.
func (m memory) known(f File, claims map[string]*carav1.ClaimSpec) (p Parsed, ok bool) {
	k, ok := m[factKey(f.Hash, f.Path)]
	if !ok || len(k.needs) > 0 && k.file != f.Path {
		return Parsed{}, false
	}
	p = Parsed{Needs: k.needs, Path: f.Path, Hash: f.Hash, Problems: moved(k.problems, f.Path), Warnings: moved(k.warnings, f.Path), Skipped: k.skipped}
	for _, d := range k.docs {
		if len(k.problems) > 0 { // nothing of a broken file is applied, so the name is enough
			p.Docs = append(p.Docs, Doc{Project: &carav1.Project{Metadata: &carav1.ObjectMeta{Name: d.name}}, Hash: d.hash, Line: d.line})
			continue
		}
		c := claims[d.name]
		if c == nil || c.GetHash() != d.hash {
			return Parsed{}, false
		}
		p.Docs = append(p.Docs, Doc{Project: c.Project, Hash: d.hash, Line: d.line})
	}
	return p, true
}

// moved returns the problems with another file name.
func moved(problems []*carav1.FileProblem, file string) []*carav1.FileProblem {
	if len(problems) == 0 || problems[0].File == file {
		return problems
	}
	all := make([]*carav1.FileProblem, len(problems))
	for i, p := range problems {
		all[i] = &carav1.FileProblem{File: file, Line: p.Line, Column: p.Column, Path: p.Path, Message: p.Message}
	}
	return all
}
