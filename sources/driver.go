package sources

import (
	"context"
	"fmt"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// Limits of one snapshot. Reaching MaxFileBytes makes a problem of that file; the others fail the fetch with TooLarge.
const (
	MaxFileBytes     = 1 << 20
	MaxFiles         = 10_000
	MaxSnapshotBytes = 64 << 20
)

// MaxDepth is how many folders may lie above a manifest.
const MaxDepth = 64

// TooDeep is the problem of a manifest below too many folders.
func TooDeep(file string) *carav1.FileProblem {
	return &carav1.FileProblem{File: text.Clip(file, 4096), Message: fmt.Sprintf(
		"lies below more than %d folders, the limit of a manifest; move it up, or leave it out with spec.exclude", MaxDepth)}
}

// Opener makes the driver of one sort of source. It does no I/O. The secret holds the values that the source's
// secretRef names, nil if it names none.
type Opener interface {
	Open(spec *carav1.SourceSpec, secret map[string][]byte) (Driver, error)
}

// Driver reads one source. Its methods are never called twice at once.
type Driver interface {
	// Probe returns the revision that the source has now, as cheaply as it can. An answer that is younger than maxAge
	// may be shared with other sources; 0 asks for a fresh one.
	Probe(ctx context.Context, maxAge time.Duration) (revision string, err error)
	// Tree lists the manifests at a revision that Probe returned. Its Revision is the one to publish: it differs where the
	// probe found a name for it, such as an annotated tag. The caller closes it.
	Tree(ctx context.Context, revision string) (*Tree, error)
	// Close releases connections. Nothing is called after it.
	Close()
}

// Live is a Driver that notices changes by itself. What it notices is a hint; half-finished states are normal in what
// it reads, so errors and removals are looked at twice before they are believed.
type Live interface {
	Driver
	// Watch calls changed after something may have changed and came to rest, until ctx ends.
	Watch(ctx context.Context, changed func())
	// Degraded says why hints may be missing, or is empty.
	Degraded() string
}

// Tree is what a source holds at one revision.
type Tree struct {
	Revision string
	// Ref that was followed, in full; empty for a directory.
	Ref     string
	Author  string
	Subject string
	Time    time.Time
	// Files are the manifests, sorted by path.
	Files []File
	// Problems are the entries that look like manifests and cannot be read: each makes the snapshot incomplete.
	Problems []*carav1.FileProblem
	// Unread are the paths inside the subtree that are there and are not followed. A project that was declared at or below
	// one of them is kept.
	Unread []Unread
	// Warnings are what a person should know about the source and what is no error.
	Warnings []*carav1.FileProblem
	// Hidden lists the manifests whose names, or whose folders' names, begin with a dot. It is called only if a project
	// would leave the source, because a file that was hidden is not removed. Read is not set. Nil if there are none.
	Hidden func(ctx context.Context) ([]File, error)
	// Close releases what Read needs; nil if there is nothing to release.
	Close func()
}

// Unread is one path that is not followed.
type Unread struct {
	Path string
	// Why completes the sentence "PATH ...": `is a submodule, and submodules are not followed`.
	Why string
}

// What Unread says of paths that no driver follows.
const (
	UnreadLink      = "is a symbolic link, and links are not followed"
	UnreadSubmodule = "is a submodule, and submodules are not followed"
	UnreadSpecial   = "is not a regular file or folder"
	unreadHidden    = "is hidden: its name or its folder's name begins with a dot"
)

// File is one manifest file.
type File struct {
	// Path inside the source, slash separated.
	Path string
	// Hash of the content: equal hashes are equal contents.
	Hash string
	Size int64
	// Read returns the content whose hash is Hash, or an error: ErrMoved where the content changed meanwhile.
	Read func(ctx context.Context) ([]byte, error)
}
