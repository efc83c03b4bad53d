package dir

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/manifest"
	"github.com/caravanserai/cara/sources"
)

// findHidden lists the hidden manifests. If there are any, later scans include them in the revision.
func (d *driver) findHidden(ctx context.Context) ([]sources.File, error) {
	files, err := d.hiddenFiles(ctx)
	d.watchHidden = len(files) > 0
	return files, err
}

// hiddenFiles lists the manifests whose name, or whose folder's name, begins with a dot. It skips what it cannot read and
// what exceeds the limits. Then the projects of a file that was hidden may lose their protection, but the scan does not
// fail.
func (d *driver) hiddenFiles(ctx context.Context) ([]sources.File, error) {
	root, err := os.OpenRoot(d.root)
	if err != nil {
		return nil, d.unavailable(err)
	}
	defer root.Close()
	var files []sources.File
	var bytes int64
	visited := 0
	err = filepath.WalkDir(d.root, func(at string, e fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(d.root, at)
		if err != nil || relErr != nil || rel == "." {
			return nil //nolint:nilerr // see above
		}
		if visited++; visited > maxVisited || len(files) == sources.MaxFiles || bytes > sources.MaxSnapshotBytes {
			return fs.SkipAll
		}
		rel = filepath.ToSlash(rel)
		hidden := d.match.Hidden(rel)
		switch {
		case e.IsDir() && (sources.BadName(e.Name()) != "" || !hidden && !d.match.InDir(rel)):
			return fs.SkipDir
		case !e.Type().IsRegular() || !hidden || !manifest.IsManifest(rel) || sources.BadName(e.Name()) != "":
			return ctx.Err()
		}
		data, err := read(root, rel)
		if err != nil || len(data) > sources.MaxFileBytes {
			return nil //nolint:nilerr // see above
		}
		bytes += int64(len(data))
		files = append(files, sources.File{Path: rel, Hash: api.Digest(data)})
		return nil
	})
	slices.SortFunc(files, func(a, b sources.File) int { return strings.Compare(a.Path, b.Path) })
	return files, err
}
