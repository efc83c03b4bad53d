package git

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/caravanserai/cara/sources"
)

// maxDiffering limits the files of a difference. Beyond it, the commit is read whole, with one fetch.
const maxDiffering = 256

// errWhole means that a commit must be read whole.
var errWhole = errors.New("the commit must be read whole")

// Diff reads what differs between the commit that was read last and the commit of the last probe.
func (d *driver) Diff(ctx context.Context, base, revision string) (*sources.Diff, error) {
	from := d.kept
	if from == nil || d.git.cfg.Now().Before(d.whole) || from.commit.String() != base || revision != d.last.commit {
		return nil, errWhole
	}
	objs, err := d.objects(ctx, wish{want: []string{d.last.want}, base: base}, from.trees)
	if err != nil {
		return nil, d.noDifference(ctx, err)
	}
	defer objs.close()
	c, err := findCommit(objs, plumbing.NewHash(d.last.want))
	if err != nil {
		return nil, err
	}
	where := d.where(c)
	if err := checkRoot(ctx, objs, c, d.match, where); err != nil {
		return nil, err
	}
	t := &difference{objs: objs, match: d.match, before: newWalk(objs, d.match, where), after: newWalk(objs, d.match, where)}
	if err := t.folders(ctx, "", from.root, c.tree, 0); err != nil {
		return nil, err
	}
	diff, err := t.result(d.named(c))
	if err != nil {
		return nil, err
	}
	diff.Warnings = d.warnings
	d.readLater(diff, objs, t.after.wanted)
	d.peeled = diff.Revision
	d.keep(from.next(c, objs, t.replaced))
	return diff, nil
}

// noDifference returns the error of a server that did not send a difference. For an hour it is not asked again.
func (d *driver) noDifference(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		d.whole = d.git.cfg.Now().Add(time.Hour)
	}
	return err
}

// readLater lets the files of a difference be read after its pack is closed: the first one fetches all of them.
func (d *driver) readLater(diff *sources.Diff, objs objects, wanted map[plumbing.Hash]struct{}) {
	if _, remote := objs.(*pack); !remote {
		return
	}
	var blobs objects
	diff.Close = func() {
		if blobs != nil {
			blobs.close()
		}
	}
	w := wish{blobs: true}
	for h := range wanted {
		w.want = append(w.want, h.String())
	}
	for i := range diff.Files {
		f := &diff.Files[i]
		f.Read = func(ctx context.Context) (_ []byte, err error) {
			if blobs == nil {
				if blobs, err = d.objects(ctx, w, nil); err != nil {
					return nil, d.noDifference(ctx, err)
				}
				blobs.want(wanted)
			}
			return blobs.blob(ctx, plumbing.NewHash(f.Hash))
		}
	}
}

// difference walks the folders that differ between two trees. Its two walks find what a walk of the whole trees would find
// there.
type difference struct {
	objs          objects
	match         *sources.Match
	before, after *walk
	visited       int
	replaced      []plumbing.Hash // folders of the earlier tree that differ
}

// result returns the difference, or errWhole if only a walk of the whole tree says what it means.
func (t *difference) result(tree *sources.Tree) (*sources.Diff, error) {
	if len(t.before.problems)+len(t.after.problems) > 0 || len(t.before.files)+len(t.after.files) > maxDiffering {
		return nil, errWhole
	}
	for _, w := range []*walk{t.before, t.after} {
		slices.SortFunc(w.files, func(a, b sources.File) int { return strings.Compare(a.Path, b.Path) })
	}
	tree.Files = t.after.files
	unread := len(t.after.unread) + len(t.after.hidden) + len(t.before.unread) + len(t.before.hidden)
	return &sources.Diff{Tree: tree, Gone: t.before.files, Unread: unread > 0}, nil
}

// folders compares two folders at the same path. They have the order of git; entries in another order count as changed.
func (t *difference) folders(ctx context.Context, dir string, old, now plumbing.Hash, depth int) error {
	if old == now {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if depth > maxNested {
		return errWhole
	}
	a, err := t.objs.object(old)
	if err != nil {
		return err
	}
	b, err := t.objs.object(now)
	if err != nil {
		return err
	}
	t.replaced = append(t.replaced, old)
	changed := map[string]bool{} // names of the later folder
	for x, y := a.data, b.data; len(x) > 0 || len(y) > 0; {
		if t.visited++; t.visited > maxVisited {
			return errWhole
		}
		if n := entrySize(x); n > 0 && len(y) >= n && bytes.Equal(x[:n], y[:n]) {
			x, y = x[n:], y[n:]
			continue
		}
		var was, is *treeEntry
		if was, is, x, y, err = nextPair(x, y); err != nil {
			return err
		}
		if is != nil {
			changed[is.name] = false
		}
		if err := t.entries(ctx, dir, was, is, depth); err != nil {
			return err
		}
	}
	if anyTwice(b.data, changed) {
		return errWhole // a problem of the folder
	}
	return nil
}

// entries compares two entries of the same name and type. One of them may be nil.
func (t *difference) entries(ctx context.Context, dir string, was, is *treeEntry, depth int) error {
	if was != nil && is != nil && was.mode == modeDir && is.mode == modeDir {
		path := join(dir, is.name)
		if sources.BadName(is.name) != "" {
			return errWhole
		}
		if t.match.InDir(path) {
			return t.folders(ctx, path, was.hash, is.hash, depth+1)
		}
		t.after.hide(path, *is)
		return nil
	}
	for _, side := range []struct {
		w *walk
		e *treeEntry
	}{{t.before, was}, {t.after, is}} {
		if side.e == nil {
			continue
		}
		if sources.BadName(side.e.name) != "" {
			return errWhole
		}
		if _, _, err := side.w.entry(ctx, join(dir, side.e.name), *side.e, depth); err != nil {
			return err
		}
	}
	return nil
}

// entrySize returns the size of the first entry in bytes, or 0.
func entrySize(tree []byte) int {
	n := bytes.IndexByte(tree, 0) + 1 + len(plumbing.ZeroHash)
	if n <= len(plumbing.ZeroHash) || n > len(tree) {
		return 0
	}
	return n
}

// nextPair takes the first entry of a tree, or of each if they have the same name and type.
func nextPair(x, y []byte) (was, is *treeEntry, restX, restY []byte, err error) {
	e, afterX, okX := nextEntry(x)
	f, afterY, okY := nextEntry(y)
	if !okX && len(x) > 0 || !okY && len(y) > 0 {
		return nil, nil, nil, nil, broken(errMalformedTree)
	}
	order := 0
	switch {
	case len(x) == 0:
		order = 1
	case len(y) == 0:
		order = -1
	default:
		order = cmp.Compare(gitOrder(e), gitOrder(f))
	}
	switch {
	case order < 0:
		return &e, nil, afterX, y, nil
	case order > 0:
		return nil, &f, x, afterY, nil
	}
	return &e, &f, afterX, afterY, nil
}

// gitOrder returns what git sorts the entries of a folder by.
func gitOrder(e treeEntry) string {
	if e.mode == modeDir {
		return e.name + "/"
	}
	return e.name
}

// anyTwice reports whether a folder has one of these names twice. It sets the names that it has found to true.
func anyTwice(tree []byte, names map[string]bool) bool {
	for size := entrySize(tree); size > 0; size = entrySize(tree) {
		_, name, _ := bytes.Cut(tree[:size-len(plumbing.ZeroHash)-1], []byte{' '})
		found, asked := names[string(name)]
		if found {
			return true
		}
		if asked {
			names[string(name)] = true
		}
		tree = tree[size:]
	}
	return false
}

var _ sources.Differ = (*driver)(nil)
