package sources

import (
	"fmt"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

// parseFile parses one file. Sources accept only projects. It also returns the documents, because what they use of other files
// is not in the projects yet.
func parseFile(f File, data []byte, vars []*carav1.SourceVar) (Parsed, []manifest.Document) {
	docs, problems := manifest.ParseVars(f.Path, data, manifest.Limits{Bytes: MaxFileBytes}, vars)
	p := Parsed{Path: f.Path, Hash: f.Hash, Problems: problems}
	if len(docs) == 0 && len(problems) > 0 {
		if looks, foreign := manifest.Foreign(f.Path, data); foreign {
			return skipped(f, looks), nil
		}
	}
	for _, d := range docs {
		project, ok := d.Object.(*carav1.Project)
		if !ok {
			p.Problems = append(p.Problems, &carav1.FileProblem{
				File: f.Path, Line: int32(d.Line), Column: int32(d.Column), Path: "kind",
				Message: fmt.Sprintf("a source declares projects only, and this is a %s: apply it with `caractrl apply`, or leave the file out with spec.exclude", d.Kind),
			})
			continue
		}
		p.Docs = append(p.Docs, Doc{Project: project, Line: int32(d.Line)})
		p.Problems = append(p.Problems, d.Unfilled()...)
		p.Warnings = append(p.Warnings, d.Warnings...)
	}
	return p, docs
}

// hash sets the hashes of the projects, once they are complete.
func (p *Parsed) hash() {
	for i := range p.Docs {
		p.Docs[i].Hash = api.ClaimHash(p.Docs[i].Project)
	}
}

// skipped returns a file without Cara documents. It causes a warning, and declares and holds nothing.
func skipped(f File, looks string) Parsed {
	return Parsed{Path: f.Path, Hash: f.Hash, Skipped: looks, Warnings: []*carav1.FileProblem{{
		File: f.Path, Message: "is skipped: it looks like " + looks,
	}}}
}
