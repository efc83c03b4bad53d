package dir

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/sources"
)

// Config configures the watching of directories.
type Config struct {
	// NewWatcher creates the file watcher. The default is fsnotify.NewWatcher.
	NewWatcher func() (*fsnotify.Watcher, error)
	// Now is the clock. The default is time.Now.
	Now func() time.Time
}

// Dir opens drivers for directories.
type Dir struct{ cfg Config }

// New returns an Opener of directories.
func New(cfg Config) *Dir {
	if cfg.NewWatcher == nil {
		cfg.NewWatcher = fsnotify.NewWatcher
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Dir{cfg}
}

// Open returns the driver of one directory.
func (d *Dir) Open(spec *carav1.SourceSpec, _ map[string][]byte) (sources.Driver, error) {
	root := spec.GetDir().GetPath()
	if !filepath.IsAbs(root) {
		return nil, sources.Human(api.ReasonInvalidSpec, "spec.dir.path %q is not absolute; name the directory from / on, as the server's machine has it", root)
	}
	match, err := sources.NewMatch(spec)
	if err != nil {
		return nil, err
	}
	root = filepath.Clean(root)
	return &driver{
		match: match, compose: spec.GetFormat() == api.FormatCompose, now: d.cfg.Now, cache: map[string]stamp{},
		watcher: watcher{cfg: d.cfg, root: root},
	}, nil
}

type driver struct {
	compose bool // the files are Compose files
	match   *sources.Match
	now     func() time.Time
	cache   map[string]stamp // of the files of the last scan, by path
	last    *scan
	// watchHidden is true while hidden files keep projects. The revision then includes hidden files.
	watchHidden bool
	dev         uint64   // file system of the root when it last held a file
	follow      []string // paths that the manifests of the last reading use, sorted
	watcher
}

// Close does nothing: Watch ends with its context.
func (d *driver) Close() {}

// Probe scans the directory and returns the hash of its content.
func (d *driver) Probe(ctx context.Context, _ time.Duration) (string, error) {
	s, err := d.scan(ctx)
	if err != nil {
		return "", err
	}
	d.last = s
	d.sync(s.dirs)
	return s.revision, nil
}

// Tree returns what the last probe found.
func (d *driver) Tree(_ context.Context, revision string) (*sources.Tree, error) {
	if d.last == nil || d.last.revision != revision {
		return nil, fmt.Errorf("tree of %s: not what was probed: %w", revision, sources.ErrMoved)
	}
	return &sources.Tree{
		Revision: revision, Time: d.last.newest, Files: d.last.files, Problems: d.last.problems,
		Warnings: d.last.warnings, Unread: d.last.unread, Hidden: d.findHidden,
		Lookup: d.lookup, Follow: d.followed,
	}, nil
}
