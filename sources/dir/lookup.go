package dir

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/text"
	"github.com/caravanserai/cara/manifest"
	"github.com/caravanserai/cara/sources"
)

// lookup finds the files that manifests use. It follows no link: what a link leads to can change while nothing in the
// directory does.
type lookup struct {
	*driver
	root   *os.Root
	fresh  map[string]stamp // of the files that were found
	looked int
}

// lookup returns the files at a path.
func (d *driver) lookup(_ context.Context, at string) (*sources.Found, error) {
	root, err := os.OpenRoot(d.root)
	if err != nil {
		return nil, d.unavailable(err)
	}
	defer root.Close()
	return (&lookup{driver: d, root: root, fresh: d.cache}).find(at)
}

func (l *lookup) find(at string) (*sources.Found, error) {
	l.looked = 0
	walked := ""
	info, err := l.root.Lstat(".")
	for name := range strings.SplitSeq(at, "/") {
		if err != nil || at == "" {
			break
		}
		walked = path.Join(walked, name)
		if why := sources.BadName(name); why != "" {
			return nil, &sources.FileError{Message: walked + " " + why}
		}
		if info, err = l.root.Lstat(walked); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return nil, &sources.FileError{Message: walked + " " + sources.UnreadLink}
		}
	}
	if err != nil {
		return nil, unusable(walked, err)
	}
	found := &sources.Found{Folder: info.IsDir()}
	if err := l.add(found, at, "", info, 0); err != nil {
		return nil, err
	}
	slices.SortFunc(found.Files, func(a, b sources.FoundFile) int { return cmp.Compare(a.Path, b.Path) })
	h := sha256.New()
	for _, f := range found.Files {
		fmt.Fprintf(h, "%d:%s %s %t\n", len(f.Path), f.Path, f.Hash, f.Executable)
	}
	found.ID = hex.EncodeToString(h.Sum(nil))
	return found, nil
}

func unusable(at string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &sources.FileError{Message: at + " does not exist", Absent: true}
	}
	return &sources.FileError{Message: at + " cannot be read: " + text.WithoutPath(err).Error()}
}

// add adds the files at or below a path. rel is the path below the folder that was looked up.
func (l *lookup) add(found *sources.Found, root, rel string, info fs.FileInfo, depth int) error {
	at := path.Join(root, rel)
	if l.looked++; l.looked > sources.MaxLooked || depth > sources.MaxDepth || len(found.Files) > sources.MaxFound {
		return sources.TooManyFound(root)
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return &sources.FileError{Message: at + " " + sources.UnreadLink}
	case info.IsDir():
		return l.folder(found, root, rel, depth)
	case !info.Mode().IsRegular():
		return &sources.FileError{Message: at + " " + sources.UnreadSpecial}
	case info.Size() > api.MaxFileBytes:
		return &sources.FileError{Message: manifest.TooLargeFile(at, info.Size()).Error()}
	case len(found.Files) == sources.MaxFound:
		return sources.TooManyFound(root)
	}
	s, err := l.stamp(l.root, at, at, info, l.now())
	if errors.Is(err, sources.ErrMoved) {
		return fmt.Errorf("read %s: %w", at, err)
	}
	if err != nil {
		return unusable(at, err)
	}
	l.fresh[at] = s
	found.Files = append(found.Files, sources.FoundFile{
		Path: rel, Hash: s.hash, Executable: info.Mode()&0o100 != 0, Read: l.reader(at, s.hash),
	})
	return nil
}

func (l *lookup) folder(found *sources.Found, root, rel string, depth int) error {
	at := cmp.Or(path.Join(root, rel), ".")
	f, err := l.root.Open(at)
	if err != nil {
		return unusable(at, err)
	}
	entries, err := f.ReadDir(sources.MaxLooked + 1)
	_ = f.Close() // it was only read
	if err != nil && len(entries) == 0 && !errors.Is(err, io.EOF) {
		return unusable(at, err)
	}
	for _, e := range entries {
		if temporary(e.Name()) {
			continue
		}
		if why := sources.BadName(e.Name()); why != "" {
			return &sources.FileError{Message: fmt.Sprintf("an entry of %s %s", at, why)}
		}
		info, err := e.Info()
		if err != nil {
			return unusable(path.Join(at, e.Name()), err)
		}
		if err := l.add(found, root, path.Join(rel, e.Name()), info, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// followed makes later scans include the files that manifests use, and returns the revision with them.
func (d *driver) followed(needs []sources.Need) string {
	d.follow = nil
	for _, n := range needs {
		d.follow = append(d.follow, n.Path)
	}
	d.last.revision = withNeeds(d.last.base, needs)
	return d.last.revision
}

// needs looks the paths up that manifests used at the last reading.
func (w *walker) needs(root *os.Root) ([]sources.Need, error) {
	l := &lookup{driver: w.driver, root: root, fresh: w.fresh}
	var needs []sources.Need
	for _, p := range w.follow {
		found, err := l.find(p)
		if errors.Is(err, sources.ErrMoved) {
			return nil, err
		}
		needs = append(needs, sources.NeedOf(p, found, err))
	}
	return needs, nil
}

// withNeeds returns the revision of the manifests together with what they use.
func withNeeds(base string, needs []sources.Need) string {
	if len(needs) == 0 {
		return base
	}
	h := sha256.New()
	fmt.Fprintln(h, base)
	for _, n := range needs {
		fmt.Fprintf(h, "%d:%s %d:%s\n", len(n.Path), n.Path, len(n.ID), n.ID)
	}
	return hex.EncodeToString(h.Sum(nil))
}
