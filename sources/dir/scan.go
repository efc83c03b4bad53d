package dir

import (
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
	"syscall"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
	"github.com/caravanserai/cara/manifest"
	"github.com/caravanserai/cara/sources"
)

const (
	maxVisited = 1_000_000
	maxNested  = 512
	// settled is the minimum age of a file's timestamps before they prove that it is unchanged. Within the resolution of
	// timestamps a file can be written twice.
	settled = 2 * time.Second
	// emptied is how long an empty file counts as one that is being written: an editor truncates it first.
	emptied = 500 * time.Millisecond
	dataDir = "..data"
)

type scan struct {
	revision string // of base and what the manifests use
	base     string // revision of the manifests alone
	files    []sources.File
	problems []*carav1.FileProblem
	warnings []*carav1.FileProblem
	unread   []sources.Unread
	hidden   []sources.File // only while hidden files keep projects
	dirs     []string       // absolute, to watch
	newest   time.Time
	visited  int
}

// stamp identifies a version of a file, to detect changes without reading it.
type stamp struct {
	size  int64
	mtime time.Time
	ctime time.Time
	inode uint64
	hash  string
}

func (d *driver) scan(ctx context.Context) (*scan, error) {
	root, err := os.OpenRoot(d.root)
	if err != nil {
		return nil, d.unavailable(err)
	}
	defer root.Close()
	info, err := root.Stat(".")
	if err != nil {
		return nil, d.unavailable(err)
	}
	w := &walker{driver: d, ctx: ctx, s: &scan{dirs: []string{d.root}}, fresh: map[string]stamp{}, now: d.now()}
	if err := w.folder(root, "", 0); err != nil {
		return nil, err
	}
	dev := device(info)
	if w.s.visited == 0 && d.dev != 0 && dev != d.dev {
		return nil, sources.Retry(api.ReasonDirectoryUnavailable, "directory %s is empty and its file system is gone: mount it again", d.root)
	}
	if w.s.visited > 0 {
		d.dev = dev
	}
	if m := d.match.Root; m != "" && !slices.Contains(w.s.dirs, path.Join(d.root, m)) {
		return nil, sources.Human(api.ReasonPathNotFound, "path %q does not exist in %s; check spec.path", m, d.root)
	}
	slices.SortFunc(w.s.unread, func(a, b sources.Unread) int { return strings.Compare(a.Path, b.Path) })
	if d.watchHidden { // a hidden file that keeps projects may be removed
		if w.s.hidden, err = d.hiddenFiles(ctx); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(w.s.files, func(a, b sources.File) int { return strings.Compare(a.Path, b.Path) })
	w.s.base = revision(w.s)
	needs, err := w.needs(root)
	if err != nil {
		return nil, err
	}
	w.s.revision = withNeeds(w.s.base, needs)
	d.cache = w.fresh
	return w.s, nil
}

func (d *driver) unavailable(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return sources.Retry(api.ReasonDirectoryUnavailable, "directory %s does not exist; make it, mount it, or change spec.dir.path", d.root)
	case errors.Is(err, fs.ErrPermission):
		return sources.Human(api.ReasonDirectoryUnavailable, "directory %s may not be read by the user that cara-server runs as", d.root)
	case notDir(d.root):
		return sources.Human(api.ReasonDirectoryUnavailable, "%s is not a directory; change spec.dir.path", d.root)
	}
	return sources.Retry(api.ReasonDirectoryUnavailable, "directory %s cannot be read: %s", d.root, text.WithoutPath(err))
}

func notDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}

// revision hashes paths and contents, and what could not be read.
func revision(s *scan) string {
	h := sha256.New()
	for _, f := range s.files {
		fmt.Fprintf(h, "%d:%s %s\n", len(f.Path), f.Path, f.Hash)
	}
	for _, p := range s.problems {
		fmt.Fprintf(h, "%d:%s %s\n", len(p.File), p.File, p.Message)
	}
	for _, u := range s.unread {
		fmt.Fprintf(h, "%d:%s %s\n", len(u.Path), u.Path, u.Why)
	}
	for _, f := range s.hidden {
		fmt.Fprintf(h, "%d:%s %s\n", len(f.Path), f.Path, f.Hash)
	}
	return hex.EncodeToString(h.Sum(nil))
}

type walker struct {
	*driver
	ctx   context.Context //nolint:containedctx // of one call
	s     *scan
	fresh map[string]stamp
	now   time.Time
}

// folder walks one folder. Each folder is opened as its own os.Root, so that looking up a file in it is cheap.
func (w *walker) folder(root *os.Root, rel string, depth int) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if depth > maxNested {
		return sources.Human(api.ReasonTooLarge, "folders are nested more than %d deep at %.100q...; leave them out with spec.exclude", maxNested, rel)
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return w.gone(rel, err)
	}
	for _, e := range entries {
		if w.s.visited++; w.s.visited > maxVisited {
			return sources.Human(api.ReasonTooLarge, "%s holds more than %d files; narrow it with spec.dir.path or spec.exclude", w.root, maxVisited)
		}
		if err := w.entry(root, path.Join(rel, e.Name()), e, depth); err != nil {
			return err
		}
	}
	return nil
}

// gone returns the error for a folder that was listed and can no longer be read.
func (w *walker) gone(rel string, err error) error {
	switch {
	case rel == "":
		return w.unavailable(err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("read %s: %w", rel, sources.ErrMoved)
	}
	return sources.Retry(api.ReasonDirectoryUnavailable, "folder %s in %s cannot be read: %s", rel, w.root, text.WithoutPath(err))
}

func (w *walker) entry(root *os.Root, rel string, e fs.DirEntry, depth int) error {
	if temporary(e.Name()) {
		return nil
	}
	if e.IsDir() {
		if !w.match.InDir(rel) {
			return nil
		}
		w.s.dirs = append(w.s.dirs, path.Join(w.root, rel))
		below, err := root.OpenRoot(e.Name())
		if err != nil {
			return w.gone(rel, err)
		}
		defer below.Close()
		return w.folder(below, rel, depth+1)
	}
	if !w.match.File(rel) {
		w.leave(rel, e)
		return nil
	}
	if depth > sources.MaxDepth {
		w.s.problems = append(w.s.problems, sources.TooDeep(rel))
		return nil
	}
	if why := sources.BadName(e.Name()); why != "" {
		w.problem(strings.ToValidUTF8(rel, "?"), why+"; it is not read")
		return nil
	}
	if e.Type()&fs.ModeSymlink != 0 && !swapped(root, e.Name()) {
		w.problem(rel, "is a symbolic link, and links are not followed; put the file itself there, or exclude it")
		return nil
	}
	return w.file(root, rel, e)
}

// leave records a path that is not followed.
func (w *walker) leave(rel string, e fs.DirEntry) {
	switch {
	case !w.match.InDir(rel), e.Type().IsRegular():
	case e.Type()&fs.ModeSymlink != 0:
		w.s.unread = append(w.s.unread, sources.Unread{Path: rel, Why: sources.UnreadLink})
	default:
		w.s.unread = append(w.s.unread, sources.Unread{Path: rel, Why: sources.UnreadSpecial})
	}
}

// swapped reports whether a link is one that Kubernetes creates: to the same name below ..data in its folder.
func swapped(root *os.Root, name string) bool {
	to, err := root.Readlink(name)
	return err == nil && strings.HasPrefix(to, dataDir+"/") && !strings.Contains(to, "/../")
}

func (w *walker) problem(rel, message string) {
	w.s.problems = append(w.s.problems, &carav1.FileProblem{File: rel, Message: message})
}

// file adds one manifest to the scan.
func (w *walker) file(root *os.Root, rel string, e fs.DirEntry) error {
	if len(w.s.files) == sources.MaxFiles {
		return sources.Human(api.ReasonTooLarge, "more than %d manifest files; the limit of a source: narrow it with spec.path or spec.include", sources.MaxFiles)
	}
	info, err := e.Info() // already fetched with the listing
	if e.Type()&fs.ModeSymlink != 0 {
		info, err = root.Stat(e.Name())
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("read %s: %w", rel, sources.ErrMoved)
	case err != nil:
		w.problem(rel, "cannot be read: "+text.WithoutPath(err).Error())
		return nil
	case !info.Mode().IsRegular():
		w.problem(rel, "is not a regular file; put a file there, or exclude it")
		return nil
	case info.Size() > sources.MaxFileBytes:
		w.tooLarge(rel, info.Size())
		return nil
	}
	s, err := w.stamp(root, e.Name(), rel, info, w.now)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, sources.ErrMoved):
		return fmt.Errorf("read %s: %w", rel, sources.ErrMoved)
	case err != nil:
		w.problem(rel, "cannot be read: "+text.WithoutPath(err).Error())
		return nil
	}
	w.fresh[rel] = s
	if s.mtime.After(w.s.newest) {
		w.s.newest = s.mtime
	}
	w.s.files = append(w.s.files, sources.File{Path: rel, Hash: s.hash, Read: w.reader(rel, s.hash)})
	return nil
}

// tooLarge reports a file over the limit. A file that other tools read, such as a package.json, is only skipped.
func (w *walker) tooLarge(rel string, size int64) {
	known := manifest.KnownName(rel)
	if known == "" || w.compose && known == manifest.ComposeFile {
		w.problem(rel, fmt.Sprintf("is %.1f MiB; the limit of a manifest file is 1 MiB: split it", float64(size)/(1<<20)))
		return
	}
	why := "is skipped: it looks like " + known
	w.s.unread = append(w.s.unread, sources.Unread{Path: rel, Why: why})
	w.s.warnings = append(w.s.warnings, &carav1.FileProblem{File: rel, Message: why})
}

// reader returns a function that reads the file again and checks that it has the content that was listed.
func (d *driver) reader(rel, want string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		root, err := os.OpenRoot(d.root)
		if err != nil {
			return nil, d.unavailable(err)
		}
		defer root.Close()
		data, err := read(root, rel)
		if err != nil || api.Digest(data) != want {
			return nil, fmt.Errorf("read %s: %w", rel, sources.ErrMoved)
		}
		return data, nil
	}
}

// open opens a file. Without O_NONBLOCK the scan would hang if a pipe replaced the file.
func open(root *os.Root, rel string) (*os.File, error) {
	return root.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

func read(root *os.Root, rel string) ([]byte, error) {
	f, err := open(root, rel)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, sources.MaxFileBytes+1))
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{size: info.Size(), mtime: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode, s.ctime = st.Ino, time.Unix(st.Ctim.Unix())
	}
	return s
}

// stamp returns the stamp of the file rel, which has this name in root, with its hash. It reads the file only if the stamps do not
// prove that it is unchanged.
func (d *driver) stamp(root *os.Root, name, rel string, info fs.FileInfo, now time.Time) (stamp, error) {
	s := stampOf(info)
	if was, ok := d.cache[rel]; ok && was.unchanged(s, now) {
		s.hash = was.hash
		return s, nil
	}
	f, err := open(root, name)
	if err != nil {
		return s, err
	}
	defer f.Close()
	data, s, err := readSettled(f)
	if age := now.Sub(s.mtime); err == nil && len(data) == 0 && age >= 0 && age < emptied {
		err = sources.ErrMoved
	}
	s.hash = api.Digest(data)
	return s, err
}

// readSettled returns the content of a file, and the stamps that it had meanwhile. If they changed, the content may be half of the old
// one and half of the new one, and readSettled returns ErrMoved.
func readSettled(f fs.File) (data []byte, s stamp, err error) {
	before, err := f.Stat()
	if err != nil {
		return nil, s, err
	}
	if data, err = io.ReadAll(io.LimitReader(f, sources.MaxFileBytes+1)); err != nil {
		return nil, s, err
	}
	after, err := f.Stat()
	if err != nil {
		return nil, s, err
	}
	s = stampOf(after)
	if !s.same(stampOf(before)) || s.size != int64(len(data)) && s.size <= sources.MaxFileBytes {
		return nil, s, sources.ErrMoved
	}
	return data, s, nil
}

// unchanged reports whether a file is the same as before, going by its stamps. A file that changed a moment ago may change
// again within the same tick of the clock.
func (s stamp) unchanged(now stamp, at time.Time) bool {
	return s.same(now) && at.Sub(now.ctime) > settled && at.Sub(now.mtime) > settled
}

func (s stamp) same(now stamp) bool {
	return s.size == now.size && s.inode == now.inode && s.mtime.Equal(now.mtime) && s.ctime.Equal(now.ctime)
}

func device(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Dev
	}
	return 0
}

// temporary reports whether an editor uses this name for temporary files.
func temporary(name string) bool {
	return name == "4913" || strings.HasSuffix(name, "~") || strings.HasPrefix(name, ".#") ||
		strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#") || !manifest.IsManifest(name) && strings.Contains(path.Ext(name), ".sw")
}
