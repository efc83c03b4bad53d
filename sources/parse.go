package sources

import (
	"fmt"
	"strings"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

// parseFile parses one file. Sources accept projects, and Secrets that are encrypted. It also returns the documents, because what
// they use of other files is not in the projects yet.
func parseFile(f File, data []byte, how manifest.Reading) (Parsed, []manifest.Document) {
	docs, problems := how.Parse(f.Path, data)
	p := Parsed{Path: f.Path, Hash: f.Hash, Problems: problems}
	if undecrypted := how.Keys != nil && len(problems) > 0 && problems[0].GetPath() == manifest.SOPSField; len(docs) == 0 && len(problems) > 0 && !undecrypted {
		if looks, foreign := manifest.Foreign(f.Path, data); foreign {
			return skipped(f, looks), nil
		}
	}
	for _, d := range docs {
		switch obj := d.Object.(type) {
		case *carav1.Project:
			p.Docs = append(p.Docs, Doc{Project: obj, Line: int32(d.Line)})
			p.Problems = append(p.Problems, d.Unfilled()...)
		case *carav1.Secret:
			p.addSecret(d, obj)
		default:
			p.misfit(d, fmt.Sprintf("a source declares projects and encrypted Secrets only, and this is a %s: apply it with `caractrl apply`, or leave the file out with spec.exclude", d.Kind))
		}
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

// addSecret adds a Secret, if its file was encrypted.
func (p *Parsed) addSecret(d manifest.Document, secret *carav1.Secret) {
	if !d.Encrypted {
		p.misfit(d, "a Secret in a source must be encrypted by SOPS for age: run `sops encrypt`, and remove the values from the history of the repository; or apply it with `caractrl apply`")
		return
	}
	p.Secrets = append(p.Secrets, &carav1.DeclaredSecret{Secret: secret, File: d.File, Line: int32(d.Line)})
}

func (p *Parsed) misfit(d manifest.Document, message string) {
	p.Problems = append(p.Problems, &carav1.FileProblem{File: d.File, Line: int32(d.Line), Column: int32(d.Column), Path: "kind", Message: message})
}

const composeAdvice = "; a source with format: " + api.FormatCompose + " runs such files, and caractrl convert makes a manifest of one"

// SkipsCompose reports whether a warning is about a Compose file in a source of manifests.
func SkipsCompose(warning *carav1.FileProblem) bool {
	return strings.HasSuffix(warning.GetMessage(), composeAdvice)
}

// skipped returns a file without Cara documents. It causes a warning, and declares and holds nothing.
func skipped(f File, looks string) Parsed {
	message := "is skipped: it looks like " + looks
	if looks == manifest.ComposeFile {
		message += composeAdvice
	}
	return Parsed{Path: f.Path, Hash: f.Hash, Skipped: looks, Warnings: []*carav1.FileProblem{{File: f.Path, Message: message}}}
}
