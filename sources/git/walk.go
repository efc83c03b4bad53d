package git

import (
	"bytes"
	"context"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
	"github.com/caravanserai/cara/sources"
)

// Limits of a walk: a tree of few objects can name any number of paths. Folders without manifests may be nested deeper than
// folders with manifests.
const (
	maxVisited = 1_000_000
	maxNested  = 512
)

// Modes of tree entries.
const (
	modeDir       = "40000"
	modeLink      = "120000"
	modeSubmodule = "160000"
)

// walk collects the manifests below a tree.
type walk struct {
	objs     objects
	match    *sources.Match
	visited  int
	barren   map[plumbing.Hash]bool // folders without any manifest name, independent of the path
	files    []sources.File
	problems []*carav1.FileProblem
	unread   []sources.Unread
	hidden   []hiddenEntry
	wanted   map[plumbing.Hash]struct{}
	where    string // names the commit in errors
}

// hiddenEntry is a file, or an unwalked folder, whose name begins with a dot.
type hiddenEntry struct {
	path string
	treeEntry
}

// manifests lists the files below root that match selects.
func manifests(ctx context.Context, objs objects, root plumbing.Hash, m *sources.Match, where string) (*walk, error) {
	w := newWalk(objs, m, where)
	if _, err := w.folder(ctx, "", root, 0); err != nil {
		return nil, err
	}
	slices.SortFunc(w.files, func(a, b sources.File) int { return strings.Compare(a.Path, b.Path) })
	objs.want(w.wanted)
	return w, nil
}

func newWalk(objs objects, m *sources.Match, where string) *walk {
	return &walk{objs: objs, match: m, barren: map[plumbing.Hash]bool{}, wanted: map[plumbing.Hash]struct{}{}, where: where}
}

// folder walks one tree, and reports whether anything in it is named like a manifest.
func (w *walk) folder(ctx context.Context, dir string, h plumbing.Hash, depth int) (fertile bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if depth > maxNested {
		return false, sources.Human(api.ReasonTooLarge, "folders are nested more than %d deep at %.100q...; leave them out with spec.exclude", maxNested, dir)
	}
	if w.barren[h] {
		return false, nil
	}
	tree, err := w.objs.object(h)
	if err != nil {
		return false, err
	}
	whole := true // every entry was checked, so the result holds for any path
	seen := map[string]struct{}{}
	for rest := tree.data; len(rest) > 0; {
		var e treeEntry
		var ok bool
		if e, rest, ok = nextEntry(rest); !ok {
			return false, broken(errMalformedTree)
		}
		if w.visited++; w.visited > maxVisited {
			return false, tooMany("paths", maxVisited)
		}
		if why := w.refuse(e, seen); why != "" {
			w.problem(dir, e.name, why)
			fertile = true
			continue
		}
		below, checked, err := w.entry(ctx, join(dir, e.name), e, depth)
		if err != nil {
			return false, err
		}
		fertile, whole = fertile || below, whole && checked
	}
	w.barren[h] = whole && !fertile
	return fertile || !whole, nil
}

// entry walks one entry of a folder. checked is false if it was skipped because of its path.
func (w *walk) entry(ctx context.Context, path string, e treeEntry, depth int) (fertile, checked bool, err error) {
	switch {
	case e.mode != modeDir:
		return manifest.IsManifest(e.name), true, w.file(path, e, depth)
	case w.match.InDir(path):
		fertile, err = w.folder(ctx, path, e.hash, depth+1)
		return fertile, true, err
	}
	w.hide(path, e)
	return false, false, nil
}

// refuse returns why an entry cannot be trusted, or an empty string.
func (w *walk) refuse(e treeEntry, seen map[string]struct{}) string {
	if why := sources.BadName(e.name); why != "" {
		return why + "; it is not read"
	}
	if _, twice := seen[e.name]; twice {
		return "is in its folder twice; it is not read"
	}
	seen[e.name] = struct{}{}
	return ""
}

func (w *walk) problem(dir, name, why string) {
	w.problems = append(w.problems, &carav1.FileProblem{
		File: join(dir, strings.ToValidUTF8(strings.Map(printable, name), "?")), Message: why,
	})
}

func (w *walk) file(path string, e treeEntry, depth int) error {
	switch {
	case e.mode == modeSubmodule:
		w.leave(path, sources.UnreadSubmodule)
		return nil
	case !w.match.File(path):
		if e.mode == modeLink {
			w.leave(path, sources.UnreadLink)
		}
		w.hide(path, e)
		return nil
	case depth > sources.MaxDepth:
		w.problems = append(w.problems, sources.TooDeep(path))
		return nil
	}
	if e.mode == modeLink {
		w.problems = append(w.problems, &carav1.FileProblem{File: path, Message: "is a symbolic link, and links are not followed; put the file itself there, or exclude it"})
		return nil
	}
	if len(w.files) == sources.MaxFiles {
		return sources.Human(api.ReasonTooLarge, "more than %d manifest files; the limit of a source: narrow it with spec.path or spec.include", sources.MaxFiles)
	}
	w.wanted[e.hash] = struct{}{}
	w.files = append(w.files, sources.File{
		Path: path, Hash: e.hash.String(),
		Read: func(ctx context.Context) ([]byte, error) {
			data, err := w.objs.blob(ctx, e.hash)
			if err != nil {
				return nil, explainFile(ctx, w.where, path, err)
			}
			return data, nil
		},
	})
	return nil
}

// leave records a path that is not followed.
func (w *walk) leave(path, why string) {
	if w.match.InDir(path) {
		w.unread = append(w.unread, sources.Unread{Path: path, Why: why})
	}
}

// hide records an entry that is skipped only because its name begins with a dot.
func (w *walk) hide(path string, e treeEntry) {
	if w.match.Hidden(path) && (e.mode == modeDir || manifest.IsManifest(e.name)) {
		w.hidden = append(w.hidden, hiddenEntry{path, e})
	}
}

// hiddenFiles lists the manifests among the hidden entries and below them. It skips what exceeds the limits. Then the
// projects of a file that was hidden may lose their protection, but the fetch does not fail.
func (w *walk) hiddenFiles(ctx context.Context) ([]sources.File, error) {
	var files []sources.File
	for todo := slices.Clone(w.hidden); len(todo) > 0 && len(files) < sources.MaxFiles; {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if at.mode != modeDir {
			if w.match.Hidden(at.path) && manifest.IsManifest(at.name) {
				files = append(files, sources.File{Path: at.path, Hash: at.hash.String()})
			}
			continue
		}
		tree, err := w.objs.object(at.hash)
		if err != nil {
			return nil, err
		}
		for rest := tree.data; len(rest) > 0; {
			var e treeEntry
			var ok bool
			if e, rest, ok = nextEntry(rest); !ok {
				return nil, broken(errMalformedTree)
			}
			if w.visited++; w.visited > maxVisited {
				return files, nil
			}
			if sources.BadName(e.name) == "" && strings.Count(at.path, "/") < maxNested {
				todo = append(todo, hiddenEntry{join(at.path, e.name), e})
			}
		}
	}
	return files, ctx.Err()
}

type treeEntry struct {
	mode, name string
	hash       plumbing.Hash
}

// nextEntry parses `MODE NAME\0HASH`.
func nextEntry(data []byte) (e treeEntry, rest []byte, ok bool) {
	head, rest, ok := bytes.Cut(data, []byte{0})
	if !ok || len(rest) < len(e.hash) {
		return e, nil, false
	}
	mode, name, ok := bytes.Cut(head, []byte{' '})
	if !ok {
		return e, nil, false
	}
	copy(e.hash[:], rest)
	e.mode, e.name = strings.TrimLeft(string(mode), "0"), string(name)
	return e, rest[len(e.hash):], true
}

func join(dir, name string) string { return strings.TrimPrefix(dir+"/"+name, "/") }

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return '?'
	}
	return r
}
