package manifest

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/validate"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
	"github.com/caravanserai/cara/manifest/sops"
)

// Limits limit the cost of one file. A zero field means its default.
type Limits struct {
	// Bytes of the file; default 1 MiB.
	Bytes int
	// Nodes (scalars, lists and maps) of the file, where an alias counts as what it refers to; default 200,000.
	Nodes int
}

// Limits of every file.
const (
	maxDepth     = 64   // of nested lists and maps
	maxAliases   = 1000 // and merge keys
	maxDocuments = 1000
	maxProblems  = 100 // after which parsing stops
)

// Document is one valid object in a file.
type Document struct {
	// Object is as declared, without status and without defaults.
	Object proto.Message
	Kind   string
	Name   string
	// File is the name given to Parse. Line and Column are the position of the document's first key, counted from 1.
	File   string
	Line   int
	Column int
	// Encrypted means that the file was encrypted by SOPS.
	Encrypted bool
	// Warnings are about ignored parts, such as status.
	Warnings []*carav1.FileProblem

	// Origins say where fields of an object come from that was converted from other files, by the path of the field, such as
	// `spec.services[0].files[0]`. Nil for manifests.
	Origins map[string]Origin

	root *yaml.Node
}

// Origin is a key of a file.
type Origin struct {
	File         string
	Line, Column int
	Path         string // such as `services.web.volumes.0`
}

// Position returns the line and column of a field such as `spec.services[0].image`, or of its nearest existing parent.
func (d Document) Position(field string) (line, column int) {
	return position(d.root, field, d.Line, d.Column)
}

// IsManifest reports whether a file name has the extension of a manifest.
func IsManifest(name string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(path.Ext(name)))
}

// Parse parses every document of one file. It leaves out documents with a problem. If parsing stops early, it returns the
// documents before that point and a problem, so the result must not be used as the complete file. Names that end in .json
// are parsed as JSON, all others as YAML.
//
// A file that is encrypted by SOPS is a problem. See Reading.
func Parse(file string, data []byte, limits Limits) ([]Document, []*carav1.FileProblem) {
	return Reading{Limits: limits}.Parse(file, data)
}

// Reading says how to read a file. All fields are optional.
type Reading struct {
	Limits Limits
	// Vars are replaced in text values. Without them, `$` has no meaning. A value of a Secret is not known here: the object says
	// where the agent puts it. In encrypted files, Vars have no meaning.
	Vars []*carav1.SourceVar
	// Keys decrypt files that are encrypted by SOPS. Encrypted files may declare Secrets and nothing else. Without keys, an
	// encrypted file is a problem.
	Keys *sops.Keys
}

// Parse is the function Parse with these settings.
func (r Reading) Parse(file string, data []byte) ([]Document, []*carav1.FileProblem) {
	p := newParser(file, r.Limits)
	p.vars = newVars(r.Vars)
	text, ok := trees{p}.scan(data)
	if !ok {
		return nil, p.problems
	}
	read := trees{p}.yamlTrees
	if strings.EqualFold(path.Ext(file), ".json") {
		read = trees{p}.jsonTrees
	}
	p.text = text
	var docs []Document
	for root := range p.decrypted(read(text), r.Keys) {
		if d, ok := p.document(root); ok {
			docs = append(docs, d)
		}
		if p.full() {
			break
		}
	}
	trees{p}.keepInside(text)
	return docs, p.problems
}

// Check compares all documents of one source. It returns those whose kind and name are unique, and for each of the others a
// problem that names another place.
func Check(docs []Document) ([]Document, []*carav1.FileProblem) {
	type key struct{ kind, name string }
	places := make(map[key][]int, len(docs))
	for i, d := range docs {
		k := key{d.Kind, d.Name}
		places[k] = append(places[k], i)
	}
	var unique []Document
	var problems []*carav1.FileProblem
	for i, d := range docs {
		at := places[key{d.Kind, d.Name}]
		if len(at) == 1 {
			unique = append(unique, d)
			continue
		}
		other := docs[at[0]]
		if at[0] == i {
			other = docs[at[1]]
		}
		line, column := d.Position("metadata.name")
		otherLine, _ := other.Position("metadata.name")
		problems = append(problems, &carav1.FileProblem{
			File: d.File, Line: int32(line), Column: int32(column), Path: "metadata.name",
			Message: fmt.Sprintf("%s %q is declared %d times, also at %s:%d; keep one of them, until then none is applied",
				strings.ToLower(d.Kind), d.Name, len(at), other.File, otherLine),
		})
	}
	return unique, problems
}

// Format formats a problem as `file:line:column: path: message`, without the unknown parts.
func Format(p *carav1.FileProblem) string {
	var b strings.Builder
	if p.GetFile() != "" {
		b.WriteString(api.Place(p.GetFile(), p.GetLine(), max(p.GetColumn(), 1)) + ": ")
	}
	if p.GetPath() != "" {
		b.WriteString(p.GetPath() + ": ")
	}
	b.WriteString(p.GetMessage())
	return b.String()
}

// parser holds the state of one call of Parse.
type parser struct {
	findings
	limits  Limits
	nodes   int
	bytes   int
	aliases int
	// secret means that the current document is a Secret. Problems quote nothing of it.
	secret bool
	// vars are the variables of the source, or nil. text is the file, to find them there.
	vars map[string]*carav1.SourceVar
	text []byte
	// secretVars are the variables with Secrets in the value that was parsed last.
	secretVars []*carav1.SecretVar
	// encrypted means that the file was encrypted. Problems quote nothing of it.
	encrypted bool
	// warnings of the current document.
	warnings []*carav1.FileProblem
}

type (
	// trees parses a text's documents.
	trees struct{ *parser }
	// scalars parses single values.
	scalars struct{ *parser }
)

// findings are the problems of a file, up to a number.
type findings struct {
	file     string
	problems []*carav1.FileProblem
	// stopped is set when a limit is reached. Parsing stops then.
	stopped bool
}

// newParser returns a parser of a file. Limits that are 0 have their defaults.
func newParser(file string, limits Limits) *parser {
	limits = Limits{Bytes: cmp.Or(limits.Bytes, 1<<20), Nodes: cmp.Or(limits.Nodes, 200_000)}
	return &parser{findings: findings{file: file}, limits: limits}
}

// full reports whether parsing stops.
func (p *findings) full() bool { return p.stopped || len(p.problems) >= maxProblems }

func (p *findings) problem(n *yaml.Node, field, format string, args ...any) {
	line, column := 0, 0
	if n != nil {
		line, column = n.Line, n.Column
	}
	p.problemAt(line, column, field, fmt.Sprintf(format, args...))
}

func (p *findings) problemAt(line, column int, field, message string) {
	if p.full() {
		return
	}
	p.problems = append(p.problems, p.fileProblem(line, column, field, message))
	if len(p.problems) == maxProblems {
		p.problems[len(p.problems)-1] = p.fileProblem(line, column, "",
			fmt.Sprintf("more than %d problems; reading stops here, mend those above first", maxProblems-1))
	}
}

// Maximum lengths of a problem's texts, from source.proto.
const (
	maxPath    = 1024
	maxMessage = 2048
)

func (p *findings) fileProblem(line, column int, field, message string) *carav1.FileProblem {
	return &carav1.FileProblem{
		File: p.file, Line: int32(line), Column: int32(column), Path: clip(field, maxPath), Message: clip(message, maxMessage),
	}
}

// clip truncates a text to n bytes and replaces control characters, which could affect a terminal.
func clip(s string, n int) string {
	return text.Clip(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == '\u2028' || r == '\u2029' {
			return '\uFFFD'
		}
		return r
	}, s), n)
}

// document converts a tree to an object.
func (p *parser) document(root *yaml.Node) (Document, bool) {
	before := len(p.problems)
	p.warnings, p.secret = nil, p.encrypted
	m := p.header(root)
	if m == nil {
		return Document{}, false
	}
	_, isSecret := m.(*carav1.Secret)
	if p.encrypted && !isSecret {
		p.problem(root, SOPSField, "an encrypted file may declare Secrets only, because every reader of the cluster sees other objects; move this document to a file of its own")
		return Document{}, false
	}
	p.secret = isSecret
	p.object(root, m)
	d := Document{
		Object: m, Kind: api.Kind(m), Name: api.Meta(m).GetName(),
		File: p.file, Line: root.Line, Column: root.Column, Warnings: p.warnings, Encrypted: p.encrypted, root: root,
	}
	if len(p.problems) > before {
		return Document{}, false
	}
	p.validate(d)
	return d, len(p.problems) == before
}

// validate adds the contract's errors in a document, sorted by line.
func (p *parser) validate(d Document) {
	var found []*carav1.FileProblem
	for _, bad := range validate.Object(d.Object) {
		line, column := d.Position(bad.GetField())
		found = append(found, p.fileProblem(line, column, bad.GetField(), bad.GetMessage()))
	}
	slices.SortStableFunc(found, func(a, b *carav1.FileProblem) int {
		return cmp.Or(cmp.Compare(a.GetLine(), b.GetLine()), cmp.Compare(a.GetColumn(), b.GetColumn()))
	})
	for _, f := range found {
		p.problemAt(int(f.GetLine()), int(f.GetColumn()), f.GetPath(), f.GetMessage())
	}
}
