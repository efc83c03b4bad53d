package local

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
	"github.com/caravanserai/cara/manifest"
)

// Files are the files beside manifests that projects use with `files[].from`, by digest.
type Files map[string][]byte

// fill reads the files that a document uses, relative to the directory of the manifest.
func (l Files) fill(file string, d manifest.Document) []*carav1.FileProblem {
	dir := filepath.Dir(file)
	if file == "-" {
		dir = "."
	}
	return d.Fill(func(from string) ([]*carav1.FileEntry, bool, error) {
		path := filepath.Join(dir, filepath.FromSlash(from))
		info, err := os.Lstat(path)
		if err != nil {
			return nil, false, fmt.Errorf("%s cannot be read: %w", path, text.WithoutPath(err))
		}
		entries, err := l.entries(path, info)
		return entries, info.IsDir(), err
	})
}

// entries returns the file at path, or all files below it.
func (l Files) entries(path string, info fs.FileInfo) ([]*carav1.FileEntry, error) {
	if !info.IsDir() {
		e, err := l.entry(path, "", info)
		return []*carav1.FileEntry{e}, err
	}
	var all []*carav1.FileEntry
	err := filepath.WalkDir(path, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if len(all) == api.MaxServiceFiles {
			return fmt.Errorf("%s has more than %d files, the limit of a service", path, api.MaxServiceFiles)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(path, at)
		if err != nil {
			return err
		}
		e, err := l.entry(at, filepath.ToSlash(rel), info)
		all = append(all, e)
		return err
	})
	return all, err
}

func (l Files) entry(path, rel string, info fs.FileInfo) (*carav1.FileEntry, error) {
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return nil, fmt.Errorf("%s is a symbolic link, and links are not followed", path)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file or folder", path)
	case info.Size() > api.MaxFileBytes:
		return nil, manifest.TooLargeFile(path, info.Size())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", path, text.WithoutPath(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, api.MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", path, text.WithoutPath(err))
	}
	if len(data) > api.MaxFileBytes {
		return nil, manifest.TooLargeFile(path, int64(len(data)))
	}
	digest := api.Digest(data)
	l[digest] = data
	return &carav1.FileEntry{Path: rel, Digest: digest, Size: int32(len(data)), Executable: info.Mode()&0o100 != 0}, nil
}

// maxDigests is how many digests one request asks for.
const maxDigests = 1000

// Store stores the files that projects use and the server does not have.
func (l Files) Store(ctx context.Context, conn grpc.ClientConnInterface, objects []proto.Message) error {
	var digests []string
	for _, m := range objects {
		if p, ok := m.(*carav1.Project); ok {
			digests = append(digests, api.Blobs(p.GetSpec())...)
		}
	}
	if len(digests) == 0 {
		return nil
	}
	client := carav1.NewFileServiceClient(conn)
	slices.Sort(digests)
	for some := range slices.Chunk(slices.Compact(digests), maxDigests) {
		missing, err := client.MissingBlobs(ctx, &carav1.MissingBlobsRequest{Digests: some})
		if err != nil {
			return err
		}
		for _, digest := range missing.GetDigests() {
			data, ok := l[digest]
			if !ok {
				continue // the manifest has the entries of a stored project: the server says if they are gone
			}
			if _, err := client.PutBlob(ctx, &carav1.BlobContent{Content: data}); err != nil {
				return err
			}
		}
	}
	return nil
}
