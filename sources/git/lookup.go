package git

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/caravanserai/cara/sources"
)

const modeExecutable = "100755"

// finder finds paths in the tree of a commit.
type finder struct {
	objs    objects
	root    plumbing.Hash
	explain func(ctx context.Context, path string, err error) error
	looked  int
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
func (l *finder) child(ctx context.Context, folder plumbing.Hash, at, name string) (treeEntry, error) {
	if why := sources.BadName(name); why != "" {
		return treeEntry{}, &sources.FileError{Message: at + " " + why}
	}
	var found *treeEntry
	err := l.each(ctx, folder, at, func(e treeEntry) error {
		if e.name == name && found == nil {
			found = &e
		}
		return nil
	})
	if err == nil && found == nil {
		err = &sources.FileError{Message: at + " does not exist", Absent: true}
	}
	if err != nil {
		return treeEntry{}, err
	}
	return *found, nil
}

// each calls visit with the entries of a folder.
func (l *finder) each(ctx context.Context, folder plumbing.Hash, at string, visit func(treeEntry) error) error {
	tree, err := l.objs.object(folder)
	if err != nil {
		return l.explain(ctx, at, err)
	}
	for rest := tree.data; len(rest) > 0; {
		var e treeEntry
		var ok bool
		if e, rest, ok = nextEntry(rest); !ok {
			return l.explain(ctx, at, broken(errMalformedTree))
		}
		if err := visit(e); err != nil {
			return err
		}
	}
	return ctx.Err()
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
				return nil, l.explain(ctx, at, err)
			}
			return data, nil
		},
	})
	l.objs.want(map[plumbing.Hash]struct{}{e.hash: {}})
	return nil
}
