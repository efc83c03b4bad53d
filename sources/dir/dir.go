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

// Config says how directories are watched.
type Config struct {
	// Quiet is how long nothing may happen before a change is told. The default is 150 ms.
	Quiet time.Duration
	// AtMost is how long a change may wait for quiet. The default is 1 s.
	AtMost time.Duration
	// NewWatcher makes the kernel's watcher. The default is fsnotify.NewWatcher.
	NewWatcher func() (*fsnotify.Watcher, error)
	// Now is the clock. The default is time.Now.
	Now func() time.Time
}

// Dir opens drivers for directories.
type Dir struct{ cfg Config }

// New returns an Opener of directories.
func New(cfg Config) *Dir {
	if cfg.Quiet == 0 {
		cfg.Quiet = 150 * time.Millisecond
	}
	if cfg.AtMost == 0 {
		cfg.AtMost = time.Second
	}
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
		match: match, now: d.cfg.Now, cache: map[string]stamp{},
		watcher: watcher{cfg: d.cfg, root: root},
	}, nil
}

// driver reads one directory.
type driver struct {
	match *sources.Match
	now   func() time.Time
	cache map[string]stamp // of the files of the last scan, by path
	last  *scan
	// watchHidden is set while hidden files were found when a project left: they are part of the revision then.
	watchHidden bool
	dev         uint64 // file system that the root was on when it last held something
	watcher
}

// Close has nothing to release: Watch ends with its context.
func (d *driver) Close() {}

// Probe scans the directory and returns the hash of what it holds.
func (d *driver) Probe(ctx context.Context, _ time.Duration) (string, error) {
	s, err := d.scan(ctx)
	if err != nil {
		return "", err
	}
	d.last = s
	d.sync(s.dirs)
	return s.revision, nil
}

// Tree lists what the last probe found.
func (d *driver) Tree(_ context.Context, revision string) (*sources.Tree, error) {
	if d.last == nil || d.last.revision != revision {
		return nil, fmt.Errorf("tree of %s: not what was probed: %w", revision, sources.ErrMoved)
	}
	return &sources.Tree{
		Revision: revision, Time: d.last.newest, Files: d.last.files, Problems: d.last.problems,
		Warnings: d.last.warnings, Unread: d.last.unread, Hidden: d.findHidden,
	}, nil
}
