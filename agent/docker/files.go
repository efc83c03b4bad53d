package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"github.com/caravanserai/cara/agent/engine"
)

// CopyFiles implements engine.Containers. It sends one archive per volume that contains files, unpacked in the volume, and
// one for all other files, unpacked at the root.
func (e *containers) CopyFiles(ctx context.Context, id string, files []engine.File) error {
	roots := map[string][]engine.File{}
	for _, f := range files {
		root := "/"
		if f.Root != "" {
			root = path.Clean(f.Root)
		}
		roots[root] = append(roots[root], f)
	}
	for _, root := range slices.Sorted(maps.Keys(roots)) {
		if err := e.copyFiles(ctx, id, root, roots[root]); err != nil {
			return err
		}
	}
	return nil
}

func (e *containers) copyFiles(ctx context.Context, id, root string, files []engine.File) error {
	archive, err := pack(root, files)
	if err != nil {
		return err
	}
	return e.call(ctx, e.cfg.WorkTimeout, func(ctx context.Context, docker *client.Client) error {
		err := docker.CopyToContainer(ctx, id, root, archive, container.CopyToContainerOptions{})
		if err != nil && strings.Contains(err.Error(), "read-only") {
			return fmt.Errorf("copy files into container %.12s: %w: the service is readOnly; put its files under a volume, or drop readOnly: %w",
				id, engine.ErrInvalid, err)
		}
		return wrap(err, "copy files into container %.12s", id)
	})
}

// pack returns an archive of files below root. The engine creates missing directories.
func pack(root string, files []engine.File) (io.Reader, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, f := range files {
		name := strings.TrimPrefix(strings.TrimPrefix(path.Clean(f.Path), root), "/")
		header := &tar.Header{Name: name, Size: int64(len(f.Content)), Mode: f.Mode, Typeflag: tar.TypeReg}
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("pack file %s: %w", f.Path, err)
		}
		if _, err := w.Write(f.Content); err != nil {
			return nil, fmt.Errorf("pack file %s: %w", f.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack files: %w", err)
	}
	return &archive, nil
}
