package sources

import (
	"context"
	"fmt"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// Limits of one snapshot. A file beyond MaxFileBytes gets a problem. Beyond the other limits the fetch fails with TooLarge.
const (
	MaxFileBytes     = 1 << 20
	MaxFiles         = 10_000
	MaxSnapshotBytes = 64 << 20
)

// MaxDepth is the maximum number of folders above a manifest.
const MaxDepth = 64

// TooDeep returns the problem of a manifest below too many folders.
func TooDeep(file string) *carav1.FileProblem {
	return &carav1.FileProblem{File: text.Clip(file, 4096), Message: fmt.Sprintf(
		"lies below more than %d folders, the limit of a manifest; move it up, or leave it out with spec.exclude", MaxDepth)}
}

// Opener opens the driver of one type of source. It does no I/O. secret holds the values of the source's secretRef, or nil
// if it has none.
type Opener interface {
	Open(spec *carav1.SourceSpec, secret map[string][]byte) (Driver, error)
}

// Driver reads one source. Its methods are never called concurrently.
type Driver interface {
	// Probe returns the current revision of the source, as cheaply as possible. A result younger than maxAge may be shared with
	// other sources; 0 requires a fresh one.
	Probe(ctx context.Context, maxAge time.Duration) (revision string, err error)
	// Tree lists the manifests at a revision that Probe returned. Tree.Revision is the one to publish. It differs if Probe
	// returned the object of an annotated tag. The caller closes the tree.
	Tree(ctx context.Context, revision string) (*Tree, error)
	// Close releases connections. No method is called after it.
	Close()
}

// Live is a Driver that detects changes itself. They are hints. Files may be half-written when they are read, so errors and
// removals are checked twice before they take effect.
type Live interface {
	Driver
	// Watch calls changed after something may have changed and no more changes follow, until ctx ends.
	Watch(ctx context.Context, changed func())
	// Degraded returns why hints may be missing, or an empty string.
	Degraded() string
}

// Differ is a Driver that can read the difference between two revisions, at a cost that follows the difference.
type Differ interface {
	Driver
	// Diff returns what differs between the tree that was read last, at the revision base, and the one at a revision that Probe
	// returned. After an error, Tree must be called: the tree may be readable, or Tree returns the error that users see.
	Diff(ctx context.Context, base, revision string) (*Diff, error)
}

// Diff is the difference between two trees.
type Diff struct {
	// Tree has only the files that were added or changed, and no Problems, Unread, Hidden and Lookup.
	*Tree
	// Gone are the files that were removed or changed, as they were, sorted by path. They cannot be read.
	Gone []File
	// Unread is true if the difference has paths that Tree would return as Unread or Hidden.
	Unread bool
}

// Tree is the content of a source at one revision.
type Tree struct {
	Revision string
	// Ref is the full name of the ref that is followed. Empty for a directory.
	Ref     string
	Author  string
	Subject string
	Time    time.Time
	// Files are the manifests, sorted by path.
	Files []File
	// Problems are entries that look like manifests and cannot be read. Each makes the snapshot incomplete.
	Problems []*carav1.FileProblem
	// Unread are existing paths inside the subtree that are not followed. A project that was declared at or below one of them
	// is kept.
	Unread []Unread
	// Warnings are what users should know about the source, without being errors.
	Warnings []*carav1.FileProblem
	// Hidden lists the manifests whose name, or whose folder's name, begins with a dot. It is called only if a project would
	// leave the source, because a file that was hidden is not removed. Read is not set in the results. Nil if there are none.
	Hidden func(ctx context.Context) ([]File, error)
	// Lookup returns the files at a path inside the source, for `files[].from`. The error is a FileError if the path cannot be
	// used. Nothing outside of the source is read, and no link is followed.
	Lookup func(ctx context.Context, path string) (*Found, error)
	// Follow returns the revision of the tree together with the files that its manifests use. Later probes have the same
	// revision while these files stay as they are. Nil if the revision covers all files of the source anyway.
	Follow func(needs []Need) string
	// Close releases what Read needs. Nil if there is nothing to release.
	Close func()
}

// Found is what a path names.
type Found struct {
	// ID changes with the content, the names and the modes of the files.
	ID     string
	Folder bool
	Files  []FoundFile // sorted by path, at most MaxFound
}

// FoundFile is one file at or below a path that was looked up.
type FoundFile struct {
	// Path below the folder, separated by slashes. Empty if the path names a file.
	Path string
	// Hash of the content. Equal hashes mean equal contents.
	Hash       string
	Executable bool
	// Read returns the content with this Hash, ErrMoved if it has changed, or a FileError if it is too large.
	Read func(ctx context.Context) ([]byte, error)
}

// MaxFound limits the files below a folder that is looked up, and MaxLooked the entries that are visited.
const (
	MaxFound  = api.MaxServiceFiles
	MaxLooked = 10_000
)

// TooManyFound returns the error of a folder with too many files.
func TooManyFound(path string) error {
	return &FileError{Message: fmt.Sprintf("%s has more than %d files, the limit of a service", path, MaxFound), TooMany: true}
}

// Need is a path that a manifest uses, with the ID of what was found there. The ID of a path that cannot be used is the reason.
type Need struct{ Path, ID string }

// NeedOf returns the Need of a path, with what Lookup returned for it.
func NeedOf(path string, found *Found, err error) Need {
	if err != nil {
		return Need{path, err.Error()}
	}
	return Need{path, found.ID}
}

// Unread is one path that is not followed.
type Unread struct {
	Path string
	// Why completes the sentence "PATH ...", for example `is a submodule, and submodules are not followed`.
	Why string
}

// Values of Unread.Why for paths that no driver follows.
const (
	UnreadLink      = "is a symbolic link, and links are not followed"
	UnreadSubmodule = "is a submodule, and submodules are not followed"
	UnreadSpecial   = "is not a regular file or folder"
	unreadHidden    = "is hidden: its name or its folder's name begins with a dot"
)

// File is one manifest file.
type File struct {
	// Path inside the source, separated by slashes.
	Path string
	// Hash of the content. Equal hashes mean equal contents.
	Hash string
	// Read returns the content with this Hash. It returns ErrMoved if the content has changed.
	Read func(ctx context.Context) ([]byte, error)
}
