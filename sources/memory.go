package sources

import (
	"path"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

// fact is what is known of one file content without reading it: which projects it declares and what is wrong with it.
// Their specs are in the claims.
type fact struct {
	docs     []docFact
	problems []*carav1.FileProblem
	warnings []*carav1.FileProblem
	skipped  string
}

type docFact struct {
	name, hash string
	line       int32
}

// memory holds facts by content hash and extension. After a restart it is filled from the claims.
type memory map[string]fact

// factKey is the content, and what of the name decides how it is understood.
func factKey(hash, file string) string { return hash + path.Ext(file) + manifest.KnownName(file) }

// remember makes a memory of what was read.
func remember(files []Parsed) memory {
	m := make(memory, len(files))
	for _, f := range files {
		var k fact
		for _, d := range f.Docs {
			k.docs = append(k.docs, docFact{d.Project.GetMetadata().GetName(), d.Hash, d.Line})
		}
		k.problems, k.warnings, k.skipped = f.Problems, f.Warnings, f.Skipped
		m[factKey(f.Hash, f.Path)] = k
	}
	return m
}

// recall makes a memory of the claims that stand. That is exact only where the last snapshot had no problem and no
// warning: then every file that declares anything is there with all that it declares.
func recall(head *carav1.Snapshot, claims []*carav1.Claim) memory {
	m := memory{}
	if !head.GetComplete() || head.GetErrorCount() > 0 || len(head.GetWarnings()) > 0 {
		return m
	}
	from := map[string]string{}
	for _, c := range claims {
		s := c.GetSpec()
		if !s.GetPresent() || s.GetHeld() != "" || s.GetFileHash() == "" {
			continue
		}
		key := factKey(s.FileHash, s.File)
		if file, ok := from[key]; ok && file != s.File {
			continue // the same content twice would be a problem; one is enough
		}
		from[key] = s.File
		k := m[key]
		k.docs = append(k.docs, docFact{s.Project.GetMetadata().GetName(), s.Hash, s.Line})
		m[key] = k
	}
	return m
}

// known builds a file from memory; ok is false if it must be read.
func (m memory) known(f File, claims map[string]*carav1.ClaimSpec) (p Parsed, ok bool) {
	k, ok := m[factKey(f.Hash, f.Path)]
	if !ok {
		return Parsed{}, false
	}
	p = Parsed{Path: f.Path, Hash: f.Hash, Problems: moved(k.problems, f.Path), Warnings: moved(k.warnings, f.Path), Skipped: k.skipped}
	for _, d := range k.docs {
		if len(k.problems) > 0 { // nothing of a broken file is applied: the name is enough
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

// moved says the same of another file.
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
