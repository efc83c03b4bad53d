package sources

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

// Manifests use files of their source with `files[].from`. Reading them has three steps, so that a driver can prepare all
// contents at once: each path is looked up while the manifests are parsed, then the contents that are not known are read and
// hashed, and the contents that the server does not have are stored there before the snapshot is published.

// content is what is known about the content of a file.
type content struct {
	digest string
	size   int64
}

// maxContents limits how many contents are remembered for a source.
const maxContents = 20_000

// shelf has the files that the manifests of one reading use.
type shelf struct {
	root     string // spec.path
	tree     *Tree
	contents map[string]content // by Hash; outlives the reading
	found    map[string]*lookedUp
	unread   map[string]FoundFile // by Hash: files whose content is not known yet
	byDigest map[string]FoundFile
	bytes    int64
}

type lookedUp struct {
	found *Found
	err   error // a FileError
}

func newShelf(st *state, src *carav1.Source, tree *Tree) *shelf {
	if st.contents == nil || len(st.contents) > maxContents {
		st.contents = map[string]content{}
	}
	return &shelf{
		root: path.Clean("/" + src.GetSpec().GetPath())[1:], tree: tree, contents: st.contents,
		found: map[string]*lookedUp{}, unread: map[string]FoundFile{}, byDigest: map[string]FoundFile{},
	}
}

// target returns the path in the source that a manifest means.
func (s *shelf) target(file, from string) (string, error) {
	target := path.Join(path.Dir(file), from)
	inside := s.root == "" || target == s.root || strings.HasPrefix(target, s.root+"/")
	if target == ".." || strings.HasPrefix(target, "../") || !inside {
		below := "its root (spec.path)"
		if s.root != "" {
			below = fmt.Sprintf("spec.path %q", s.root)
		}
		return "", &FileError{Message: fmt.Sprintf("%s leaves the source: the path must be below %s", from, below)}
	}
	if target == "." {
		target = ""
	}
	return target, nil
}

// look looks a path up. The error is about the source as a whole.
func (s *shelf) look(ctx context.Context, target string) (*lookedUp, error) {
	if known, ok := s.found[target]; ok {
		return known, nil
	}
	if s.tree.Lookup == nil {
		return nil, Human(api.ReasonInvalidSpec, "this server reads no files[].from from sources of this sort")
	}
	found, err := safely(func() (*Found, error) { return s.tree.Lookup(ctx, target) })
	if _, unfit := errors.AsType[*FileError](err); err != nil && !unfit {
		return nil, readError(ctx, err, "look up %s at %.12s", target, s.tree.Revision)
	}
	s.found[target] = &lookedUp{found, err}
	for _, f := range cmp.Or(found, &Found{}).Files {
		if known, ok := s.contents[f.Hash]; ok {
			s.byDigest[known.digest] = f
		} else {
			s.unread[f.Hash] = f
		}
	}
	return s.found[target], nil
}

// needs returns what the documents of a file use, after they were looked up.
func (s *shelf) needs(ctx context.Context, file string, docs []manifest.Document) ([]Need, error) {
	var needs []Need
	for _, d := range docs {
		for _, from := range d.Froms() {
			target, err := s.target(file, from)
			if err != nil {
				continue // Fill reports it, and nothing in the source changes it
			}
			looked, err := s.look(ctx, target)
			if err != nil {
				return nil, err
			}
			needs = append(needs, NeedOf(target, looked.found, looked.err))
		}
	}
	return sortedNeeds(needs), nil
}

// sortedNeeds sorts needs by path, and removes duplicates.
func sortedNeeds(needs []Need) []Need {
	slices.SortFunc(needs, func(a, b Need) int { return strings.Compare(a.Path, b.Path) })
	return slices.Compact(needs)
}

// unchanged reports whether everything that a file uses is as it was.
func (s *shelf) unchanged(ctx context.Context, needs []Need) (bool, error) {
	for _, n := range needs {
		looked, err := s.look(ctx, n.Path)
		if err != nil || NeedOf(n.Path, looked.found, looked.err) != n {
			return false, err
		}
	}
	return true, nil
}

// read reads the contents that are not known.
func (s *shelf) read(ctx context.Context) error {
	for _, hash := range slices.Sorted(maps.Keys(s.unread)) {
		f := s.unread[hash]
		data, err := safely(func() ([]byte, error) { return f.Read(ctx) })
		if _, unfit := errors.AsType[*FileError](err); unfit {
			s.contents[hash] = content{size: MaxFileBytes}
			continue
		}
		if err != nil {
			return readError(ctx, err, "read a file at %.12s", s.tree.Revision)
		}
		if s.bytes += int64(len(data)); s.bytes > MaxSnapshotBytes {
			return Human(api.ReasonTooLarge, "the files that the manifests use are larger than %d MiB together; put large files into images or volumes", MaxSnapshotBytes>>20)
		}
		known := content{api.Digest(data), int64(len(data))}
		s.contents[hash], s.byDigest[known.digest] = known, f
	}
	clear(s.unread)
	return nil
}

// fill sets the entries of the documents of a file.
func (s *shelf) fill(file string, docs []manifest.Document) []*carav1.FileProblem {
	var problems []*carav1.FileProblem
	for _, d := range docs {
		problems = append(problems, d.Fill(func(from string) ([]*carav1.FileEntry, bool, error) {
			target, err := s.target(file, from)
			if err != nil {
				return nil, false, err
			}
			known := s.found[target]
			if known.err != nil {
				return nil, false, known.err
			}
			entries, err := s.entries(target, known.found)
			return entries, known.found.Folder, err
		})...)
	}
	return problems
}

func (s *shelf) entries(target string, found *Found) ([]*carav1.FileEntry, error) {
	var all []*carav1.FileEntry
	for _, f := range found.Files {
		is := s.contents[f.Hash]
		if is.size > api.MaxFileBytes || is.digest == "" {
			return nil, manifest.TooLargeFile(path.Join(target, f.Path), is.size)
		}
		all = append(all, &carav1.FileEntry{Path: f.Path, Digest: is.digest, Size: int32(is.size), Executable: f.Executable})
	}
	return all, nil
}

// store stores the contents of changed projects that the server does not have.
func (s *shelf) store(ctx context.Context, client carav1.FileServiceClient, change Change) error {
	var digests []string
	for _, c := range change.Upserts {
		digests = append(digests, api.Blobs(c.GetProject().GetSpec())...)
	}
	slices.Sort(digests)
	for some := range slices.Chunk(slices.Compact(digests), maxNames) {
		missing, err := client.MissingBlobs(ctx, &carav1.MissingBlobsRequest{Digests: some})
		if err != nil {
			return fmt.Errorf("look for stored files: %w", err)
		}
		for _, digest := range missing.GetDigests() {
			if err := s.put(ctx, client, digest); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *shelf) put(ctx context.Context, client carav1.FileServiceClient, digest string) error {
	f, ok := s.byDigest[digest]
	if !ok {
		return nil // of a held claim, whose file is broken: what it uses is kept
	}
	data, err := safely(func() ([]byte, error) { return f.Read(ctx) })
	if err != nil {
		return readError(ctx, err, "read a file at %.12s", s.tree.Revision)
	}
	if _, err := client.PutBlob(ctx, &carav1.BlobContent{Content: data}); err != nil {
		if api.Code(err) == codes.ResourceExhausted {
			return Human(api.ReasonTooLarge, "the server does not store the files: %s", api.ProblemOf(err).GetDetail())
		}
		return fmt.Errorf("store a file: %w", err)
	}
	return nil
}
