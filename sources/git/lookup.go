package git

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/sources"
)

const modeExecutable = "100755"

// finder finds paths in the tree of a commit.
type finder struct {
	objs    objects
	root    plumbing.Hash
	where   string // names the commit in errors
	looked  int
	folders map[plumbing.Hash]*folder
	bytes   int // of folders
}

// find returns the files at a path. It follows no link.
func (l *finder) find(ctx context.Context, at string) (*sources.Found, error) {
	l.looked = 0
	e := treeEntry{mode: modeDir, hash: l.root}
	walked := ""
	for name := range strings.SplitSeq(at, "/") {
		if at == "" {
			break
		}
		if e.mode != modeDir {
			return nil, &sources.FileError{Message: walked + " is not a folder"}
		}
		var err error
		walked = join(walked, name)
		if e, err = l.child(ctx, e.hash, walked, name); err != nil {
			return nil, err
		}
	}
	found := &sources.Found{ID: e.mode + " " + e.hash.String(), Folder: e.mode == modeDir}
	if err := l.add(ctx, found, at, "", e, 0); err != nil {
		return nil, err
	}
	slices.SortFunc(found.Files, func(a, b sources.FoundFile) int { return cmp.Compare(a.Path, b.Path) })
	return found, nil
}

// child returns an entry of a folder.
func (l *finder) child(ctx context.Context, h plumbing.Hash, at, name string) (treeEntry, error) {
	if why := sources.BadName(name); why != "" {
		return treeEntry{}, &sources.FileError{Message: at + " " + why}
	}
	in, err := l.folder(ctx, h, at)
	if err != nil {
		return treeEntry{}, err
	}
	e, ok := in.entry(name)
	if !ok {
		return treeEntry{}, &sources.FileError{Message: at + " does not exist", Absent: true}
	}
	return e, nil
}

// each calls visit with the entries of a folder.
func (l *finder) each(ctx context.Context, h plumbing.Hash, at string, visit func(treeEntry) error) error {
	in, err := l.folder(ctx, h, at)
	if err != nil {
		return err
	}
	for rest := in.data; len(rest) > 0; {
		var e treeEntry
		e, rest, _ = nextEntry(rest)
		if err := visit(e); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// folder returns a folder. Each one is read once.
func (l *finder) folder(ctx context.Context, h plumbing.Hash, at string) (*folder, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if known, ok := l.folders[h]; ok {
		return known, nil
	}
	tree, err := l.objs.object(h)
	if err != nil {
		return nil, explainFile(ctx, l.where, at, err)
	}
	if l.bytes += len(tree.data); l.bytes > maxTrees+maxKept {
		return nil, sources.Human(api.ReasonTooLarge, "the files that the manifests use are in folders with more than %s of names; put them into smaller folders", size(maxTrees+maxKept))
	}
	in, ok := newFolder(tree.data)
	if !ok {
		return nil, explainFile(ctx, l.where, at, broken(errMalformedTree))
	}
	if l.folders == nil {
		l.folders = map[plumbing.Hash]*folder{}
	}
	l.folders[h] = in
	return in, nil
}

// folder is a tree whose entries can be found by name. The time that a lookup takes must not grow with the number of entries:
// manifests of one push can name many thousand files of a folder that has hundreds of thousands.
type folder struct {
	data   []byte
	starts []int32 // offsets of the entries in data, sorted by name
}

// newFolder returns the folder of a tree's data. ok is false if the data is malformed.
func newFolder(data []byte) (f *folder, ok bool) {
	f = &folder{data: data}
	for rest := data; len(rest) > 0; {
		f.starts = append(f.starts, int32(len(data)-len(rest))) //nolint:gosec // at most maxTree
		if _, rest, ok = nextEntry(rest); !ok {
			return nil, false
		}
	}
	slices.SortStableFunc(f.starts, func(a, b int32) int { return cmp.Compare(f.at(a).name, f.at(b).name) })
	return f, true
}

func (f *folder) at(start int32) treeEntry {
	e, _, _ := nextEntry(f.data[start:])
	return e
}

// entry returns the entry with a name, the first if there are several.
func (f *folder) entry(name string) (treeEntry, bool) {
	i, ok := slices.BinarySearchFunc(f.starts, name, func(start int32, name string) int { return cmp.Compare(f.at(start).name, name) })
	if !ok {
		return treeEntry{}, false
	}
	return f.at(f.starts[i]), true
}

// add adds the files at or below an entry. rel is the path below the folder that was looked up.
func (l *finder) add(ctx context.Context, found *sources.Found, root, rel string, e treeEntry, depth int) error {
	at := path.Join(root, rel)
	if l.looked++; l.looked > sources.MaxLooked || depth > sources.MaxDepth || len(found.Files) > sources.MaxFound {
		return sources.TooManyFound(root)
	}
	switch e.mode {
	case modeLink:
		return &sources.FileError{Message: at + " " + sources.UnreadLink}
	case modeSubmodule:
		return &sources.FileError{Message: at + " " + sources.UnreadSubmodule}
	case modeDir:
		return l.each(ctx, e.hash, at, func(c treeEntry) error {
			if why := sources.BadName(c.name); why != "" {
				return &sources.FileError{Message: fmt.Sprintf("an entry of %s %s", cmp.Or(at, "the source"), why)}
			}
			return l.add(ctx, found, root, join(rel, c.name), c, depth+1)
		})
	}
	if len(found.Files) == sources.MaxFound {
		return sources.TooManyFound(root)
	}
	found.Files = append(found.Files, sources.FoundFile{
		Path: rel, Hash: e.hash.String(), Executable: e.mode == modeExecutable,
		Read: func(ctx context.Context) ([]byte, error) {
			l.objs.want(map[plumbing.Hash]struct{}{e.hash: {}})
			data, err := l.objs.blob(ctx, e.hash)
			if err != nil {
				return nil, explainFile(ctx, l.where, at, err)
			}
			return data, nil
		},
	})
	l.objs.want(map[plumbing.Hash]struct{}{e.hash: {}})
	return nil
}
