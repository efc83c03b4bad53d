package sources

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
	"github.com/caravanserai/cara/manifest/compose"
)

// Names of Compose files, as Compose looks for them in a directory: the first that exists, and with it the first override.
var (
	composeNames  = []string{"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"}                                     //nolint:gochecknoglobals // constant
	overrideNames = []string{"compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"} //nolint:gochecknoglobals // constant
)

// composeProject is a directory with a Compose file.
type composeProject struct {
	dir   string
	main  File
	names []string // of the main file and the override
}

// composeProjects returns the projects of a tree, sorted by directory.
func composeProjects(files []File) []composeProject {
	in := map[string]map[string]File{}
	var dirs []string
	for _, f := range files {
		dir, name := path.Dir(f.Path), path.Base(f.Path)
		if dir == "." {
			dir = ""
		}
		if in[dir] == nil {
			in[dir] = map[string]File{}
			dirs = append(dirs, dir)
		}
		in[dir][name] = f
	}
	slices.Sort(dirs)
	var all []composeProject
	for _, dir := range dirs {
		first := func(names []string) string {
			i := slices.IndexFunc(names, func(n string) bool { _, ok := in[dir][n]; return ok })
			if i < 0 {
				return ""
			}
			return names[i]
		}
		main := first(composeNames)
		if main == "" {
			continue
		}
		c := composeProject{dir: dir, main: in[dir][main], names: []string{main}}
		if override := first(overrideNames); override != "" {
			c.names = append(c.names, override)
		}
		all = append(all, c)
	}
	return all
}

// parseCompose converts the projects of a source with the format Compose.
func (d *reader) parseCompose(ctx context.Context, claims map[string]*carav1.ClaimSpec, r *Reading) error {
	projects := composeProjects(d.tree.Files)
	docs := map[int][]manifest.Document{}
	for _, c := range projects { // first, so that the driver can prepare them all at once
		if _, err := d.files.look(ctx, path.Join(c.dir, ".env")); err != nil {
			return err
		}
	}
	for _, c := range projects {
		known, ok, err := d.remembered(ctx, c.main, claims)
		if err != nil {
			return err
		}
		if !ok {
			if known, docs[len(r.Files)], err = d.convert(ctx, c); err != nil {
				return err
			}
		}
		r.Files = append(r.Files, known)
	}
	return d.complete(ctx, docs, r)
}

// convert converts one project.
func (d *reader) convert(ctx context.Context, c composeProject) (Parsed, []manifest.Document, error) {
	spec := d.src.GetSpec()
	beside := &composeTree{shelf: d.files}
	out := Parsed{Path: c.main.Path, Hash: c.main.Hash}
	for _, name := range overrideNames { // the project changes when one of them appears
		if _, err := beside.find(ctx, path.Join(c.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.As(err, new(*compose.UnfitError)) {
			return out, nil, readError(ctx, err, "look for %s", name)
		}
	}
	r, err := compose.ConvertTree(ctx, compose.TreeOptions{
		Tree: beside, Dir: c.dir, Files: c.names, Name: d.src.GetMetadata().GetName(), Profiles: spec.GetCompose().GetProfiles(), Vars: spec.GetVars(),
	})
	if err != nil {
		return out, nil, readError(ctx, err, "read the Compose files of %s at %.12s", c.main.Path, d.tree.Revision)
	}
	out.Needs = sortedNeeds(beside.needs)
	for _, f := range r.Findings {
		problem := &carav1.FileProblem{File: f.File, Line: int32(f.Line), Column: int32(f.Column), Path: f.Key, Message: f.Message} //nolint:gosec // positions in a file of 1 MiB
		switch {
		case f.Severity == compose.Refusal:
			out.Problems = append(out.Problems, problem)
		case f.Severity == compose.Loss && !spec.GetCompose().GetLossy():
			problem.Message += "; to leave it out, set compose.lossy in the spec of the source"
			out.Problems = append(out.Problems, problem)
		case f.Severity != compose.Note:
			out.Warnings = append(out.Warnings, problem)
		}
	}
	if r.Project == nil || !api.IsName(r.Project.GetMetadata().GetName()) {
		if len(out.Problems) == 0 {
			out.Problems = append(out.Problems, &carav1.FileProblem{File: c.main.Path, Line: 1, Column: 1, Message: "the name of the directory is not a valid name of a project; set name in the file"})
		}
		return out, nil, nil
	}
	out.Docs = []Doc{{Project: r.Project, Line: 1}}
	if len(out.Problems) > 0 {
		return out, nil, nil // nothing of it is applied
	}
	docs := []manifest.Document{{Object: r.Project, Kind: api.KindProject, Name: r.Project.GetMetadata().GetName(), File: c.main.Path, Line: 1, Column: 1, Origins: r.Origins}}
	needs, err := d.files.needs(ctx, c.main.Path, docs)
	out.Needs = sortedNeeds(append(out.Needs, needs...))
	return out, docs, err
}

// composeTree gives the converter what the source has. It remembers what was asked for, because the project depends on it.
type composeTree struct {
	*shelf
	needs []Need
}

func (t *composeTree) find(ctx context.Context, name string) (*Found, error) {
	target, err := t.target("x", name) // relative to the root
	if err != nil {
		return nil, unfitCompose(err)
	}
	looked, err := t.look(ctx, target)
	if err != nil {
		return nil, err
	}
	t.needs = append(t.needs, NeedOf(target, looked.found, looked.err))
	return looked.found, unfitCompose(looked.err)
}

// unfitCompose converts an error about one path.
func unfitCompose(err error) error {
	if unfit, ok := errors.AsType[*FileError](err); ok {
		if unfit.Absent {
			return fs.ErrNotExist
		}
		return &compose.UnfitError{Message: unfit.Message}
	}
	return err
}

// Look implements compose.Tree.
func (t *composeTree) Look(ctx context.Context, name string) (folder bool, files int, err error) {
	found, err := t.find(ctx, name)
	if err != nil {
		var unfit *FileError
		if l := t.found[name]; l != nil && errors.As(l.err, &unfit) && unfit.TooMany {
			return true, MaxFound + 1, nil
		}
		return false, 0, err
	}
	return found.Folder, len(found.Files), nil
}

// Read implements compose.Tree.
func (t *composeTree) Read(ctx context.Context, name string) ([]byte, error) {
	found, err := t.find(ctx, name)
	if err != nil {
		return nil, err
	}
	if found.Folder || len(found.Files) != 1 {
		return nil, &compose.UnfitError{Message: name + " is a folder"}
	}
	data, err := safely(func() ([]byte, error) { return found.Files[0].Read(ctx) })
	return data, unfitCompose(err)
}
