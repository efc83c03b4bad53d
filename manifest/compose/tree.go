package compose

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

// Tree has the files of a source. Paths are relative to its root, separated by slashes.
type Tree interface {
	// Look returns whether a path is a folder, and how many files it has. The error is fs.ErrNotExist if there is nothing.
	Look(ctx context.Context, path string) (folder bool, files int, err error)
	// Read returns the content of a file.
	Read(ctx context.Context, path string) ([]byte, error)
}

// TreeOptions say which project of a source to convert.
type TreeOptions struct {
	Tree Tree
	// Dir is the directory of the project in the tree. Files are the names of its Compose files; later ones override earlier ones.
	Dir   string
	Files []string
	// Name is used in the root of the source if the files have no `name:`.
	Name     string
	Profiles []string
	// Vars are the environment of the files. The values of Secrets are not known: the project says where the agent puts them.
	Vars []*carav1.SourceVar
	// Temp is a directory for the time of the conversion. Empty means the system's.
	Temp string
}

// Limits of the files of one project.
const (
	maxGathered      = 50
	maxGatheredBytes = 4 << 20
	maxExpanded      = 16 << 20 // bytes that variables can add
)

// ConvertTree converts the Compose files of a directory of a source. Unlike Convert it reads only the tree: the library gets a
// directory with copies of the files that it may read, and every path in them was checked before. Files of the project are named by
// `from`, and no Secret is made. All problems with the files are findings.
func ConvertTree(ctx context.Context, o TreeOptions) (*Result, error) {
	root, err := os.MkdirTemp(o.Temp, "cara-compose-")
	if err != nil {
		return nil, fmt.Errorf("convert Compose files: %w", err)
	}
	defer func() { _ = os.RemoveAll(root) }() // the system removes the rest
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return nil, fmt.Errorf("convert Compose files: %w", err)
	}
	g := &gatherer{ctx: ctx, tree: o.Tree, root: root, seen: map[string]bool{}}
	for _, name := range o.Files {
		g.names = append(g.names, path.Join(o.Dir, name))
	}
	for _, name := range g.names {
		g.compose(name, []string{o.Dir})
	}
	g.env(path.Join(o.Dir, ".env"), place{file: path.Join(o.Dir, ".env"), line: 1, column: 1})
	if g.err != nil {
		return nil, g.err
	}
	g.growth(o.Vars)
	if len(g.findings) > 0 {
		return &Result{Findings: g.findings}, nil
	}
	opts := Options{Dir: filepath.Join(root, filepath.FromSlash(o.Dir)), Profiles: o.Profiles, tree: o.Tree, root: root, others: g.others}
	if o.Dir == "" && !slices.ContainsFunc(g.mains, func(s *source) bool { _, v := child(s.root, "name"); return v != nil }) {
		opts.Name = o.Name
	}
	for _, name := range o.Files {
		opts.Files = append(opts.Files, filepath.Join(opts.Dir, name))
	}
	for _, v := range o.Vars {
		value := v.GetValue()
		if v.GetSecretKeyRef() != nil {
			value = marker(v.GetName())
		}
		opts.Environ = append(opts.Environ, v.GetName()+"="+value)
	}
	r, err := convertSafely(ctx, opts)
	if err != nil {
		return g.failed(o, err), nil
	}
	r.secretVars(o.Vars)
	for i := range r.Findings {
		r.Findings[i].Message = markers.ReplaceAllString(r.Findings[i].Message, "$${$1}")
	}
	return r, nil
}

// convertSafely turns a panic of the library into an error, because anyone may push a file.
func convertSafely(ctx context.Context, o Options) (r *Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the Compose reader broke on it: %v", p)
		}
	}()
	return Convert(ctx, o)
}

// failed makes an error of the library a finding, at the key that it names.
func (g *gatherer) failed(o TreeOptions, err error) *Result {
	text := strings.ReplaceAll(err.Error(), g.root+"/", "")
	text = markers.ReplaceAllString(strings.ReplaceAll(text, g.root, "the source"), "$${$1}")
	return &Result{Findings: []Finding{about(text, g.mains, g.others, path.Join(o.Dir, o.Files[0]))}}
}

// gatherer copies the files that the library reads.
type gatherer struct {
	ctx      context.Context //nolint:containedctx // of one conversion
	tree     Tree
	root     string
	seen     map[string]bool
	bytes    int
	full     bool     // the limit of files or bytes is reached
	nodes    int      // of the Compose files
	services int      // of the Compose files
	extends  int      // keys of the Compose files
	vars     int      // with braces, in all files
	dollars  int      // dollar signs in the Compose files
	longest  int      // value of a variable
	names    []string // of the Compose files of the project
	mains    []*source
	others   []*source // included and extended files
	findings []Finding
	err      error // of the tree, not of a file
}

func (g *gatherer) refuse(at place, format string, args ...any) {
	g.findings = append(g.findings, Finding{Severity: Refusal, File: at.file, Line: max(at.line, 1), Column: max(at.column, 1), Message: fmt.Sprintf(format, args...)})
}

// copy copies a file, and returns its content. ok is false if there is nothing to do: it was copied before, or does not exist. Then
// the library says whether it needs it.
func (g *gatherer) copy(name string, at place) (data []byte, ok bool) {
	if g.err != nil || g.seen[name] || len(g.findings) > 20 {
		return nil, false
	}
	g.seen[name] = true
	data, err := g.tree.Read(g.ctx, name)
	var unfit *UnfitError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false
	case errors.As(err, &unfit):
		g.refuse(at, "%s", unfit.Message)
		return nil, false
	case err != nil:
		g.err = err
		return nil, false
	}
	if g.bytes += len(data); g.bytes > maxGatheredBytes || len(g.seen) > maxGathered {
		if g.full {
			return nil, false // reported once
		}
		g.full = true
		g.refuse(at, "the project reads more than %d files or %d MiB; make it smaller", maxGathered, maxGatheredBytes>>20)
		return nil, false
	}
	full := filepath.Join(g.root, filepath.FromSlash(name))
	if err = os.MkdirAll(filepath.Dir(full), 0o700); err == nil {
		err = os.WriteFile(full, data, 0o600)
	}
	if err != nil {
		g.err = fmt.Errorf("convert Compose files: %w", err)
	}
	return data, err == nil
}

// UnfitError is why a file of the tree cannot be used.
type UnfitError struct{ Message string }

func (e *UnfitError) Error() string { return e.Message }

// compose copies a Compose file and what it refers to. bases are the directories that relative paths in it may refer to.
func (g *gatherer) compose(name string, bases []string) {
	data, ok := g.copy(name, place{file: name})
	if !ok {
		return
	}
	if len(data) > maxFile {
		g.refuse(place{file: name}, "is larger than 1 MiB: Compose files that people write are smaller")
		return
	}
	roots, problems := manifest.Trees(name, data, manifest.Limits{})
	for _, p := range problems {
		g.refuse(place{name, int(p.GetLine()), int(p.GetColumn())}, "%s", p.GetMessage())
	}
	g.dollars += strings.Count(string(data), "$")
	for _, root := range roots {
		if len(problems) == 0 { // a circle of aliases is one
			g.measure(name, root)
		}
	}
	if len(roots) > 0 && slices.Contains(g.names, name) {
		g.mains = append(g.mains, &source{name: name, root: roots[0]})
	} else if len(roots) > 0 {
		g.others = append(g.others, &source{name: name, root: roots[0]})
	}
	if !slices.Contains(bases, path.Dir(name)) {
		bases = append(slices.Clone(bases), path.Dir(name))
	}
	for _, root := range roots {
		g.references(name, root, bases)
	}
}

// references copies what the keys of a Compose file refer to, wherever they are: an anchor may be used anywhere.
func (g *gatherer) references(file string, n *yaml.Node, bases []string) {
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := manifest.Follow(n.Content[i]), manifest.Follow(n.Content[i+1])
			switch key.Value {
			case "include":
				g.include(file, value, bases)
			case "extends":
				g.each(file, value, "file", false, bases, func(name string) { g.compose(name, bases) })
			case "env_file", "label_file":
				g.each(file, value, "path", true, bases, func(name string) { g.env(name, placeOf(file, value)) })
			}
		}
	}
	for _, c := range n.Content {
		if c.Kind != yaml.AliasNode {
			g.references(file, c, bases)
		}
	}
}

func (g *gatherer) include(file string, n *yaml.Node, bases []string) {
	g.each(file, n, "project_directory", false, bases, func(name string) {
		if !slices.Contains(bases, name) && len(bases) < 10 {
			bases = append(slices.Clone(bases), name)
		}
	})
	g.each(file, n, "env_file", false, bases, func(name string) { g.env(name, placeOf(file, n)) })
	g.each(file, n, "path", true, bases, func(name string) {
		g.compose(name, bases)
		g.env(path.Join(path.Dir(name), ".env"), placeOf(file, n))
	})
	for _, base := range bases {
		g.env(path.Join(base, ".env"), placeOf(file, n))
	}
}

func placeOf(file string, n *yaml.Node) place { return place{file, n.Line, n.Column} }

// each calls visit with the paths of a value: a text if plain is true, a list of them, or the values of one key of maps.
func (g *gatherer) each(file string, n *yaml.Node, key string, plain bool, bases []string, visit func(name string)) {
	switch n = manifest.Follow(n); n.Kind {
	case yaml.ScalarNode:
		if plain && n.ShortTag() != "!!null" {
			g.paths(file, n, bases, visit)
		}
	case yaml.SequenceNode:
		for _, c := range n.Content {
			g.each(file, c, key, plain, bases, visit)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := manifest.Follow(n.Content[i])
			if k.Value == "<<" {
				g.refuse(placeOf(file, k), "a merge key is not supported here: write the path")
			}
			if k.Value == key {
				g.each(file, n.Content[i+1], key, true, bases, visit)
			}
		}
	case yaml.AliasNode, yaml.DocumentNode:
	}
}

// paths calls visit with a path below each base, if all of them are in the source.
func (g *gatherer) paths(file string, n *yaml.Node, bases []string, visit func(name string)) {
	at, p := placeOf(file, n), n.Value
	switch {
	case strings.Contains(p, "$"):
		g.refuse(at, "a path with a variable is not read in a source: write the path")
		return
	case strings.Contains(p, "://") || strings.HasPrefix(p, "git@") || strings.HasPrefix(p, "oci:"):
		g.refuse(at, "%.100s is not in the source; copy the file into the repository", p)
		return
	case path.IsAbs(p) || strings.HasPrefix(p, "~") || strings.ContainsAny(p, "\\\x00"):
		g.refuse(at, "%.100s is not a relative path; name a file of the repository", p)
		return
	}
	var names []string
	for _, base := range bases {
		name := path.Join(base, p)
		if name == ".." || strings.HasPrefix(name, "../") || path.IsAbs(name) {
			g.refuse(at, "%.100s leaves the source; name a file of the repository", p)
			return
		}
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		visit(name)
	}
}

// env copies a file with variables. Its values may refer to earlier ones, so their sizes are computed before they are expanded.
func (g *gatherer) env(name string, at place) {
	data, ok := g.copy(name, at)
	if !ok {
		return
	}
	sizes := map[string]int{}
	refs := regexp.MustCompile(`\$\{?([A-Za-z_][A-Za-z0-9_]*)`)
	for i, line := range strings.Split(string(data), "\n") {
		key, value, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		value = strings.TrimSpace(value)
		open := len(value) > 0 && strings.ContainsRune(`"'`, rune(value[0])) && strings.Count(value, value[:1]) < 2
		if strings.Contains(line, "$") && (open || !strings.Contains(line, "=")) {
			if !strings.HasPrefix(strings.TrimSpace(line), "#") {
				g.refuse(place{name, i + 1, 1}, "a variable in a value of several lines is not supported")
			}
			continue
		}
		g.variables(place{name, i + 1, 1}, value)
		size := len(line)
		for _, ref := range refs.FindAllStringSubmatch(value, -1) {
			size += max(sizes[ref[1]], g.longest)
		}
		if size > maxFile {
			g.refuse(place{name, i + 1, 1}, "the value is larger than 1 MiB once its variables are replaced")
			return
		}
		sizes[strings.TrimSpace(key)] = size
	}
	for _, size := range sizes {
		g.longest = max(g.longest, size)
	}
}

// growth limits what variables can add to the Compose files.
func (g *gatherer) growth(vars []*carav1.SourceVar) {
	for _, v := range vars {
		g.longest = max(g.longest, len(v.GetValue()))
	}
	if g.dollars*g.longest > maxExpanded && len(g.mains) > 0 {
		g.refuse(place{file: g.mains[0].name}, "the files could have more than %d MiB once their variables are replaced; use shorter values", maxExpanded>>20)
	}
}
